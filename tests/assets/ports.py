"""Ports for stations under test."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

FIRST, LAST = 12_000, 60_999
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _shuffled() -> Iterator[int]:
    low, high = (int(word) for word in RANGE.read_text().split()) if RANGE.exists() else (32_768, 60_999)
    ports = [port for port in range(FIRST, LAST + 1) if not low <= port <= high]
    yield from random.SystemRandom().sample(ports, len(ports))


_PORTS = _shuffled()


def free_port() -> int:
    """A port of the loopback that nobody uses now, never the same twice, outside the range that the system gives to outgoing connections.

    Inside it, a client that tries again and again to reach a station not yet started can be given the station's own port
    for its end: it then is connected to itself, and the station finds its port in use.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port outside the range of outgoing connections")
