from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector.config.product import ClassifierRules, DetectorRules, Product, ValidityRules
from inspector.config.station import IdentityRules
from inspector.contract.channel import CameraMessage, CameraState, EndRecord, FrameRecord, OpenedRecord, StatusRecord, encode
from inspector.contract.errors import EngineError
from inspector.contract.records import Blind, Box, Event, EventLevel, HeatMap, Outcome, Picture, Proposal, Reason, View
from inspector.contract.ring import Ring
from inspector.engine.base import EngineLostError, Ticket
from inspector.engine.classifier import Classification
from inspector.engine.detector import Detections
from inspector.engine.heatmap import NOTHING
from inspector.inspection.images import QueuedImage, Slots
from inspector.inspection.intake import Intake, IntakeCamera
from inspector.inspection.networks import Networks
from inspector.inspection.pipeline import Inspection
from inspector.inspection.validity import ValidityGate
from inspector.inspection.verdict import ProductRules
from inspector.watchdog import StageStamp

WIDTH, HEIGHT = 32, 24


class Line:
    """Keeps what the line thread would be told."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.views: list[View] = []
        self.proposals: list[Proposal] = []
        self.blinds: list[Blind] = []
        self.events: list[Event] = []
        self.is_simulated: dict[str, bool] = {}

    def _keep(self, kept: list, item: object) -> None:  # type: ignore[type-arg]
        with self.changed:
            kept.append(item)
            self.changed.notify_all()

    def open(self, view: View) -> None:
        self._keep(self.views, view)

    def propose(self, proposal: Proposal) -> None:
        self._keep(self.proposals, proposal)

    def blind(self, blind: Blind) -> None:
        self._keep(self.blinds, blind)

    def event(self, event: Event) -> None:
        self._keep(self.events, event)

    def simulated(self, camera: str, *, simulated: bool) -> None:
        self.is_simulated[camera] = simulated

    def until(self, reached: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(reached, 10), (self.views, self.proposals, self.events)


@dataclass
class Life:
    """One incarnation, as a supervisor hands it over, with the camera process's end."""

    generation: int = 1

    def __post_init__(self) -> None:
        self.channel, self.process = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.done = threading.Event()
        self.held: set[int] = set()
        self.condemned = ""

    def condemn(self, cause: str) -> None:
        self.condemned = cause

    def receive(self) -> bytes:
        return self.channel.recv(65536)

    def drained(self, held: set[int]) -> None:
        self.held = held
        self.done.set()

    def say(self, message: CameraMessage) -> None:
        self.process.send(encode(message))

    def die(self) -> None:
        self.process.close()


@dataclass
class Bench:
    """An intake on a real ring, whose images go to ``queued``."""

    line: Line
    ring: Ring
    intake: Intake
    queued: list[QueuedImage]
    failures: list[BaseException]
    frame_id: int = 0
    lives: list[Life] = field(default_factory=list)

    def live(self, generation: int = 1) -> Life:
        life = Life(generation)
        self.lives.append(life)
        self.intake.attach("top", life)
        return life

    def frame(self, life: Life, *, slot: int | None = None, size: int = WIDTH * HEIGHT, trigger: int | None = None, step: int = 1) -> None:
        self.frame_id += step
        if slot is None:
            slot = self.ring.claim()
            assert slot >= 0
            self.ring.pixels(slot, WIDTH * HEIGHT)[:] = 100 + self.frame_id % 50
            self.ring.fill(slot)
        life.say(frame(self.frame_id, slot=slot, size=size, trigger=trigger))


def frame(frame_id: int, *, slot: int = 0, size: int = WIDTH * HEIGHT, trigger: int | None = None) -> FrameRecord:
    now = time.monotonic_ns()
    return FrameRecord(slot, frame_id, now, now, now, WIDTH, HEIGHT, WIDTH, "Mono8", size, None, trigger, None, 0)


