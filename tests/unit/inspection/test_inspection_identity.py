from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.config.station import IdentityRules
from inspector.contract.channel import CameraState, FrameRecord, StatusRecord
from inspector.contract.records import Blind, Event, Reason, View
from inspector.inspection.counters import FrameIds
from inspector.inspection.identity import FrameTracker
from inspector.inspection.views import Seen

MS = 1_000_000
DEADLINE = 100 * MS
START = 10_000 * MS


def frame(
    frame_id: int,
    at_ms: float,
    *,
    trigger: int | None = None,
    incomplete: int = 0,
    camera_ms: float | None = None,
    transfer_ms: float = 3,
    encoder: int | None = None,
) -> FrameRecord:
    exposure = START + int(at_ms * MS)
    camera_ns = exposure - START + 5_000 * MS if camera_ms is None else int(camera_ms * MS)
    return FrameRecord(
        slot=0,
        frame_id=frame_id,
        camera_ns=camera_ns,
        received_ns=exposure + int(transfer_ms * MS),
        exposure_ns=exposure,
        width_px=4,
        height_px=4,
        stride_bytes=4,
        pixel_format="Mono8",
        size_bytes=16,
        encoder=encoder,
        trigger_counter=trigger,
        line_status=None,
        incomplete_before=incomplete,
    )


def status(at_ms: float, triggers: int | None = None, incomplete: int = 0) -> StatusRecord:
    return StatusRecord(CameraState.STREAMING, START + int(at_ms * MS), triggers, incomplete, 0)


@dataclass
class Watched:
    """A tracker and all that it has said."""

    rules: IdentityRules = field(default_factory=IdentityRules)
    views: list[View] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    blinds: list[Blind] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracker = FrameTracker("cam", self.rules, DEADLINE, count(1))

    def take(self, seen: Seen) -> View | None:
        self.views += [*seen.lost, *([seen.view] if seen.view else [])]
        self.events += seen.events
        self.blinds += seen.blinds
        return seen.view

    def frame(self, record: FrameRecord) -> View | None:
        return self.take(self.tracker.frame(record, record.received_ns))

    def status(self, record: StatusRecord) -> None:
        self.take(self.tracker.status(record))

    def expire(self, at_ms: float) -> None:
        self.take(self.tracker.expire(START + int(at_ms * MS)))

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def reasons(self) -> list[Reason | None]:
        return [view.reason for view in self.views]


@pytest.mark.parametrize(
    ("bits", "first", "last", "frame_id", "step"),
    [
        (16, 0, 65535, 0, 1),
        (16, 1, 65535, 1, 1),
        (16, 1, 65534, 1, 2),
        (16, 0, 3, 65534, -5),
        (16, 1, 7, 0, -7),
        (32, 1, (1 << 32) - 1, 1, 1),
        (64, 0, 5, 2, -3),
        (64, 0, 5, 90_000, 89_995),
    ],
)
def test_steps_of_a_wrapping_counter(bits: int, first: int, last: int, frame_id: int, step: int) -> None:
    assert FrameIds(bits, first).step(last, frame_id) == step


@pytest.mark.parametrize("first", [0, 1])
def test_a_wrap_is_no_gap_and_frame_no_goes_on(first: Literal[0, 1]) -> None:
    watched = Watched(IdentityRules(frame_id_bits=16, frame_id_first_after_wrap=first))
    ids = [65534, 65535, first, first + 1]
    for index, number in enumerate(ids):
        watched.frame(frame(number, 10 * index))
    assert watched.reasons == [None] * 4
    assert [view.frame_no for view in watched.views] == [65534, 65535, 65536, 65537]
    assert watched.events == []


def test_a_gap_opens_that_many_parts_the_damaged_ones_first() -> None:
    watched = Watched()
    watched.frame(frame(1, 0))
    watched.frame(frame(5, 40, incomplete=2))
    assert watched.reasons == [None, Reason.INCOMPLETE, Reason.INCOMPLETE, Reason.NO_FRAME, None]
    exposures = [(view.exposure_ns - watched.views[0].exposure_ns) / MS for view in watched.views]
    assert exposures == [0, 10, 20, 30, 40]


