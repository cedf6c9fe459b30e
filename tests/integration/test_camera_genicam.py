"""The simulated camera through the real harvesters, in this process: pixels, chunks, triggers, settings and every fault."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import genicam
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from inspector.camera.genicam import GenicamCamera
from inspector.camera.port import Frame
from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.feed import write_feed
from inspector.camera.simulator.log import read_call_log, read_trigger_log
from inspector.camera.simulator.nodes import Fault
from inspector.config.station import CameraConfig
from inspector.contract.errors import CameraError

WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True)
class Shot:
    """A frame, copied."""

    frame_id: int
    counter: int | None
    encoder: int | None
    camera_ns: int
    received_ns: int
    line_status: int | None
    pixel_format: str
    image: NDArray[np.uint8]


def copied(frame: Frame) -> Shot:
    channels = 3 if frame.pixel_format == "RGB8" else 1
    lines = frame.pixels.reshape(frame.height_px, frame.stride_bytes)[:, : frame.width_px * channels]
    shape = (frame.height_px, frame.width_px, channels) if channels == 3 else (frame.height_px, frame.width_px)
    return Shot(
        frame.frame_id,
        frame.trigger_counter,
        frame.encoder,
        frame.camera_ns,
        frame.received_ns,
        frame.line_status,
        frame.pixel_format,
        lines.reshape(shape).copy(),
    )


class Bench:
    """A simulated camera with its environment, its log and its frames."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._cameras: list[GenicamCamera] = []
        self.environment(STATE=str(folder))

    def environment(self, **values: str) -> None:
        for name, value in values.items():
            self._monkeypatch.setenv(f"INSPECTOR_SIM_{name}", value)

    def camera(self, **values: object) -> GenicamCamera:
        producer = simulator_path()
        assert producer is not None
        values.setdefault("settings", {})
        given = {"name": "c", "kind": "simulator", "width_px": WIDTH, "height_px": HEIGHT, "rate_hz": 500.0, **values}
        made = GenicamCamera(CameraConfig.model_validate(given), producer)
        self._cameras.append(made)
        return made

    def log(self) -> NDArray[np.void]:
        return read_trigger_log(self.folder)

    def faults(self) -> dict[int, int]:
        return {int(record["counter"]): int(record["faults"]) for record in self.log() if record["faults"]}

    def close(self) -> None:
        for camera in self._cameras:
            camera.close()


def take(camera: GenicamCamera, count: int, *, timeout_s: float = 3.0, each: Callable[[], None] | None = None) -> list[Shot]:
    """Up to ``count`` frames: fewer when the time is over."""
    shots: list[Shot] = []
    until = time.monotonic() + timeout_s
    frames = camera.frames()
    assert next(frames) is None
    if each is not None:
        each()
    for frame in frames:
        if frame is not None:
            shots.append(copied(frame))
            if each is not None and len(shots) < count:
                each()
        if len(shots) >= count or time.monotonic() > until:
            break
    frames.close()  # type: ignore[attr-defined]
    return shots


def take_until_quiet(camera: GenicamCamera, triggers: int, *, timeout_s: float = 3.0) -> list[Shot]:
    """All frames until the camera has counted ``triggers`` and then nothing comes any more."""
    shots: list[Shot] = []
    until = time.monotonic() + timeout_s
    quiet = 0
    frames = camera.frames()
    for frame in frames:
        if frame is not None:
            shots.append(copied(frame))
            quiet = 0
        elif (camera.check() or 0) >= triggers:
            quiet += 1
        if quiet > 3 or time.monotonic() > until:
            break
    frames.close()  # type: ignore[attr-defined]
    return shots


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if simulator_path() is None:
        assert shutil.which("g++") is None, "there is a compiler, and yet the simulator was not built"
        pytest.skip("the simulator needs a C++ compiler")
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.close()


def pattern(counter: int) -> NDArray[np.uint8]:
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    return ((xx + yy + counter) & 255).astype(np.uint8)


# ---- frames --------------------------------------------------------------------------------------------------------------


