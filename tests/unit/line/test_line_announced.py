from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from inspector.contract.records import Event, LateResult, Outcome, Proposal, Reason, View
from inspector.contract.requests import Announce, Expectation
from inspector.line.ledger import Ledger
from inspector.line.parts import Closing, Item, Opened
from inspector.line.settings import Announcing
from inspector.line.streams import Streams

MS = 1_000_000
DEADLINE = 200 * MS
WINDOW = 20 * MS


class Line:
    """A ledger with its caller: times in ms, what was opened, closed and told."""

    def __init__(self, modes: Mapping[str, str] | None = None, by: Any = "time", group: tuple[str, ...] = (), limit: int = 100) -> None:
        modes = modes or {"a": "announced"}
        self.ledger = Ledger(Streams(list(modes), group), Announcing(modes, by, DEADLINE, WINDOW, 50, 1000 * MS, limit, limit))
        self.tickets = count(1)
        self.numbers = count(1)
        self.opened: list[Opened] = []
        self.closed: list[Closing] = []
        self.events: list[Event] = []
        self.late: list[LateResult] = []

    def take(self, items: list[Item] | list[Closing]) -> None:
        for item in items:
            if isinstance(item, Opened):
                self.opened.append(item)
            elif isinstance(item, Closing):
                self.closed.append(item)
            elif isinstance(item, Event):
                self.events.append(item)
            else:
                self.late.append(item)

    def announce(self, part_id: str, at: float, *expect: Expectation, stream: str = "a", timeout: float | None = None) -> None:
        request = Announce(no=next(self.numbers), stream=stream, part_id=part_id, expect=expect, timeout_ms=timeout)
        self.take(self.ledger.announce(request, int(at * MS), int(at * MS)))

    def frame(
        self,
        at: float,
        camera: str = "a",
        encoder: int | None = None,
        trigger: int | None = None,
        part_id: str | None = None,
        *,
        seen: float | None = None,
        reason: Reason | None = None,
        lost: bool = False,
    ) -> int:
        """Exposed at ``at``, opened at ``seen``."""
        ticket = next(self.tickets)
        exposure_ns, now_ns = int(at * MS), int((at if seen is None else seen) * MS)
        number = None if lost else ticket
        view = View(ticket, camera, part_id, number, number, encoder, trigger, exposure_ns, now_ns, exposure_ns + DEADLINE, reason)
        self.take(self.ledger.open(view, now_ns))
        return ticket

    def say(self, ticket: int, at: float, outcome: Outcome = Outcome.PASS) -> None:
        self.take(self.ledger.propose(Proposal(ticket, outcome, Reason.ENGINE_ERROR if outcome is Outcome.UNINSPECTED else None), int(at * MS)))

    def pass_time(self, at: float) -> None:
        for proposal in self.ledger.released(int(at * MS)):
            self.take(self.ledger.propose(proposal, int(at * MS)))
        self.take(self.ledger.expire(int(at * MS)))

    @property
    def ended(self) -> list[tuple[str | None, Outcome, Reason | None]]:
        return [(one.part_id, one.outcome, one.reason) for one in self.closed]

    @property
    def told(self) -> list[str]:
        return [one.name for one in self.events]


PASS, REJECT, UNINSPECTED = Outcome.PASS, Outcome.REJECT, Outcome.UNINSPECTED


def expected(in_ms: float | None = None, encoder: int | None = None, trigger: int | None = None, camera: str | None = None) -> Expectation:
    return Expectation(camera=camera, in_ms=in_ms, encoder=encoder, trigger_counter=trigger)


def test_an_announced_part_is_opened_at_once_and_ends_as_no_frame_at_its_deadline() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    assert [(one.part_no, one.part_id, one.exposure_ns) for one in line.opened] == [(1, "p", 0)]
    assert line.ledger.next_deadline_ns() == (500 + 20 + 200) * MS
    line.pass_time(719.9)
    assert not line.closed
    line.pass_time(720)
    assert line.ended == [("p", UNINSPECTED, Reason.NO_FRAME)]
    assert line.closed[0].views == ()
    assert "camera a: no image came" in line.closed[0].detail


def test_a_frame_in_the_window_is_the_announced_part() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    ticket = line.frame(512, seen=514)
    assert len(line.opened) == 1
    assert line.ledger.next_deadline_ns() == 712 * MS, "exposure and the product's deadline, which is earlier"
    line.say(ticket, 560)
    (closing,) = line.closed
    assert (closing.part_id, closing.outcome, closing.views[0].view.part_id) == ("p", PASS, "p")