@contextmanager
def bench(deadline_ms: float = 60_000, slots: int = 4, rules: IdentityRules | None = None) -> Iterator[Bench]:
    fd = Ring.create(slots, WIDTH * HEIGHT)
    ring = Ring(fd)
    line, queued, failures = Line(), [], []  # type: ignore[var-annotated]
    intake = Intake([IntakeCamera("top", rules or IdentityRules(), ring)], deadline_ms, count(1), line, queued.append, failures.append)
    intake.start()
    made = Bench(line, ring, intake, queued, failures)
    try:
        yield made
    finally:
        for life in made.lives:
            life.die()
        assert intake.stop(10)  # once more does no harm
        made.queued.clear()
        ring.close()
        os.close(fd)


OPENED = OpenedRecord("model", "42", "1.0", True, WIDTH, HEIGHT, "Mono8", {}, 1)


def test_frames_become_views_and_queued_images() -> None:
    with bench() as at:
        life = at.live()
        life.say(OPENED)
        life.say(StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 7, 0, 2))
        at.frame(life)
        at.frame(life)
        at.line.until(lambda: len(at.line.views) == 2)
        life.die()
        assert life.done.wait(10)
        assert [image.view for image in at.queued] == at.line.views
        assert len(life.held) == 2
        assert at.line.is_simulated == {"top": True}
        account = at.intake.snapshot()["top"]
        assert (account.opened, account.frames, account.triggers, account.underruns, account.held_slots) == (OPENED, 2, 7, 2, 2)
        assert account.state is CameraState.LOST
        for image in at.queued:
            image.release()
            image.release()  # twice is once
        assert at.ring.filled == 0


def test_no_slot_too_large_and_duplicate_need_no_inspection() -> None:
    with bench() as at:
        life = at.live()
        at.frame(life)
        at.frame(life, slot=-1)
        at.frame(life, size=0)
        slot = at.ring.claim()
        at.ring.fill(slot)
        record = FrameRecord(slot, at.frame_id, at.lives[0].generation, 1, 1, 1, 1, 1, "Mono8", 1, None, None, None, 0)
        life.say(record)
        life.die()
        assert life.done.wait(10)
        assert [view.reason for view in at.line.views[:3]] == [None, Reason.OVERRUN, Reason.IMAGE_INVALID]
        assert life.held == {image.record.slot for image in at.queued}


def test_records_that_could_not_be_sent_are_overruns() -> None:
    with bench() as at:
        life = at.live()
        at.frame(life)
        at.line.until(lambda: len(at.line.views) == 1)
        at.ring.count_unsent()
        at.ring.count_unsent()
        at.frame(life, step=3)
        at.line.until(lambda: len(at.line.views) == 4)
        assert [view.reason for view in at.line.views] == [None, Reason.OVERRUN, Reason.OVERRUN, None]
        at.ring.count_unsent()
        life.die()  # told by nothing but the header
        assert life.done.wait(10)
        assert at.line.views[-1].reason is Reason.OVERRUN


def test_a_counted_trigger_is_given_up_by_time_alone() -> None:
    with bench(deadline_ms=30, rules=IdentityRules(part_id="trigger_counter")) as at:
        life = at.live()
        life.say(StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 0, 0, 0))
        life.say(StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 1, 0, 0))
        at.line.until(lambda: len(at.line.views) == 1)
        assert (at.line.views[0].part_id, at.line.views[0].reason) == ("1", Reason.NO_FRAME)


def test_the_next_process_begins_anew() -> None:
    with bench(rules=IdentityRules(part_id="trigger_counter")) as at:
        first = at.live()
        first.say(StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 0, 0, 0))
        first.say(StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 2, 0, 0))
        first.say(EndRecord("unplugged", time.monotonic_ns()))
        first.die()
        assert first.done.wait(10)
        assert [(view.part_id, view.reason) for view in at.line.views] == [("1", Reason.CAMERA_LOST), ("2", Reason.CAMERA_LOST)]
        second = at.live(2)
        at.frame(second, trigger=1)
        at.line.until(lambda: len(at.line.views) == 3)
        assert at.line.views[-1].reason is None
        assert at.line.blinds == []
        assert at.intake.snapshot()["top"].starts == 2