def test_frames_are_pixel_exact_and_chunks_agree_with_the_buffer_and_the_log(bench: Bench) -> None:
    camera = bench.camera(settings={"SimTriggerLimit": 60})
    info = camera.open()
    assert (info.model, info.serial, info.firmware, info.width_px, info.height_px) == ("SimulatedCamera", "SIM0", "1.0", WIDTH, HEIGHT)
    assert info.simulated
    shots = take(camera, 60)
    assert [shot.counter for shot in shots] == list(range(1, 61))
    assert [shot.frame_id for shot in shots] == list(range(1, 61))
    assert [shot.encoder for shot in shots] == [1000 * count for count in range(1, 61)]
    assert all(shot.line_status == 1 for shot in shots)
    for shot in shots:
        np.testing.assert_array_equal(shot.image, pattern(shot.counter or 0))
    assert camera.check() == 60
    log = bench.log()
    assert log["counter"].tolist() == list(range(1, 61))
    assert not log["faults"].any()
    # The camera's clock is another one, at a constant distance from the host's.
    distances = {shot.camera_ns - int(host) for shot, host in zip(shots, log["host_ns"], strict=True)}
    assert distances == {10**15}
    assert np.diff(log["host_ns"]).tolist() == pytest.approx([2_000_000] * 59, abs=1)


def test_a_feed_is_shown_in_order_and_in_every_pixel_format(bench: Bench) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    write_feed(bench.folder / "rgb.feed", images)
    bench.environment(FEED=str(bench.folder / "rgb.feed"))
    red, green, blue = np.moveaxis(images.astype(int), -1, 0)
    grey = (77 * red + 150 * green + 29 * blue) >> 8
    bayer = images[..., 1].copy()
    bayer[:, ::2, ::2] = images[:, ::2, ::2, 0]
    bayer[:, 1::2, 1::2] = images[:, 1::2, 1::2, 2]
    seen = 0
    for pixel_format, expected in (("RGB8", images), ("Mono8", grey.astype(np.uint8)), ("BayerRG8", bayer)):
        camera = bench.camera(pixel_format=pixel_format, trigger="free_run", width_px=None, height_px=None)
        info = camera.open()
        assert (info.width_px, info.height_px, info.pixel_format) == (WIDTH, HEIGHT, pixel_format)
        for shot in take(camera, 5):
            assert shot.pixel_format == pixel_format
            assert shot.counter is not None
            np.testing.assert_array_equal(shot.image, expected[(shot.counter - 1) % 3])
            seen += 1
        camera.close()
    assert seen == 15
    log = bench.log()
    assert log["image"].tolist() == [(count - 1) % 3 for count in log["counter"].tolist()]


def test_a_grey_feed_is_cut_padded_brightened_and_padded_lines_keep_their_stride(bench: Bench) -> None:
    image = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH).astype(np.uint8)
    write_feed(bench.folder / "grey.feed", [image])
    bench.environment(FEED=str(bench.folder / "grey.feed"))
    camera = bench.camera(width_px=WIDTH + 16, height_px=HEIGHT - 8, exposure_us=100, gain_db=0, settings={"SimLinePadding": 12})
    camera.open()
    frames = camera.frames()
    frame = next(frame for frame in frames if frame is not None)
    assert frame.stride_bytes == WIDTH + 16 + 12
    shot = copied(frame)
    frames.close()  # type: ignore[attr-defined]
    assert not shot.image[:, WIDTH:].any()
    half = np.floor(image[: HEIGHT - 8] * 0.5 + 0.5)
    np.testing.assert_array_equal(shot.image[:, :WIDTH], half)


def test_software_triggers_bring_one_frame_each_and_nothing_comes_without(bench: Bench) -> None:
    camera = bench.camera(trigger="software")
    camera.open()
    assert len(take(camera, 5, each=camera.trigger)) == 5
    camera.close()
    camera = bench.camera(trigger="software")
    camera.open()
    assert take(camera, 1, timeout_s=0.15) == []
    assert camera.check() == 5


def test_a_free_running_camera_keeps_its_rate_and_user_outputs_are_latched(bench: Bench) -> None:
    camera = bench.camera(trigger="free_run", rate_hz=200.0, settings={"UserOutputSelector": "UserOutput1", "UserOutputValue": True})
    camera.open()
    shots = take(camera, 20)
    steps = np.diff([shot.camera_ns for shot in shots])
    assert steps.tolist() == [5_000_000] * 19
    assert {shot.line_status for shot in shots} == {0b100}


