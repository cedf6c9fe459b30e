"""The session: states, gaps, boots, silences, announcements, acknowledgements; one rule at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inspector.client.decisions import Cause, Decision, NoticeKind, State, Update
from inspector.client.session import Session
from inspector.client.station import Options
from inspector.contract import wire
from inspector.contract.records import Outcome
from inspector.contract.requests import Acknowledge, AckState, Announce, Done, Hello, Ping, Refusal, Refused, Replay, Replayed, ReplayEnd, Role

MS = 1_000_000


class Line:
    """A session and its clock; the boot is 1000 ms old when the clock starts."""

    def __init__(self, say: SimpleNamespace, *, last_seq: int = 0, live: bool = True, name: str | None = "plc", **options: Any) -> None:
        self.say, self.now_ms = say, 0.0
        self.session = Session(0, name, Options(**options))
        self.told: list[Update] = []
        if live:
            (hello,) = self.session.outgoing(0)
            assert isinstance(hello, Hello)
            self.reply(say.welcome(hello.no, last_seq))
            self.beat(last_seq)
            assert self.session.state is State.LIVE
            self.told.clear()

    @property
    def ns(self) -> int:
        return int(self.now_ms * MS)

    def take(self, *messages: wire.Message) -> None:
        for message in messages:
            self.told += self.session.take(message, self.ns)

    def beat(self, last_seq: int, **changes: Any) -> None:
        self.take(self.say.beat(last_seq, **({"boot_age_ms": 1000.0 + self.now_ms} | changes)))

    def reply(self, *replies: Any) -> None:
        for one in replies:
            self.told += self.session.reply(one, self.ns)

    def after(self, ms: float, beat: int | None = None) -> None:
        """Time goes on; with ``beat`` heartbeats with that number come."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + 20)
            if beat is not None:
                self.beat(beat)
            self.told += self.session.tick(self.ns)

    def asked(self, kind: type) -> list[Any]:
        return [one for one in self.session.outgoing(self.ns) if isinstance(one, kind)]

    def decisions(self) -> list[tuple[str | None, int | None, bool, Cause]]:
        return [(one.part_id, one.part_no, one.passes, one.cause) for one in self.told if isinstance(one, Decision)]

    def notices(self) -> list[NoticeKind]:
        return [one.kind for one in self.told if hasattr(one, "kind")]

    def may_pass(self, part_id: str) -> bool:
        return self.session.may_pass(part_id, self.ns)


def test_a_pass_passes_and_a_reject_does_not(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.verdict(2, outcome=Outcome.REJECT), say.verdict(3, outcome=Outcome.UNINSPECTED))
    assert line.decisions() == [("P1", 1, True, Cause.VERDICT), ("P2", 2, False, Cause.VERDICT), ("P3", 3, False, Cause.VERDICT)]
    assert [line.may_pass(part) for part in ("P1", "P2", "P3", "P4")] == [True, False, False, False]


def test_nothing_passes_before_the_welcome_and_the_first_heartbeat(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    assert line.session.state is State.CONNECTING
    line.beat(0)
    line.take(say.verdict(1))
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 1))
    assert line.session.state is State.SYNCHRONISING
    line.take(say.verdict(2))
    line.beat(2)
    assert line.session.state is State.LIVE
    line.take(say.verdict(3))
    assert [(no, passes) for _, no, passes, _ in line.decisions()] == [(1, False), (2, False), (3, True)]
    assert line.decisions()[0][3] is Cause.UNSYNCHRONISED


