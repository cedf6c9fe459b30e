from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from inspector.contract.errors import AddressError, ExitCode
from inspector.contract.records import (
    Action,
    Blind,
    ClosedPart,
    Event,
    EventLevel,
    LateResult,
    Outcome,
    OutputItem,
    Picture,
    Proposal,
    Reason,
    StageTimes,
    View,
)
from inspector.contract.wire import BlindMessage, EventMessage, HeartbeatMessage, Message, ResultState, VerdictMessage, decode
from inspector.line.messages import MessageBuilder, Now, result_state
from inspector.line.publisher import Publisher
from inspector.line.settings import LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread

S = 1_000_000_000


class Kept:
    """An output that keeps what it is offered."""

    def __init__(self) -> None:
        self.items: list[OutputItem] = []

    def offer(self, item: OutputItem) -> bool:
        self.items.append(item)
        return True

    def start(self) -> None: ...

    def stop(self, deadline_s: float) -> bool:
        return True


class Broken(Kept):
    def offer(self, item: OutputItem) -> bool:
        raise RuntimeError("broken output")


class Station:
    """A line thread with a subscriber that has every message."""

    def __init__(self, endpoint: str, group: tuple[str, ...] = (), output: Kept | None = None, age_ms: float = 1.0, budget_ms: float = 100.0) -> None:
        self.age_ms = age_ms
        self.kept = output or Kept()
        self.failures: list[BaseException] = []
        self.failed = threading.Event()
        settings = LineSettings(
            station="s",
            boot_id="boot",
            streams=Streams(["a", "b"], group),
            product="p",
            product_version="1",
            uninspected=Action.STOP,
            engines=("e",),
            heartbeat_ms=10,
        )
        self.publisher = Publisher(endpoint)
        self.line = LineThread(settings, self.publisher, [self.kept], Liveness(lambda: self.age_ms, budget_ms), self.fail)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.wire = self.context.socket(zmq.SUB)
        self.wire.setsockopt(zmq.SUBSCRIBE, b"")
        self.wire.setsockopt(zmq.LINGER, 0)
        self.wire.setsockopt(zmq.RCVTIMEO, 10_000)

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.failed.set()

    def start(self) -> None:
        self.line.start()
        self.wire.connect(self.publisher.endpoint)
        self.next(HeartbeatMessage)  # it is joined

    def any(self) -> tuple[str, Message]:
        topic, payload = self.wire.recv_multipart()
        return topic.decode(), decode(payload)

    def next(self, kind: type[Message], stream: str | None = None) -> Message:
        while True:
            topic, message = self.any()
            if isinstance(message, kind) and stream in {None, message.stream}:
                assert topic == f"s/{message.stream}"
                return message

    def rest(self) -> list[Message]:
        """What was sent before the socket was closed."""
        found = []
        self.wire.setsockopt(zmq.RCVTIMEO, 200)
        while True:
            try:
                found.append(self.any()[1])
            except zmq.Again:
                return found

    def verdict(self, stream: str | None = None) -> VerdictMessage:
        message = self.next(VerdictMessage, stream)
        assert isinstance(message, VerdictMessage)
        return message


@contextmanager
def running(endpoint: str = "tcp://127.0.0.1:*", **options: object) -> Iterator[Station]:
    station = Station(endpoint, **options)  # type: ignore[arg-type]
    try:
        station.start()
        yield station
    finally:
        station.line.stop(5)
        station.wire.close()
        station.context.term()


def view(ticket: int, camera: str = "a", part_id: str | None = None, in_s: float = 60, reason: Reason | None = None) -> View:
    now = time.monotonic_ns()
    return View(
        ticket=ticket,
        camera=camera,
        part_id=part_id,
        frame_id=ticket,
        frame_no=ticket,
        encoder=5,
        trigger_counter=ticket,
        exposure_ns=now,
        opened_ns=now,
        deadline_ns=now + int(in_s * S),
        reason=reason,
    )