def test_a_gap_above_max_gap_is_blind() -> None:
    watched = Watched(IdentityRules(max_gap=3))
    watched.frame(frame(1, 0))
    watched.frame(frame(6, 50))
    assert watched.reasons == [None, None]
    (blind,) = watched.blinds
    assert (blind.from_ns, blind.to_ns) == (watched.views[0].exposure_ns, watched.views[1].exposure_ns)
    assert watched.frame(frame(4, 30)) is None
    assert watched.names == ["gap", "late_frame"]


@pytest.mark.parametrize("latched", [False, True])
def test_a_jump_of_a_broken_counter_is_one_blind_interval_at_once(latched: bool) -> None:
    jump = 1 << 40
    watched = Watched(IdentityRules(frame_id_bits=64, part_id="trigger_counter" if latched else "frame"))
    watched.frame(frame(1, 0, trigger=1 if latched else None))
    watched.frame(frame(1 + jump, 10, trigger=1 + jump if latched else None, incomplete=3))
    watched.frame(frame(3 + jump, 30, trigger=3 + jump if latched else None))
    assert watched.reasons == [None, None, Reason.NO_FRAME, None], "what was damaged lies in the blind interval"
    assert len(watched.blinds) == 1
    assert watched.names == ["gap"]


@pytest.mark.parametrize("latched", [False, True])
def test_a_jump_of_the_count_of_triggers_is_one_blind_interval_at_once(latched: bool) -> None:
    watched = Watched(IdentityRules(frame_id_bits=64, part_id="trigger_counter" if latched else "frame"))
    watched.status(status(-5, triggers=0))
    watched.frame(frame(1, 0, trigger=1 if latched else None))
    watched.status(status(5, triggers=1 + (1 << 40)))
    watched.expire(5000)
    assert watched.reasons == [None]
    assert len(watched.blinds) == 1
    assert watched.names == ["gap"]


def test_a_line_that_stands_still_gives_its_encoder_value_to_one_part() -> None:
    watched = Watched(IdentityRules(part_id="encoder"))
    for index, encoder in enumerate([40, 40, 40, 41]):
        watched.frame(frame(1 + index, 10 * index, encoder=encoder))
    assert [view.part_id for view in watched.views] == ["40", None, None, "41"]
    assert [view.encoder for view in watched.views] == [40, 40, 40, 41]
    assert watched.names == ["repeated_encoder", "repeated_encoder"]
    watched.tracker.restart(0)
    watched.frame(frame(1, 1000, encoder=41))
    assert watched.views[-1].part_id is None, "the camera process is another one, the part may be the same"


def test_a_line_that_runs_backwards_gives_no_encoder_value_to_a_second_part() -> None:
    watched = Watched(IdentityRules(part_id="encoder"))
    for index, encoder in enumerate([40, 41, 42, 41, 40, 43]):
        watched.frame(frame(1 + index, 10 * index, encoder=encoder))
    assert [view.part_id for view in watched.views] == ["40", "41", "42", None, None, "43"]
    assert watched.reasons == [None] * 6, "the images are inspected, their verdicts are nobody's"
    for index in range(66_000):
        watched.frame(frame(7 + index, 100 + index, encoder=1000 + index))
    assert watched.frame(frame(70_000, 70_000, encoder=42)) is not None
    assert watched.views[-1].part_id == "42", "the memory is bounded"


def test_the_same_exposure_twice_is_one_part() -> None:
    watched = Watched()
    watched.frame(frame(1, 0))
    assert watched.frame(frame(1, 0, transfer_ms=5)) is None
    watched.frame(frame(2, 10))
    assert watched.frame(frame(1, 0, transfer_ms=15)) is None
    assert len(watched.views) == 2
    assert watched.names == ["duplicate_frame", "duplicate_frame"]


def test_a_new_exposure_with_an_old_id_is_a_new_part() -> None:
    watched = Watched()
    watched.frame(frame(1, 0))
    assert watched.frame(frame(1, 10)) is not None
    assert watched.names == ["repeated_number"]
    watched = Watched()
    watched.frame(frame(1, 0, camera_ms=0))
    assert watched.frame(frame(1, 10, camera_ms=0)) is not None, "without a clock nothing tells them apart: no part may be lost"


