from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inspector.contract.records import Box, Defect, Event, LateResult, Outcome, Proposal, Reason, View
from inspector.contract.requests import Announce, Expectation
from inspector.line.ledger import Ledger
from inspector.line.parts import Closing, Item, Opened
from inspector.line.settings import Announcing
from inspector.line.streams import Streams

DEADLINE = 100


def view(ticket: int, camera: str = "a", part_id: str | None = None, at: int = 0, reason: Reason | None = None, deadline: int | None = None) -> View:
    return View(
        ticket=ticket,
        camera=camera,
        part_id=part_id,
        frame_id=ticket,
        frame_no=ticket,
        encoder=None,
        trigger_counter=None,
        exposure_ns=at,
        opened_ns=at,
        deadline_ns=at + DEADLINE if deadline is None else deadline,
        reason=reason,
    )


def said(ticket: int, outcome: Outcome = Outcome.PASS, reason: Reason | None = None) -> Proposal:
    if outcome is Outcome.UNINSPECTED and reason is None:
        reason = Reason.ENGINE_ERROR
    return Proposal(ticket, outcome, reason)


@pytest.fixture
def single() -> Ledger:
    return Ledger(Streams(["a", "b"]))


@pytest.fixture
def group() -> Ledger:
    return Ledger(Streams(["a", "b"], ["a", "b"]))


def test_a_part_closes_with_its_proposal(single: Ledger) -> None:
    assert [type(item) for item in single.open(view(1), 0)] == [Opened]
    (closing,) = single.propose(said(1), 50)
    assert isinstance(closing, Closing)
    assert (closing.outcome, closing.part_no, closing.closed_ns) == (Outcome.PASS, 1, 50)
    assert closing.views[0].times.total_ms == 50 / 1e6


def test_numbers_are_dense_per_stream(single: Ledger) -> None:
    tickets = count(1)
    for camera in "aabab":
        single.open(view(next(tickets), camera), 0)
    closed = single.close_all(Reason.SHUTDOWN, 5)
    assert sorted((one.stream, one.part_no) for one in closed) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]
    assert {one.reason for one in closed} == {Reason.SHUTDOWN}


def test_a_view_with_a_reason_closes_at_once(single: Ledger) -> None:
    opened, closing = single.open(view(1, reason=Reason.OVERRUN), 0)
    assert isinstance(opened, Opened)
    assert (opened.part_no, opened.part_id) == (1, None)
    assert isinstance(closing, Closing)
    assert (closing.outcome, closing.reason) == (Outcome.UNINSPECTED, Reason.OVERRUN)
    assert single.next_deadline_ns() is None


def test_at_its_deadline_a_part_is_late_and_its_result_is_evidence(single: Ledger) -> None:
    single.open(view(1), 0)
    assert single.expire(DEADLINE - 1) == []
    (closing,) = single.expire(DEADLINE)
    assert (closing.outcome, closing.reason) == (Outcome.UNINSPECTED, Reason.LATE)
    assert single.propose(said(1), DEADLINE + 1) == [LateResult("a", 1, said(1), DEADLINE + 1)]


def test_a_pass_at_the_deadline_does_not_count_even_before_expire_ran(single: Ledger) -> None:
    single.open(view(1), 0)
    closing, late = single.propose(said(1), DEADLINE)
    assert isinstance(closing, Closing)
    assert closing.reason is Reason.LATE
    assert isinstance(late, LateResult)


def test_evidence_for_a_forgotten_ticket_has_no_part(single: Ledger) -> None:
    assert single.propose(said(99), 1) == [LateResult("", 0, said(99), 1)]


def test_a_ticket_is_given_once(single: Ledger) -> None:
    single.open(view(1), 0)
    with pytest.raises(ValueError, match="given once"):
        single.open(view(1), 0)
    with pytest.raises(ValueError, match="no camera 'x'"):
        single.open(view(2, "x"), 0)


def test_next_deadline_is_the_earliest_open_one(single: Ledger) -> None:
    single.open(view(1, deadline=30), 0)
    single.open(view(2, deadline=10), 0)
    assert single.next_deadline_ns() == 10
    single.propose(said(2), 5)
    assert single.next_deadline_ns() == 30


@pytest.mark.parametrize(
    ("first", "second", "worst"),
    [
        (Outcome.PASS, Outcome.PASS, Outcome.PASS),
        (Outcome.PASS, Outcome.UNINSPECTED, Outcome.UNINSPECTED),
        (Outcome.UNINSPECTED, Outcome.REJECT, Outcome.REJECT),
        (Outcome.REJECT, Outcome.PASS, Outcome.REJECT),
    ],
)
def test_the_worst_view_decides(group: Ledger, first: Outcome, second: Outcome, worst: Outcome) -> None:
    group.open(view(1, "b", "7"), 0)
    group.open(view(2, "a", "7"), 1)
    assert group.propose(said(1, first), 2) == []
    (closing,) = group.propose(said(2, second), 3)
    assert isinstance(closing, Closing)
    assert (closing.outcome, closing.stream, closing.part_id) == (worst, "a+b", "7")
    assert [one.view.camera for one in closing.views] == ["a", "b"]