def test_what_was_said_before_the_stop_is_taken() -> None:
    with bench(slots=300) as at:
        life = at.live()
        for _ in range(200):
            at.frame(life)
        assert at.intake.stop(10)
        assert len(at.line.views) == 200
        assert life.done.is_set()


@pytest.mark.parametrize(
    "message",
    [
        b"nonsense",
        encode(EndRecord("letters", 1)).replace(b"letters", b"\xff\xfetters"),
        encode(EndRecord("x" * 100_000, 1))[:65536],
        b"\xdd\xff\xff\xff\xff",
    ],
    ids=["nonsense", "no letters", "cut off", "endless"],
)
def test_an_unreadable_message_is_blind_and_its_process_is_condemned(message: bytes) -> None:
    with bench() as at:
        before_ns = time.monotonic_ns()
        life = at.live()
        life.process.send(message)
        at.line.until(lambda: len(at.line.events) == 1)
        (first,) = at.line.blinds
        assert before_ns <= first.from_ns < (first.to_ns or 0) <= time.monotonic_ns(), "no frame was seen yet: since the process started"
        assert first.stream == "top"
        assert f"{len(message)} bytes" in first.cause
        check_the_condemned(at, life)


def nonsense() -> dict[str, CameraMessage]:
    good = frame(7, slot=1)
    later = time.monotonic_ns() + 3600 * 10**9
    status = StatusRecord(CameraState.STREAMING, time.monotonic_ns(), 3, 0, 0)
    replace = msgspec.structs.replace
    return {
        "no such slot": replace(good, slot=4),
        "below every slot": replace(good, slot=-2),
        "bigger than a slot": replace(good, size_bytes=1 << 40),
        "received in an hour": replace(good, received_ns=later),
        "exposed after it came": replace(good, exposure_ns=good.received_ns + 1),
        "damaged without end": replace(good, incomplete_before=1 << 40),
        "a frame before the first": replace(good, frame_id=-1),
        "status of a time to come": replace(status, at_ns=later),
        "fewer than no triggers": replace(status, triggers=-1),
    }


@pytest.mark.parametrize("name", nonsense())
def test_a_message_that_cannot_be_true_is_blind_and_its_process_is_condemned(name: str) -> None:
    with bench() as at:
        life = at.live()
        at.frame(life)
        at.line.until(lambda: len(at.line.views) == 1)
        seen_ns = at.line.views[0].exposure_ns
        life.say(nonsense()[name])
        at.line.until(lambda: len(at.line.events) == 1)
        assert [(one.stream, one.from_ns) for one in at.line.blinds] == [("top", seen_ns)], "what was accounted for is not blind again"
        check_the_condemned(at, life)


def test_a_slot_that_still_holds_an_image_cannot_be_told_again() -> None:
    with bench() as at:
        life = at.live()
        at.frame(life)
        at.frame(life, slot=at.queued[0].record.slot if at.queued else 0)
        at.line.until(lambda: len(at.line.events) == 1)
        assert "still holds another" in life.condemned
        check_the_condemned(at, life)


def check_the_condemned(at: Bench, life: Life) -> None:
    """Nothing that a condemned process says is believed, all of it is blind, and the next process is heard."""
    views, blinds = len(at.line.views), len(at.line.blinds)
    assert [(event.name, event.level) for event in at.line.events] == [("camera_message_unreadable", EventLevel.ERROR)]
    assert life.condemned
    at.frame(life)
    life.die()
    assert life.done.wait(10)
    assert len(at.line.views) == views
    first, last = at.line.blinds[blinds - 1 :]
    assert first.to_ns == last.from_ns, "no gap between the intervals"
    assert len(at.line.events) == 1
    second = at.live(2)
    at.frame(second)
    at.line.until(lambda: len(at.line.views) == views + 1)
    assert at.failures == []
    second.die()
    assert second.done.wait(10)