def test_a_frame_that_comes_after_its_gap_is_evidence_only() -> None:
    watched = Watched()
    watched.frame(frame(1, 0))
    watched.frame(frame(3, 20))
    assert watched.frame(frame(2, 10, transfer_ms=15)) is None
    watched.frame(frame(4, 30))
    assert watched.reasons == [None, Reason.NO_FRAME, None, None]
    assert watched.names == ["late_frame"]


def test_ids_that_begin_anew_are_blind_in_between() -> None:
    watched = Watched()
    watched.frame(frame(500, 0))
    watched.frame(frame(1, 10))
    watched.frame(frame(2, 20))
    assert watched.reasons == [None, None, None]
    assert [view.frame_no for view in watched.views] == [500, 501, 502]
    (blind,) = watched.blinds
    assert (blind.from_ns, blind.to_ns) == (watched.views[0].exposure_ns, watched.views[1].exposure_ns)
    assert watched.names == ["frame_number_reset", "gap"]


def test_a_camera_that_begins_anew_with_its_clock_is_not_taken_for_late() -> None:
    watched = Watched()
    for index in range(5):
        watched.frame(frame(10 + 2 * index, 10 * index))  # 11, 13, ... are known to be lost
    assert watched.frame(frame(11, 60, camera_ms=1)) is not None
    assert watched.frame(frame(12, 70, camera_ms=11)) is not None
    assert "frame_number_reset" in watched.names


def test_the_latched_trigger_counter_is_the_truth() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.frame(frame(10, 0, trigger=7))
    watched.frame(frame(11, 20, trigger=9))
    assert [view.part_id for view in watched.views] == ["7", "8", "9"]
    assert watched.reasons == [None, Reason.NO_FRAME, None]
    assert watched.names == ["frame_id_mismatch"]
    watched.frame(frame(1, 30, trigger=10))
    assert watched.reasons[-1] is None
    assert watched.blinds == []


def test_a_second_exposure_of_one_trigger_is_nobodys_part() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.frame(frame(10, 0, trigger=7))
    second = watched.frame(frame(11, 5, trigger=7))
    assert second is not None
    assert second.part_id is None


@pytest.mark.parametrize("part_id", ["trigger_counter", "encoder"])
def test_a_frame_without_its_counter_is_a_damaged_one(part_id: Literal["trigger_counter", "encoder"]) -> None:
    watched = Watched(IdentityRules(part_id=part_id))
    watched.frame(frame(10, 0, trigger=7, encoder=7))
    assert watched.frame(frame(11, 10)) is None
    watched.frame(frame(12, 20, trigger=9, encoder=9))
    assert [view.part_id for view in watched.views] == ["7", "8" if part_id == "trigger_counter" else None, "9"]
    assert [view.trigger_counter for view in watched.views] == [7, 8, 9]
    assert watched.reasons == [None, Reason.INCOMPLETE, None]
    assert watched.names == ["no_trigger_counter"]


def test_the_first_frame_after_a_restart_may_lack_its_counter() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.frame(frame(10, 0, trigger=7))
    watched.tracker.restart(START + 10 * MS)
    assert watched.frame(frame(1, 100)) is None
    watched.frame(frame(2, 110, trigger=18))
    assert [view.part_id for view in watched.views] == ["7", "17", "18"]
    assert watched.reasons == [None, Reason.INCOMPLETE, None]


def test_a_frame_without_its_counter_takes_nobodys_number_whatever_its_frame_id_says() -> None:
    """Overtaken, or the second exposure of one trigger: no gap in the counter is its own."""
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.frame(frame(10, 0, trigger=7))
    watched.frame(frame(12, 20, trigger=9))
    assert watched.frame(frame(11, 10)) is None
    assert watched.frame(frame(15, 23)) is None
    watched.frame(frame(13, 30, trigger=10))
    watched.frame(frame(14, 40, trigger=11))
    assert [view.part_id for view in watched.views] == ["7", "8", "9", "10", "11"]
    assert watched.reasons == [None, Reason.NO_FRAME, None, None, None]
    assert watched.blinds == []
    assert "incomplete_unplaced" in watched.names


def test_the_encoder_can_be_the_parts_id() -> None:
    watched = Watched(IdentityRules(part_id="encoder"))
    view = watched.frame(frame(10, 0, trigger=7, encoder=4711))
    assert view is not None
    assert view.part_id == "4711"


