"""Verdicts while somebody sends nonsense: closed to received, with keys, journal and flight recorder, quiet and in a flood, in one run.

    python tests/benchmarks/line_channel.py flood    # 200 parts/s; 100,000 fuzzed messages on both sockets; prints both and their quotient
    python tests/benchmarks/line_channel.py latency  # 200 parts/s, nobody else

Station, listener and noise are processes of their own. The noise has the lowest priority: on a line it is another machine's work.
A part's id is the time at which the inspection proposed for it, so that what is measured begins before the line thread wakes.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import zmq

from inspector.client.keys import apply, read_key
from inspector.config.keys import ClientKey, KeyRing, write_client_key
from inspector.config.station import ChannelConfig, JournalConfig
from inspector.contract import requests, wire
from inspector.contract.records import Action, Event, Outcome, Proposal, View
from inspector.contract.requests import Ack, Acknowledge, AckState, Announce, Command, CommandName, Hello, Ping, Replay, Role
from inspector.journal.writer import Journal
from inspector.line.access import Gatekeeper, new_context, new_pair
from inspector.line.channel import Channel
from inspector.line.publisher import Publisher
from inspector.line.settings import LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread
from inspector.line.welcome import LineFacts

RATE_HZ = 200.0
NOISE = ("wall", "display", "monitor", "shelf")
OVERSIZED = 20_000
LAST = 10**9


class Controls:
    paused = False

    def pause(self, *, paused: bool) -> None:
        """Nobody may."""

    def reload(self) -> str:
        return "nothing has changed"


def serve(folder: Path) -> None:
    """Line thread and channel with keys and a journal; parts until SIGTERM; tells its endpoints, at the end its counts."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    failures: list[BaseException] = []
    ring = KeyRing(folder / "keys")
    context = new_context()

    def tell(event: Event) -> None:
        line.event(event)

    settings = LineSettings("bench", "boot", Streams(["top"]), "p", "1", Action.REJECT)
    channel = Channel(
        ChannelConfig(endpoint="tcp://127.0.0.1:*"),
        LineFacts(settings, 1000.0),
        Controls(),
        tell,
        failures.append,
        context,
        ring.station(),
        Gatekeeper(context, ring),
    )
    journal = Journal(JournalConfig(path=folder / "journal.sqlite"), station="bench", boot_id="boot", program="benchmark", on_event=tell)
    publisher = Publisher("tcp://127.0.0.1:*", context=context, keys=ring.station())
    line = LineThread(settings, publisher, [journal], Liveness(lambda: 1.0, 100.0), failures.append, audience=channel)
    journal.start()
    line.start()
    channel.start(line)
    gc.collect()
    gc.freeze()  # as the daemon does
    print(json.dumps([publisher.endpoint, channel.endpoint]), flush=True)
    ticket, due = 0, time.monotonic()
    while not stopping.is_set() and not failures:
        ticket += 1
        due += 1 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
        now_ns = time.monotonic_ns()
        line.open(View(ticket, "top", str(now_ns), ticket, ticket, None, ticket, now_ns, now_ns, now_ns + 10**9))
        line.propose(Proposal(ticket, Outcome.REJECT if ticket % 10 == 0 else Outcome.PASS))
    line.stop(5)
    channel.stop(5)
    journal.stop(5)
    context.term()
    counts = asdict(channel.counts())
    print(json.dumps({"failures": [repr(one) for one in failures], **counts}), flush=True)


def nonsense(source: random.Random) -> Iterator[list[bytes]]:
    """Messages for the request socket: no JSON, JSON of other kinds, requests with changed bytes, floods of good ones, too long, too many frames."""
    good = [
        Hello(no=1, name="x"),
        Ping(no=2),
        Replay(no=3, stream="top", from_seq=1, to_seq=2**40),
        Announce(no=4, stream="top", part_id="p"),
        Acknowledge(no=5, acks=tuple(Ack(stream="top", seq=seq, state=AckState.FAILED) for seq in range(1, 200))),
        Command(no=6, name=CommandName.PAUSE),
    ]
    texts = [requests.encode(one) for one in good]
    while True:
        kind = source.randrange(8)
        text = bytearray(source.choice(texts))
        if kind == 0:
            yield [source.randbytes(source.randrange(300))]
        elif kind == 1:
            yield [b"[" * source.randrange(1, 4000)]
        elif kind == 2:
            yield [source.randbytes(OVERSIZED)]
        elif kind == 3:
            yield [b""] * source.randrange(2, 20)
        elif kind <= 5:
            for _ in range(source.randrange(1, 6)):
                text[source.randrange(len(text))] = source.randrange(256)
            yield [bytes(text)]
        else:
            yield [bytes(text)]


