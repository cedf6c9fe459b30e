from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inspector.contract.records import EventLevel
from inspector.contract.requests import Ack, AckState
from inspector.line.acks import Acks, Taken
from inspector.line.allowance import Allowance, Share
from inspector.line.controllers import Controllers
from inspector.line.digest import Digest

MS = 1_000_000
S = 1_000_000_000


class Account(RuleBasedStateMachine):
    """Every verdict that does not pass is acknowledged, awaited, overdue or written off: exactly one of these."""

    def __init__(self) -> None:
        super().__init__()
        self.acks = Acks(ack_ms=10, limit=20)
        self.now_ns = 0
        self.last = 0
        self.open: dict[int, int] = {}
        self.late: set[int] = set()
        self.late_in_all = 0

    @rule(wait_ms=st.integers(0, 15), count=st.integers(1, 6))
    def send(self, wait_ms: int, count: int) -> None:
        for _ in range(count):
            self.now_ns += wait_ms * MS
            self.last += 1
            self.acks.sent("a", self.last, self.now_ns)
            self.open[self.last] = self.now_ns + 10 * MS
            if len(self.open) > 20:
                oldest = next(iter(sorted(self.late) or self.open))
                del self.open[oldest]
                if oldest in self.late:
                    self.late.discard(oldest)
                else:
                    self.late_in_all += 1

    @rule(back=st.integers(0, 30), state=st.sampled_from([AckState.RECEIVED, AckState.ACTUATED]))
    def acknowledge(self, back: int, state: AckState) -> None:
        seq = max(1, self.last - back)
        taken = self.acks.take("a", seq, state, early=False)
        assert taken is (Taken.EXPECTED if seq in self.open else Taken.KNOWN)
        self.open.pop(seq, None)
        self.late.discard(seq)

    @rule(wait_ms=st.integers(0, 30))
    def expire(self, wait_ms: int) -> None:
        self.now_ns += wait_ms * MS
        fresh = {seq for seq, due_ns in self.open.items() if due_ns <= self.now_ns and seq not in self.late}
        assert self.acks.expire(self.now_ns) == len(fresh)
        self.late |= fresh
        self.late_in_all += len(fresh)

    @rule()
    def write_off(self) -> None:
        assert self.acks.write_off() == len(self.late)
        for seq in self.late:
            del self.open[seq]
        self.late.clear()

    @invariant()
    def agrees(self) -> None:
        assert (self.acks.outstanding, self.acks.overdue, self.acks.overdue_in_all) == (len(self.open), len(self.late), self.late_in_all)


TestAccount = Account.TestCase


def test_an_acknowledgement_may_come_before_the_news_that_its_verdict_was_sent() -> None:
    acks = Acks(10)
    assert acks.take("a", 1, AckState.RECEIVED, early=True) is Taken.KNOWN
    acks.sent("a", 1, 0)
    acks.sent("a", 2, 0)
    assert acks.outstanding == 1
    assert acks.expire(10 * MS) == 1


def test_what_was_acknowledged_before_is_not_awaited_by_its_number_in_another_stream() -> None:
    acks = Acks(10)
    acks.sent("a", 1, 0)
    acks.sent("b", 1, 0)
    assert acks.take("a", 1, AckState.ACTUATED, early=False) is Taken.EXPECTED
    assert acks.outstanding == 1


def test_a_failure_is_heard_once() -> None:
    acks = Acks(10)
    acks.sent("a", 1, 0)
    assert acks.take("a", 1, AckState.RECEIVED, early=False) is Taken.EXPECTED
    assert acks.take("a", 1, AckState.FAILED, early=False) is Taken.FAILED
    assert acks.take("a", 1, AckState.FAILED, early=False) is Taken.KNOWN
    assert acks.outstanding == 0


def test_a_long_list_becomes_overdue_in_pieces() -> None:
    acks = Acks(10)
    for seq in range(1, 1201):
        acks.sent("a", seq, 0)
    assert [acks.expire(S) for _ in range(4)] == [500, 500, 200, 0]


# The controllers' account.


def controllers() -> Controllers:
    return Controllers(["plc", "robot"], present_ms=100, ack_ms=50, now_ns=0)


def names(account: Controllers) -> list[str]:
    return [alarm.name for alarm in account.alarms()]


def test_each_controller_is_awaited_for_itself() -> None:
    account = controllers()
    account.said("plc", 0)
    account.said("robot", 0)
    account.sent("a", 1, 0)
    account.acknowledged("plc", Ack(stream="a", seq=1, state=AckState.RECEIVED), 1, early=False)
    told = account.look(50 * MS)
    assert [(event.name, event.level) for event in told] == [("ack_overdue", EventLevel.ERROR)]
    assert "robot" in told[0].detail
    assert names(account) == ["ack_overdue:robot"]


