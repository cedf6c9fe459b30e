"""One suite over every camera behind the port."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector.camera.build import build_camera
from inspector.camera.port import Camera
from inspector.camera.simulator import simulator_path
from inspector.config.station import CameraConfig
from inspector.contract.errors import CameraError

WIDTH, HEIGHT, COUNT = 32, 16, 4
Make = Callable[..., Camera]


def picture(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH), np.uint8)


@pytest.fixture(params=["folder", "simulator"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    if request.param == "simulator" and simulator_path() is None:
        assert shutil.which("g++") is None, "there is a compiler, and yet the simulator was not built"
        pytest.skip("the simulator needs a C++ compiler")
    images = tmp_path / "images"
    images.mkdir()
    for index in range(COUNT):
        cv2.imwrite(str(images / f"{index}.png"), picture(index))
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("INSPECTOR_SIM_STATE", str(tmp_path / "state"))
    for name in ("INSPECTOR_SIM_CAMERAS", "INSPECTOR_SIM_FEED_0"):
        monkeypatch.setenv(name, "1" if name.endswith("CAMERAS") else "")  # what building sets is undone after the test
    cameras: list[Camera] = []

    def build(**values: object) -> Camera:
        given = {"name": "c", "kind": request.param, "images": images, "rate_hz": 200.0, **values}
        cameras.append(build_camera(CameraConfig.model_validate(given)))
        return cameras[-1]

    yield build
    for camera in cameras:
        camera.close()


def read(camera: Camera, count: int, *, timeout_s: float = 3.0) -> list[tuple[int, int | None, NDArray[np.uint8]]]:
    found: list[tuple[int, int | None, NDArray[np.uint8]]] = []
    until = time.monotonic() + timeout_s
    frames = camera.frames()
    assert next(frames) is None, "the first item says that it runs"
    for frame in frames:
        if frame is not None:
            assert (frame.width_px, frame.height_px, frame.pixel_format) == (WIDTH, HEIGHT, "Mono8")
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.size == frame.stride_bytes * frame.height_px
            assert frame.received_ns <= time.monotonic_ns()
            found.append((frame.frame_id, frame.trigger_counter, frame.pixels.reshape(HEIGHT, WIDTH).copy()))
        if len(found) >= count or time.monotonic() > until:
            break
    frames.close()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("trigger", ["free_run", "line"])
def test_pictures_come_in_order_again_and_again_with_their_numbers(make: Make, trigger: str) -> None:
    camera = make(trigger=trigger)
    info = camera.open()
    assert (info.width_px, info.height_px, info.pixel_format, info.simulated) == (WIDTH, HEIGHT, "Mono8", True)
    assert info.model
    found = read(camera, 6)
    assert [frame_id for frame_id, _, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [counter for _, counter, _ in found] == [1, 2, 3, 4, 5, 6]
    for index, (_, _, image) in enumerate(found):
        np.testing.assert_array_equal(image, picture(index % COUNT))
    assert (camera.incomplete, camera.underruns) == (0, 0)


def test_the_camera_counts_its_triggers(make: Make) -> None:
    camera = make(trigger="free_run")
    camera.open()
    read(camera, 3)
    assert (camera.check() or 0) >= 3


def test_the_rate_is_kept(make: Make) -> None:
    camera = make(trigger="free_run", rate_hz=50.0)
    camera.open()
    begun = time.monotonic()
    read(camera, 6)
    assert time.monotonic() - begun >= 0.09


def test_the_reader_gets_its_turn_while_nothing_comes(make: Make) -> None:
    camera = make(trigger="software")
    camera.open()
    frames = camera.frames()
    begun = time.monotonic()
    assert [next(frames) for _ in range(4)] == [None] * 4
    assert time.monotonic() - begun < 1.0
    camera.trigger()
    assert next(frame for frame in frames if frame is not None).trigger_counter == 1
    camera.trigger()
    camera.trigger()
    assert [frame.trigger_counter for frame in (next(f for f in frames if f is not None) for _ in range(2)) if frame] == [2, 3]
    frames.close()  # type: ignore[attr-defined]


def test_what_a_camera_does_not_take_is_one_error_that_names_all_of_it(make: Make) -> None:
    camera = make(settings={"NoSuchNode": 1, "NorThisOne": 2})
    with pytest.raises(CameraError, match=r"camera c does not take its settings: .*NoSuchNode.*NorThisOne"):
        camera.open()


def test_writing_what_is_not_there_is_an_error_and_the_camera_lives_on(make: Make) -> None:
    camera = make(trigger="free_run")
    camera.open()
    with pytest.raises(CameraError, match="NoSuchNode"):
        camera.write("NoSuchNode", 1)
    assert len(read(camera, 2)) == 2


def test_it_can_be_closed_in_every_state_and_twice(make: Make) -> None:
    make().close()
    camera = make(trigger="free_run")
    camera.open()
    camera.close()
    camera.close()
    again = make(trigger="free_run")
    again.open()
    frames = again.frames()
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    again.close()


def test_the_clock_is_the_one_that_stamps_the_frames(make: Make) -> None:
    camera = make()
    camera.open()
    before = camera.clock()
    frames = camera.frames()
    frame = next(one for one in frames if one is not None)
    after = camera.clock()
    frames.close()  # type: ignore[attr-defined]
    assert before is not None
    assert after is not None
    assert before.begun_ns <= before.ended_ns <= after.begun_ns <= after.ended_ns
    assert before.camera_ns <= frame.camera_ns <= after.camera_ns
    shift = after.camera_ns - after.ended_ns
    assert abs(before.camera_ns - before.ended_ns - shift) < 50_000_000, "it counts as the host's clock does"
    assert camera.check() is not None