class Engine:
    """A detector whose findings and failures are set by image."""

    in_flight = 2
    name = "net"
    classes = ("dent", "scratch")

    def __init__(self) -> None:
        self.findings: dict[int, list[tuple[str, float, tuple[float, float, float, float]]]] = {}
        self.submit_errors: dict[int, Callable[[], EngineError]] = {}
        self.collect_errors: dict[int, Callable[[], EngineError]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.log: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.number = 0

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        self.number += 1
        if self.number in self.submit_errors:
            error = self.submit_errors[self.number]
            raise error()
        self.log.append(f"submit {self.number}")
        self.shapes.append(image.shape)
        return Ticket(self.number, time.monotonic_ns())

    def collect(self, ticket: Ticket) -> Detections:
        assert self.gate.wait(10)
        self.log.append(f"collect {ticket.number}")
        if ticket.number in self.collect_errors:
            error = self.collect_errors[ticket.number]
            raise error()
        found = self.findings.get(ticket.number, [])
        return Detections(
            np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in found], np.float32),
            np.array([self.classes.index(name) for name, _, _ in found], np.int32),
            self.classes,
            0.5,
            1.5,
        )


class Looker(Engine):
    """A classifier: what it says of its n-th image is the n-th score of "scratch", else "good"."""

    name = "looker"
    classes = ("good", "scratch")
    good = "good"

    def __init__(self) -> None:
        super().__init__()
        self.scores: dict[int, float] = {}
        self.before: Callable[[int], object] = lambda _: None

    def collect(self, ticket: Ticket) -> Classification:  # type: ignore[override]
        self.before(ticket.number)
        super().collect(ticket)
        score = self.scores.get(ticket.number, 0.0)
        values, heat = np.array([1 - score, score], np.float32), np.ones((3, 4), np.float32)
        return Classification(values, int(score > 0.5), self.classes, heat, Box(0, 0, 40, 30), NOTHING, 0.25, 2.0)


class Pool:
    """A picture source of one buffer."""

    def __init__(self) -> None:
        self.left = 1

    def take(self, camera: str, pixels: NDArray[np.uint8], heat: tuple[HeatMap, ...] = ()) -> Picture | None:
        if not self.left:
            return None
        self.left -= 1
        return Picture(camera, pixels.copy(), 0, heat)


@dataclass
class Stage:
    line: Line
    engine: Engine
    looker: Looker
    inspection: Inspection
    ring: Ring
    slots: Slots
    stamp: StageStamp
    failures: list[BaseException]
    ticket: int = 0

    def image(
        self, *, in_s: float = 60, value: int | None = None, size: int = WIDTH * HEIGHT, pixel_format: str = "Mono8", width: int = WIDTH
    ) -> QueuedImage:
        self.ticket += 1
        slot = self.ring.claim()
        assert slot >= 0
        self.ring.pixels(slot, WIDTH * HEIGHT)[:] = 100 + self.ticket if value is None else value
        self.ring.fill(slot)
        self.slots.hold(slot)
        now = time.monotonic_ns()
        view = View(self.ticket, "top", None, self.ticket, self.ticket, None, None, now, now, now + int(in_s * 1e9), transfer_ms=1.0)
        record = FrameRecord(slot, self.ticket, now, now, now, width, HEIGHT, width, pixel_format, size, None, None, None, 0)
        return QueuedImage(view, record, OPENED, self.slots)

    def proposals(self, number: int) -> list[Proposal]:
        self.line.until(lambda: len(self.line.proposals) >= number)
        return self.line.proposals