def test_a_pass_waits_until_no_second_frame_can_come_and_a_reject_does_not() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.announce("q", 0, expected(600))
    line.say(line.frame(495, seen=497), 510)
    assert line.closed == []
    assert line.ledger.next_deadline_ns() == 522 * MS, "the window's end, and what a frame takes"
    line.pass_time(521)
    assert line.closed == []
    line.pass_time(522)
    line.say(line.frame(600), 601, REJECT)
    assert line.ended == [("p", PASS, None), ("q", REJECT, None)]


def test_a_proposal_that_is_held_counts_once() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    ticket = line.frame(495)
    line.say(ticket, 500)
    line.say(ticket, 501, REJECT)
    assert len(line.late) == 1
    line.pass_time(530)
    assert line.ended == [("p", PASS, None)]


def test_a_pass_that_is_still_held_at_the_deadline_is_late() -> None:
    line = Line()
    line.announce("p", 0, expected(500), timeout=525)
    line.say(line.frame(495, seen=510), 512)
    line.pass_time(525)
    assert line.ended == [("p", UNINSPECTED, Reason.LATE)]
    assert line.ledger.next_deadline_ns() is None


@pytest.mark.parametrize("spoken", [None, PASS, REJECT])
def test_a_second_frame_in_the_window_takes_the_verdict_from_the_part(spoken: Outcome | None) -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    first = line.frame(495)
    if spoken is not None:
        line.say(first, 500, spoken)
    second = line.frame(505)
    line.say(second, 530)
    if spoken is REJECT:
        assert line.ended == [("p", REJECT, None), (None, PASS, None)]
        return
    assert line.ended == [("p", UNINSPECTED, Reason.NO_FRAME), (None, PASS, None)]
    assert "frame 2 fits it too" in line.closed[0].detail
    if spoken is None:
        line.say(first, 531)
        assert [one.part_no for one in line.late] == [1]


def test_a_frame_that_two_announcements_fit_is_neither() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.announce("q", 0, expected(530))
    line.say(line.frame(515), 516)
    line.say(line.frame(535), 536)
    line.pass_time(800)
    assert [one for one in line.ended if one[0] is None] == [(None, PASS, None)] * 2
    assert [one for one in line.ended if one[0]] == [("p", UNINSPECTED, Reason.NO_FRAME), ("q", UNINSPECTED, Reason.NO_FRAME)]
    assert "2 announcements fit it (p, q)" in line.events[0].detail


def test_every_value_must_agree() -> None:
    for frame in ({"encoder": 1100, "trigger": 7}, {"encoder": 1000, "trigger": 8}, {"trigger": 7}, {"encoder": 1000}):
        line = Line()
        line.announce("p", 0, expected(500, 1000, 7))
        line.frame(500, **frame)  # type: ignore[arg-type]
        assert [one.part_id for one in line.opened] == ["p", None]
        assert line.told == ["unannounced_part", "announcements_in_doubt"]
    line = Line()
    line.announce("p", 0, expected(500, 1000, 7))
    line.say(line.frame(500, encoder=1050, trigger=7), 550)
    assert line.ended == [("p", PASS, None)]


def test_a_part_that_was_removed_puts_those_under_way_in_doubt_and_those_announced_afterwards_not() -> None:
    line = Line()
    for number in range(4):
        line.announce(f"p{number}", 0, expected(100 * number + 100))
    line.say(line.frame(100), 150)
    line.say(line.frame(300), 350)  # p1 was taken away
    line.announce("p4", 360, expected(140))
    line.say(line.frame(400), 450)
    line.say(line.frame(500), 550)
    line.pass_time(1000)
    assert sorted(line.ended, key=str) == sorted(
        [
            ("p0", PASS, None),
            ("p4", PASS, None),
            (None, PASS, None),
            (None, PASS, None),
            *((f"p{n}", UNINSPECTED, Reason.NO_FRAME) for n in (1, 2, 3)),
        ],
        key=str,
    )
    assert line.told == ["announcements_in_doubt", "unannounced_part", "unannounced_part"]
    assert "part p2 came, part p1 before it did not" in line.events[0].detail
    assert all("part p1 before it did not" in one.detail for one in line.closed if one.part_id in {"p1", "p2", "p3"})


def test_a_frame_nobody_announced_puts_those_under_way_in_doubt() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.say(line.frame(250), 251)
    line.say(line.frame(500), 501)
    line.pass_time(720)
    assert line.ended == [(None, PASS, None), (None, PASS, None), ("p", UNINSPECTED, Reason.NO_FRAME)]


def test_a_part_that_did_not_come_by_its_deadline_puts_those_under_way_in_doubt() -> None:
    line = Line(by="encoder")
    line.announce("p", 0, expected(None, 1000))
    line.announce("q", 500, expected(None, 2000))
    line.pass_time(1000)
    line.frame(1100, encoder=2000)
    line.pass_time(3000)
    assert line.ended == [("p", UNINSPECTED, Reason.NO_FRAME), (None, UNINSPECTED, Reason.LATE), ("q", UNINSPECTED, Reason.NO_FRAME)]


