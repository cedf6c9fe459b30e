"""Faults that the simulated camera makes itself: its trigger log says on which parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kinds import Injected, at_least, kind
from plant import Plant

from inspector.camera.simulator.log import read_call_log
from inspector.camera.simulator.nodes import Fault

PARTS = 250
APART = 110
"""Parts between faults where there are enough of them: a camera that is opened again misses what passes meanwhile, and so would a second fault."""


def simple(
    name: str,
    plan: str,
    fault: Fault,
    text: str,
    *,
    least: int = 1,
    parts: int = PARTS,
    subset: bool = False,
    least_passed: int = 20,
    calls: bool = False,
    neighbour: int = 0,
    **camera: Any,
) -> None:
    """A kind that only plans faults; ``{a}``, ``{b}``, ``{c}`` are trigger counters, drawn from the seed, far apart and from both ends.

    ``calls``: the fault hits calls, and the log of calls of camera ``neighbour`` is the witness; ``camera``: more of its options.
    """

    def play(plant: Plant) -> Injected:
        third = (parts - 60) // 3
        places = {letter: 30 + number * third + plant.rng.randrange(max(third - APART, 35)) for number, letter in enumerate("abc")}
        plant.write(plant.camera(plan.format(**places), parts, **camera))
        plant.begin()
        plant.finish()
        if calls:
            hit = [call for call in read_call_log(plant.lines[0].folder, neighbour) if call.kind == (fault.name or "").lower()]
            return at_least(len(hit), least, f"{fault.name} in the call log")
        return at_least(plant.flags(fault), least, f"{fault.name} in the trigger log")

    play.__doc__ = text
    kind(name, "camera", subset=subset, least_passed=least_passed)(play)


simple("drop", "drop_at={a},drop_at={b},drop_at={c}", Fault.DROP, "Single images are lost on their way.", least=3)
simple("drop_burst", "drop_at={a}x5,drop_at={b}x12", Fault.DROP, "Images in a row are lost.", least=17)
simple("drop_more_than_max_gap", "drop_at={a}x120", Fault.DROP, "More images in a row are lost than are opened as parts.", least=120, parts=450)
simple("incomplete", "incomplete_at={a}x2,incomplete_every=37", Fault.INCOMPLETE, "Images arrive damaged.", least=5)
simple("late_within_deadline", "late_at={a}:150ms,late_at={b}:200ms", Fault.LATE, "A frame is late; those behind it wait.", least=2)
simple("late_beyond_deadline", "late_at={a}:700ms", Fault.LATE, "A frame, and all behind it, come after their deadline.", subset=True)
simple("reorder", "reorder_at={a}:80ms,reorder_at={b}:30ms", Fault.REORDER, "A frame is overtaken by those behind it.", least=2)
simple("reorder_beyond_deadline", "reorder_at={a}:800ms", Fault.REORDER, "A frame comes long after those behind it.")
simple("duplicate_id", "duplicate_at={a},duplicate_at={b}", Fault.DUPLICATE, "A frame carries the id of the one before it.", least=2)
simple("repeat", "repeat_at={a},repeat_at={b}", Fault.REPEAT, "A frame is delivered twice.", least=2)
simple("wrap", "wrap_at={a}", Fault.WRAP, "The 16-bit frame id wraps.")
simple("reset", "reset_at={a}", Fault.RESET, "The frame id starts again.")
simple("black", "black_at={a}x3", Fault.BLACK, "Images are black.", least=3)
simple("saturated", "saturated_at={a}x3", Fault.SATURATED, "Images are saturated.", least=3)
simple("frozen", "frozen_at={a}x3", Fault.FROZEN, "Images repeat the one before.", least=3)
simple("frozen_after_drop", "drop_at={a},frozen_at={b}", Fault.FROZEN, "A still among lost images.")
simple("stall", "stall_at={a}:900ms", Fault.STALL, "Nothing is delivered for a while; registers answer.", parts=400)
simple("lost", "lost_at={a}:500ms", Fault.LOST, "The device is gone and comes back.", parts=450, subset=True)
simple("crash", "crash_at={a}", Fault.CRASH, "The driver dies by SIGSEGV.", parts=450)
simple("crash_often", "crash_at={a},crash_at={b},crash_at={c}", Fault.CRASH, "The driver dies again and again.", least=2, parts=1200)
simple("hang", "hang_at={a}", Fault.HANG, "A call into the driver never returns; the process is killed.", parts=450)
simple("hang_and_return", "hang_at={a}:450ms", Fault.HANG, "A call into the driver returns after a while.", parts=400)
simple("incomplete_for_a_time", "incomplete_all_at={a}:300ms", Fault.INCOMPLETE_ALL, "Every image arrives damaged for a while.", least=10, parts=350)
simple("lost_silently", "lost_silent_at={a}", Fault.LOST_SILENT, "No frame any more, and registers answer.", parts=600)
simple("event_error", "event_error_at={a},event_error_at={b}", Fault.EVENT_ERROR, "The wait for a frame ends with an error.", least=1, parts=600)
simple(
    "clock_jumps", "timestamp_jump_at={a},timestamp_jump_at={b}:2s", Fault.TIMESTAMP_JUMP, "The camera's clock is set forward.", least=2, parts=500
)
simple("clock_back", "timestamp_backwards_at={a}:2s", Fault.TIMESTAMP_BACKWARDS, "The camera's clock is set back.", parts=500)
simple("no_timestamp", "timestamp_absent_at={a}x3,timestamp_absent_at={b}", Fault.TIMESTAMP_ABSENT, "Frames come without a timestamp.", least=4)
simple("no_chunks", "chunk_missing_at={a}x3,chunk_missing_at={b}", Fault.CHUNK_MISSING, "Frames come without their trigger counter.", least=4)
simple("chunks_corrupt", "chunk_corrupt_at={a}x3,chunk_corrupt_at={b}", Fault.CHUNK_CORRUPT, "Frames come with wrong chunk data.", least=4)
simple("payload_too_large", "payload_too_large_at={a}x3", Fault.PAYLOAD_TOO_LARGE, "More came than the buffer holds.", least=3)
simple("size_changes", "size_change_at={a}x3", Fault.SIZE_CHANGE, "Images have half their rows.", least=3)
simple("x_padding", "x_padding_at=1x9999", Fault.X_PADDING, "Rows are followed by padding.", least=100)
simple("wrong_pixel_format", "wrong_pixel_format_at={a}x3", Fault.WRONG_PIXEL_FORMAT, "Images say that they are of another format.", least=3)
simple("double_trigger", "double_trigger_at={a},double_trigger_at={b}", Fault.DOUBLE_TRIGGER, "Two exposures of one trigger.", least=2)
simple("line_bounces", "line_bounce_at={a},line_bounce_at={b}", Fault.LINE_BOUNCE, "The trigger line bounces.", least=2)
simple("encoder_jumps", "encoder_jump_at={a}", Fault.ENCODER_JUMP, "The encoder jumps by 100 steps.", identity="encoder")
simple("encoder_back", "encoder_reverse_at={a}", Fault.ENCODER_REVERSE, "The encoder goes a step back.", identity="encoder")
simple("encoder_rolls_over", "encoder_rollover_at=120", Fault.ENCODER_ROLLOVER, "The 32-bit encoder rolls over.", identity="encoder")
simple("stale_frame", "stale_frame_at={a},stale_frame_at={b}x3", Fault.STALE_FRAME, "Frames show the image of five triggers before.", least=4)
simple("leak", "leak_at={a}x40", Fault.LEAK, "The driver keeps 4 MiB with each of forty frames.", least=40)
simple("registers_slow", "register_slow_at={a}x60:50ms", Fault.REGISTER_SLOW, "Registers take 50 ms longer.", calls=True, parts=350)
simple("registers_fail", "register_timeout_at={a}x40:50ms", Fault.REGISTER_TIMEOUT, "Registers do not answer.", calls=True, parts=600)
simple(
    "open_busy",
    "crash_at={a},open_busy_at=2x2",
    Fault.OPEN_BUSY,
    "The camera is in use when it is to be opened again.",
    least=2,
    calls=True,
    parts=600,
)
simple(
    "description_broken", "crash_at={a},xml_broken_at=2x2", Fault.XML_BROKEN, "The camera's description is rubbish.", least=1, calls=True, parts=700
)
simple("start_fails", "crash_at={a},start_fail_at=2x2", Fault.START_FAIL, "The stream does not start again.", least=2, calls=True, parts=600)
simple("stop_fails", "lost_at={a}:100ms,stop_fail_every=1", Fault.STOP_FAIL, "The stream does not stop.", calls=True, parts=450)
simple(
    "unlisted", "crash_at={a},unlisted_at=2x2", Fault.UNLISTED, "The camera is not there when it is looked for again.", least=2, calls=True, parts=600
)
simple(
    "output_stuck",
    "crash_at={a},output_stuck_at=2x2",
    Fault.OUTPUT_STUCK,
    "A setting is not taken over.",
    least=1,
    calls=True,
    parts=600,
    settings=", UserOutputValue = true",
)
simple(
    "same_serial",
    "crash_at={a}",
    Fault.SAME_SERIAL,
    "Two cameras show the serial that is asked for.",
    calls=True,
    parts=600,
    neighbour=1,
    environment=', INSPECTOR_SIM_CAMERAS = "2", INSPECTOR_SIM_FAULTS_1 = "same_serial_at=2x2"',
)
simple(
    "exposure_rejected",
    "crash_at={a},exposure_rejected_at=2x2",
    Fault.EXPOSURE_REJECTED,
    "The exposure time is not taken.",
    least=1,
    calls=True,
    parts=600,
    settings=", ExposureTime = 200.0",
)
simple(
    "random_mix",
    "drop_rate=0.02,incomplete_rate=0.02,black_rate=0.02,saturated_rate=0.02,frozen_rate=0.02,duplicate_rate=0.02,repeat_rate=0.02,"
    "late_rate=0.02:60ms,reorder_rate=0.02:30ms",
    Fault.DROP | Fault.INCOMPLETE | Fault.BLACK | Fault.SATURATED | Fault.FROZEN | Fault.DUPLICATE | Fault.REPEAT | Fault.LATE | Fault.REORDER,
    "Nine faults at random.",
    least=30,
    parts=500,
)


@kind("line_runs_before_camera", "camera")
def line_runs_before_camera(plant: Plant) -> Injected:
    """The camera dies with the first frames: the line has run before it sees again."""
    plant.write(plant.camera("crash_at=3", 400))
    plant.begin()
    plant.finish()
    return at_least(plant.flags(Fault.ABSENT), 10, "ABSENT in the trigger log")


def _camera_process(name: str, text: str, meddle: Callable[[Plant], int], *, subset: bool = False) -> None:
    def play(plant: Plant) -> Injected:
        plant.write(plant.camera("", 500))
        plant.begin()
        plant.wait_trigger(60 + plant.rng.randrange(60))
        times = meddle(plant)
        plant.finish()
        return at_least(times, 1, "exit status, process state")

    play.__doc__ = text
    kind(name, "camera process", subset=subset)(play)


def _freeze_short(plant: Plant) -> int:
    plant.freeze(plant.camera_process().pid, plant.blind_now, "the station is told as blind")
    return 1


def _freeze_long(plant: Plant) -> int:
    process = plant.camera_process()
    plant.stop_for_good(process)
    return 1


def _kill(plant: Plant) -> int:
    plant.kill_process(plant.camera_process())
    return 1


def _kill_often(plant: Plant) -> int:
    for _ in range(3):
        plant.kill_process(plant.camera_process())
        plant.wait_event("camera_streaming", len(plant.events("camera_streaming")) + 1)
    return 3


_camera_process("camera_sigstop_thaws", "SIGSTOP; SIGCONT as soon as the station is told as blind.", _freeze_short)
_camera_process("camera_sigstop", "SIGSTOP for ever: the daemon kills and replaces it.", _freeze_long)
_camera_process("camera_sigkill", "SIGKILL.", _kill, subset=True)
_camera_process("camera_sigkill_often", "SIGKILL, three times as soon as it streams again.", _kill_often)


@kind("underrun", "camera process")
def underrun(plant: Plant) -> Injected:
    """The camera process does not fetch for so long that the driver runs out of buffers."""
    plant.write(plant.camera("", 900, rate=250, heartbeat_s=3.0))
    plant.begin()
    plant.wait_trigger(100)
    plant.freeze(plant.camera_process().pid, plant.for_ms(700), "0.7 s have passed")
    plant.finish()
    return at_least(plant.flags(Fault.UNDERRUN), 5, "UNDERRUN in the trigger log")


@kind("view_missing", "cameras", subset=True)
def view_missing(plant: Plant) -> Injected:
    """Two cameras see each part; one of them dies: a part with one view does not pass."""
    cameras = [
        plant.camera("drop_at=60x3,crash_at=160", 500, name="top", identity="trigger_counter"),
        plant.camera("drop_at=90x3", 500, name="side", identity="trigger_counter"),
    ]
    plant.write(*cameras, head='views = ["top", "side"]', deadline_ms=1500)
    plant.begin()
    plant.finish()
    return at_least(plant.flags(Fault.CRASH), 1, "CRASH in the trigger log")