def make_noise(folder: Path, publisher: str, channel: str, messages: int) -> None:
    """Half of ``messages`` to each socket, by peers with keys; beside them connections that speak no ZeroMQ."""
    os.nice(19)
    source = random.Random(1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sent = {"requests": 0, "subscriptions": 0, "connections": 0}
    with contextlib.ExitStack() as stack:

        def peer(name: str, kind: int, endpoint: str) -> zmq.Socket[bytes]:
            one = stack.enter_context(context.socket(kind))
            one.setsockopt(zmq.LINGER, 0)
            apply(one, read_key(folder / f"{name}.key"))
            one.connect(endpoint)
            return one

        askers = [peer(name, zmq.DEALER, channel) for name in NOISE]
        listeners = [peer(name, zmq.XSUB, publisher) for name in NOISE]
        talk = nonsense(source)
        while sent["requests"] + sent["subscriptions"] < messages:
            for asker in askers:
                with contextlib.suppress(zmq.Again):
                    while asker.poll(0):
                        asker.recv()
                    if sent["requests"] < messages // 2:
                        asker.send_multipart(next(talk), zmq.DONTWAIT)
                        sent["requests"] += 1
            for listener in listeners:
                with contextlib.suppress(zmq.Again):
                    if sent["subscriptions"] < messages // 2:
                        listener.send(source.choice((b"\0", b"\1", b"\2", b"")) + source.randbytes(source.randrange(40)), zmq.DONTWAIT)
                        sent["subscriptions"] += 1
            if source.randrange(200) == 0:
                host, port = source.choice((publisher, channel)).removeprefix("tcp://").split(":")
                with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1) as garbage:
                    garbage.sendall(source.randbytes(source.randrange(1, 2000)))
                    sent["connections"] += 1
            time.sleep(0.001)  # the flood is the station's trouble, the sender's own use of the processor is not
        for asker in askers:  # all of it was taken when the last one is answered
            answered = False
            while not answered:
                asker.send(requests.encode(Ping(no=LAST)))
                while not answered and asker.poll(100):
                    answered = requests.decode_reply(asker.recv()).no == LAST
    context.term()
    print(json.dumps(sent), flush=True)


def listen(wire_socket: zmq.Socket[bytes], until: object, seconds: float) -> np.ndarray:
    """Milliseconds from proposal to receipt, of every verdict, for at least ``seconds`` and while ``until()`` is None."""
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or (callable(until) and until() is None):
        payload = wire_socket.recv_multipart()[1]
        now_ns = time.monotonic_ns()
        message = wire.decode(payload)
        if isinstance(message, wire.VerdictMessage):
            found.append((now_ns - int(message.part_id or 0)) / 1e6)
    return np.array(found)


def told(name: str, values: np.ndarray) -> str:
    shown = zip(("p50", "p90", "p99", "p99.9", "max"), np.percentile(values, [50, 90, 99, 99.9, 100]), strict=True)
    return f"{name:12s} {len(values):6d} verdicts, ms: " + "  ".join(f"{label} {value:.2f}" for label, value in shown)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mode", choices=("flood", "latency", "serve", "noise"))
    arguments.add_argument("rest", nargs="*")
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--messages", type=int, default=100_000)
    options = arguments.parse_args()
    if options.mode == "serve":
        return serve(Path(options.rest[0]))
    if options.mode == "noise":
        return make_noise(Path(options.rest[0]), options.rest[1], options.rest[2], int(options.rest[3]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ring = KeyRing(folder / "keys")
        ring.make(new_pair())
        for person in ("listener", *NOISE):
            pair = new_pair()
            ring.add(person, Role.OBSERVER, pair.public)
            write_client_key(folder / f"{person}.key", ClientKey("bench", person, Role.OBSERVER, pair, ring.station().public))
        with subprocess.Popen([sys.executable, __file__, "serve", name], stdout=subprocess.PIPE, text=True) as station:
            publisher, channel = json.loads(station.stdout.readline())  # type: ignore[union-attr]
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            with context.socket(zmq.SUB) as wire_socket:
                wire_socket.setsockopt(zmq.SUBSCRIBE, b"")
                wire_socket.setsockopt(zmq.RCVTIMEO, 10_000)
                apply(wire_socket, read_key(folder / "listener.key"))
                wire_socket.connect(publisher)
                listen(wire_socket, None, 2)
                quiet = listen(wire_socket, None, options.seconds)
                print(told("quiet", quiet), flush=True)
                if options.mode == "flood":
                    begun = time.monotonic()
                    command = [sys.executable, __file__, "noise", name, publisher, channel, str(options.messages)]
                    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as noise:
                        flood = listen(wire_socket, noise.poll, options.seconds)
                        took_s = time.monotonic() - begun
                        print(told("in the flood", flood))
                        print(f"noise        {noise.communicate()[0].strip()} in {took_s:.1f} s")
                    after = listen(wire_socket, None, options.seconds)
                    print(told("afterwards", after))
                    control = np.concatenate([quiet, after])
                    print(f"p99 in the flood / p99 without: {np.percentile(flood, 99) / np.percentile(control, 99):.2f}")
            station.send_signal(signal.SIGTERM)
            print("station     ", station.communicate()[0].strip())
            context.term()
    return None


if __name__ == "__main__":
    main()