def test_a_part_reaches_the_wire_and_then_the_outputs() -> None:
    with running() as station:
        station.line.simulated("a", simulated=True)
        station.line.open(view(1, part_id="77"))
        station.line.propose(Proposal(1, Outcome.PASS, times=StageTimes(engine_ms=3)))
        verdict = station.verdict()
        assert (verdict.part_id, verdict.outcome, verdict.action, verdict.seq, verdict.part_no) == ("77", Outcome.PASS, Action.PASS, 1, 1)
        assert (verdict.result_id, verdict.job_id, verdict.is_simulated) == ("boot:a:1", "p:1", True)
        assert 0 <= verdict.age_ms < 10_000
        assert 0 < verdict.remaining_ms <= 60_000
        assert verdict.times.engine_ms == 3
        station.line.stop(5)
        (part,) = station.kept.items
        assert isinstance(part, ClosedPart)
        assert part.seq == 1
        assert part.closed_utc_ns == pytest.approx(time.time_ns(), abs=60 * S)


def test_messages_are_numbered_per_stream_and_heartbeats_carry_the_last_number() -> None:
    with running() as station:
        for ticket, camera in enumerate("aabab", 1):
            station.line.open(view(ticket, camera, reason=Reason.OVERRUN))
        verdicts = [station.verdict() for _ in range(5)]
        assert [(one.stream, one.seq, one.part_no) for one in verdicts] == [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), ("a", 3, 3), ("b", 2, 2)]
        assert {one.action for one in verdicts} == {Action.STOP}
        station.line.event(Event("hello", EventLevel.INFO, "world", time.monotonic_ns(), "a"))
        event = station.next(EventMessage)
        assert isinstance(event, EventMessage)
        assert event.seq == 4
        beat = station.next(HeartbeatMessage, "a")
        assert isinstance(beat, HeartbeatMessage)
        assert (beat.last_seq, beat.opened, beat.closed, beat.pending) == (4, 3, 3, 0)


def test_an_open_part_is_closed_late_at_its_deadline_and_its_result_is_evidence() -> None:
    with running() as station:
        station.line.open(view(1, in_s=0.03))
        late = station.verdict()
        assert (late.outcome, late.reason, late.result_state) == (Outcome.UNINSPECTED, Reason.LATE, ResultState.ABORTED)
        assert late.remaining_ms <= 0
        station.line.propose(Proposal(1, Outcome.PASS))
        assert station.line.stop(5)
        assert not any(isinstance(one, VerdictMessage) for one in station.rest())
        evidence = station.kept.items[-1]
        assert isinstance(evidence, LateResult)
        assert evidence.part_no == 1
        assert station.line.snapshot().late_results == 1


def test_what_is_open_at_the_stop_is_shutdown_and_still_sent() -> None:
    with running() as station:
        for ticket in range(1, 501):
            station.line.open(view(ticket))
        assert station.line.stop(5)
        verdicts = [one for one in station.rest() if isinstance(one, VerdictMessage)]
        assert [one.part_no for one in verdicts] == list(range(1, 501))
        assert {one.reason for one in verdicts} == {Reason.SHUTDOWN}
        assert len(station.kept.items) == 500
        books = station.line.snapshot().streams["a"].books
        assert (books.opened, books.closed, books.pending) == (500, 500, 0)


def test_no_heartbeat_while_the_inspection_stands_still() -> None:
    with running() as station:
        station.age_ms = 1000
        before = station.line.snapshot().heartbeats_withheld
        while station.line.snapshot().heartbeats_withheld < before + 3:
            station.failed.wait(0.005)
        beats = station.line.snapshot().heartbeats
        while station.line.snapshot().heartbeats_withheld < before + 6:
            station.failed.wait(0.005)
        assert station.line.snapshot().heartbeats == beats
        station.line.open(view(1, reason=Reason.OVERRUN))
        station.verdict()  # verdicts go on
        station.age_ms = 1
        station.next(HeartbeatMessage)