def test_an_announcement_that_comes_after_its_frame_is_refused() -> None:
    line = Line()
    line.frame(100, encoder=1000)
    with pytest.raises(ValueError, match="frame 1 of camera a may be it and came before it was announced"):
        line.announce("p", 110, expected(0))
    line.announce("p", 130, expected(0))
    assert len(line.opened) == 2
    line = Line(by="encoder")
    line.frame(100, encoder=1000)
    with pytest.raises(ValueError, match="came before"):
        line.announce("p", 300, expected(None, 1020))
    with pytest.raises(ValueError, match="came before"):
        line.announce("p", 300, expected(200, 1020))  # it was long on its way: its time is wrong, its encoder value is not
    line.announce("q", 1200, expected(None, 1020))


def test_a_frame_that_is_on_its_way_when_its_announcement_comes_is_matched() -> None:
    line = Line()
    line.announce("p", 105, expected(0))
    line.say(line.frame(100, seen=110), 160)
    assert line.ended == [("p", PASS, None)]


def test_a_lost_frame_is_the_next_part_that_is_to_come() -> None:
    line = Line()
    for number in range(3):
        line.announce(f"p{number}", 0, expected(100 * number + 100))
    line.say(line.frame(100), 150)
    line.frame(200, seen=301, reason=Reason.INCOMPLETE, lost=True)
    line.say(line.frame(300, seen=301), 350)
    assert line.ended == [("p0", PASS, None), ("p1", UNINSPECTED, Reason.INCOMPLETE), ("p2", PASS, None)]
    assert line.told == []


def test_a_lost_frame_that_cannot_be_announced_is_a_part_of_its_own() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.frame(200, seen=301, reason=Reason.NO_FRAME, lost=True)
    assert line.ended == [(None, UNINSPECTED, Reason.NO_FRAME)]
    assert line.told == ["unannounced_part", "announcements_in_doubt"]


def test_a_frame_without_a_usable_image_ends_its_announced_part_at_once() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.frame(500, reason=Reason.OVERRUN)
    assert line.ended == [("p", UNINSPECTED, Reason.OVERRUN)]


def test_cameras_of_a_group_match_each_for_itself() -> None:
    line = Line({"a": "announced", "b": "announced"}, group=("a", "b"))
    line.announce("p", 0, expected(500, camera="a"), expected(700, camera="b"), stream="a+b")
    first = line.frame(500, "a")
    line.say(first, 550)
    assert line.closed == []
    line.pass_time(600)
    assert line.ledger.next_deadline_ns() == 700 * MS
    second = line.frame(690, "b")
    line.say(second, 699, REJECT)
    assert line.ended == [("p", REJECT, None)]
    assert [one.outcome for one in line.closed[0].views] == [PASS, REJECT]


def test_a_doubled_view_of_a_group_is_not_believed() -> None:
    line = Line({"a": "announced", "b": "announced"}, group=("a", "b"))
    line.announce("p", 0, expected(500, camera="a"), expected(520, camera="b"), stream="a+b")
    line.say(line.frame(500, "a"), 501, REJECT)
    line.say(line.frame(520, "b"), 521)
    line.frame(510, "a", seen=522)
    line.pass_time(545)
    assert line.ended == [("p", UNINSPECTED, Reason.NO_FRAME)]


def test_a_camera_that_latches_the_id_beside_one_that_does_not() -> None:
    line = Line({"a": "encoder", "b": "announced"}, group=("a", "b"))
    line.announce("77", 0, expected(520, camera="b"), stream="a+b")
    line.say(line.frame(500, "a", part_id="77"), 501)
    line.say(line.frame(520, "b"), 545)
    assert line.ended == [("77", PASS, None)]


@pytest.mark.parametrize("mode", ["trigger_counter", "encoder"])
def test_where_the_camera_latches_the_id_its_view_joins_the_announced_part(mode: str) -> None:
    line = Line({"a": mode})
    line.announce("7", 0)
    assert line.ledger.next_deadline_ns() == 1000 * MS
    line.say(line.frame(300, part_id="6"), 301)
    line.say(line.frame(400, part_id="7"), 401)
    line.announce("8", 450, timeout=100)
    line.pass_time(550)
    assert line.ended == [("6", PASS, None), ("7", PASS, None), ("8", UNINSPECTED, Reason.NO_FRAME)]
    assert [one.part_no for one in line.opened] == [1, 2, 3]