def test_the_line_runs_on_while_nobody_looks_and_its_triggers_are_logged_as_absent(bench: Bench) -> None:
    for expected_first in (1, None):
        camera = bench.camera(settings={"SimTriggerLimit": 2000})
        camera.open()
        shots = take(camera, 5)
        if expected_first:
            assert shots[0].counter == expected_first
        camera.close()
        time.sleep(0.05)
    log = bench.log()
    assert log["counter"].tolist() == list(range(1, len(log) + 1))
    absent = log["faults"] == int(Fault.ABSENT)
    assert absent.sum() >= 25, "at 500 a second, 50 ms and the reopening"
    assert np.abs(np.diff(log["host_ns"]) - 2_000_000).max() <= 1, "one line, one clock, whoever logged"
    assert shots[0].counter is not None
    assert shots[0].counter > 25
    assert [shot.frame_id for shot in shots] == [1, 2, 3, 4, 5], "frame ids start anew with the acquisition"


def test_several_cameras_have_serials_and_feeds_of_their_own(bench: Bench) -> None:
    for index in range(3):
        write_feed(bench.folder / f"{index}.feed", [np.full((HEIGHT, WIDTH), 50 * index, np.uint8)])
        bench.environment(**{f"FEED_{index}": str(bench.folder / f"{index}.feed")})
    bench.environment(CAMERAS="3")
    with pytest.raises(CameraError, match="SIM0, SIM1, SIM2"):
        bench.camera(serial=None).open()
    with pytest.raises(CameraError, match=r"no camera SIM7 .* there are SIM0, SIM1, SIM2"):
        bench.camera(serial="SIM7").open()
    camera = bench.camera(serial="SIM2")
    assert camera.open().serial == "SIM2"
    assert take(camera, 1)[0].image[0, 0] == 100
    assert read_trigger_log(bench.folder, 2).size >= 1
    assert read_trigger_log(bench.folder, 0).size == 0


# ---- settings ------------------------------------------------------------------------------------------------------------


def test_settings_are_read_back_and_all_that_fail_are_listed_at_once(bench: Bench) -> None:
    camera = bench.camera(exposure_us=150, gain_db=3.0, pixel_format="RGB8")
    assert {"ExposureTime": "150.0", "Gain": "3.0", "PixelFormat": "RGB8", "TriggerSource": "Line0"}.items() <= camera.open().settings.items()
    camera.close()
    camera = bench.camera(
        exposure_us=100_000,
        gain_db=99.0,
        trigger="free_run",
        rate_hz=50.0,  # cut down silently to what the exposure allows
        settings={"NoSuchNode": 1, "TriggerMode": "Perhaps"},
    )
    with pytest.raises(CameraError) as caught:
        camera.open()
    text = str(caught.value)
    for expected in (
        "Gain: 99.0 is refused",
        "NoSuchNode: the camera has no such node",
        "TriggerMode: 'Perhaps' is refused",
        "AcquisitionFrameRate: 50.0 was written, 10.0",
    ):
        assert expected in text
    assert "ExposureTime" not in text


def test_nodes_are_written_while_streaming_and_locked_ones_are_refused(bench: Bench) -> None:
    camera = bench.camera()
    camera.open()
    frames = camera.frames()
    next(frames)
    camera.write("ExposureTime", 100)
    with pytest.raises(CameraError, match="Width"):
        camera.write("Width", 32)
    shots = [copied(frame) for frame in itertools.islice((frame for frame in frames if frame is not None), 40)]
    frames.close()  # type: ignore[attr-defined]
    last = shots[-1]
    np.testing.assert_array_equal(last.image, np.floor(pattern(last.counter or 0) * 0.5 + 0.5))


def test_a_producer_that_is_absent_or_no_producer_is_one_clear_sentence(bench: Bench) -> None:
    values = CameraConfig.model_validate({"name": "left", "kind": "genicam", "producer": bench.folder / "none.cti"})
    with pytest.raises(CameraError, match=r"camera left: the GenTL producer .*none\.cti is not there"):
        GenicamCamera(values, bench.folder / "none.cti").open()
    (bench.folder / "bad.cti").write_bytes(b"no library")
    with pytest.raises(CameraError, match="camera left"):
        GenicamCamera(values, bench.folder / "bad.cti").open()


