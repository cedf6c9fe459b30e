"""Nonsense on both sockets of a real daemon, and what it does to the verdicts: a table of percentiles, and what was counted.

    python tests/faults/fuzz_sockets.py                       # 100,000 messages, 200 parts/s
    python tests/faults/fuzz_sockets.py --messages 5000 --seed 3

One run: quiet, nonsense, quiet again; the daemon (an engine that does nothing, a folder camera, journal, flight recorder, keys) and a listener with a
key are processes of their own. The nonsense has the lowest priority, as it comes from another machine on a line. Latency: exposure to received.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path

import cv2
import numpy as np
import zmq

from inspector.client.keys import apply
from inspector.config.keys import ClientKey, KeyRing, read_client_key, write_client_key
from inspector.contract import requests, wire
from inspector.contract.requests import Announce, Command, CommandName, Hello, Ping, Replay, Role
from inspector.line.access import new_pair

ASSETS = Path(__file__).resolve().parents[1] / "assets"
free_port = run_path(str(ASSETS / "ports.py"))["free_port"]
STATION = """
name = "fuzz"
product = "product.toml"
state_dir = "state"
[access]
keys = "keys"
[publisher]
endpoint = "tcp://127.0.0.1:{publisher}"
[channel]
endpoint = "tcp://127.0.0.1:{channel}"
[metrics]
port = {metrics}
[archive]
enabled = false
[[cameras]]
name = "top"
kind = "folder"
images = "pictures"
rate_hz = {rate}
ring_slots = 64
max_image_bytes = 8192
"""
PRODUCT = """
name = "plate"
version = "1"
deadline_ms = 1000
[detector]
engine = "none.engine.json"
threshold = 0.9
"""
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
CURVE_GREETING = GREETING.replace(b"NULL\0", b"CURVE")
RESET = struct.pack("ii", 1, 0)
PATIENCE_S = 60.0
SHARES = {"connect": 0.1, "knock": 0.01, "subscribe": 0.4, "ask": 0.49}


class Site:
    """A station's folder with keys: ``plc`` (controller), ``wall`` (observer, sends nonsense), ``gone`` (revoked), ``nobody`` (unknown)."""

    def __init__(self, folder: Path, rate_hz: float) -> None:
        self.folder = folder
        self.publisher, self.channel, self.metrics = (free_port() for _ in range(3))
        (folder / "pictures").mkdir()
        for number in range(int(rate_hz) * 8):  # no picture twice in a row of some seconds
            image = np.random.default_rng(number).integers(80, 150, (64, 64)).astype(np.uint8)
            cv2.imwrite(str(folder / "pictures" / f"{number:05d}.png"), image)
        (folder / "none.engine.json").write_text("{}")
        (folder / "product.toml").write_text(PRODUCT)
        self.station = folder / "station.toml"
        self.station.write_text(STATION.format(publisher=self.publisher, channel=self.channel, metrics=self.metrics, rate=rate_hz))
        ring = KeyRing(folder / "keys")
        ring.make(new_pair())
        for name, role in (("plc", Role.CONTROLLER), ("wall", Role.OBSERVER), ("gone", Role.ENGINEER), ("nobody", Role.ENGINEER)):
            pair = new_pair()
            if name != "nobody":
                ring.add(name, role, pair.public)
            write_client_key(folder / f"{name}.key", ClientKey("fuzz", name, role, pair, ring.station().public))
        ring.revoke("gone")
        pair = new_pair()
        write_client_key(folder / "lost.key", ClientKey("fuzz", "lost", Role.ENGINEER, pair, new_pair().public))

    def key(self, name: str) -> ClientKey:
        return read_client_key(self.folder / f"{name}.key")

    def endpoint(self, name: str) -> str:
        return f"tcp://127.0.0.1:{getattr(self, name)}"

    def run(self) -> subprocess.Popen[str]:
        """The daemon, until it is ready."""
        command = [sys.executable, str(ASSETS / "run_with_engine.py"), "null", str(self.station)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "INSPECTOR_TEST_PARENT": str(os.getpid())}
        log = (self.folder / "log").open("w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True, env=environment)
        log.close()
        until = time.monotonic() + PATIENCE_S
        while "ready:" not in self.log():
            assert process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)
        return process

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def counts(self) -> dict[str, int]:
        """What the daemon has counted, from its metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        kept = ("inspector_channel_", "inspector_publisher_", "inspector_ledger_")
        found = (line.rpartition(" ") for line in lines if line.startswith(kept) and "_created" not in line)
        return {name: int(float(value)) for name, _, value in found}

    def settled(self) -> dict[str, int]:
        """The counts, as soon as what was queued has been counted: a second without another connection or request."""
        until = time.monotonic() + PATIENCE_S
        while True:
            before = self.counts()
            time.sleep(1)
            after = self.counts()
            if all(before.get(name) == count for name, count in after.items() if "_ledger_" not in name):
                return after
            assert time.monotonic() < until, "the station's counts do not come to rest"


class Noise:
    """All kinds of nonsense, seeded; ``sent`` counts the messages by kind."""

    def __init__(self, site: Site, seed: int, kinds: list[str], stack: contextlib.ExitStack) -> None:
        self._site, self._source, self._kinds = site, random.Random(seed), kinds
        self._context = stack.enter_context(zmq.Context())
        self._peers = [self._peer(zmq.DEALER, "channel", "wall") for _ in range(4)]
        self._floods = [self._peer(zmq.XSUB, "publisher", "wall") for _ in range(2)]
        good = [
            Hello(no=1, name="x"),
            Ping(no=2),
            Replay(no=3, stream="top", from_seq=1, to_seq=2**40),
            Announce(no=4, stream="top", part_id="p"),
            *(Command(no=5 + index, name=name) for index, name in enumerate(CommandName)),
        ]
        self._texts = [requests.encode(one) for one in good]
        self.sent: Counter[str] = Counter()
        self.held_back: Counter[str] = Counter()
        """The station did not take it: the connection is throttled, or was put out and is not let in again so soon."""
        stack.callback(self._close)

    def _peer(self, kind: int, where: str, name: str | None) -> zmq.Socket[bytes]:
        peer = self._context.socket(kind)
        peer.setsockopt(zmq.LINGER, 2000)
        peer.setsockopt(zmq.SNDHWM, 100)
        peer.setsockopt(zmq.RECONNECT_IVL, 10)
        peer.setsockopt(zmq.SNDTIMEO, 20)
        if name is not None:
            apply(peer, self._site.key(name))
        peer.connect(self._site.endpoint(where))
        return peer

    def _close(self) -> None:
        for peer in (*self._peers, *self._floods):
            peer.close(linger=2000)

    def step(self) -> None:
        """One message, or connection."""
        kinds = {"connect": self._connect, "knock": self._knock, "subscribe": self._subscribe, "ask": self._ask}
        self._source.choices([kinds[kind] for kind in self._kinds], [SHARES[kind] for kind in self._kinds])[0]()

    def _connect(self) -> None:
        """No ZeroMQ, or the beginning of it."""
        where = self._source.choice(("publisher", "channel"))
        text = self._source.choice(
            (
                self._source.randbytes(self._source.randrange(1, 400)),
                b"GET / HTTP/1.1\r\nHost: station\r\n\r\n",
                GREETING + self._source.randbytes(self._source.randrange(200)),
                CURVE_GREETING + b"\x04" + self._source.randbytes(self._source.randrange(1, 300)),
                CURVE_GREETING + b"\x06" + struct.pack(">Q", 2**62),
            )
        )
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", getattr(self._site, where)), timeout=5) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raw.sendall(text)
        self.sent[f"{where}: no ZeroMQ"] += 1

    def _knock(self) -> None:
        """A client without a key, with an unknown, a revoked, or another station's."""
        where, kind = self._source.choice((("publisher", zmq.SUB), ("channel", zmq.DEALER)))
        name = self._source.choice((None, "nobody", "gone", "lost"))
        peer = self._peer(kind, where, name)
        if kind == zmq.SUB:
            peer.setsockopt(zmq.SUBSCRIBE, b"")
        peer.poll(20)
        peer.close(linger=0)
        self.sent[f"{where}: key {name}"] += 1

    def _subscribe(self) -> None:
        if self._source.random() < 0.001:
            # By a client of its own: ZeroMQ says every subscription again when it comes back, this one too.
            peer = self._peer(zmq.XSUB, "publisher", "wall")
            self._send("publisher: oversized", peer, b"\x01" + self._source.randbytes(5000))
            peer.poll(50)
            peer.close(linger=0)
            return
        self._send("publisher: subscription", self._source.choice(self._floods), b"\x01" + self._source.randbytes(self._source.choice((8, 60, 200))))

    def _ask(self) -> None:
        name, frames = self._request()
        self._send(f"channel: {name}", self._source.choice(self._peers), *frames)

    def _request(self) -> tuple[str, list[bytes]]:
        source, text = self._source, self._source.choice(self._texts)
        changed = bytearray(text)
        changed[source.randrange(len(changed))] = source.randrange(256)
        value = {str(key): [source.random(), None, {"type": "hello"}] for key in range(source.randrange(8))}
        kinds = {
            "random bytes": [source.randbytes(source.randrange(300))],
            "random JSON": [json.dumps(value).encode()],
            "truncated": [text[: source.randrange(len(text))]],
            "changed": [bytes(changed)],
            "frames": [text] * source.randrange(2, 12),
            "deep": [b"[" * source.randrange(1, 4000)],
            "request": [text],
        }
        if source.random() < 0.005:
            kinds = {"oversized": [source.randbytes(20_000)], "oversized, ended": [source.randbytes(200_000)]}
        return source.choice(list(kinds.items()))

    def _send(self, kind: str, peer: zmq.Socket[bytes], *frames: bytes) -> None:
        with contextlib.suppress(zmq.Again):
            while True:  # who does not read his answers does not see either that he was put out
                peer.recv(zmq.DONTWAIT)
        try:
            peer.send_multipart(frames)
            self.sent[kind] += 1
        except zmq.Again:
            self.held_back[kind] += 1


