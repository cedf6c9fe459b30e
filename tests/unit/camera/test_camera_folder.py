from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.camera.build import build_camera
from inspector.camera.folder import FolderCamera
from inspector.config.station import CameraConfig
from inspector.contract.errors import CameraError


def camera(folder: Path, **values: object) -> FolderCamera:
    made = build_camera(
        CameraConfig.model_validate({"name": "c", "kind": "folder", "images": folder, "rate_hz": 2000.0, "trigger": "line", **values})
    )
    assert isinstance(made, FolderCamera)
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((4, 6, 3), (10 * index, 0, 0), np.uint8))
    return tmp_path


def test_colour_pictures_are_red_first_and_can_be_asked_for_as_grey(pictures: Path) -> None:
    for pixel_format, size in (("RGB8", 72), ("Mono8", 24)):
        made = camera(pictures, pixel_format=pixel_format)
        assert made.open().pixel_format == pixel_format
        frames = [frame for frame in itertools.islice(made.frames(), 200) if frame is not None]
        assert frames[1].pixels.size == size == frames[1].stride_bytes * 4
        if pixel_format == "RGB8":
            assert frames[1].pixels[:3].tolist() == [0, 0, 10]
        made.close()


@pytest.mark.parametrize(("settings", "count"), [({"loop": False}, 3), ({"limit": 5}, 5), ({"loop": False, "limit": 2}, 2)])
def test_the_pictures_end_where_they_should(pictures: Path, settings: dict[str, object], count: int) -> None:
    made = camera(pictures, settings=settings)
    made.open()
    frames = [frame.frame_id for frame in itertools.islice(made.frames(), 30) if frame is not None]
    assert frames == list(range(1, count + 1))
    assert made.check() == count


def test_a_late_reader_gets_every_picture_with_the_time_it_was_due(pictures: Path) -> None:
    made = camera(pictures, rate_hz=1000.0)
    made.open()
    frames = (frame for frame in made.frames() if frame is not None)
    stamps = [frame.camera_ns for frame in itertools.islice(frames, 20)]
    assert np.diff(stamps).tolist() == pytest.approx([1_000_000] * 19, abs=1000)


def test_a_wrong_size_or_format_is_refused_and_a_vanished_folder_is_a_loss(pictures: Path) -> None:
    with pytest.raises(CameraError, match=r"PixelFormat.*Width: 8 is wanted, the first picture has 6"):
        camera(pictures, pixel_format="BayerRG8", width_px=8).open()
    made = camera(pictures)
    made.open()
    with pytest.raises(CameraError, match="software"):
        made.trigger()
    for path in pictures.iterdir():
        path.unlink()
    with pytest.raises(CameraError, match="is lost"):
        list(itertools.islice(made.frames(), 5))
    pictures.rmdir()
    with pytest.raises(CameraError, match="is gone"):
        made.check()