def test_blind_goes_on_until_its_own_end() -> None:
    with running() as station:
        now = time.monotonic_ns()
        station.line.blind(Blind("a", now, None, "gone"))
        first = station.next(BlindMessage)
        assert isinstance(first, BlindMessage)
        assert (first.to_ms_ago, first.to_utc, first.cause) == (None, None, "gone")
        station.line.blind(Blind("a", now - 5 * S, now - 4 * S, "told afterwards"))
        station.next(BlindMessage)
        beat = station.next(HeartbeatMessage, "a")
        assert isinstance(beat, HeartbeatMessage)
        assert beat.blind
        other = station.next(HeartbeatMessage, "b")
        assert isinstance(other, HeartbeatMessage)
        assert not other.blind
        station.line.blind(Blind("a", now, now + 1, "gone"))
        last = station.next(BlindMessage)
        assert isinstance(last, BlindMessage)
        assert last.seq == 3
        beat = station.next(HeartbeatMessage, "a")
        assert isinstance(beat, HeartbeatMessage)
        assert not beat.blind


def test_a_pass_waits_for_the_end_of_a_blind_interval_and_not_in_it() -> None:
    with running() as station:
        began = view(0).exposure_ns
        station.line.blind(Blind("a", began, None, "stalled"))
        views = [view(1), view(2), view(3, in_s=0.03), view(4, "b")]
        for one in views:
            station.line.open(one)
            station.line.propose(Proposal(one.ticket, Outcome.PASS, times=StageTimes(engine_ms=one.ticket)))
        assert station.verdict("b").outcome is Outcome.PASS
        assert station.verdict("a").reason is Reason.LATE  # ticket 3, at its deadline
        station.line.blind(Blind("a", began, views[1].exposure_ns, "stalled"))
        assert isinstance(station.next(BlindMessage), BlindMessage)
        inside, outside = station.verdict("a"), station.verdict("a")
        assert (inside.part_no, inside.outcome, inside.reason, inside.times.engine_ms) == (1, Outcome.UNINSPECTED, Reason.CAMERA_LOST, 1)
        assert (outside.part_no, outside.outcome) == (2, Outcome.PASS)
        assert station.line.stop(5)
        assert [one.part_no for one in station.kept.items if isinstance(one, LateResult)] == [3]


def test_a_view_in_a_blind_interval_keeps_its_whole_part_from_passing() -> None:
    with running(group=("a", "b")) as station:
        station.line.blind(Blind("b", time.monotonic_ns(), None, "stalled"))
        for ticket, camera in ((1, "a"), (2, "b")):
            station.line.open(view(ticket, camera, "7"))
            station.line.propose(Proposal(ticket, Outcome.PASS))
        station.line.open(view(3, "a", "8"))
        station.line.open(view(4, "b", "8"))
        station.line.propose(Proposal(3, Outcome.PASS))
        station.line.propose(Proposal(4, Outcome.REJECT))
        assert (station.verdict().part_id, station.line.stop(5)) == ("8", True)
        (last,) = [one for one in station.rest() if isinstance(one, VerdictMessage)]
        assert (last.part_id, last.reason) == ("7", Reason.SHUTDOWN)


def test_a_group_has_one_stream_and_the_slowest_views_times() -> None:
    with running(group=("a", "b")) as station:
        station.line.open(view(1, "a", "7"))
        station.line.open(view(2, "b", "7"))
        station.line.propose(Proposal(1, Outcome.PASS, times=StageTimes(engine_ms=3, rules_ms=1)))
        station.line.propose(Proposal(2, Outcome.PASS, times=StageTimes(engine_ms=2, rules_ms=4)))
        verdict = station.verdict("a+b")
        assert [one.camera for one in verdict.views] == ["a", "b"]
        assert (verdict.times.engine_ms, verdict.times.rules_ms, verdict.times.queue_ms) == (3, 4, None)
        station.line.event(Event("x", EventLevel.INFO, "detail", 1, "b"))
        station.line.event(Event("y", EventLevel.INFO, "detail", 1))
        first, second = station.next(EventMessage), station.next(EventMessage)
        assert isinstance(first, EventMessage)
        assert (first.stream, first.detail) == ("a+b", "camera b: detail")
        assert second.stream == ""
        station.line.blind(Blind("b", 1, None, "gone"))
        blind = station.next(BlindMessage)
        assert isinstance(blind, BlindMessage)
        assert (blind.stream, blind.cause) == ("a+b", "camera b: gone")