def test_a_missing_view_is_uninspected_at_the_deadline(group: Ledger) -> None:
    group.open(view(1, "a", "7"), 0)
    assert group.propose(said(1), 2) == []
    (closing,) = group.expire(DEADLINE)
    assert (closing.outcome, closing.reason) == (Outcome.UNINSPECTED, Reason.NO_FRAME)
    assert "camera b" in closing.detail


def test_a_reject_waits_for_the_other_view_and_keeps_all_defects(group: Ledger) -> None:
    def defect(camera: str) -> Defect:
        return Defect("dent", 0.9, Box(0, 0, 1, 1), counted=True, source="net", camera=camera)

    group.open(view(1, "a", "7"), 0)
    assert group.propose(Proposal(1, Outcome.REJECT, defects=(defect("a"),)), 1) == []
    group.open(view(2, "b", "7"), 2)
    (closing,) = group.propose(Proposal(2, Outcome.REJECT, defects=(defect("b"),)), 3)
    assert isinstance(closing, Closing)
    assert [one.camera for one in closing.defects] == ["a", "b"]
    group.open(view(3, "a", "8"), 10)
    group.propose(said(3, Outcome.REJECT), 11)
    (alone,) = group.expire(10 + DEADLINE)
    assert alone.outcome is Outcome.REJECT


def test_a_view_that_comes_after_its_groups_part_opens_no_second_part(group: Ledger) -> None:
    group.open(view(1, "a", "7"), 0)
    group.expire(DEADLINE)
    assert group.open(view(2, "b", "7", at=5), DEADLINE + 10) == []
    (late,) = group.propose(said(2), DEADLINE + 20)
    assert late == LateResult("a+b", 1, said(2), DEADLINE + 20)
    (without,) = group.open(view(3, "b", "7", at=6, reason=Reason.NO_FRAME), DEADLINE + 30)
    assert isinstance(without, LateResult)
    assert group.count("a+b").opened == 1


def test_the_same_id_again_is_a_new_part(group: Ledger) -> None:
    for ticket, camera, at in ((1, "a", 0), (2, "b", 0), (3, "a", 500), (4, "b", 500)):
        group.open(view(ticket, camera, "7", at), at)
        group.propose(said(ticket), at + 1)
    assert group.count("a+b").outcomes == {(Outcome.PASS, None): 2}


def test_a_groups_view_without_an_id_never_passes(group: Ledger) -> None:
    group.open(view(1, "a", None), 0)
    assert group.propose(said(1), 1) == []
    (closing,) = group.expire(DEADLINE)
    assert closing.outcome is Outcome.UNINSPECTED


def test_streams() -> None:
    streams = Streams(["a", "b", "c"], ["c", "a"])
    assert streams.names == ("c+a", "b")
    assert (streams.of("a"), streams.of("b"), streams.of("")) == ("c+a", "b", "")
    with pytest.raises(ValueError, match="does not have: x"):
        Streams(["a"], ["a", "x"])