@contextmanager
def stage(validity: ValidityRules | None = None, *, start: bool = True, classifier: ClassifierRules | None = None) -> Iterator[Stage]:
    fd = Ring.create(8, WIDTH * HEIGHT)
    ring = Ring(fd)
    line, engine, looker, failures = Line(), Engine(), Looker(), []  # type: ignore[var-annotated]
    product = Product(name="p", version="1", deadline_ms=100, detector=DetectorRules(engine=Path("engine")), classifier=classifier)
    stamp = StageStamp("inspection")
    networks = Networks(engine) if classifier is None else Networks(engine, looker, classifier.on)  # type: ignore[arg-type]
    rules = ProductRules(product, networks.facts)
    inspection = Inspection(networks, ValidityGate(validity or ValidityRules()), rules, line.propose, Pool(), stamp, failures.append)
    if start:
        inspection.start()
    made = Stage(line, engine, looker, inspection, ring, Slots(ring), stamp, failures)
    try:
        yield made
    finally:
        engine.gate.set()
        assert inspection.stop(10)
        assert made.slots.held() == set(), "every image is released"
        assert ring.filled == 0
        ring.close()
        os.close(fd)


def test_images_are_proposed_in_order_with_their_times() -> None:
    with stage() as at:
        at.engine.findings[2] = [("dent", 0.9, (1, 2, 11, 22)), ("scratch", 0.1, (0, 0, 5, 5))]
        at.engine.findings[3] = [("dent", 0.9, (1, 2, 11, 22))]
        for _ in range(3):
            at.inspection.put(at.image())
        first, second, third = at.proposals(3)
        assert [first.ticket, second.ticket, third.ticket] == [1, 2, 3]
        assert [first.outcome, second.outcome, third.outcome] == [Outcome.PASS, Outcome.REJECT, Outcome.REJECT]
        assert [(one.name, one.counted) for one in second.defects] == [("dent", True), ("scratch", False)]
        assert second.picture is not None
        assert second.picture.pixels[0, 0] == 102
        assert third.picture is None, "the pool is empty: the verdict goes on without a picture"
        assert first.times.transfer_ms == 1.0
        assert (first.times.preprocess_ms or 0) >= 0.5
        assert (first.times.engine_ms or 0) > 0


def test_two_images_are_under_way_at_once() -> None:
    with stage(start=False) as at:
        for _ in range(3):
            at.inspection.put(at.image())
        assert at.inspection.waiting() == 3
        at.inspection.start()
        at.proposals(3)
        assert at.engine.log == ["submit 1", "submit 2", "collect 1", "submit 3", "collect 2", "collect 3"]


def test_an_expired_image_costs_no_engine_time() -> None:
    with stage() as at:
        at.inspection.put(at.image(in_s=-1))
        at.inspection.put(at.image())
        (only,) = at.proposals(1)
        assert only.ticket == 2
        assert at.engine.number == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"value": 0}, "black"),
        ({"value": 255}, "saturated"),
        ({"width": 30}, "30x24 px, not 32x24"),
        ({"pixel_format": "RGB8"}, "RGB8, not Mono8"),
        ({"size": 100}, "100 bytes are no 32x24"),
        ({"pixel_format": "Mono12"}, "Mono12"),
    ],
)
def test_an_invalid_image_is_told_by_a_sentence(wrong: dict[str, object], sentence: str) -> None:
    with stage() as at:
        at.inspection.put(at.image(**wrong))  # type: ignore[arg-type]
        (said,) = at.proposals(1)
        assert (said.outcome, said.reason) == (Outcome.UNINSPECTED, Reason.IMAGE_INVALID)
        assert sentence in said.detail
        assert at.engine.number == 0


def test_a_frozen_image_is_invalid() -> None:
    with stage() as at:
        for _ in range(2):
            at.inspection.put(at.image(value=77))
        at.inspection.put(at.image(value=78))
        said = {one.ticket: one.reason for one in at.proposals(3)}
        assert said == {1: None, 2: Reason.IMAGE_INVALID, 3: None}


def test_while_paused_nothing_is_inspected() -> None:
    with stage() as at:
        at.inspection.pause(paused=True)
        assert at.inspection.paused
        at.inspection.put(at.image())
        assert at.proposals(1)[0].reason is Reason.PAUSED
        at.inspection.pause(paused=False)
        at.inspection.put(at.image())
        assert at.proposals(2)[1].outcome is Outcome.PASS