def test_hello_is_said_again_until_it_is_answered(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    (first,) = line.asked(Hello)
    assert line.asked(Hello) == []
    line.after(200)
    (second,) = line.asked(Hello)
    line.reply(say.welcome(first.no))
    assert line.session.welcome is None, "the answer to an older hello may tell too small numbers"
    line.reply(say.welcome(second.no))
    assert line.session.welcome is not None


def test_what_was_sent_before_the_welcome_is_no_gap(say: SimpleNamespace) -> None:
    line = Line(say, last_seq=50)
    line.take(say.verdict(51))
    assert line.decisions() == [("P51", 51, True, Cause.VERDICT)]
    assert line.notices() == []


def test_history_is_asked_for_when_wanted(say: SimpleNamespace) -> None:
    line = Line(say, last_seq=50, history=10)
    (replay,) = line.asked(Replay)
    assert (replay.from_seq, replay.to_seq) == (41, 50)
    line.take(say.verdict(51))
    assert line.decisions() == [("P51", 51, True, Cause.VERDICT)], "nothing waits for it"


def test_a_gap_is_asked_for_at_once_and_repaired(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.verdict(4))
    assert line.session.stream_state("top") is State.GAP
    assert line.decisions() == [("P1", 1, True, Cause.VERDICT)], "what comes after the gap waits"
    (replay,) = line.asked(Replay)
    assert (replay.stream, replay.from_seq, replay.to_seq) == ("top", 2, 3)
    line.now_ms = 20
    for seq in (2, 3):
        line.reply(Replayed(no=replay.no, age_ms=20, message=wire.encode(say.verdict(seq))))
    line.reply(ReplayEnd(no=replay.no, stream="top", from_seq=2, to_seq=3, gone_to=0))
    assert [(no, passes) for _, no, passes, _ in line.decisions()] == [(1, True), (2, True), (3, True), (4, True)]
    assert line.notices() == [NoticeKind.GAP, NoticeKind.REPAIRED]
    assert line.session.state is State.LIVE


def test_a_heartbeat_shows_that_the_last_message_was_lost(say: SimpleNamespace) -> None:
    line = Line(say)
    line.beat(1)
    (replay,) = line.asked(Replay)
    line.reply(Replayed(no=replay.no, age_ms=5, message=wire.encode(say.verdict(1))))
    assert line.decisions() == [("P1", 1, True, Cause.VERDICT)]


def test_a_gap_that_is_not_repaired_takes_what_waited_and_what_may_be_in_it(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.verdict(3))
    line.after(80, beat=3)
    assert NoticeKind.LOST in line.notices()
    assert sorted(line.decisions()[1:], key=str) == [("P3", 3, False, Cause.GAP), (None, 2, False, Cause.GAP)]
    assert not line.may_pass("P1"), "it was exposed before: an interval that covers it may be among what is lost"
    line.take(say.verdict(4, part_no=2, part_id="P2", boot_age_ms=1090.0))
    assert not line.may_pass("P2"), "decided is decided"
    line.take(say.verdict(5, boot_age_ms=1100.0))
    assert line.may_pass("P5")


def test_lost_messages_that_were_no_verdicts_cost_no_part(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.event(3))
    line.after(80)
    line.beat(3, opened=1, closed=1)
    assert line.decisions() == [("P1", 1, True, Cause.VERDICT)]


def test_a_replay_that_is_gone_is_given_up_at_once(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.event(11))
    (replay,) = line.asked(Replay)
    line.reply(ReplayEnd(no=replay.no, stream="top", from_seq=1, to_seq=10, gone_to=10))
    assert line.notices() == [NoticeKind.GAP, NoticeKind.LOST]


def test_half_of_it_gone_half_of_it_there(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(5, boot_age_ms=1100.0))
    (replay,) = line.asked(Replay)
    line.reply(
        Replayed(no=replay.no, age_ms=1, message=wire.encode(say.verdict(3))), Replayed(no=replay.no, age_ms=1, message=wire.encode(say.verdict(4)))
    )
    line.reply(ReplayEnd(no=replay.no, stream="top", from_seq=1, to_seq=4, gone_to=2))
    assert line.notices() == [NoticeKind.GAP, NoticeKind.LOST]
    assert not any(passes for _, _, passes, _ in line.decisions())


def test_what_is_not_gone_is_asked_for_at_once(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(100_000))
    (replay,) = line.asked(Replay)
    line.reply(ReplayEnd(no=replay.no, stream="top", from_seq=1, to_seq=34_000, gone_to=34_000))
    (more,) = line.asked(Replay)
    assert (more.from_seq, more.to_seq) == (34_001, 99_999)


def test_a_bounded_replay_is_asked_on(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(5))
    (replay,) = line.asked(Replay)
    line.reply(*(Replayed(no=replay.no, age_ms=1, message=wire.encode(say.verdict(seq))) for seq in (1, 2)))
    line.reply(ReplayEnd(no=replay.no, stream="top", from_seq=1, to_seq=2, gone_to=0))
    (more,) = line.asked(Replay)
    assert (more.from_seq, more.to_seq) == (3, 4)


def test_a_replay_that_is_not_answered_is_asked_for_again(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(2))
    (first,) = line.asked(Replay)
    assert line.asked(Replay) == []
    line.after(20)
    (second,) = line.asked(Replay)
    assert second.no != first.no


def test_replayed_rubbish_is_told(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(2))
    (replay,) = line.asked(Replay)
    line.reply(Replayed(no=replay.no, age_ms=1, message=b'{"type": "no"}'))
    assert line.notices()[-1] is NoticeKind.UNREADABLE


def test_nothing_twice(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.verdict(1), say.verdict(2), say.verdict(1))
    assert len(line.decisions()) == 2


def test_without_heartbeats_nothing_passes_and_hello_is_said_again(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1))
    line.told += line.session.announce("A", 5000, line.ns)
    line.after(140)
    assert NoticeKind.DEAD in line.notices()
    assert line.session.state is State.DEAD
    assert not line.may_pass("P1")
    assert ("A", None, False, Cause.DEAD) in line.decisions(), "what is under way does not pass"
    line.take(say.verdict(2, boot_age_ms=1140.0))
    assert line.decisions()[-1] == ("P2", 2, False, Cause.DEAD)
    (hello,) = line.asked(Hello)
    line.beat(2)
    assert line.session.state is State.CONNECTING
    line.reply(say.welcome(hello.no, 2))
    assert line.session.state is State.SYNCHRONISING
    line.beat(2)
    assert line.session.state is State.LIVE
    line.take(say.verdict(3, boot_age_ms=1140.0))
    assert line.may_pass("P3")


