#!/bin/sh
# Installs the Debian packages that `make demo` or `make test` lacks: a compiler for the simulated camera, venv, and for the tests
# a Prometheus and ZeroMQ's C library (the second client). Needs root (or sudo) only where something is missing.
set -eu
purpose=${1:?usage: system-packages.sh demo|test}

missing=""
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
command -v g++ >/dev/null || missing="$missing g++"
if [ "$purpose" = test ]; then
    command -v promtool >/dev/null || missing="$missing prometheus"
    [ -e /usr/include/zmq.h ] || missing="$missing libzmq3-dev"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "please install, in your system's way:$missing" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null; then as_root=sudo; else
    echo "please install as root: apt-get install$missing" >&2
    exit 0
fi
echo "installing$missing"
# A Prometheus that starts by itself would take a port and a core; the tests start their own.
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