def test_what_came_before_the_start_is_taken() -> None:
    station = Station("tcp://127.0.0.1:*")
    station.line.open(view(1, reason=Reason.NO_FRAME))
    try:
        station.line.start()
        assert station.line.stop(5)
    finally:
        station.wire.close()
        station.context.term()
    assert len(station.kept.items) == 1


def test_an_error_in_the_thread_reaches_the_daemon() -> None:
    with running(output=Broken()) as station:
        station.line.open(view(1, reason=Reason.OVERRUN))
        assert station.failed.wait(10)
        assert [str(error) for error in station.failures] == ["broken output"]


def test_a_busy_port_is_told_before_anything_runs() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        station = Station(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(AddressError, match="another program uses it") as failure:
            station.line.start()
        assert failure.value.exit_code is ExitCode.UNAVAILABLE
        assert str(other.getsockname()[1]) in str(failure.value)
        assert station.line.stop(1)
        station.wire.close()
        station.context.term()


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:5570", "tcp://nonsense:xyz", "ipc:///nonexistent/folder/socket"])
def test_an_endpoint_that_cannot_be_is_named(endpoint: str) -> None:
    publisher = Publisher(endpoint)
    with pytest.raises(AddressError, match="publisher cannot use") as failure:
        publisher.bind()
    assert endpoint in str(failure.value)
    publisher.close()
    with pytest.raises(RuntimeError):
        publisher.send(b"", b"")


def test_an_ipc_socket_in_use_is_not_stolen(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/line"
    first, second = Publisher(endpoint), Publisher(endpoint)
    first.bind()
    with pytest.raises(AddressError, match="another program uses it"):
        second.bind()
    first.close()
    Path(f"{tmp_path}/line").touch()
    second.bind()  # a file that was left behind
    second.close()


def test_utc_of_a_monotonic_stamp() -> None:
    now = Now(monotonic_ns=10 * S, utc_ns=1_700_000_000 * S)
    assert now.utc(9 * S) == "2023-11-14T22:13:19.000000+00:00"
    assert now.ms_since(9 * S) == 1000


def test_result_states() -> None:
    assert result_state(Outcome.REJECT, None) is ResultState.COMPLETED
    assert result_state(Outcome.UNINSPECTED, Reason.ENGINE_ERROR) is ResultState.FAILED


def test_ages_are_relative(tmp_path: Path) -> None:
    builder = MessageBuilder("s", "b", lambda: Now(10 * S, 1_700_000_000 * S))
    message = builder.blind(Blind("a", 8 * S, 9 * S, "c"), 3)
    assert (message.from_ms_ago, message.to_ms_ago) == (2000, 1000)
    assert "9000000000" not in msgspec.json.encode(message).decode()


def test_a_picture_goes_to_the_outputs_and_not_on_the_wire() -> None:
    with running() as station:
        station.line.open(view(1))
        picture = Picture("a", np.zeros((2, 2), np.uint8), 0)
        station.line.propose(Proposal(1, Outcome.REJECT, picture=picture))
        assert station.verdict().action is Action.REJECT
        station.line.stop(5)
        (part,) = station.kept.items
        assert isinstance(part, ClosedPart)
        assert part.views[0].picture is picture


def test_what_comes_while_the_line_stops_never_writes_to_a_descriptor_that_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    write, stopped, entered, closed = os.eventfd_write, threading.Event(), threading.Event(), list[bool]()

    def slow_write(fd: int, value: int) -> None:
        if threading.current_thread().name == "latecomer":
            entered.set()
            stopped.wait(0.5)
            try:
                os.fstat(fd)
            except OSError:
                closed.append(True)
                return
        write(fd, value)

    with running() as station:
        monkeypatch.setattr(os, "eventfd_write", slow_write)
        event = Event("late", EventLevel.INFO, "", time.monotonic_ns(), "a")
        latecomer = threading.Thread(target=station.line.event, args=(event,), name="latecomer")
        latecomer.start()
        assert entered.wait(5)
        station.line.stop(5)
        stopped.set()
        latecomer.join(5)
        assert closed == []
        station.line.event(event)  # after the stop: it is not sent, and does no harm