def test_absence_is_told_once_and_its_end_too() -> None:
    account = Controllers(["plc"], present_ms=100, ack_ms=50, now_ns=0)
    assert account.look(1999 * MS) == [], "it has two seconds to come"
    assert [event.name for event in account.look(2000 * MS)] == ["controller_absent"]
    assert account.look(2500 * MS) == []
    assert names(account) == ["controller_absent:plc"]
    assert [event.name for event in account.said("plc", 3000 * MS)] == ["controller_present"]
    assert account.said("plc", 3001 * MS) == []
    assert account.states()["plc"].present
    assert names(account) == ["controller_absent:plc"], "nobody has acknowledged it"
    assert account.acknowledge_alarms("boss") == ("controller_absent:plc",)
    assert names(account) == []


def test_many_overdue_verdicts_are_one_event_a_second() -> None:
    account = Controllers(["plc"], present_ms=60_000, ack_ms=10, now_ns=0)
    account.said("plc", 0)
    events = []
    for tick in range(1, 301):
        account.sent("a", tick, tick * 10 * MS)
        events += account.look(tick * 10 * MS)
    told = [event for event in events if event.name == "ack_overdue"]
    assert 2 <= len(told) <= 4
    assert "(100 times)" in told[1].detail


def test_acknowledging_the_alarm_writes_off_what_is_overdue() -> None:
    account = Controllers(["plc"], present_ms=60_000, ack_ms=10, now_ns=0)
    account.sent("a", 1, 0)
    account.look(20 * MS)
    assert account.acknowledge_alarms("boss") == ("ack_overdue:plc",)
    account.look(30 * MS)
    assert names(account) == []
    assert account.states()["plc"].outstanding == 0


def test_a_failure_of_a_controller_that_is_not_named_is_an_alarm_with_a_bounded_name() -> None:
    account = controllers()
    for number in range(5):
        account.acknowledged(f"other-{number}", Ack(stream="a", seq=1, state=AckState.FAILED), 1, early=False)
    account.acknowledged("other-9", Ack(stream="a", seq=1, state=AckState.RECEIVED), 1, early=False)
    assert names(account) == ["actuation_failed:other"]


# How often, how much.


@given(times_ms=st.lists(st.integers(0, 400), min_size=1, max_size=200))
def test_a_digest_loses_no_count(times_ms: list[int]) -> None:
    digest, now_ns, told = Digest(), 0, 0
    last: int | None = None
    for step_ms in times_ms:
        now_ns += step_ms * MS
        for event in digest.tell("x", "", EventLevel.INFO, "d", now_ns) + digest.due(now_ns):
            told += 1 if event.detail == "d" else int(event.detail.split("(")[1].split(" ")[0])
            assert last is None or event.at_ns - last >= S
            last = event.at_ns
    for event in digest.due(now_ns + S):
        told += 1 if event.detail == "d" else int(event.detail.split("(")[1].split(" ")[0])
    assert told == len(times_ms)


def test_kinds_of_a_digest_are_bounded() -> None:
    digest = Digest()
    events = [event for number in range(500) for event in digest.tell("x", str(number), EventLevel.INFO, "d", number)]
    assert len(events) <= 65


@given(steps_ms=st.lists(st.integers(0, 50), min_size=1, max_size=300), per_s=st.integers(10, 5000), burst=st.integers(1, 100))
def test_an_allowance_gives_no_more_than_it_has(steps_ms: list[int], per_s: int, burst: int) -> None:
    allowance, now_ns, taken = Allowance(per_s, burst, 0), 0, 0
    for step_ms in steps_ms:
        now_ns += step_ms * MS
        while allowance.take(now_ns):
            taken += 1
        assert taken <= burst + per_s * now_ns / 1e9 + 1e-6
    assert taken >= min(burst, 1)


@given(work_us=st.lists(st.integers(1, 3000), min_size=50, max_size=200))
def test_a_share_is_kept_in_the_long_run(work_us: list[int]) -> None:
    share, now_ns, used_ns = Share(0.1, 5 * MS, 0), 0, 0
    for microseconds in work_us:
        now_ns += share.rest_ns(now_ns)
        assert share.rest_ns(now_ns) <= 1  # a rounding of the last nanosecond
        now_ns += microseconds * 1000
        used_ns += microseconds * 1000
        share.use(microseconds * 1000, now_ns)
    now_ns += share.rest_ns(now_ns)
    assert used_ns <= 5 * MS + 0.1 * now_ns + len(work_us)


def test_a_share_that_was_not_used_is_not_saved_up() -> None:
    share = Share(0.1, 5 * MS, 0)
    share.use(20 * MS, 3600 * S)
    assert share.rest_ns(3600 * S) == pytest.approx(150 * MS, abs=1000)