def make_noise(folder: Path, seed: int, messages: int, per_s: float, kinds: list[str]) -> None:
    """The process of the nonsense."""
    os.nice(19)
    site = Site.__new__(Site)
    site.folder = folder
    site.publisher, site.channel, site.metrics = (int(text) for text in (folder / "ports").read_text().split())
    with contextlib.ExitStack() as stack:
        noise = Noise(site, seed, kinds, stack)
        begin = time.monotonic()
        while (number := noise.sent.total()) < messages:
            noise.step()
            if per_s and number % 10 == 0:
                time.sleep(max(0.0, begin + number / per_s - time.monotonic()))
        print(json.dumps([noise.sent, noise.held_back]), flush=True)


def listen(site: Site, stop: Path) -> Iterator[tuple[float, wire.VerdictMessage | wire.BlindMessage | wire.EventMessage]]:
    """Every numbered message of the camera's stream, with its time of arrival, s."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.SUB) as sub:
        sub.setsockopt(zmq.LINGER, 0)
        sub.setsockopt(zmq.RCVHWM, 100_000)
        sub.setsockopt(zmq.SUBSCRIBE, b"")
        apply(sub, site.key("plc"))
        sub.connect(site.endpoint("publisher"))
        while not stop.exists():
            if not sub.poll(100):
                continue
            message = wire.decode(sub.recv_multipart()[1])
            now_s = time.monotonic()
            if message.stream and not isinstance(message, wire.HeartbeatMessage):
                yield now_s, message


def follow(folder: Path) -> None:
    """The process of the listener; writes what it has heard when ``stop`` appears."""
    site = Site.__new__(Site)
    site.folder = folder
    site.publisher, site.channel, site.metrics = (int(text) for text in (folder / "ports").read_text().split())
    numbers, rows, transits = [], [], []
    for now_s, message in listen(site, folder / "stop"):
        numbers.append(message.seq)
        if isinstance(message, wire.VerdictMessage):
            transits.append(now_s * 1e3 - message.boot_age_ms)
            rows.append((now_s, transits[-1] + message.age_ms))
    least_ms = min(transits)  # the fastest message took no time: some tens of microseconds in truth
    (folder / "heard.json").write_text(json.dumps({"numbers": numbers, "verdicts": [(at, total - least_ms) for at, total in rows]}))


def percentiles(values: list[float]) -> str:
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
    return f"{len(values):7d} {p50:8.2f} {p99:8.2f} {p999:8.2f} {max(values):8.2f}"


def start(mode: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), mode, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measure(asked: argparse.Namespace) -> int:
    """The whole run. 0: nothing was lost, and the quotient of the p99 is at most 2."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        site = Site(folder, asked.rate_hz)
        (folder / "ports").write_text(f"{site.publisher} {site.channel} {site.metrics}")
        daemon = site.run()
        stack.callback(daemon.kill)
        listener = start("follow", folder)
        time.sleep(3)  # the first seconds of a station are not what is measured
        before = site.counts()
        marks = [time.monotonic()]
        time.sleep(asked.quiet_s)
        marks.append(time.monotonic())
        noise = start("noise", folder, asked.seed, asked.messages, asked.per_s, *asked.kinds)
        said, _ = noise.communicate(timeout=1200)
        marks.append(time.monotonic())
        after = site.settled()
        marks.append(time.monotonic())
        time.sleep(asked.quiet_s)
        marks.append(time.monotonic())
        last = site.counts()
        (folder / "stop").touch()
        listener.wait(30)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(10)
        heard = json.loads((folder / "heard.json").read_text())
    numbers = heard["numbers"]
    sent, held_back = json.loads(said)
    print(f"seed {asked.seed}: {sum(sent.values())} messages in {marks[2] - marks[1]:.0f} s beside {asked.rate_hz:.0f} parts/s; exit code {code}")
    words = ("opened", "closed", "pending")
    opened, closed, pending = (sum(count for kind, count in last.items() if kind.startswith(f"inspector_ledger_{word}")) for word in words)
    print(f"parts opened {opened}, closed {closed}, pending {pending}, last number heard {numbers[-1]}")
    print("\nsent" + "".join(f"\n  {kind:32s} {count:7d}" for kind, count in sorted(sent.items())))
    print("\nnot taken by the station" + "".join(f"\n  {kind:32s} {count:7d}" for kind, count in sorted(held_back.items())))
    print("\ncounted by the daemon")
    for kind, count in sorted(after.items()):
        if count - before.get(kind, 0) and not kind.startswith("inspector_ledger"):
            print(f"  {kind:72s} {count - before.get(kind, 0):7d}")
    phases = {"quiet": (marks[0], marks[1]), "nonsense": (marks[1], marks[2]), "quiet again": (marks[3], marks[4])}
    found = {phase: [ms for at, ms in heard["verdicts"] if begin <= at < end] for phase, (begin, end) in phases.items()}
    print("\nexposure to received, ms  verdicts      p50      p99    p99.9      max")
    for phase, values in found.items():
        print(f"  {phase:24s} {percentiles(values)}")
    repeated = len(numbers) - len(set(numbers))
    missing = numbers[-1] - numbers[0] + 1 - len(set(numbers))
    quotient = float(np.percentile(found["nonsense"], 99) / np.percentile(found["quiet"] + found["quiet again"], 99))
    print(f"\np99 with nonsense / p99 without: {quotient:.2f}; messages heard twice: {repeated}, not heard: {missing}")
    return 0 if quotient <= 2 and code == 0 and opened == closed + pending and not repeated and not missing else 1


def main() -> int:
    if sys.argv[1:2] == ["noise"]:
        make_noise(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), sys.argv[6:])
        return 0
    if sys.argv[1:2] == ["follow"]:
        follow(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--per-s", type=float, default=2500.0, help="messages per second; 0: as fast as it goes")
    parser.add_argument("--rate-hz", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet-s", type=float, default=15.0)
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES))
    asked = parser.parse_args()
    return measure(asked)


if __name__ == "__main__":
    sys.exit(main())
