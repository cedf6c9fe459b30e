"""Every fault of the simulated camera, one after the other, into a running station: the one law holds, and no verdict is another part's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from inspector.camera.simulator.nodes import Fault

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


def check_the_law(story: Any, *, by_id: bool = True) -> None:
    """What must hold whatever happened."""
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