def test_a_hung_inspection_answers_hello_and_is_dead_all_the_same(say: SimpleNamespace) -> None:
    line = Line(say)
    line.after(140)
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 0))
    line.after(500)
    assert line.session.state is State.SYNCHRONISING
    line.take(say.verdict(1, boot_age_ms=1640.0))
    assert not line.may_pass("P1")


def test_a_verdict_that_was_sent_while_no_heartbeat_was(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1, boot_age_ms=1131.0))
    assert line.decisions() == [("P1", 1, False, Cause.DEAD)]


def test_may_pass_does_not_wait_for_a_tick(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1))
    line.now_ms = 131
    assert not line.may_pass("P1")


def test_heartbeats_that_were_read_late_are_no_sign_of_life(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1))
    line.now_ms = 500
    for age_ms in range(1040, 1360, 40):
        line.beat(1, boot_age_ms=float(age_ms))
    assert not line.may_pass("P1"), "the newest was sent 180 ms ago"
    line.beat(1)
    assert line.may_pass("P1")


def test_a_new_boot_ends_everything_under_way(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1))
    line.told += line.session.announce("A", 5000, line.ns)
    line.beat(1, opened=3, pending=2)
    line.take(say.beat(0, boot_id="b2", boot_age_ms=5.0))
    assert NoticeKind.BOOT in line.notices()
    assert not line.may_pass("P1")
    assert line.session.state is State.CONNECTING
    assert ("A", None, False, Cause.BOOT) in line.decisions()
    (run,) = [one for one in line.told if isinstance(one, Decision) and one.to_part_no is not None]
    assert (run.part_no, run.to_part_no, run.cause) == (2, 3, Cause.BOOT)
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 0, boot_id="b2"))
    line.take(say.beat(0, boot_id="b2", boot_age_ms=5.0))
    line.take(say.verdict(1, boot_id="b2", boot_age_ms=6.0))
    assert line.may_pass("P1")
    line.take(say.verdict(9))
    assert not line.may_pass("P9"), "the old boot is over"


def test_a_welcome_of_a_boot_that_is_over_counts_for_nothing(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.beat(0, boot_id="b2"))
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 0, boot_id="b1"))
    assert line.session.state is State.CONNECTING


@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_a_part_in_a_blind_interval_does_not_pass(say: SimpleNamespace, where: str) -> None:
    exposed_ms = {"before": 999.0, "inside": 1005.0, "after": 1011.0}[where]
    line = Line(say)
    line.take(say.blind(1, 1000.0, None), say.blind(2, 1000.0, 1010.0, boot_age_ms=1010.0))
    line.take(say.verdict(3, boot_age_ms=1020.0, age_ms=1020.0 - exposed_ms))
    assert [passes for *_, passes, _ in line.decisions()] == [where != "inside"]


def test_while_it_is_blind_nothing_passes_that_was_exposed_since(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1, boot_age_ms=1001.0))
    line.take(say.blind(2, 1000.0, None), say.verdict(3, boot_age_ms=1012.0), say.verdict(4, boot_age_ms=1012.0, age_ms=20.0))
    assert [(part, cause) for part, _, passes, cause in line.decisions() if not passes] == [("P3", Cause.BLIND)]


