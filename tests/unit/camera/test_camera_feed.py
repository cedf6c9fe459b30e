from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.camera.simulator.feed import image_files, read_folder, read_image, write_feed
from inspector.camera.simulator.log import RECORD, CallFault, read_call_log, read_trigger_log
from inspector.contract.errors import DataError


def test_a_feed_holds_header_and_raw_pixels(tmp_path: Path) -> None:
    images = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2)]
    assert write_feed(tmp_path / "a.feed", images) == 2
    data = (tmp_path / "a.feed").read_bytes()
    assert data[:8] == b"INSPFEED"
    assert np.frombuffer(data[8:32], np.uint32).tolist() == [1, 2, 6, 4, 3, 0]
    assert data[32:] == b"".join(image.tobytes() for image in images)


def test_a_feed_takes_views_that_are_not_contiguous(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    write_feed(tmp_path / "a.feed", [image[:, ::2]])
    assert (tmp_path / "a.feed").read_bytes()[32:] == image[:, ::2].tobytes()


@pytest.mark.parametrize(
    "images",
    [
        [],
        [np.zeros((4, 4), np.float32)],
        [np.zeros((4, 4, 4), np.uint8)],
        [np.zeros((4, 4), np.uint8), np.zeros((4, 6), np.uint8)],
        [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)],
    ],
)
def test_a_feed_refuses_what_no_camera_sends(tmp_path: Path, images: list[np.ndarray]) -> None:
    with pytest.raises(DataError):
        write_feed(tmp_path / "a.feed", images)


def test_a_folder_is_read_in_name_order_and_grey_stays_grey(tmp_path: Path) -> None:
    for name, value in (("b.png", 20), ("a.png", 10), ("c.bmp", 30)):
        cv2.imwrite(str(tmp_path / name), np.full((3, 5, 3), value, np.uint8))  # grey, stored with three channels
    (tmp_path / "notes.txt").write_text("no image")
    images = list(read_folder(tmp_path))
    assert [image.shape for image in images] == [(3, 5)] * 3
    assert [int(image[0, 0]) for image in images] == [10, 20, 30]


def test_colour_is_red_first(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((2, 2, 3), (1, 2, 200), np.uint8))  # OpenCV writes blue first
    assert next(read_folder(tmp_path))[0, 0].tolist() == [200, 2, 1]
    assert read_image(tmp_path / "a.png", grey=True).ndim == 2


def test_folders_without_images_and_damaged_images_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        image_files(tmp_path)
    with pytest.raises(DataError, match="no images"):
        image_files(tmp_path / "absent")
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "a.png")


def test_the_log_leaves_out_a_record_that_is_being_written(tmp_path: Path) -> None:
    assert read_trigger_log(tmp_path).size == 0
    record = np.array([(7, 123, 5, -9, 2, 6)], RECORD)
    (tmp_path / "camera1.v2.log").write_bytes(record.tobytes() + b"\0" * 10)
    assert read_trigger_log(tmp_path, 1).tolist() == [(7, 123, 5, -9, 2, 6)]
    assert read_call_log(tmp_path, 1) == []
    (tmp_path / "camera1.calls").write_text("55 open_busy 3\n66 start_f")
    assert read_call_log(tmp_path, 1) == [CallFault(55, "open_busy", 3)]
