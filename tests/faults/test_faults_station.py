"""Every fault of the simulated camera, one after the other, into a running station: the one law holds, and no verdict is another part's."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inspector.camera.simulator.nodes import Fault
from inspector.daemon.station import Daemon

pytestmark = [pytest.mark.timeout(150)]

FAULTS = {
    "drop_at": "40",
    "drop_at#burst": "60x5",
    "incomplete_at": "80x2",
    "late_at": "100:150ms",
    "late_at#beyond the deadline": "130:700ms",
    "reorder_at": "220:80ms",
    "duplicate_at": "240",
    "repeat_at": "260",
    "wrap_at": "280",
    "reset_at": "300",
    "black_at": "320",
    "saturated_at": "340",
    "frozen_at": "360",
    "stall_at": "400:900ms",
    "lost_at": "560:500ms",
    "crash_at": "720",
    "hang_at": "860",
    "drop_every": "97",
}
PLAN = ",".join(f"{kind.partition('#')[0]}={value}" for kind, value in FAULTS.items())
PARTS = 1100
UNSEEN = Fault.DROP | Fault.INCOMPLETE | Fault.BLACK | Fault.SATURATED | Fault.FROZEN | Fault.UNDERRUN
"""A trigger with one of these has no image that could be inspected."""


def _never_seen(row: Any) -> bool:
    """Whether this trigger's image did not arrive before the next one's."""
    return row is None or bool(Fault(int(row["faults"])) & (UNSEEN | Fault.REORDER | Fault.STALL | Fault.LOST))


CLOCKS_NS = 2_000_000
"""Exposures and intervals are logged as UTC, each by its own look at the wall clock."""
TRANSFER_NS = 20_000_000
"""An exposure on the host's clock is known to this: what the least frame is on its way, on a busy machine."""


def check_the_law(story: Any, *, by_id: bool = True) -> None:
    """What must hold whatever happened."""
    for part in story.parts:
        if part.outcome == "PASS":
            exposure_ns = part.exposure_utc_ns - story.utc_offset_ns
            assert not story.is_blind(exposure_ns, CLOCKS_NS), f"part {part.part_id} passed in a published blind interval"
    assert story.opened == story.closed
    assert story.pending == 0
    assert story.gaps == 0
    assert len(story.verdicts) == len(story.parts) == story.closed
    assert sorted(verdict.part_no for verdict in story.verdicts) == list(range(1, story.closed + 1))
    assert len({verdict.seq for verdict in story.verdicts}) == story.closed
    for verdict in story.verdicts:
        assert (verdict.reason is None) == (verdict.outcome != "UNINSPECTED")
        assert (verdict.action == "pass") == (verdict.outcome == "PASS")
        if verdict.outcome != "UNINSPECTED":
            assert len(verdict.defects) == 1
    if not by_id:
        return
    ids = Counter(verdict.part_id for verdict in story.verdicts)
    assert not [part_id for part_id, count in ids.items() if count > 1]
    known = {str(row["counter"]): row for row in story.triggers}
    assert not set(ids) - set(known), "a verdict for a part that never was"
    lost = [int(row["counter"]) for part_id, row in known.items() if part_id not in ids and not story.is_blind(int(row["host_ns"]))]
    assert not lost, f"triggers without an outcome and not in a blind interval: {lost}"
    for verdict in story.verdicts:
        row = known[verdict.part_id]
        if verdict.outcome == "PASS":
            assert not story.is_blind(int(row["host_ns"]), TRANSFER_NS), f"part {verdict.part_id} passed and was exposed in a blind interval"
        if verdict.outcome != "UNINSPECTED":
            hit = Fault(int(row["faults"]))
            if hit & Fault.FROZEN and _never_seen(known.get(str(int(row["counter"]) - 1))):
                continue  # a still of an image that never arrived: nobody can tell it from a new one
            assert not hit & UNSEEN, f"part {verdict.part_id} was inspected with {hit!r}"
            assert verdict.defects[0].name == str(row["image"]), f"part {verdict.part_id} has the verdict of another image"
            assert (verdict.outcome == "REJECT") == (int(row["image"]) % 2 == 1)