def test_an_engine_failure_is_told_for_exactly_its_parts() -> None:
    with stage() as at:
        at.engine.submit_errors[1] = lambda: EngineError("refused")
        at.engine.collect_errors[2] = lambda: EngineError("failed")
        for _ in range(3):
            at.inspection.put(at.image())
        said = {one.ticket: (one.outcome, one.reason, one.detail) for one in at.proposals(3)}
        assert said == {
            1: (Outcome.UNINSPECTED, Reason.ENGINE_ERROR, "net: refused"),
            2: (Outcome.UNINSPECTED, Reason.ENGINE_ERROR, "net: failed"),
            3: (Outcome.PASS, None, ""),
        }
        assert at.failures == []


@pytest.mark.parametrize("where", ["submit_errors", "collect_errors"])
def test_an_engine_that_is_lost_ends_the_inspection_and_every_part_is_told(where: str) -> None:
    with stage(start=False) as at:
        getattr(at.engine, where)[2] = lambda: EngineLostError("gone")
        for _ in range(4):
            at.inspection.put(at.image())
        at.inspection.start()
        said = {one.ticket: one.reason for one in at.proposals(4)}
        assert {said[ticket] for ticket in (2, 3, 4)} == {Reason.ENGINE_ERROR}
        assert len(said) == 4
        assert [str(error) for error in at.failures] == ["gone"]


def test_at_the_stop_the_engine_finishes_and_the_rest_is_shutdown() -> None:
    with stage(start=False) as at:
        at.engine.gate.clear()
        images = [at.image() for _ in range(2)]
        for image in images:
            at.inspection.put(image)
        at.inspection.put(at.image())
        at.inspection.start()
        while at.inspection.waiting() > 1:  # two are with the engine, which waits
            at.engine.gate.wait(0.01)
        stopper = threading.Thread(target=at.inspection.stop, args=(10,))
        stopper.start()
        while not at.inspection._stopping.is_set():
            at.engine.gate.wait(0.001)
        at.engine.gate.set()
        stopper.join(10)
        assert {one.ticket: one.reason for one in at.line.proposals} == {1: None, 2: None, 3: Reason.SHUTDOWN}


def test_the_stamp_is_touched_while_idle_but_not_while_the_engine_hangs() -> None:
    with stage() as at:
        at.engine.gate.clear()
        at.inspection.put(at.image())
        while at.stamp.age_ms() < 100:  # idle turns are 20 ms apart: it hangs in the engine
            at.engine.gate.wait(0.01)
        stood_ns = at.stamp.at_ns
        at.engine.gate.set()
        at.proposals(1)
        while at.stamp.at_ns < stood_ns + 200_000_000:  # idle again
            assert not at.failures


def looks(on: str = "image", verdict: str = "either", **rules: object) -> ClassifierRules:
    return ClassifierRules(engine=Path("looker"), on=on, verdict=verdict, **rules)  # type: ignore[arg-type]


DENT = ("dent", 0.9, (4.0, 4.0, 14.0, 14.0))


def test_two_networks_give_one_verdict_with_the_heat_of_what_is_rejected() -> None:
    with stage(classifier=looks()) as at:
        at.looker.scores = {2: 0.25, 3: 0.75}
        for _ in range(3):
            at.inspection.put(at.image())
        first, second, third = at.proposals(3)
        assert [one.outcome for one in (first, second, third)] == [Outcome.PASS, Outcome.PASS, Outcome.REJECT]
        assert [(one.source, one.name, one.score, one.counted) for one in second.defects] == [("looker", "scratch", 0.25, False)]
        assert second.picture is None
        assert third.picture is not None
        (heat,) = third.picture.heat
        assert (heat.name, heat.score, heat.source, heat.box_px) == ("scratch", 0.75, "looker", Box(0, 0, 40, 30))
        assert (first.times.preprocess_ms or 0) >= 0.75, "of both networks"


