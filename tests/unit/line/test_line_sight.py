"""Nothing passes in a published blind interval, in whatever order the threads tell of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from inspector.contract.records import Blind, Outcome, Proposal, Reason, View
from inspector.line.sight import LineSight


def view(ticket: int, exposure: int, camera: str = "a", *, frame: bool = True) -> View:
    return View(ticket, camera, None, ticket if frame else None, None, None, None, exposure, exposure, exposure + 100)


def passing(ticket: int) -> Proposal:
    return Proposal(ticket, Outcome.PASS)


def judged(sight: LineSight, one: View) -> Outcome | None:
    said = sight.judge(one, passing(one.ticket))
    return None if said is None else said.outcome


def test_a_part_passes_while_the_camera_sees() -> None:
    assert judged(LineSight(), view(1, 10)) is Outcome.PASS


def test_in_an_open_interval_a_pass_waits_for_its_end() -> None:
    sight = LineSight()
    sight.opened(view(1, 10))
    assert sight.told(Blind("a", 10, None, "stalled")).from_ns == 10
    assert sight.blind("a")
    assert not sight.blind("b")
    views = {ticket: view(ticket, exposure) for ticket, exposure in ((1, 10), (2, 15), (3, 20), (4, 25))}
    assert [judged(sight, one) for one in views.values()] == [Outcome.PASS, None, None, None]
    assert judged(sight, view(9, 15, "b")) is Outcome.PASS, "another camera sees"
    assert sight.told(Blind("a", 10, 20, "stalled")).to_ns == 20
    again = [sight.judge(views[one.ticket], one) for one in sight.released("a")]
    assert [one and (one.ticket, one.outcome, one.reason) for one in again] == [
        (2, Outcome.UNINSPECTED, Reason.CAMERA_LOST),
        (3, Outcome.PASS, None),
        (4, Outcome.PASS, None),
    ]
    assert again[0] is not None
    assert "blind" in again[0].detail
    assert sight.released("a") == []


def test_a_defect_stays_found_and_uninspected_stays_so() -> None:
    sight = LineSight()
    sight.told(Blind("a", 10, None, "stalled"))
    for said in (Proposal(1, Outcome.REJECT), Proposal(1, Outcome.UNINSPECTED, Reason.IMAGE_INVALID)):
        assert sight.judge(view(1, 15), said) is said


def test_an_open_interval_begins_after_what_was_seen_and_ends_as_it_began() -> None:
    """The camera process died after it had delivered a frame and before it could say so."""
    sight = LineSight()
    sight.opened(view(1, 30))
    sight.opened(view(2, 60, frame=False))
    assert sight.told(Blind("a", 10, None, "crashed")).from_ns == 30, "a part without an image proves nothing"
    assert judged(sight, view(1, 30)) is Outcome.PASS
    assert msgspec.structs.astuple(sight.told(Blind("a", 10, 50, "crashed")))[1:3] == (30, 50)
    assert not sight.blind("a")


def test_an_interval_told_afterwards_ends_no_open_one() -> None:
    sight = LineSight()
    sight.told(Blind("a", 10, None, "stalled"))
    sight.told(Blind("a", 2, 4, "gap"))
    assert sight.blind("a")
    assert judged(sight, view(1, 3)) is Outcome.UNINSPECTED


def test_what_was_held_is_given_back_when_its_part_closes() -> None:
    sight = LineSight()
    sight.told(Blind("a", 10, None, "stalled"))
    assert judged(sight, view(1, 15)) is None
    held = sight.forget(1)
    assert held is not None
    assert held.ticket == 1
    assert sight.forget(1) is None
    assert sight.released("a") == []


def test_before_forgotten_intervals_nothing_passes() -> None:
    sight = LineSight()
    for number in range(300):
        sight.told(Blind("a", 10 * number, 10 * number + 5, "flapping"))
    assert judged(sight, view(1, 8)) is Outcome.UNINSPECTED, "not blind, but nobody remembers"
    assert judged(sight, view(2, 2998)) is Outcome.PASS
    assert judged(sight, view(3, 2993)) is Outcome.UNINSPECTED


@dataclass
class Told:
    """A camera that stalls and recovers, and a line that hears of it in its own order."""

    sight: LineSight = field(default_factory=LineSight)
    now: int = 100
    open_from: int | None = None
    last_end: int = 0
    views: dict[int, View] = field(default_factory=dict)
    passed: list[View] = field(default_factory=list)
    published: list[Blind] = field(default_factory=list)

    def weigh(self, proposal: Proposal) -> None:
        one = self.views[proposal.ticket]
        said = self.sight.judge(one, proposal)
        if said is not None and said.outcome is Outcome.PASS:
            self.passed.append(one)


@given(st.lists(st.tuples(st.sampled_from(["open", "pass", "blind", "end", "late"]), st.integers(1, 9)), max_size=80))
def test_in_any_order_nothing_passes_in_a_published_interval(steps: list[tuple[str, int]]) -> None:
    told = Told()
    waiting: list[int] = []
    for kind, amount in steps:
        told.now += amount
        if kind == "open":
            ticket = len(told.views) + 1
            told.views[ticket] = view(ticket, told.now - 5)
            told.sight.opened(told.views[ticket])
            waiting.append(ticket)
        elif kind == "late" and told.views:  # kept back, and delivered now
            ticket = len(told.views) + 1
            told.views[ticket] = view(ticket, told.now - 5 * amount)
            told.sight.opened(told.views[ticket])
            waiting.append(ticket)
        elif kind == "pass" and waiting:
            told.weigh(passing(waiting.pop(0)))
        elif kind == "blind" and told.open_from is None:
            told.open_from = max(told.now - 4 * amount, told.last_end)
            told.published.append(told.sight.told(Blind("a", told.open_from, None, "")))
        elif kind == "end" and told.open_from is not None:
            told.last_end = max(told.now, told.open_from)
            told.published.append(told.sight.told(Blind("a", told.open_from, told.last_end, "")))
            told.open_from = None
            for proposal in told.sight.released("a"):
                told.weigh(proposal)
    ends: dict[int, int | None] = {}
    for blind in told.published:
        ends[blind.from_ns] = blind.to_ns
    for one in told.passed:
        inside = [(begin, end) for begin, end in ends.items() if begin < one.exposure_ns and (end is None or one.exposure_ns < end)]
        assert not inside, f"passed at {one.exposure_ns} in {inside}"


def test_what_was_kept_back_without_a_time_of_its_own_does_not_pass() -> None:
    """Such frames carry the time of the newest one before the freeze, at which the published interval begins."""
    sight = LineSight()
    sight.opened(view(1, 30))
    published = sight.told(Blind("a", 20, None, "frozen"))
    assert published.from_ns == 30
    assert judged(sight, view(1, 30)) is Outcome.PASS, "the newest frame itself was seen"
    kept_back = view(2, 30)
    sight.opened(kept_back)
    assert judged(sight, kept_back) is None, "it waits for the end"
    sight.told(Blind("a", 20, 90, "frozen"))
    assert judged(sight, kept_back) is Outcome.UNINSPECTED
    assert judged(sight, view(1, 30)) is Outcome.PASS
    assert judged(sight, view(3, 90)) is Outcome.PASS