def test_an_interval_told_afterwards_takes_a_pass_back(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1, boot_age_ms=1001.0))
    assert line.may_pass("P1")
    line.take(say.blind(2, 980.0, 995.0))
    assert not line.may_pass("P1")


def test_blind_at_the_welcome(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 3, blind=True))
    line.beat(3, blind=True)
    line.take(say.verdict(4))
    assert line.decisions() == [("P4", 4, False, Cause.BLIND)]
    line.take(say.blind(5, 500.0, 1005.0, boot_age_ms=1006.0), say.verdict(6, boot_age_ms=1020.0))
    assert line.may_pass("P6")


def test_a_verdict_after_the_deadline_does_not_pass(say: SimpleNamespace) -> None:
    line = Line(say)
    line.now_ms = 100
    line.beat(0)
    line.take(say.verdict(1, boot_age_ms=1040.0, remaining_ms=50.0), say.verdict(2, boot_age_ms=1040.0, remaining_ms=70.0))
    assert line.decisions() == [("P1", 1, False, Cause.LATE), ("P2", 2, True, Cause.VERDICT)]


def test_an_announced_part_without_a_verdict_does_not_pass(say: SimpleNamespace) -> None:
    line = Line(say)
    line.told += line.session.announce("A", 100, line.ns, timeout_ms=90)
    (request,) = line.asked(Announce)
    assert (request.stream, request.part_id, request.timeout_ms) == ("top", "A", 90)
    line.reply(Done(no=request.no, part_no=1))
    line.after(120, beat=0)
    assert line.decisions() == [("A", 1, False, Cause.NO_VERDICT)]
    line.take(say.verdict(1, part_id="A", boot_age_ms=1120.0))
    assert not line.may_pass("A"), "decided is decided"
    assert len(line.decisions()) == 1


def test_an_announced_part_with_another_number_is_another_part(say: SimpleNamespace) -> None:
    line = Line(say)
    line.told += line.session.announce("A", 1000, line.ns)
    (request,) = line.asked(Announce)
    line.reply(Done(no=request.no, part_no=2))
    line.take(say.verdict(1, part_id="A"))
    assert line.decisions() == [("A", 1, False, Cause.MISMATCH)]


def test_announcing_again_makes_an_id_unknown(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1, part_id="A"))
    assert line.may_pass("A")
    line.told += line.session.announce("A", 1000, line.ns)
    assert not line.may_pass("A")
    with pytest.raises(ValueError, match="announced before"):
        line.session.announce("A", 1000, line.ns)


def test_refused_and_unsent_announcements(say: SimpleNamespace) -> None:
    line = Line(say)
    for part in ("A", "B"):
        line.told += line.session.announce(part, 1000, line.ns)
    first, second = line.asked(Announce)
    line.reply(Refused(no=first.no, code=Refusal.INVALID, detail="no"))
    line.told += line.session.unsent(second, line.ns)
    assert [(part, cause) for part, _, _, cause in line.decisions()] == [("A", Cause.REFUSED), ("B", Cause.REFUSED)]


def test_announcing_while_not_live(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    line.told += line.session.announce("A", 1000, 0, stream="top")
    assert line.decisions() == [("A", None, False, Cause.UNSYNCHRONISED)]
    with pytest.raises(ValueError, match="which stream"):
        line.session.announce("A", 1000, 0)


def test_two_parts_with_one_id(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1, part_id="A"), say.verdict(2, part_id="A"))
    assert line.decisions() == [("A", 1, True, Cause.VERDICT), ("A", 2, False, Cause.DOUBLE)]
    assert not line.may_pass("A")


def test_a_pass_does_not_hold_for_ever(say: SimpleNamespace) -> None:
    line = Line(say, valid_ms=100)
    line.take(say.verdict(1, part_id="A"))
    line.after(120, beat=1)
    assert not line.may_pass("A")
    line.take(say.verdict(2, part_id="A", boot_age_ms=1120.0))
    assert line.may_pass("A"), "an id may come again later"