def test_a_counted_trigger_without_a_frame_is_given_up_at_its_deadline() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.status(status(0, triggers=0))
    watched.frame(frame(1, 10, trigger=1))
    watched.status(status(20, triggers=2))
    assert watched.tracker.due_ns() == START + 20 * MS + DEADLINE
    watched.expire(119)
    assert len(watched.views) == 1
    watched.expire(120)
    assert [(view.part_id, view.reason) for view in watched.views] == [("1", None), ("2", Reason.NO_FRAME)]
    assert watched.tracker.due_ns() is None
    assert watched.frame(frame(2, 19, trigger=2, transfer_ms=110)) is None
    assert watched.frame(frame(3, 140, trigger=3)) is not None
    assert len(watched.views) == 3


def test_without_a_latched_counter_the_count_alone_tells_of_the_tail() -> None:
    watched = Watched()
    watched.status(status(0, triggers=100))
    watched.frame(frame(1, 10))
    watched.status(status(20, triggers=102))
    watched.expire(120)
    assert watched.reasons == [None, Reason.NO_FRAME]
    watched.frame(frame(3, 130))  # its id counts the lost one too: no second part for it
    assert watched.reasons == [None, Reason.NO_FRAME, None]
    watched.status(status(150, triggers=103))
    watched.expire(500)
    assert len(watched.views) == 3


def test_the_lost_frame_of_the_count_may_still_come() -> None:
    watched = Watched()
    watched.status(status(0, triggers=0))
    watched.frame(frame(1, 10))
    watched.status(status(20, triggers=2))
    watched.expire(120)
    assert watched.frame(frame(2, 18, transfer_ms=110)) is None
    assert watched.frame(frame(3, 140)) is not None
    assert watched.reasons == [None, Reason.NO_FRAME, None]


def test_triggers_counted_before_the_first_status_are_blind_not_lost() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.status(status(0, triggers=50))
    watched.frame(frame(1, -1, trigger=50))
    watched.frame(frame(3, 20, trigger=52))
    assert [view.part_id for view in watched.views] == ["50", "51", "52"]
    assert watched.reasons == [None, Reason.NO_FRAME, None]


def test_unsent_records_are_overruns() -> None:
    watched = Watched()
    watched.frame(frame(1, 0))
    watched.tracker.unsent(2, START + 5 * MS)
    watched.frame(frame(5, 40))
    assert watched.reasons == [None, Reason.OVERRUN, Reason.OVERRUN, Reason.NO_FRAME, None]
    watched.tracker.unsent(1, START + 50 * MS)
    watched.expire(150)
    assert watched.reasons[-1] is Reason.OVERRUN
    watched.frame(frame(7, 170))
    assert len(watched.views) == 7


def test_what_was_counted_is_lost_with_the_camera() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.status(status(0, triggers=0))
    watched.frame(frame(1, 10, trigger=1))
    watched.status(status(20, triggers=3))
    watched.take(watched.tracker.end(START + 30 * MS))
    assert [(view.part_id, view.reason) for view in watched.views[1:]] == [("2", Reason.CAMERA_LOST), ("3", Reason.CAMERA_LOST)]
    assert watched.tracker.seen_until_ns == START + 20 * MS
    watched.tracker.restart(0)
    watched.frame(frame(1, 1000, trigger=1))
    assert watched.blinds == []
    assert watched.views[-1].part_id == "1"


def test_damaged_frames_at_the_beginning_are_parts() -> None:
    watched = Watched(IdentityRules(part_id="trigger_counter"))
    watched.frame(frame(3, 0, trigger=3, incomplete=2))
    assert [(view.part_id, view.reason) for view in watched.views] == [("1", Reason.INCOMPLETE), ("2", Reason.INCOMPLETE), ("3", None)]


FATES = ["ok", "ok", "ok", "drop", "incomplete", "duplicate", "late", "unsent"]