@pytest.mark.slow
def test_every_fault_in_one_run(run_story: Callable[..., Any]) -> None:
    story = run_story(PLAN, PARTS)
    hit = Fault(0)
    for row in story.triggers:
        hit |= Fault(int(row["faults"]))
    wanted = {Fault[kind.partition("_")[0].upper()] for kind in FAULTS} | {Fault.ABSENT}
    assert not [fault for fault in wanted if fault not in hit], "a fault did not happen: nothing was shown"
    check_the_law(story)
    reasons = Counter(verdict.reason for verdict in story.verdicts)
    assert reasons["no_frame"] >= 5
    assert reasons["incomplete"] >= 1
    assert reasons["image_invalid"] >= 3
    # Blind at the start, and for lost, crash and hang (the stall may show as missing frames instead).
    assert len(story.blind_ns) >= 4
    # Faults that hit single triggers cost single parts; what a restart costs depends on how busy the machine is.
    assert sum(verdict.outcome != "UNINSPECTED" for verdict in story.verdicts) > PARTS * 0.35


def _camera_process() -> int:
    """The only one among our children."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            ours = parent == os.getpid() and b"inspector.camera.process" in (entry / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue  # no process, or gone by now
        found += [int(entry.name)] if ours else []
    (pid,) = found
    return pid


@pytest.mark.slow
@pytest.mark.parametrize("faults", ["", "timestamp_absent_every=1"], ids=["timestamps", "no timestamps"])
def test_what_a_frozen_camera_process_kept_back_does_not_pass(run_story: Callable[..., Any], faults: str) -> None:
    """It thaws before it is killed: the driver has kept every frame, and all of them are delivered and inspected."""
    frozen: list[int] = []
    thawed: list[int] = []

    def freeze(daemon: Daemon, triggers: int) -> None:
        if triggers > 150 and not frozen:
            frozen.append(_camera_process())
            os.kill(frozen[0], signal.SIGSTOP)
        if frozen and not thawed and daemon.line.snapshot().streams["top"].blind:
            os.kill(frozen[0], signal.SIGCONT)
            thawed.append(triggers)

    # Deadline and slots: nothing else is to keep a part that was exposed meanwhile from passing.
    story = run_story(faults, 400, meddle=freeze, deadline_ms=2000, slots=64)
    check_the_law(story)
    assert thawed
    assert len(story.blind_ns) == 2, "at the start and in the freeze: the process was not killed"
    kept_back = [one for one in story.verdicts if one.reason == "camera_lost"]
    assert len(kept_back) > 5
    assert all("blind" in one.detail for one in kept_back)
    assert sum(one.outcome != "UNINSPECTED" for one in story.verdicts) > 250
    assert len(story.verdicts) == len(story.triggers)


@pytest.mark.slow
def test_the_first_frame_is_late_by_more_than_its_deadline_and_that_is_known(run_story: Callable[..., Any]) -> None:
    """No frame came before it that could tell how long frames are on their way: the camera's clock was read."""
    story = run_story("late_at=1:1500ms", 60, rate=20)
    check_the_law(story)
    first = next(one for one in story.verdicts if one.part_id == "1")
    assert first.outcome == "UNINSPECTED"
    assert sum(one.outcome != "UNINSPECTED" for one in story.verdicts) > 20


@pytest.mark.slow
def test_faults_at_random_are_repeatable_and_keep_the_law(run_story: Callable[..., Any]) -> None:
    kinds = ("drop", "incomplete", "black", "saturated", "frozen", "duplicate", "repeat")
    story = run_story(",".join(f"{kind}_rate=0.03" for kind in kinds) + ",late_rate=0.02:60ms,reorder_rate=0.02:30ms", 600, rate=150)
    check_the_law(story)
    hit = Counter(fault for row in story.triggers for fault in Fault(int(row["faults"])))
    assert all(hit[Fault[kind.upper()]] > 3 for kind in kinds)
    # Safe is not enough: what has no fault is inspected, unless the machine is too busy for it.
    assert sum(verdict.outcome != "UNINSPECTED" for verdict in story.verdicts) > len(story.triggers) * 0.35


@pytest.mark.slow
def test_without_an_id_of_the_line_no_part_is_lost_either(run_story: Callable[..., Any]) -> None:
    """Frame ids alone: every frame and every gap is a part, told by frame id and exposure time."""
    story = run_story("drop_at=40,drop_at=60x5,duplicate_at=90,repeat_at=110,wrap_at=140,black_at=160", 250, identity="frame")
    check_the_law(story, by_id=False)
    assert all(verdict.part_id is None or verdict.part_id for verdict in story.verdicts)
    seen = sum(verdict.outcome != "UNINSPECTED" for verdict in story.verdicts)
    hit = sum(bool(Fault(int(row["faults"])) & UNSEEN) for row in story.triggers)
    assert seen == len(story.triggers) - hit
    assert len(story.verdicts) == len(story.triggers)
