"""Faults of the link, the driver and the line into a running station: the one law holds, and parts are inspected again afterwards.

The witness that a fault happened is its bit in the simulated line's trigger log, or its line in the call log.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from inspector.camera.simulator.nodes import CALL_FAULTS, Fault
from inspector.daemon.station import Daemon

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]

NEVER_INSPECTED = (
    Fault.LOST_SILENT
    | Fault.INCOMPLETE_ALL
    | Fault.CHUNK_MISSING
    | Fault.CHUNK_CORRUPT
    | Fault.PAYLOAD_TOO_LARGE
    | Fault.SIZE_CHANGE
    | Fault.WRONG_PIXEL_FORMAT
    | Fault.MISSED_TRIGGER
    | Fault.ABSENT
    | Fault.UNDERRUN
)
"""No image came of such a trigger, or none that may be inspected."""
CHANGED = Fault.IMAGE_SHIFTED | Fault.IMAGE_TORN | Fault.LINE_BOUNCE | Fault.FROZEN | Fault.STALE_FRAME | Fault.BLACK | Fault.SATURATED
"""Such an image differs from the one that is shown without the fault."""
INSPECTED_ALL_THE_SAME = Fault.IMAGE_SHIFTED | Fault.IMAGE_TORN
"""Nothing in such an image tells that it is not as it should be."""
CLOCKS_NS = 2_000_000
TRANSFER_NS = 20_000_000
STALE_BY = 5


def happened(story: Any) -> Fault:
    """All bits of the trigger log."""
    found = Fault(0)
    for row in story.triggers:
        found |= Fault(int(row["faults"]))
    return found


def check_the_law(story: Any, part_id: str = "camera_count") -> dict[int, str]:
    """What must hold whatever happened. Returns the outcomes by the triggers' counters."""
    assert (story.opened, story.pending, story.gaps) == (story.closed, 0, 0)
    assert len(story.verdicts) == len(story.parts) == story.closed
    for part in story.parts:
        if part.outcome == "PASS":
            assert not story.is_blind(part.exposure_utc_ns - story.utc_offset_ns, CLOCKS_NS), f"part {part.part_id} passed in a blind interval"
    given = Counter(one.part_id for one in story.verdicts if one.part_id is not None)
    assert not [one for one, count in given.items() if count > 1], "an id has two verdicts"
    known: dict[str, Any] = {}
    for row in story.triggers:
        if not Fault.MISSED_TRIGGER & Fault(int(row["faults"])):
            known.setdefault(str(row[part_id]), row)
    assert not set(given) - set(known), "a verdict for a part that never was"
    verdicts = {int(known[one.part_id]["counter"]): one for one in story.verdicts if one.part_id is not None}
    faults_of = {int(row["counter"]): Fault(int(row["faults"])) for row in story.triggers}
    for row in known.values():
        hit = Fault(int(row["faults"]))
        counter = int(row["counter"])
        verdict = verdicts.get(counter)
        if verdict is None:
            # A frame without its encoder value is an outcome that nobody can take for a part's.
            nameless = part_id == "encoder"
            assert nameless or story.is_blind(int(row["host_ns"])), f"trigger {counter} ({hit!r}) has no outcome and is not blind"
        elif verdict.outcome != "UNINSPECTED":
            assert not hit & NEVER_INSPECTED or (part_id == "encoder" and not hit & ~INSPECTED_ALL_THE_SAME), f"{counter} was inspected with {hit!r}"
            older = verdicts.get(counter - STALE_BY)
            # A still of an image that never arrived: nobody can tell it from a new one.
            if hit & Fault.STALE_FRAME and older is not None and not ((hit & ~Fault.STALE_FRAME) | faults_of[counter - STALE_BY]) & CHANGED:
                assert older.outcome == "UNINSPECTED", f"{counter} shows an older image that had been inspected"
            if not hit & Fault.IMAGE_SHIFTED:
                assert verdict.defects[0].name == str(row["image"]), f"part {counter} has the verdict of another image"
                assert (verdict.outcome == "REJECT") == (int(row["image"]) % 2 == 1)
            assert verdict.outcome != "PASS" or not story.is_blind(int(row["host_ns"]), TRANSFER_NS), f"part {counter} passed in a blind interval"
    return {counter: str(one.outcome) for counter, one in verdicts.items()}