def test_an_announced_id_has_one_verdict_even_if_the_camera_latches_it_again() -> None:
    line = Line({"a": "trigger_counter"})
    line.announce("7", 0, timeout=100)
    line.pass_time(100)
    late = line.frame(90, part_id="7", seen=110)
    line.say(late, 120)
    assert [one.part_no for one in line.late] == [1], "exposed before the deadline: evidence"
    line.say(line.frame(500, part_id="7"), 510)
    line.announce("8", 600)
    line.say(line.frame(700, part_id="8"), 701)
    line.say(line.frame(800, part_id="8"), 801)
    assert line.ended == [("7", UNINSPECTED, Reason.NO_FRAME), (None, PASS, None), ("8", PASS, None), (None, PASS, None)]
    assert line.told == ["repeated_part_id"] * 2


REFUSED = {
    "unknown stream": ("has none of this name, but a", {"stream": "x"}, [expected(500)]),
    "no expectation": ("an expectation for camera a is missing", {}, []),
    "unknown camera": ("has no camera 'x', but a", {}, [expected(500, camera="x")]),
    "twice": ("two expectations for camera a", {}, [expected(500), expected(500, camera="a")]),
    "order alone": ("in_ms is missing for camera a", {}, [expected(None, None, 7)]),
    "nothing": ("in_ms is missing for camera a", {}, [Expectation()]),
    "wide window": ("must be less than half", {}, [Expectation(in_ms=500, window_ms=100)]),
    "early timeout": ("is over before the part is expected", {"timeout": 510}, [expected(500)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_and_opens_nothing(case: str) -> None:
    sentence, options, expect = REFUSED[case]
    line = Line()
    with pytest.raises(ValueError, match=sentence):
        line.announce("p", 0, *expect, **options)  # type: ignore[arg-type]
    assert line.ledger.count("a").opened == 0


@pytest.mark.parametrize(
    ("by", "expect", "missing"),
    [
        ("time_and_encoder", expected(500), "encoder"),
        ("time_and_encoder", expected(None, 1000, 7), "in_ms"),
        ("time", expected(None, 1000), "in_ms"),
        ("encoder", expected(500), "encoder"),
    ],
)
def test_what_the_station_matches_by_must_be_announced(by: str, expect: Expectation, missing: str) -> None:
    line = Line(by=by)
    with pytest.raises(ValueError, match=f"part 'p': {missing} is missing for camera a: the station matches parts by"):
        line.announce("p", 0, expect)
    line.announce("p", 0, expected(500, 1000))


def test_what_the_identity_of_the_cameras_does_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match="by frame id only"):
        Line({"a": "frame"}).announce("p", 0)
    with pytest.raises(ValueError, match="by frame id only"):
        Line({"a": "announced", "b": "frame"}, group=("a", "b")).announce("p", 0, expected(1, camera="a"), stream="a+b")
    with pytest.raises(ValueError, match=r"latches the part id \(its encoder\)"):
        Line({"a": "encoder"}).announce("p", 0, expected(500))
    with pytest.raises(ValueError, match="name one in each expectation"):
        Line({"a": "announced", "b": "announced"}, group=("a", "b")).announce("p", 0, expected(500), expected(500), stream="a+b")
    with pytest.raises(ValueError, match="by frame id only"):
        Ledger(Streams(["a"])).announce(Announce(no=1, stream="a", part_id="p"), 0, 0)


def test_a_part_id_is_used_once() -> None:
    line = Line({"a": "encoder", "b": "encoder"})
    line.announce("7", 0)
    with pytest.raises(ValueError, match="is open already"):
        line.announce("7", 1)
    line.announce("7", 1, stream="b")
    line.say(line.frame(10, part_id="7"), 11)
    with pytest.raises(ValueError, match="was there before"):
        line.announce("7", 20)
    line.frame(30, part_id="8")
    with pytest.raises(ValueError, match="is open already"):
        line.announce("8", 31)


def test_announcements_are_bounded() -> None:
    line = Line({"a": "encoder"}, limit=3)
    for number in range(3):
        line.announce(str(number), 0)
    with pytest.raises(ValueError, match="3 parts of stream 'a' are open, which is the limit"):
        line.announce("3", 0)


def test_stopping_ends_what_was_announced() -> None:
    line = Line()
    line.announce("p", 0, expected(500))
    line.announce("q", 0, expected(600))
    line.frame(500)
    line.take(line.ledger.close_all(Reason.SHUTDOWN, 510 * MS))
    assert line.ended == [("p", UNINSPECTED, Reason.SHUTDOWN), ("q", UNINSPECTED, Reason.SHUTDOWN)]
    books = line.ledger.count("a")
    assert (books.opened, books.closed, books.pending) == (2, 2, 0)
