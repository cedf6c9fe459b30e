"""The law at the controller: against a model of a station and a network that lose, double, delay, hang and start anew, nothing passes that
the station's own ledger does not pass, or that lies in a blind interval told before; and every part that was learned of ends in one decision.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.client.decisions import Cause, Decision, NoticeKind, State
from inspector.client.session import Session
from inspector.client.station import Options
from inspector.contract import wire
from inspector.contract.records import Outcome
from inspector.contract.requests import Announce, Done, Hello, Refusal, Refused, Replay, Replayed, ReplayEnd, StreamInfo

MS = 1_000_000
BEAT_MS = 40.0
DEADLINE_MS = 120.0
SLOWEST_MS = 15.0


@dataclass(frozen=True)
class Faults:
    lost: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0
    """Messages that take up to ``SLOWEST_MS``; others 0.3 ms."""
    unanswered: float = 0.0
    restarts: int = 0
    hangs: int = 0
    stalls: int = 0
    """Of the controller."""
    blinds: int = 0
    memory: int = 1000
    """Messages that can be replayed."""
    announce: bool = False
    appear: float = 1.0
    """Announced parts that do appear."""
    in_order: bool = False


@dataclass
class Truth:
    """A part, as the ledger has it."""

    exposed_ms: float
    outcome: Outcome | None = None
    sent_ms: float = 0.0
    seq: int = 0


@dataclass
class Log:
    """One stream of one boot."""

    messages: list[Any] = field(default_factory=list)
    opened: int = 0
    open_ids: set[str] = field(default_factory=set)
    parts: dict[str, Truth] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    blinds: list[tuple[float, float | None, int]] = field(default_factory=list)
    """From, to, and the number of the message; ages of the boot."""
    blind_from_ms: float | None = None


class World:
    """Station, network and controller on one clock."""

    def __init__(self, say: SimpleNamespace, seed: int, faults: Faults, streams: tuple[str, ...]) -> None:
        self.say, self.random, self.faults, self.streams = say, random.Random(seed), faults, streams
        self.now_ms = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.boot, self.boot_began_ms = 0, 0.0
        self.up = self.hung = False
        self.greeted = 0
        """The boot to which hello was said."""
        self.logs: dict[tuple[str, str], Log] = {}
        self.free_ms: dict[str, float] = {}
        self.stalled = False
        self.waiting: list[Callable[[], None]] = []
        self.session = Session(0, "plc", Options(in_order=faults.in_order))
        self.decisions: list[tuple[float, Decision]] = []
        self.verdicts: dict[tuple[str, str, int], str | None] = {}
        self.notices: list[NoticeKind] = []
        self.learned: set[tuple[str, str]] = set()
        """Announced: boot and id."""
        self.passed_at: list[tuple[float, str, str]] = []
        self.beats: dict[str, float] = {}
        self.tick_ms: float | None = None
        self.ids = count(1)

    # The clock.

    def at(self, in_ms: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now_ms + in_ms, next(self.order), what))

    def run(self, until_ms: float) -> None:
        while self.queue and self.queue[0][0] <= until_ms:
            self.now_ms, _, what = heapq.heappop(self.queue)
            what()
            if not self.stalled:
                self.step()
        self.now_ms = until_ms

    # The station.

    @property
    def boot_id(self) -> str:
        return f"b{self.boot}"

    @property
    def age_ms(self) -> float:
        return self.now_ms - self.boot_began_ms

    def log(self, stream: str) -> Log:
        return self.logs.setdefault((self.boot_id, stream), Log())

    def start(self) -> None:
        self.boot += 1
        self.boot_began_ms, self.up, self.hung = self.now_ms - self.random.uniform(0, 10), True, False
        for stream in self.streams:
            self.log(stream)
        self.at(0, self.only(self.beat))

    def only(self, what: Callable[..., None], *values: Any) -> Callable[[], None]:
        """``what``, if the boot is still the same then."""
        boot = self.boot
        return lambda: what(*values) if self.up and self.boot == boot else None

    def kill(self) -> None:
        self.up = False
        self.at(self.random.uniform(20, 300), self.start)

    def hang(self) -> None:
        self.hung = True
        self.at(self.random.uniform(50, 400), self.recover)

    def recover(self) -> None:
        self.hung = False

    def beat(self) -> None:
        self.at(BEAT_MS, self.only(self.beat))
        if self.hung:
            return
        for stream in self.streams:
            log = self.log(stream)
            pending = len(log.open_ids)
            beat = self.say.beat(
                len(log.messages),
                stream=stream,
                boot_id=self.boot_id,
                boot_age_ms=self.age_ms,
                opened=log.opened,
                closed=log.opened - pending,
                pending=pending,
                blind=log.blind_from_ms is not None,
            )
            self.publish(beat, numbered=False)

    def part(self, stream: str, announced: str | None = None) -> None:
        """A part before the camera."""
        log = self.log(stream)
        if announced is None:
            part_id = f"{stream}{next(self.ids)}"
            log.opened += 1
            log.numbers[part_id] = log.opened
        elif announced not in log.open_ids:
            return
        else:
            part_id = announced
        log.open_ids.add(part_id)
        log.parts[part_id] = Truth(self.age_ms)
        self.at(self.random.uniform(3, 40), self.only(self.close, stream, part_id))

    def close(self, stream: str, part_id: str) -> None:
        log = self.log(stream)
        truth = log.parts[part_id]
        late = self.age_ms - truth.exposed_ms >= DEADLINE_MS
        if self.hung and not late:
            self.at(5, self.only(self.close, stream, part_id))
            return
        truth.outcome = Outcome.UNINSPECTED if late else self.random.choice((Outcome.PASS, Outcome.PASS, Outcome.PASS, Outcome.REJECT))
        truth.sent_ms, truth.seq = self.age_ms, len(log.messages) + 1
        log.open_ids.discard(part_id)
        message = self.say.verdict(
            truth.seq,
            stream=stream,
            boot_id=self.boot_id,
            boot_age_ms=self.age_ms,
            part_id=part_id,
            part_no=log.numbers[part_id],
            outcome=truth.outcome,
            age_ms=self.age_ms - truth.exposed_ms,
            remaining_ms=truth.exposed_ms + DEADLINE_MS - self.age_ms,
        )
        self.publish(message)

    def go_blind(self, stream: str) -> None:
        log = self.log(stream)
        if log.blind_from_ms is not None:
            return
        log.blind_from_ms = self.age_ms - self.random.uniform(0, 20)
        self.tell_blind(stream, None)
        self.at(self.random.uniform(5, 120), self.only(self.see, stream))

    def see(self, stream: str) -> None:
        self.tell_blind(stream, self.age_ms - self.random.uniform(0, 5))
        self.log(stream).blind_from_ms = None

    def tell_blind(self, stream: str, to_ms: float | None) -> None:
        log = self.log(stream)
        assert log.blind_from_ms is not None
        to_ms = None if to_ms is None else max(to_ms, log.blind_from_ms)
        seq = len(log.messages) + 1
        log.blinds.append((log.blind_from_ms, to_ms, seq))
        self.publish(self.say.blind(seq, log.blind_from_ms, to_ms, stream=stream, boot_id=self.boot_id, boot_age_ms=self.age_ms))

    # The network.

    def delay(self, way: str) -> float:
        """What goes one way stays in order."""
        delay = self.random.uniform(0.3, SLOWEST_MS) if self.random.random() < self.faults.slow else 0.3
        self.free_ms[way] = max(self.free_ms.get(way, 0.0), self.now_ms + delay)
        return self.free_ms[way] - self.now_ms

    def publish(self, message: Any, *, numbered: bool = True) -> None:
        if numbered:
            self.log(message.stream).messages.append((self.now_ms, message))
        if self.random.random() < self.faults.lost:
            return
        for _ in range(2 if self.random.random() < self.faults.doubled else 1):
            self.at(self.delay(f"publisher {message.stream}"), lambda: self.read(lambda: self.heard(message)))

    def send(self, request: Any) -> None:
        if self.random.random() >= self.faults.unanswered:
            self.at(self.delay("request"), lambda: self.serve(request))

    def answer(self, reply: Any) -> None:
        if self.random.random() >= self.faults.unanswered:
            self.at(self.delay("answer"), lambda: self.read(lambda: self.told(self.session.reply(reply, int(self.now_ms * MS)))))

    def serve(self, request: Any) -> None:
        if not self.up:
            return
        if not isinstance(request, Hello) and self.greeted != self.boot:
            self.answer(Refused(no=request.no, code=Refusal.NO_HELLO, detail="hello first"))
        elif isinstance(request, Hello):
            self.greeted = self.boot
            streams = {}
            for stream in self.streams:
                log = self.log(stream)
                pending, blind = len(log.open_ids), log.blind_from_ms is not None
                streams[stream] = StreamInfo(last_seq=len(log.messages), opened=log.opened, closed=log.opened - pending, pending=pending, blind=blind)
            self.answer(self.say.welcome(request.no, boot_id=self.boot_id, streams=streams))
        elif isinstance(request, Announce):
            log = self.log(request.stream)
            log.opened += 1
            log.numbers[request.part_id] = log.opened
            log.open_ids.add(request.part_id)
            self.answer(Done(no=request.no, part_no=log.opened))
            if self.random.random() < self.faults.appear:
                self.at(self.random.uniform(1, 15), self.only(self.part, request.stream, request.part_id))
            else:
                self.answer(Refused(no=999_999, code=Refusal.INVALID, detail="something else"))
        elif isinstance(request, Replay):
            self.replay(request)
        else:
            self.answer(Done(no=request.no))

    def replay(self, request: Replay) -> None:
        messages = self.log(request.stream).messages
        kept_from = max(1, len(messages) - self.faults.memory + 1)
        last = min(request.to_seq, len(messages), request.from_seq + 20)
        for seq in range(max(request.from_seq, kept_from), last + 1):
            sent_ms, message = messages[seq - 1]
            self.answer(Replayed(no=request.no, age_ms=self.now_ms - sent_ms, message=wire.encode(message)))
        gone = kept_from - 1 if kept_from > request.from_seq else 0
        self.answer(ReplayEnd(no=request.no, stream=request.stream, from_seq=request.from_seq, to_seq=max(last, 0), gone_to=gone))

    # The controller.

    def read(self, what: Callable[[], None]) -> None:
        if self.stalled:
            self.waiting.append(what)
        else:
            what()

    def stall(self) -> None:
        if self.session.state is not State.LIVE:
            return  # whoever stalls before anything came in time cannot know what time is
        self.stalled = True
        self.at(self.random.uniform(10, 400), self.wake)

    def wake(self) -> None:
        self.stalled = False
        waiting, self.waiting = self.waiting, []
        for what in waiting:
            what()

    def heard(self, message: Any) -> None:
        if isinstance(message, wire.HeartbeatMessage):
            self.beats[message.stream] = max(self.beats.get(message.stream, 0.0), self.sent_at(message))
        self.told(self.session.take(message, int(self.now_ms * MS)))

    def sent_at(self, message: Any) -> float:
        return float(message.boot_age_ms) + self.boot_began_ms if message.boot_id == self.boot_id else 0.0

    def told(self, updates: list[Any]) -> None:
        for update in updates:
            if isinstance(update, Decision):
                self.decisions.append((self.now_ms, update))
            elif isinstance(update, wire.VerdictMessage):
                key = (update.boot_id, update.stream, update.part_no)
                assert key not in self.verdicts, "a verdict told twice"
                self.verdicts[key] = update.part_id
            elif hasattr(update, "kind"):
                self.notices.append(update.kind)

    def step(self) -> None:
        now_ns = int(self.now_ms * MS)
        self.told(self.session.tick(now_ns))
        for request in self.session.outgoing(now_ns):
            self.send(request)
        due_ns = self.session.next_ns()
        if due_ns is not None:
            due_ms = max(self.now_ms + 1.0, due_ns / MS)
            if self.tick_ms is None or self.tick_ms <= self.now_ms or due_ms < self.tick_ms:
                self.tick_ms = due_ms
                self.at(due_ms - self.now_ms, lambda: None)

    def announce(self, stream: str) -> None:
        if self.stalled:
            return
        part_id = f"{stream}{next(self.ids)}"
        boot = self.session.boot_id
        self.learned.add((boot or "", part_id))
        self.told(self.session.announce(part_id, 180.0, int(self.now_ms * MS), stream=stream))

    def probe(self) -> None:
        """Ask of any part whether it may pass now."""
        for (boot_id, stream), log in self.logs.items():
            for part_id, truth in log.parts.items():
                if self.session.may_pass(part_id, int(self.now_ms * MS), stream):
                    assert truth.outcome is Outcome.PASS
                    assert boot_id == self.session.boot_id
                    assert self.stalled or self.now_ms - self.beats.get(stream, 0.0) <= 130 + 2 * SLOWEST_MS or boot_id != self.boot_id
                    assert (stream, part_id) in {(one.stream, one.part_id) for _, one in self.decisions if one.passes}


def live(world: World, length_ms: float) -> World:
    """One run: faults for ``length_ms``, then quiet."""
    random_ms = world.random.uniform
    world.start()
    for stream in world.streams:
        at_ms = 150.0
        while at_ms < length_ms:
            at_ms += random_ms(2, 25)
            make = world.announce if world.faults.announce else lambda one: world.part(one) if world.up else None
            world.at(at_ms, lambda stream=stream, make=make: make(stream))  # type: ignore[misc]
    for _ in range(world.faults.restarts):
        world.at(random_ms(50, length_ms), lambda: world.kill() if world.up else None)
    for _ in range(world.faults.hangs):
        world.at(random_ms(50, length_ms), world.hang)
    for _ in range(world.faults.stalls):
        world.at(random_ms(50, length_ms), world.stall)
    for _ in range(world.faults.blinds):
        stream = world.random.choice(world.streams)
        world.at(random_ms(50, length_ms), lambda stream=stream: world.go_blind(stream) if world.up else None)  # type: ignore[misc]
    for at_ms in range(0, int(length_ms), 30):
        world.at(at_ms, world.probe)
    world.run(length_ms + 700)
    return world


def check(world: World) -> None:
    decided, given_up = set[tuple[str, str, int]](), set[tuple[str, str, int]]()
    decided_ids: list[tuple[str, str]] = []
    for at_ms, one in world.decisions:
        if one.part_no is not None:
            run = {(one.boot_id, one.stream, no) for no in range(one.part_no, (one.to_part_no or one.part_no) + 1)}
            # A number that was given up may be told again, when the id of that announced part becomes known.
            assert not run & decided or (one.part_id is not None and not one.passes and run <= given_up), f"decided twice: {one}"
            given_up |= run if one.part_id is None else set()
            decided |= run
        if one.part_id is not None:
            decided_ids.append((one.boot_id, one.part_id))
        if one.passes:
            log = world.logs[one.boot_id, one.stream]
            assert one.part_id is not None
            truth = log.parts[one.part_id]
            assert truth.outcome is Outcome.PASS, one
            assert log.numbers[one.part_id] == one.part_no
            assert not any(
                begin < truth.exposed_ms < (float("inf") if end is None else end)
                for begin, end, seq in log.blinds
                if seq < truth.seq and (end is not None or not _ended(log, begin, truth.seq))
            ), f"passed in a blind interval: {one}"
            if one.boot_id == world.boot_id:
                assert at_ms - world.boot_began_ms <= truth.exposed_ms + DEADLINE_MS + SLOWEST_MS, "passed after its deadline"
    assert len(decided_ids) == len(set(decided_ids)), "a part was decided twice"
    assert world.learned <= set(decided_ids), "an announced part has no decision"
    assert all(key in decided or (key[0], part_id) in decided_ids for key, part_id in world.verdicts.items()), "a verdict has no decision"


def _ended(log: Log, begin: float, before_seq: int) -> bool:
    return any(one == begin and end is not None and seq < before_seq for one, end, seq in log.blinds)


FAULTS = st.builds(
    Faults,
    lost=st.sampled_from((0.0, 0.01, 0.1, 0.4)),
    doubled=st.sampled_from((0.0, 0.2)),
    slow=st.sampled_from((0.0, 0.3, 1.0)),
    unanswered=st.sampled_from((0.0, 0.05, 0.5)),
    restarts=st.integers(0, 2),
    hangs=st.integers(0, 2),
    stalls=st.integers(0, 2),
    blinds=st.integers(0, 3),
    memory=st.sampled_from((0, 5, 1000)),
    announce=st.booleans(),
    appear=st.sampled_from((1.0, 0.8)),
    in_order=st.booleans(),
)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), faults=FAULTS)
def test_nothing_passes_that_should_not_and_every_part_ends(say: SimpleNamespace, seed: int, faults: Faults) -> None:
    check(live(World(say, seed, faults, ("top", "side")), 1200.0))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), announce=st.booleans(), in_order=st.booleans(), slow=st.sampled_from((0.0, 0.3)))
def test_without_faults_everything_passes_that_should(say: SimpleNamespace, seed: int, announce: bool, in_order: bool, slow: float) -> None:
    world = live(World(say, seed, Faults(announce=announce, in_order=in_order, slow=slow), ("top",)), 800.0)
    check(world)
    passed = {one.part_id for _, one in world.decisions if one.passes}
    truth = {part_id for part_id, part in world.logs["b1", "top"].parts.items() if part.outcome is Outcome.PASS}
    assert passed == truth
    assert len(truth) > 10
    assert world.notices == [NoticeKind.LIVE]
    assert not [one for _, one in world.decisions if one.cause is not Cause.VERDICT and not (announce and one.cause is Cause.NO_VERDICT)]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_losses_that_replay_can_repair_cost_no_part(say: SimpleNamespace, seed: int) -> None:
    world = live(World(say, seed, Faults(lost=0.1, doubled=0.1), ("top",)), 800.0)
    check(world)
    if NoticeKind.DEAD not in world.notices:  # four heartbeats lost in a row
        passed = {one.part_id for _, one in world.decisions if one.passes}
        assert passed == {part_id for part_id, part in world.logs["b1", "top"].parts.items() if part.outcome is Outcome.PASS}
        assert NoticeKind.LOST not in world.notices


def test_after_all_faults_the_session_is_live_again(say: SimpleNamespace) -> None:
    faults = Faults(lost=0.2, doubled=0.2, slow=0.5, unanswered=0.2, restarts=2, hangs=2, stalls=2, blinds=2, memory=5)
    for seed in range(10):
        world = live(World(say, seed, faults, ("top", "side")), 1200.0)
        world.faults = Faults()
        world.run(world.now_ms + 2000)
        assert world.session.state is State.LIVE