def test_faults_of_single_frames(run_story: Callable[..., Any]) -> None:
    faults = {
        "chunk_missing_at": "40x2",
        "chunk_corrupt_at": "60x3",
        "payload_too_large_at": "80x2",
        "size_change_at": "100x2",
        "x_padding_at": "120x2",
        "wrong_pixel_format_at": "140x2",
        "double_trigger_at": "160",
        "stale_frame_at": "180x3",
        "image_shifted_at": "200",
        "image_torn_at": "220",
        "timestamp_absent_at": "240x3",
        "line_bounce_at": "260",
        "leak_every": "50",
        "missed_trigger_at": "320",
    }
    story = run_story(",".join(f"{kind}={value}" for kind, value in faults.items()), 400, rate=80)
    wanted = [Fault[kind.rpartition("_")[0].upper()] for kind in faults]
    assert not [fault for fault in wanted if fault not in happened(story)], "a fault did not happen: nothing was shown"
    outcomes = check_the_law(story)
    reasons = {one.part_id: one.reason for one in story.verdicts}
    assert {reasons[str(number)] for number in (40, 41, 60, 61, 62, 80, 81)} == {"incomplete"}
    assert {reasons[str(number)] for number in (100, 101, 140, 141, 180, 181, 182)} == {"image_invalid"}
    # What the images show is inspected where they are whole: padded, without a stamp, torn, shifted, and the parts beside the faults.
    for number in (120, 121, 200, 220, 240, 241, 242, 261, 321):
        assert outcomes[number] != "UNINSPECTED", number
    assert sum(one.part_id is None for one in story.verdicts) == 1, "the second exposure of the double trigger is nobody's"
    assert len(story.blind_ns) == 1, "at the start"
    assert sum(outcome != "UNINSPECTED" for outcome in outcomes.values()) > 300


def test_faults_of_the_driver_and_the_device(run_story: Callable[..., Any]) -> None:
    # Far from each other: a fault that is planned while nobody looks does not happen, and a restart takes its time on a busy machine.
    faults = "event_error_at=60,stop_fail_at=1,start_fail_at=2,lost_silent_at=500,incomplete_all_at=1150:700ms,register_timeout_at=1300x40"
    story = run_story(faults, 1700)
    wanted = Fault.EVENT_ERROR | Fault.LOST_SILENT | Fault.INCOMPLETE_ALL | Fault.REGISTER_TIMEOUT
    assert wanted & happened(story) == wanted
    calls = Counter(call.kind for call in story.calls)
    assert calls["stop_fail"] == calls["start_fail"] == 1
    assert calls["register_timeout"] >= 1
    outcomes = check_the_law(story)
    assert len(story.blind_ns) >= 4, "at the start, and for the error, the silence and the registers"
    after = {begin: any(outcomes.get(number) == "PASS" for number in range(begin, begin + 150)) for begin in (350, 1000, 1230, 1550)}
    assert all(after.values()), f"parts are inspected again: {after}"


def test_slow_registers_cost_sight_or_parts_but_never_a_wrong_pass(run_story: Callable[..., Any]) -> None:
    story = run_story("register_slow_at=60x60:100ms,register_slow_at=250x40:1s", 700)
    assert sum(call.kind == "register_slow" for call in story.calls) >= 2
    outcomes = check_the_law(story)
    assert len(story.blind_ns) >= 2, "the second time the process was killed"
    assert any(outcomes.get(number) == "PASS" for number in range(550, 701))


def test_a_camera_that_cannot_be_opened_for_six_reasons_is_blind_until_it_can(run_story: Callable[..., Any]) -> None:
    faults = "unlisted_at=1,open_busy_at=1,xml_broken_at=2,exposure_rejected_at=1,start_fail_at=1"
    neighbour = ', INSPECTOR_SIM_CAMERAS = "2", INSPECTOR_SIM_FAULTS_1 = "same_serial_at=2"'
    story = run_story(faults, 120, rate=50, settings=", ExposureTime = 150.0", environment=neighbour)
    happened_once = [call.kind for call in story.calls if call.kind != "stop_fail"]
    assert sorted(happened_once) == sorted(["unlisted", "open_busy", "xml_broken", "exposure_rejected", "start_fail", "same_serial"])
    assert {fault.name.lower() for fault in CALL_FAULTS if fault.name} - set(happened_once) == {"stop_fail", "output_stuck"}
    outcomes = check_the_law(story)
    assert len(story.blind_ns) == 1
    assert sum(outcome != "UNINSPECTED" for outcome in outcomes.values()) > 60
    told = [event.detail for event in story.events if event.name == "camera_lost"]
    for part in ("no camera", "2 cameras say", "cannot be opened", "ExposureTime", "the stream does not start"):
        assert any(part in detail for detail in told), f"{part!r} is not among {told}"


def test_a_clock_that_is_set_costs_no_part_and_hides_no_late_one(run_story: Callable[..., Any]) -> None:
    faults = "timestamp_jump_at=60:30s,late_at=90:700ms,timestamp_backwards_at=250:50s,late_at=280:700ms,timestamp_absent_at=400x20"
    story = run_story(faults, 500)
    wanted = Fault.TIMESTAMP_JUMP | Fault.TIMESTAMP_BACKWARDS | Fault.TIMESTAMP_ABSENT | Fault.LATE
    assert wanted & happened(story) == wanted
    outcomes = check_the_law(story)
    assert outcomes[90] == outcomes[280] == "UNINSPECTED", "beyond the deadline, by whatever clock"
    expected_fine = (*range(60, 80), *range(250, 270), *range(430, 450))
    lost = {number for number in expected_fine if outcomes[number] == "UNINSPECTED"}
    why = [(part.part_id, part.reason, part.detail) for part in story.parts if part.outcome == "UNINSPECTED"]
    assert not lost, f"a clock that was set costs no part, {sorted(lost)} were lost; of all that were not inspected: {why}"