class OneLaw(RuleBasedStateMachine):
    """Any interleaving gives each part exactly one outcome; an announced id has exactly one verdict."""

    @initialize(
        grouped=st.booleans(),
        modes=st.tuples(*[st.sampled_from(["trigger_counter", "announced"])] * 2),
        by=st.sampled_from(["time_and_encoder", "time", "encoder"]),
    )
    def begin(self, grouped: bool, modes: tuple[str, str], by: Any) -> None:
        self.streams = Streams(["a", "b"], ["a", "b"] if grouped else [])
        self.modes = dict(zip("ab", modes, strict=True))
        rules = Announcing(self.modes, by, deadline_ns=60, window_ns=5, encoder_window=1, timeout_ns=150, max_expected=20, max_open=20)
        self.ledger = Ledger(self.streams, rules)
        self.by = by
        self.announced: dict[tuple[str, str], list[Outcome]] = {}
        self.now = 0
        self.tickets = count(1)
        self.views: dict[int, View] = {}
        self.proposed: dict[int, list[Outcome]] = {}
        self.closed: dict[tuple[str, int], Closing] = {}
        self.late = 0
        self.opened: set[tuple[str, int]] = set()
        self.ended: set[int] = set()

    def take(self, items: list[Item] | list[Closing]) -> None:
        for item in items:
            if isinstance(item, LateResult):
                self.late += 1
                continue
            if isinstance(item, Event):
                assert item.name in {"unannounced_part", "announcements_in_doubt", "repeated_part_id"}
                continue
            if isinstance(item, Opened):
                assert (item.stream, item.part_no) not in self.opened, "opened twice"
                self.opened.add((item.stream, item.part_no))
                continue
            assert (item.stream, item.part_no) in self.opened
            key = (item.stream, item.part_no)
            assert key not in self.closed, "closed twice"
            self.closed[key] = item
            if (item.stream, item.part_id) in self.announced:
                self.announced[item.stream, str(item.part_id)].append(item.outcome)
            for one in item.views:
                assert one.view.ticket not in self.ended, "a view in two parts"
                self.ended.add(one.view.ticket)
            assert item.closed_ns == self.now
            if item.outcome is Outcome.PASS:
                assert self.now < item.deadline_ns
                assert {one.view.camera for one in item.views} == set(self.streams.cameras(item.stream))
                assert all(self.proposed[one.view.ticket][0] is Outcome.PASS for one in item.views)
            outcomes = [one.outcome for one in item.views]
            if Outcome.REJECT in outcomes:
                assert item.outcome is Outcome.REJECT
            elif Outcome.UNINSPECTED in outcomes:
                assert item.outcome is Outcome.UNINSPECTED
            assert (item.reason is None) == (item.outcome is not Outcome.UNINSPECTED)

    @rule(
        camera=st.sampled_from("ab"),
        part_id=st.sampled_from(["1", "2", "3", None]),
        ahead=st.integers(0, 60),
        reason=st.sampled_from([None, None, None, Reason.NO_FRAME]),
        lost=st.booleans(),
    )
    def open_view(self, camera: str, part_id: str | None, ahead: int, reason: Reason | None, lost: bool) -> None:
        ticket = next(self.tickets)
        announced = self.modes[camera] == "announced"
        one = view(ticket, camera, None if announced else part_id, self.now, reason, self.now + ahead)
        self.views[ticket] = msgspec.structs.replace(one, encoder=self.now, frame_id=None if reason and lost else ticket)
        self.take(self.ledger.open(self.views[ticket], self.now))

    @rule(
        stream=st.sampled_from(["a", "b", "a+b"]),
        part_id=st.integers(1, 30),
        ahead=st.integers(0, 30),
        by=st.sampled_from(["time", "encoder", "both"]),
    )
    def announce(self, stream: str, part_id: int, ahead: int, by: str) -> None:
        in_ms = None if by == "encoder" else ahead / 1e6
        encoder = None if by == "time" else self.now + ahead
        expect = tuple(
            Expectation(camera=camera, in_ms=in_ms, encoder=encoder)
            for camera in (self.streams.cameras(stream) if stream in self.streams.names else ())
            if self.modes[camera] == "announced"
        )
        before = self.ledger.snapshot()
        try:
            items = self.ledger.announce(Announce(no=1, stream=stream, part_id=str(part_id), expect=expect), self.now, self.now)
        except ValueError:
            assert self.ledger.snapshot() == before, "what is refused opens nothing"
            return
        assert (stream, str(part_id)) not in self.announced, "an id was announced twice"
        self.announced[stream, str(part_id)] = []
        self.take(items)

    @rule(which=st.integers(0, 12), outcome=st.sampled_from(list(Outcome)))
    def propose(self, which: int, outcome: Outcome) -> None:
        """Recent tickets, so that duplicates and proposals after closing happen often; the newest may not exist at all."""
        ticket = max(self.views, default=0) + 1 - which
        if ticket in self.views:
            self.proposed.setdefault(ticket, []).append(outcome)
        before = self.late
        gone = ticket not in self.views or ticket in self.ended
        self.take(self.ledger.propose(said(ticket, outcome), self.now))
        if gone or len(self.proposed[ticket]) > 1:
            assert self.late == before + 1, "a proposal that does not count is evidence"

    @rule(step=st.integers(0, 40))
    def expire(self, step: int) -> None:
        self.now += step
        for proposal in self.ledger.released(self.now):
            self.take(self.ledger.propose(proposal, self.now))
        self.take(self.ledger.expire(self.now))
        due = self.ledger.next_deadline_ns()
        assert due is None or due > self.now

    @rule(reason=st.sampled_from([Reason.SHUTDOWN, Reason.CAMERA_LOST]))
    def close_all(self, reason: Reason) -> None:
        self.take(self.ledger.close_all(reason, self.now))
        assert all(one.pending == 0 for one in self.ledger.snapshot().values())
        assert self.ledger.next_deadline_ns() is None

    @invariant()
    def books(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for stream, books in self.ledger.snapshot().items():
            mine = [item for (name, _), item in self.closed.items() if name == stream]
            assert books.opened == books.closed + books.pending
            assert books.closed == len(mine)
            assert books.outcomes == Counter((item.outcome, item.reason) for item in mine)
            numbers = {number for name, number in self.closed if name == stream}
            assert numbers <= set(range(1, books.opened + 1))
            assert len(numbers) + books.pending == books.opened

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.take(self.ledger.close_all(Reason.SHUTDOWN, self.now))
        for stream, books in self.ledger.snapshot().items():
            assert {number for name, number in self.closed if name == stream} == set(range(1, books.opened + 1))
        assert all(len(outcomes) == 1 for outcomes in self.announced.values()), "an announced part ends exactly once"


TestOneLaw = OneLaw.TestCase
TestOneLaw.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