def test_in_order(say: SimpleNamespace) -> None:
    line = Line(say, in_order=True)
    line.take(say.verdict(1, part_no=2, part_id="B"), say.verdict(2, part_no=3, part_id="C"))
    assert line.decisions() == []
    assert not line.may_pass("B"), "not its turn"
    line.take(say.verdict(3, part_no=1, part_id="A"))
    assert [part for part, *_ in line.decisions()] == ["A", "B", "C"]
    line.take(say.verdict(4, part_no=5, part_id="E"))
    line.after(80, beat=4)
    assert line.decisions()[3:] == [(None, 4, False, Cause.NO_VERDICT), ("E", 5, True, Cause.VERDICT)]
    line.take(say.verdict(5, part_no=4, part_id="D", boot_age_ms=1080.0))
    assert not line.may_pass("D"), "its number was given up"


def test_what_does_not_pass_is_acknowledged(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.verdict(1), say.verdict(2, outcome=Outcome.REJECT))
    (acks,) = line.asked(Acknowledge)
    assert [(ack.seq, ack.state) for ack in acks.acks] == [(2, AckState.RECEIVED)]
    reject = next(one for one in line.told if isinstance(one, Decision) and not one.passes)
    line.session.acknowledge(reject, AckState.FAILED, "the gate is stuck")
    (acks,) = line.asked(Acknowledge)
    assert [(ack.seq, ack.state, ack.detail) for ack in acks.acks] == [(2, AckState.FAILED, "the gate is stuck")]


def test_an_observer_acknowledges_nothing(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    (hello,) = line.asked(Hello)
    line.reply(say.welcome(hello.no, 0, role=Role.OBSERVER))
    line.take(say.verdict(1, outcome=Outcome.REJECT))
    assert line.asked(Acknowledge) == []


def test_signs_of_life_and_a_request_socket_that_is_silent(say: SimpleNamespace) -> None:
    line = Line(say)
    line.after(180, beat=0)
    (ping,) = line.asked(Ping)
    line.reply(Done(no=ping.no))
    line.after(1020, beat=0)
    assert NoticeKind.SILENT in line.notices()
    assert line.session.state is State.CONNECTING


@pytest.mark.parametrize("code", [Refusal.REVOKED, Refusal.NO_HELLO])
def test_a_lost_key_or_a_lost_hello(say: SimpleNamespace, code: Refusal) -> None:
    line = Line(say)
    line.take(say.verdict(1))
    line.reply(Refused(no=77, code=code, detail="no"))
    assert not line.may_pass("P1")
    assert line.session.state is (State.REFUSED if code is Refusal.REVOKED else State.CONNECTING)
    assert len(line.asked(Hello)) == (0 if code is Refusal.REVOKED else 1)
    line.after(1000, beat=1)
    assert len(line.asked(Hello)) == 1
    assert line.notices().count(NoticeKind.REFUSED) == 1


def test_following_only(say: SimpleNamespace) -> None:
    line = Line(say, live=False, name=None)
    line.beat(4)
    line.take(say.verdict(5), say.verdict(8))
    line.after(20)
    assert line.notices() == [NoticeKind.GAP, NoticeKind.LOST]
    assert [(no, passes) for _, no, passes, _ in line.decisions()] == [(5, True), (8, False)]
    assert line.session.outgoing(line.ns) == []
    line.take(say.verdict(3, boot_id="b2"))
    assert line.notices()[2:] == [NoticeKind.BOOT, NoticeKind.GAP], "numbers 1 and 2 of the new boot were missed"


def test_other_stations_and_streams_are_not_followed(say: SimpleNamespace) -> None:
    line = Line(say, streams=("top",))
    line.take(say.verdict(1, stream="side"), say.verdict(1, station="line-2"), say.event(1, stream=""))
    assert line.decisions() == []
    assert len(line.told) == 1


def test_several_streams_must_all_say_so(say: SimpleNamespace) -> None:
    line = Line(say)
    line.take(say.beat(0, stream="side", boot_age_ms=1000.0), say.verdict(1))
    assert line.session.may_pass("P1", line.ns, "top")
    assert not line.may_pass("P1")
    line.take(say.verdict(1, stream="side"))
    assert line.may_pass("P1")


def test_nothing_heard_is_told_once(say: SimpleNamespace) -> None:
    line = Line(say, live=False)
    assert line.session.next_ns() == 0
    line.after(500)
    assert line.notices() == [NoticeKind.DEAD]


def test_the_next_time_is_known(say: SimpleNamespace) -> None:
    line = Line(say)
    line.told += line.session.announce("A", 20, 0)
    line.session.outgoing(0)
    assert line.session.next_ns() == 20 * MS
    line.take(say.verdict(5))
    line.session.outgoing(0)
    assert line.session.next_ns() == 15 * MS, "the replay is asked for again"