def test_an_encoder_that_jumps_runs_back_and_rolls_over_gives_no_id_twice(run_story: Callable[..., Any]) -> None:
    faults = "encoder_jump_at=60,encoder_reverse_at=100x5,chunk_missing_at=140,chunk_corrupt_at=160,encoder_rollover_at=200"
    faults += ",missed_trigger_at=240,line_bounce_at=260"
    story = run_story(faults, 320, rate=80, identity="encoder")
    wanted = Fault.ENCODER_JUMP | Fault.ENCODER_REVERSE | Fault.ENCODER_ROLLOVER | Fault.CHUNK_CORRUPT | Fault.MISSED_TRIGGER | Fault.LINE_BOUNCE
    assert wanted & happened(story) == wanted
    assert (story.triggers["encoder"][1:] < story.triggers["encoder"][:-1] - 2**31).sum() == 1, "it rolled over once"
    check_the_law(story, "encoder")
    nameless = [one for one in story.verdicts if one.part_id is None]
    assert len(story.verdicts) == 319, "every trigger that the camera saw has one outcome"
    # Five steps back and five forward over places that had their parts, and two frames without their encoder value.
    assert 10 <= len(nameless) <= 12
    assert sum(one.outcome == "PASS" and one.part_id is not None for one in story.verdicts) > 120


def _camera_process() -> psutil.Process:
    (found,) = [child for child in psutil.Process().children() if "inspector.camera.process" in child.cmdline()]
    return found


def test_a_camera_process_that_grows_is_the_one_to_die_and_is_started_again(run_story: Callable[..., Any]) -> None:
    """Where its limit is, the driver gets no more memory: the process ends, and a new one takes over."""
    limited: list[int] = []
    sizes: list[int] = []

    def limit(_: Daemon, triggers: int) -> None:
        if triggers > 20 and not limited:
            process = _camera_process()
            assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "500", "the kernel takes it before the daemon"
            resource.prlimit(process.pid, resource.RLIMIT_AS, (process.memory_info().vms + (200 << 20), resource.RLIM_INFINITY))
            limited.append(process.pid)
        elif limited and psutil.pid_exists(limited[0]):
            sizes.append(_size_of(limited[0]))

    def _size_of(pid: int) -> int:
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    story = run_story("leak_at=30x100", 500, meddle=limit)
    assert limited
    assert limited[0] != os.getpid()
    assert Fault.LEAK in happened(story)
    assert max(sizes) - min(size for size in sizes if size) > 100 << 20, "it grew"
    assert Fault.ABSENT in happened(story), "it ended, and nobody saw for a while"
    outcomes = check_the_law(story)
    assert any(outcomes.get(number) == "PASS" for number in range(420, 501))


def test_random_faults_of_frames_the_line_and_the_driver_keep_the_law(run_story: Callable[..., Any]) -> None:
    kinds = (
        Fault.CHUNK_MISSING,
        Fault.CHUNK_CORRUPT,
        Fault.PAYLOAD_TOO_LARGE,
        Fault.SIZE_CHANGE,
        Fault.WRONG_PIXEL_FORMAT,
        Fault.STALE_FRAME,
        Fault.IMAGE_TORN,
        Fault.DOUBLE_TRIGGER,
        Fault.LINE_BOUNCE,
        Fault.MISSED_TRIGGER,
        Fault.DUPLICATE,
        Fault.REPEAT,
        Fault.DROP,
        Fault.INCOMPLETE,
        Fault.BLACK,
        Fault.FROZEN,
    )
    plan = ",".join(f"{(fault.name or '').lower()}_rate=0.02" for fault in kinds) + ",late_rate=0.01:40ms,reorder_rate=0.01:25ms"
    story = run_story(plan + ",event_error_at=150,lost_silent_at=600:300ms,register_timeout_at=1000x40", 1200)
    hit = Counter(fault for row in story.triggers for fault in Fault(int(row["faults"])))
    assert all(hit[fault] > 3 for fault in kinds)
    assert hit[Fault.EVENT_ERROR] == 1
    assert hit[Fault.LOST_SILENT] > 10
    assert any(call.kind == "register_timeout" for call in story.calls)
    outcomes = check_the_law(story)
    assert sum(outcome != "UNINSPECTED" for outcome in outcomes.values()) > 250