def test_crops_are_looked_at_one_at_a_time_between_the_next_image_s_turns() -> None:
    with stage(start=False, classifier=looks("both", "confirm", crop_margin=0.1)) as at:
        at.engine.findings[1] = [DENT, ("scratch", 0.8, (20.0, 4.0, 30.0, 20.0))]
        at.looker.scores = {4: 0.75}
        for _ in range(2):
            at.inspection.put(at.image())
        at.inspection.start()
        first, second = at.proposals(2)
        assert (first.outcome, second.outcome) == (Outcome.REJECT, Outcome.PASS)
        assert [one.counted for one in first.defects if one.source == "net"] == [False, True]
        assert at.looker.log == ["submit 1", "submit 2", "collect 1", "submit 3", "collect 3", "submit 4", "collect 4", "collect 2"]
        assert at.looker.shapes == [(HEIGHT, WIDTH), (HEIGHT, WIDTH), (12, 12), (20, 14)]


@pytest.mark.parametrize("where", ["submit_errors", "collect_errors"])
@pytest.mark.parametrize("number", [2, 3], ids=["the whole image", "its crop"])
def test_a_classifier_that_fails_leaves_no_verdict_to_the_detector(where: str, number: int) -> None:
    """Its second image is the second part, its third that part's crop."""
    with stage(classifier=looks("both")) as at:
        getattr(at.looker, where)[number] = lambda: EngineError("broken")
        at.engine.findings[2] = [DENT]
        for wanted in (1, 2, 3):
            at.inspection.put(at.image())
            at.proposals(wanted)
        said = [(one.ticket, one.outcome, one.reason, one.detail, one.defects) for one in at.line.proposals]
        assert said == [
            (1, Outcome.PASS, None, "", ()),
            (2, Outcome.UNINSPECTED, Reason.ENGINE_ERROR, "looker: broken", ()),
            (3, Outcome.PASS, None, "", ()),
        ]
        assert at.failures == []


@pytest.mark.parametrize("where", ["submit_errors", "collect_errors"])
def test_a_classifier_that_is_lost_ends_the_inspection_too(where: str) -> None:
    with stage(start=False, classifier=looks()) as at:
        getattr(at.looker, where)[2] = lambda: EngineLostError("gone")
        for _ in range(4):
            at.inspection.put(at.image())
        at.inspection.start()
        said = {one.ticket: one.reason for one in at.proposals(4)}
        assert {said[ticket] for ticket in (2, 3, 4)} == {Reason.ENGINE_ERROR}
        assert [str(error) for error in at.failures] == ["gone"]


def test_each_crop_is_a_sign_of_life_and_none_is_looked_at_when_it_is_too_late() -> None:
    with stage(classifier=looks("detections", max_crops=3)) as at:
        at.engine.findings[1] = [DENT, DENT, DENT]
        image = at.image(in_s=1)
        lives, never = [], threading.Event()  # type: ignore[var-annotated]

        def before(number: int) -> None:
            lives.append(at.stamp.at_ns)
            while number == 2 and time.monotonic_ns() < image.view.deadline_ns:
                never.wait(0.01)

        at.looker.before = before
        at.inspection.put(image)
        at.proposals(1)
        assert at.looker.number == 2, "the third would not have been in time"
        assert lives[0] < lives[1], "the stage was alive between two crops"


def test_other_rules_of_the_classifier_count_from_one_image_to_the_next() -> None:
    with stage(classifier=looks()) as at:
        at.looker.scores = {1: 0.75, 2: 0.75}
        at.inspection.put(at.image())
        assert at.proposals(1)[0].outcome is Outcome.REJECT
        product = Product(name="p", version="2", deadline_ms=100, detector=DetectorRules(engine=Path("engine")), classifier=looks(threshold=0.8))
        told = threading.Event()
        at.inspection.use(ProductRules(product, Networks(at.engine, at.looker).facts), told.set)  # type: ignore[arg-type]
        assert told.wait(10)
        at.inspection.put(at.image())
        assert at.proposals(2)[1].outcome is Outcome.PASS