def test_a_wrong_fault_plan_is_refused_with_its_reason(bench: Bench) -> None:
    for plan, reason in {
        "explode_at=3": "explode",
        "drop_at=0": "counted from 1",
        "drop=3": "KIND_at",
        "late_at=3:2h": "duration",
        "wrap_every=5": "wrap_at",
        "encoder_rollover_rate=0.1": "encoder_rollover_at",
        "underrun_at=4": "no fault is called 'underrun'",
    }.items():
        bench.environment(FAULTS=plan)
        camera = bench.camera()
        with pytest.raises(CameraError, match=reason):
            camera.open()
        camera.close()


# ---- faults: each in the log, and in what the consumer sees ---------------------------------------------------------------


def faulty(bench: Bench, plan: str, *, triggers: int = 40) -> dict[int, Shot]:
    """Frames by trigger counter; the last one of a trigger that came twice."""
    bench.environment(FAULTS=plan, SEED="3")
    camera = bench.camera(settings={"SimTriggerLimit": triggers})
    camera.open()
    shots = take_until_quiet(camera, triggers)
    camera.close()
    return {shot.counter or 0: shot for shot in shots}


def test_drops_are_gaps_in_the_ids(bench: Bench) -> None:
    shots = faulty(bench, "drop_every=7, drop_at=20x3")
    hit = {7, 14, 21, 28, 35, 20, 22}
    assert set(range(1, 41)) - set(shots) == hit
    assert bench.faults() == dict.fromkeys(hit, Fault.DROP)
    assert all(shot.frame_id == counter for counter, shot in shots.items())


def test_incomplete_frames_are_counted_and_not_shown(bench: Bench) -> None:
    bench.environment(FAULTS="incomplete_every=9")
    camera = bench.camera(settings={"SimTriggerLimit": 40})
    camera.open()
    shots = take_until_quiet(camera, 40)
    assert {shot.counter for shot in shots} == set(range(1, 41)) - {9, 18, 27, 36}
    assert camera.incomplete == 4
    assert bench.faults() == dict.fromkeys((9, 18, 27, 36), Fault.INCOMPLETE)


def test_a_stall_delivers_nothing_while_the_line_goes_on(bench: Bench) -> None:
    shots = faulty(bench, "stall_at=10:30ms")
    stalled = {counter for counter, fault in bench.faults().items() if fault == Fault.STALL}
    assert 14 <= len(stalled) <= 16
    assert min(stalled) == 10
    assert set(range(1, 41)) - set(shots) == stalled
    assert shots[40].frame_id == 40


def test_a_late_frame_holds_back_those_behind_it_and_a_reordered_one_is_overtaken(bench: Bench) -> None:
    shots = faulty(bench, "late_at=10:25ms, reorder_at=30:9ms")
    assert bench.faults() == {10: Fault.LATE, 30: Fault.REORDER}
    log = {int(record["counter"]): int(record["host_ns"]) for record in bench.log()}
    assert shots[10].received_ns - log[10] >= 25_000_000
    assert [counter for counter in shots if counter < 20] == list(range(1, 20))
    order = list(shots)
    assert order.index(30) > order.index(32)
    assert shots[10].camera_ns - shots[9].camera_ns == 2_000_000, "late on the wire, not in its exposure"


def test_ids_may_repeat_wrap_and_start_again(bench: Bench) -> None:
    shots = faulty(bench, "duplicate_at=5, wrap_at=10, reset_at=20")
    ids = {counter: shot.frame_id for counter, shot in shots.items()}
    assert [ids[counter] for counter in range(3, 13)] == [65529, 65530, 65530, 65532, 65533, 65534, 65535, 1, 2, 3]
    assert [ids[counter] for counter in range(18, 23)] == [9, 10, 1, 2, 3]
    assert bench.faults() == {5: Fault.DUPLICATE, 10: Fault.WRAP, 20: Fault.RESET}


def test_a_repeated_frame_comes_twice(bench: Bench) -> None:
    bench.environment(FAULTS="repeat_at=5")
    camera = bench.camera(settings={"SimTriggerLimit": 10})
    camera.open()
    shots = take_until_quiet(camera, 10)
    assert [shot.counter for shot in shots] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]
    assert [shot.frame_id for shot in shots] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10]


