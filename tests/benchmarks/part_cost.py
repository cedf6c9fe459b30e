"""CPU time per part of intake, line thread and inspection, each thread alone: 1280x960 Mono8, an engine that does nothing.

Usage: python tests/benchmarks/part_cost.py [PARTS]
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inspector.config.product import DetectorRules, Product, ValidityRules
from inspector.config.recipe import read_detector_recipe
from inspector.config.station import IdentityRules
from inspector.contract.channel import FrameRecord, encode
from inspector.contract.records import Action, Outcome, Proposal, View
from inspector.contract.ring import Ring
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine
from inspector.inspection.images import QueuedImage, Slots
from inspector.inspection.intake import Intake, IntakeCamera
from inspector.inspection.networks import Networks
from inspector.inspection.pipeline import Inspection
from inspector.inspection.validity import ValidityGate
from inspector.inspection.verdict import ProductRules
from inspector.line.publisher import Publisher
from inspector.line.settings import LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread
from inspector.watchdog import StageStamp

WIDTH, HEIGHT = 1280, 960
ROOT = Path(__file__).resolve().parents[2]


class Nothing:
    """Takes everything and keeps nothing."""

    def open(self, view: View) -> None: ...
    def blind(self, blind: Any) -> None: ...
    def event(self, event: Any) -> None: ...
    def simulated(self, camera: str, *, simulated: bool) -> None: ...
    def offer(self, item: Any) -> bool:
        return True

    def start(self) -> None: ...
    def stop(self, deadline_s: float) -> bool:
        return True


class Life:
    generation = 1

    def __init__(self) -> None:
        self.channel, self.process = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.done = threading.Event()

    def receive(self) -> bytes:
        return self.channel.recv(65536)

    def drained(self, held: set[int]) -> None:
        self.done.set()

    def condemn(self, cause: str) -> None:
        raise AssertionError(cause)


def fail(error: BaseException) -> None:
    raise error


def view(ticket: int) -> View:
    now = time.monotonic_ns()
    return View(ticket, "top", str(ticket), ticket, ticket, None, ticket, now, now, now + 10**11, transfer_ms=1.0)


def thread_cpu_s(name: str) -> float:
    """CPU time of the thread with that name, in this process."""
    native = next(thread.native_id for thread in threading.enumerate() if thread.name == name)
    fields = Path(f"/proc/self/task/{native}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def told(name: str, parts: int, feed: Callable[[int], None], done: Callable[[], bool]) -> None:
    """Feed 400 parts per second, as on the line, and print what the thread took."""
    before = thread_cpu_s(name)
    begun = time.monotonic()
    for number in range(1, parts + 1):
        feed(number)
        time.sleep(max(0.0, begun + number / 400 - time.monotonic()))
    while not done():
        time.sleep(0.01)
    print(f"{name:12s} {(thread_cpu_s(name) - before) / parts * 1e6:7.0f} us CPU per part")


def bench_intake(parts: int) -> None:
    fd = Ring.create(4, WIDTH * HEIGHT)
    ring = Ring(fd)
    camera = IntakeCamera("top", IdentityRules(part_id="trigger_counter"), ring)
    intake = Intake([camera], 100, itertools.count(1), Nothing(), QueuedImage.release, fail)
    intake.start()
    life = Life()
    intake.attach("top", life)

    def feed(number: int) -> None:
        now = time.monotonic_ns()
        life.process.send(
            encode(FrameRecord(number % 4, number, now, now, now, WIDTH, HEIGHT, WIDTH, "Mono8", WIDTH * HEIGHT, None, number, None, 0))
        )

    told("intake", parts, feed, lambda: intake.snapshot()["top"].frames == parts)
    life.process.close()
    intake.stop(5)
    ring.close()
    os.close(fd)


def bench_line(parts: int) -> None:
    settings = LineSettings("s", "b", Streams(["top"]), "p", "1", Action.REJECT)
    line = LineThread(settings, Publisher("tcp://127.0.0.1:*"), [Nothing()] * 3, Liveness(lambda: 1.0, 100), fail)
    line.start()

    def feed(number: int) -> None:
        line.open(view(number))
        line.propose(Proposal(number, Outcome.PASS))

    told("line", parts, feed, lambda: line.snapshot().messages == parts)
    line.stop(5)


def bench_inspection(parts: int) -> None:
    fd = Ring.create(4, WIDTH * HEIGHT)
    ring = Ring(fd)
    slots = Slots(ring)
    for slot in range(4):
        ring.pixels(slot, WIDTH * HEIGHT)[:] = np.random.default_rng(slot).integers(50, 200, WIDTH * HEIGHT, dtype=np.uint8)
    product = Product(name="p", version="1", deadline_ms=100, detector=DetectorRules(engine=Path("engine")))
    said = itertools.count()
    last = [0]

    def propose(proposal: Proposal) -> None:
        last[0] = next(said) + 1

    with Networks(Detector(NullEngine(read_detector_recipe(ROOT / "engines" / "demo.toml")))) as networks:
        rules = ProductRules(product, networks.facts)
        inspection = Inspection(networks, ValidityGate(ValidityRules()), rules, propose, None, StageStamp("inspection"), fail)
        inspection.start()

        def feed(number: int) -> None:
            slots.hold(number % 4)
            one = view(number)
            record = FrameRecord(
                number % 4, number, 1, one.opened_ns, one.opened_ns, WIDTH, HEIGHT, WIDTH, "Mono8", WIDTH * HEIGHT, None, number, None, 0
            )
            inspection.put(QueuedImage(one, record, None, slots))

        told("inspection", parts, feed, lambda: last[0] == parts)
        inspection.stop(5)
    gate = ValidityGate(ValidityRules())
    images = [ring.pixels(slot, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) for slot in range(4)]
    begun = time.thread_time()
    for number in range(400):
        gate.check("top", images[number % 4])
    print(f"{'validity':12s} {(time.thread_time() - begun) / 400 * 1e6:7.0f} us CPU per part, of the inspection's")
    del images
    ring.close()
    os.close(fd)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for bench in (bench_intake, bench_line, bench_inspection):
        bench(wanted)