@settings(max_examples=400)
@given(
    fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=60),
    latched=st.booleans(),
    bits=st.sampled_from([16, 32, 64]),
    first=st.sampled_from([0, 1]),
    before_wrap=st.integers(0, 40),
    reset_at=st.none() | st.integers(1, 59),
    every=st.integers(1, 7),
    max_gap=st.sampled_from([2, 100]),
)
def test_every_trigger_is_one_view_or_blind(  # noqa: PLR0912 - one model camera, all its faults
    fates: list[str], latched: bool, bits: Literal[16, 32, 64], first: Literal[0, 1], before_wrap: int, reset_at: int | None, every: int, max_gap: int
) -> None:
    rules = IdentityRules(part_id="trigger_counter" if latched else "frame", max_gap=max_gap, frame_id_bits=bits, frame_id_first_after_wrap=first)
    watched = Watched(rules)
    period_ms, base = 10, 1000
    top = (1 << bits) - 1 if bits < 64 else 10_000
    frame_id = max(first, top - before_wrap)
    watched.status(status(-5, triggers=base))
    happenings: list[tuple[float, int, str, object]] = []
    order = count()
    incomplete_at: list[float] = []
    exposures: list[float] = []
    image_of: dict[int, int] = {}  # camera time -> trigger
    for index, fate in enumerate(fates):
        trigger, at_ms = base + 1 + index, float(index * period_ms)
        exposures.append(at_ms)
        if reset_at == index:
            frame_id = first
        record = frame(frame_id, at_ms, trigger=trigger if latched else None)
        frame_id = first if frame_id == top and bits < 64 else frame_id + 1
        image_of[record.camera_ns] = trigger
        arrival = at_ms + 3
        if fate in {"ok", "duplicate"}:
            happenings.append((arrival, next(order), "frame", record))
        if fate == "duplicate":
            happenings.append((arrival + 12.5, next(order), "frame", record))
        if fate == "late":
            happenings.append((arrival + 25, next(order), "frame", record))
        if fate == "incomplete":
            incomplete_at.append(arrival)
        if fate == "unsent":
            happenings.append((arrival, next(order), "unsent", 1))
        if index % every == 0:
            happenings.append((at_ms + 5, next(order), "status", trigger))
    end_ms = len(fates) * period_ms + 30.0
    happenings.append((end_ms, next(order), "status", base + len(fates)))
    for at_ms, _, what, item in sorted(happenings, key=lambda one: one[:2]):
        damaged = [one for one in incomplete_at if one <= at_ms]
        if what == "frame":
            assert isinstance(item, FrameRecord)
            incomplete_at = [one for one in incomplete_at if one > at_ms]
            received = START + int(at_ms * MS)
            record = msgspec.structs.replace(item, incomplete_before=len(damaged), received_ns=received)
            watched.frame(record)
        elif what == "status":
            assert isinstance(item, int)
            incomplete_at = [one for one in incomplete_at if one > at_ms]
            watched.status(status(at_ms, triggers=item, incomplete=len(damaged)))
        else:
            watched.tracker.unsent(1, START + int(at_ms * MS))
        watched.expire(at_ms)
    watched.expire(end_ms + 1000)
    assert watched.tracker.due_ns() is None

    def is_blind(at_ms: float) -> bool:
        at_ns = START + int(at_ms * MS)
        # Host times carry the least delay that was observed; where every frame is late, that is theirs.
        return any(blind.from_ns <= at_ns + 28 * MS and (blind.to_ns or 0) >= at_ns for blind in watched.blinds)

    images = [view for view in watched.views if view.reason is None]
    assert len({view.exposure_ns for view in images}) == len(images), "one exposure, two parts"
    if latched:
        triggers = Counter(view.trigger_counter for view in watched.views)
        assert all(number == 1 for number in triggers.values()), "two parts for one trigger"
        assert all(base < (trigger or 0) <= base + len(fates) for trigger in triggers), "a part for a trigger that never was"
        for index, at_ms in enumerate(exposures):
            assert triggers[base + 1 + index] == 1 or is_blind(at_ms), f"trigger {base + 1 + index} is nowhere"
        if max_gap == 100:
            assert watched.blinds == [], "a reset of the frame id alone is no loss"
        for index, fate in enumerate(fates):
            if fate in {"ok", "duplicate"} and not is_blind(exposures[index]):
                (view,) = [one for one in watched.views if one.trigger_counter == base + 1 + index]
                assert view.reason is None
    elif not watched.blinds and reset_at is None and ("late" not in fates or "incomplete" not in fates):
        assert len(watched.views) == len(fates)
    else:  # ids that begin anew shortly before they wrap look like a gap, a late first frame seems to be later: too many, never too few
        assert len(watched.views) >= sum(not is_blind(at_ms) for at_ms in exposures)