def test_black_saturated_and_frozen_images(bench: Bench) -> None:
    shots = faulty(bench, "black_at=5, saturated_at=6, frozen_at=8")
    assert not shots[5].image.any()
    assert (shots[6].image == 255).all()
    np.testing.assert_array_equal(shots[8].image, pattern(7))
    np.testing.assert_array_equal(shots[9].image, pattern(9))
    assert bench.faults() == {5: Fault.BLACK, 6: Fault.SATURATED, 8: Fault.FROZEN}
    assert bench.log()["image"][7] == bench.log()["image"][6]


def test_faults_by_probability_repeat_with_the_seed(bench: Bench) -> None:
    first = faulty(bench, "drop_rate=0.2", triggers=100)
    hit = bench.faults()
    assert 8 <= len(hit) <= 35
    assert set(range(1, 101)) - set(first) == set(hit)
    again = bench.folder / "again"
    again.mkdir()
    bench.environment(STATE=str(again))
    bench.folder = again
    faulty(bench, "drop_rate=0.2", triggers=100)
    assert bench.faults() == hit


def test_underruns_are_counted_by_both_sides(bench: Bench) -> None:
    camera = bench.camera(settings={"SimTriggerLimit": 120})
    camera.open()
    frames = camera.frames()
    next(frames)
    frame = next(frame for frame in frames if frame is not None)
    assert frame.trigger_counter == 1
    until = time.monotonic() + 2
    while (camera.check() or 0) < 120 and time.monotonic() < until:  # nobody fetches
        time.sleep(0.005)
    frames.close()  # type: ignore[attr-defined]
    lost = [counter for counter, fault in bench.faults().items() if fault == Fault.UNDERRUN]
    assert len(lost) >= 50
    assert camera.underruns == len(lost)


def test_faults_are_planned_by_node_while_it_runs(bench: Bench) -> None:
    camera = bench.camera(settings={"SimTriggerLimit": 300})
    camera.open()
    frames = camera.frames()
    next(frames)
    for node, value in (("SimFaultSelector", "BLACK"), ("SimFaultAt", 50), ("SimFaultCount", 2), ("SimFaultApply", None)):
        camera.write(node, value)
    seen = {frame.trigger_counter: bool(frame.pixels.any()) for frame in itertools.islice((f for f in frames if f is not None), 60)}
    frames.close()  # type: ignore[attr-defined]
    assert [counter for counter, light in seen.items() if not light] == [50, 51]


def test_a_lost_camera_is_an_error_and_can_be_opened_again_when_it_is_back(bench: Bench) -> None:
    bench.environment(FAULTS="lost_at=10:250ms")
    camera = bench.camera(settings={"SimTriggerLimit": 400})
    camera.open()
    with pytest.raises(CameraError, match="camera c is lost"):
        take_until_quiet(camera, 400)
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="no camera"):
        bench.camera().open()
    until = time.monotonic() + 3
    while True:
        camera = bench.camera(settings={"SimTriggerLimit": 400})
        try:
            camera.open()
            break
        except CameraError:
            camera.close()
            assert time.monotonic() < until
            time.sleep(0.02)
    assert len(take(camera, 5)) == 5
    lost = [int(record["counter"]) for record in bench.log() if record["faults"] == int(Fault.LOST)]
    assert 120 <= len(lost) <= 130
    assert lost[0] == 10


def test_a_second_process_cannot_take_the_camera(bench: Bench) -> None:
    camera = bench.camera()
    camera.open()
    import fcntl  # noqa: PLC0415 - stands for the other process, here alone

    with (bench.folder / "camera0.state").open("r+b") as state, pytest.raises(BlockingIOError):
        fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_open_and_close_leave_nothing_behind(bench: Bench) -> None:
    for _ in range(5):
        camera = bench.camera()
        camera.open()
        assert len(take(camera, 3)) == 3
        camera.close()


def test_a_producer_that_is_not_ours(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    producer = Path(genicam.__file__).with_name("viky.cti")
    if not producer.is_file():
        pytest.skip("this release of genicam brings no producer")
    values = {"name": "v", "kind": "genicam", "producer": producer, "serial": "0", "trigger": "free_run"}
    camera = GenicamCamera(CameraConfig.model_validate({**values, "settings": {}}), producer)
    try:
        with pytest.raises(CameraError, match="TriggerMode: the camera has no such node"):
            camera.open()
    finally:
        camera.close()


def test_nothing_is_printed(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    camera = bench.camera()
    camera.open()
    take(camera, 3)
    camera.close()
    assert capfd.readouterr() == ("", "")


# ---- faults of the link, the driver and the line: what the consumer makes of them -----------------------------------------


def hit_by(bench: Bench, fault: Fault) -> list[int]:
    return [int(record["counter"]) for record in bench.log() if fault & Fault(int(record["faults"]))]


def struck(bench: Bench) -> list[tuple[str, int]]:
    return [(call.kind, call.number) for call in read_call_log(bench.folder)]


def test_a_silent_camera_answers_and_counts_but_sends_nothing_until_it_is_opened_again(bench: Bench) -> None:
    shots = faulty(bench, "lost_silent_at=10", triggers=40)
    assert set(shots) == set(range(1, 10))
    assert hit_by(bench, Fault.LOST_SILENT) == list(range(10, 41))
    camera = bench.camera(settings={"SimTriggerLimit": 60})
    camera.open()
    assert take(camera, 5)


def test_incomplete_frames_without_end_are_counted_and_the_loop_has_its_turns(bench: Bench) -> None:
    bench.environment(FAULTS="incomplete_all_at=10:30ms")
    camera = bench.camera(settings={"SimTriggerLimit": 40})
    camera.open()
    shots = take_until_quiet(camera, 40)
    hit = hit_by(bench, Fault.INCOMPLETE_ALL)
    assert 14 <= len(hit) <= 16
    assert camera.incomplete == len(hit)
    assert {shot.counter for shot in shots} == set(range(1, 41)) - set(hit)


def test_an_error_of_the_driver_while_waiting_is_a_lost_camera(bench: Bench) -> None:
    bench.environment(FAULTS="event_error_at=10")
    camera = bench.camera(settings={"SimTriggerLimit": 40})
    camera.open()
    with pytest.raises(CameraError, match=r"camera c is lost: .*the wait for a frame failed"):
        take_until_quiet(camera, 40)
    assert hit_by(bench, Fault.EVENT_ERROR) == [10]


def test_the_cameras_clock_may_be_set_and_a_stamp_may_be_missing(bench: Bench) -> None:
    shots = faulty(bench, "timestamp_jump_at=10:5s, timestamp_absent_at=20, timestamp_backwards_at=30:7s")
    log = {int(record["counter"]): int(record["host_ns"]) for record in bench.log()}
    shift = {counter: shot.camera_ns - log[counter] - 10**15 for counter, shot in shots.items()}
    assert {shift[counter] for counter in range(1, 10)} == {0}
    assert {shift[counter] for counter in range(10, 30) if counter != 20} == {5_000_000_000}
    assert {shift[counter] for counter in range(30, 41)} == {-2_000_000_000}
    assert shots[20].camera_ns == 0
    assert [Fault(fault) for fault in bench.faults().values()] == [Fault.TIMESTAMP_JUMP, Fault.TIMESTAMP_ABSENT, Fault.TIMESTAMP_BACKWARDS]


def test_a_frame_without_chunk_data_does_not_show_another_ones(bench: Bench) -> None:
    bench.environment(FAULTS="chunk_missing_at=10")
    camera = bench.camera(settings={"SimTriggerLimit": 20})
    camera.open()
    shots = take_until_quiet(camera, 20)
    bare = [shot for shot in shots if shot.counter is None]
    assert [(shot.frame_id, shot.encoder, shot.line_status) for shot in bare] == [(10, None, None)]
    assert len(shots) == 20
    assert hit_by(bench, Fault.CHUNK_MISSING) == [10]


def test_chunk_data_that_are_not_the_frames_own_are_not_believed(bench: Bench) -> None:
    bench.environment(FAULTS="chunk_corrupt_at=10")
    camera = bench.camera(settings={"SimTriggerLimit": 20})
    camera.open()
    shots = take_until_quiet(camera, 20)
    assert [(shot.frame_id, shot.encoder) for shot in shots if shot.counter is None] == [(10, None)]
    assert [shot.counter for shot in shots if shot.counter is not None] == [*range(1, 10), *range(11, 21)]
    assert hit_by(bench, Fault.CHUNK_CORRUPT) == [10]


def test_what_does_not_fit_its_buffer_is_a_damaged_frame(bench: Bench) -> None:
    bench.environment(FAULTS="payload_too_large_at=10")
    camera = bench.camera(settings={"SimTriggerLimit": 20})
    camera.open()
    shots = take_until_quiet(camera, 20)
    assert {shot.counter for shot in shots} == set(range(1, 21)) - {10}
    assert camera.incomplete == 1
    assert hit_by(bench, Fault.PAYLOAD_TOO_LARGE) == [10]


def test_another_size_padding_and_another_format_are_told_with_the_frame(bench: Bench) -> None:
    shots = faulty(bench, "size_change_at=10, x_padding_at=20, wrong_pixel_format_at=30")
    assert shots[10].image.shape == (HEIGHT // 2, WIDTH)
    assert shots[11].image.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(shots[20].image, pattern(20))
    assert {counter: shot.pixel_format for counter, shot in shots.items() if shot.pixel_format != "Mono8"} == {30: "0x0108000A"}
    assert list(bench.faults().values()) == [Fault.SIZE_CHANGE, Fault.X_PADDING, Fault.WRONG_PIXEL_FORMAT]


def test_a_missed_trigger_is_missing_from_the_cameras_own_count(bench: Bench) -> None:
    bench.environment(FAULTS="missed_trigger_at=10")
    camera = bench.camera(settings={"SimTriggerLimit": 20})
    camera.open()
    shots = take_until_quiet(camera, 19)
    assert [shot.counter for shot in shots] == [shot.frame_id for shot in shots] == list(range(1, 20))
    assert camera.check() == 19
    assert [shot.encoder for shot in shots][8:11] == [9000, 11000, 12000]
    log = bench.log()
    assert log["camera_count"].tolist() == [*range(1, 10), 9, *range(10, 20)]
    assert log["encoder"].tolist() == [1000 * counter for counter in range(1, 21)]


def test_a_double_exposure_has_one_count_and_a_bounce_is_a_trigger_of_its_own(bench: Bench) -> None:
    bench.environment(FAULTS="double_trigger_at=10:1ms, line_bounce_at=20:1ms")
    camera = bench.camera(settings={"SimTriggerLimit": 30})
    camera.open()
    shots = take_until_quiet(camera, 30)
    assert [shot.counter for shot in shots] == [*range(1, 11), 10, *range(11, 31)]
    assert [shot.frame_id for shot in shots] == list(range(1, 32))
    by_id = {shot.frame_id: shot for shot in shots}
    assert by_id[11].camera_ns - by_id[10].camera_ns == 1_000_000
    np.testing.assert_array_equal(by_id[11].image, np.roll(pattern(10), 1, axis=1))
    np.testing.assert_array_equal(by_id[22].image, np.roll(pattern(20), 1, axis=1))
    assert by_id[22].counter == 21
    log = bench.log()
    steps_ms = [round(step / 1e6) for step in np.diff(log["host_ns"])]
    assert steps_ms == [2] * 19 + [1, 1] + [2] * 8, "the parts come when they would have come"
    assert hit_by(bench, Fault.LINE_BOUNCE) == [21]
    assert log["encoder"].tolist()[18:23] == [19000, 20000, 20001, 21000, 22000]


def test_the_encoder_may_slip_run_back_and_roll_over(bench: Bench) -> None:
    shots = faulty(bench, "encoder_jump_at=5, encoder_reverse_at=10x2")
    assert np.diff([shots[counter].encoder or 0 for counter in range(1, 41)]).tolist() == (
        [1000] * 3 + [101_000] + [1000] * 4 + [-1000] * 2 + [1000] * 29
    )
    assert bench.log()["encoder"].tolist() == [shots[counter].encoder for counter in range(1, 41)]
    bench.folder = bench.folder / "again"
    bench.folder.mkdir()
    bench.environment(STATE=str(bench.folder))
    shots = faulty(bench, "encoder_rollover_at=20")
    assert [shots[counter].encoder for counter in range(18, 23)] == [2**32 - 2000, 2**32 - 1000, 0, 1000, 2000]
    assert hit_by(bench, Fault.ENCODER_ROLLOVER) == [20]


def test_stale_shifted_and_torn_images(bench: Bench) -> None:
    shots = faulty(bench, "stale_frame_at=10, image_shifted_at=20, image_torn_at=30")
    np.testing.assert_array_equal(shots[10].image, pattern(5))
    assert bench.log()["image"][9] == 4
    np.testing.assert_array_equal(shots[20].image, np.roll(pattern(20), WIDTH // 4, axis=1))
    np.testing.assert_array_equal(shots[30].image[: HEIGHT // 2], pattern(30)[: HEIGHT // 2])
    np.testing.assert_array_equal(shots[30].image[HEIGHT // 2 :], pattern(29)[HEIGHT // 2 :])
    assert list(bench.faults().values()) == [Fault.STALE_FRAME, Fault.IMAGE_SHIFTED, Fault.IMAGE_TORN]


def test_registers_may_be_slow_or_time_out(bench: Bench) -> None:
    bench.environment(FAULTS="register_slow_at=10x4:30ms, register_timeout_at=30x4:1ms")
    camera = bench.camera(settings={"SimTriggerLimit": 60})
    camera.open()
    took_s: list[float] = []

    def read_on() -> None:
        for _ in camera.frames():
            begun = time.monotonic()
            camera.check()
            took_s.append(time.monotonic() - begun)

    with pytest.raises(CameraError, match=r"camera c is lost: .*the camera does not answer in time"):
        read_on()
    assert max(took_s) >= 0.03
    until = time.monotonic() + 3
    while bench.log().size < 40:  # it answers again, and can be closed
        assert time.monotonic() < until
        time.sleep(0.002)
    assert {kind for kind, _ in struck(bench)} == {"register_slow", "register_timeout"}
    assert hit_by(bench, Fault.REGISTER_SLOW) == [10, 11, 12, 13]


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("open_busy_at=1x2", "cannot be opened"),
        ("xml_broken_at=1x2", "cannot be opened"),
        ("unlisted_at=1x2", "no camera at all answers"),
        ("start_fail_at=1x2", "the stream does not start"),
        ("exposure_rejected_at=1x2", "ExposureTime: 150.0 was written, 75.0 is read back"),
    ],
)
def test_a_camera_that_refuses_twice_is_used_the_third_time(bench: Bench, plan: str, told: str) -> None:
    bench.environment(FAULTS=plan)

    def use() -> int:
        camera = bench.camera(exposure_us=150.0)
        try:
            camera.open()
            return len(take(camera, 5))
        finally:
            camera.close()

    for _ in range(2):
        with pytest.raises(CameraError, match=told):
            use()
    assert use() == 5
    kind = plan.partition("_at")[0]
    assert struck(bench) == [(kind, 1), (kind, 2)]


def test_a_stream_that_does_not_stop_is_closed_all_the_same(bench: Bench) -> None:
    bench.environment(FAULTS="stop_fail_at=1")
    for _ in range(2):
        camera = bench.camera()
        camera.open()
        assert len(take(camera, 3)) == 3
        camera.close()
    assert struck(bench) == [("stop_fail", 1)]


def test_an_output_that_is_not_taken_over_is_an_error(bench: Bench) -> None:
    bench.environment(FAULTS="output_stuck_at=1")
    camera = bench.camera()
    camera.open()
    with pytest.raises(CameraError, match="UserOutputValue: True was written, False is read back"):
        camera.write("UserOutputValue", value=True)
    camera.write("UserOutputValue", value=True)
    assert struck(bench) == [("output_stuck", 1)]


def test_of_two_cameras_with_one_serial_none_is_used(bench: Bench) -> None:
    bench.environment(CAMERAS="2", FAULTS_1="same_serial_at=1")
    with pytest.raises(CameraError, match="2 cameras say that their serial is SIM0"):
        bench.camera(serial="SIM0").open()
    assert [call.kind for call in read_call_log(bench.folder, 1)] == ["same_serial"]
    camera = bench.camera(serial="SIM0")
    assert camera.open().serial == "SIM0"


def test_a_leaking_producer_grows(bench: Bench) -> None:
    def resident() -> int:
        return psutil.Process().memory_info().rss

    bench.environment(FAULTS="leak_at=10x8")
    camera = bench.camera(settings={"SimTriggerLimit": 40})
    camera.open()
    before = resident()
    take_until_quiet(camera, 40)
    assert hit_by(bench, Fault.LEAK) == list(range(10, 18))
    assert resident() - before > 6 * 4 * 1024 * 1024
