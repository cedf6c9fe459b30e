from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.engine.preprocess import (
    FILL_GREY,
    boxes_to_canvas,
    boxes_to_image,
    from_pixel_format,
    letterbox,
    letterbox_geometry,
    with_channels,
)

SIZES = st.integers(1, 300)


@given(SIZES, SIZES, SIZES, SIZES)
def test_the_picture_lies_whole_on_the_canvas_and_fills_one_side(height: int, width: int, canvas_height: int, canvas_width: int) -> None:
    geometry = letterbox_geometry(height, width, canvas_height, canvas_width)
    assert 1 <= geometry.height_px <= canvas_height
    assert 1 <= geometry.width_px <= canvas_width
    assert geometry.height_px == canvas_height or geometry.width_px == canvas_width
    assert abs(geometry.height_px - height * geometry.width_px / width) <= 1 + height / width or 1 in (geometry.width_px, geometry.height_px)


@given(SIZES, SIZES, SIZES, SIZES, st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5))
def test_boxes_on_the_picture_come_back_from_the_canvas(
    height: int, width: int, canvas_height: int, canvas_width: int, corners: list[tuple[float, float, float, float]]
) -> None:
    boxes = np.array(corners, np.float32).reshape(-1, 4) * np.array([width, height, width, height], np.float32)
    geometry = letterbox_geometry(height, width, canvas_height, canvas_width)
    back = boxes_to_image(boxes_to_canvas(boxes, geometry), geometry, height, width)
    np.testing.assert_allclose(back, boxes, rtol=1e-5, atol=1e-3)


def test_boxes_beyond_the_picture_are_cut_at_its_borders() -> None:
    geometry = letterbox_geometry(100, 200, 256, 256)
    assert boxes_to_image(np.array([[-5, -5, 300, 300]]), geometry, 100, 200).tolist() == [[0, 0, 200, 100]]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_rest_of_the_canvas_is_grey_to_the_right_and_bottom(channels: int) -> None:
    canvas, geometry = letterbox(np.full((10, 20), 200, np.uint8), 64, 64, channels)
    assert canvas.shape == (channels, 64, 64)
    assert canvas.dtype == np.uint8
    assert canvas.flags.c_contiguous
    assert (geometry.height_px, geometry.width_px) == (32, 64)
    assert (canvas[:, :32] == 200).all()
    assert (canvas[:, 32:] == FILL_GREY).all()


def test_a_picture_of_the_canvas_s_size_is_not_changed() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48), np.uint8)
    canvas, geometry = letterbox(image, 64, 48, 1)
    np.testing.assert_array_equal(canvas[0], image)
    assert (geometry.scale_x, geometry.scale_y) == (1.0, 1.0)


def test_shrinking_averages_so_that_fine_patterns_do_not_alias() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    canvas, _ = letterbox(stripes, 32, 32, 1)
    assert (canvas == 100).all()


def test_a_marked_corner_lands_where_the_geometry_says() -> None:
    image = np.zeros((50, 100), np.uint8)
    image[40:, 90:] = 255
    canvas, geometry = letterbox(image, 128, 128, 1)
    box = boxes_to_canvas(np.array([[90, 40, 100, 50]]), geometry)[0]
    rows, columns = np.nonzero(canvas[0, : geometry.height_px] > 128)
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], box, atol=1.5)


def test_channels_are_converted_both_ways() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = with_channels(grey, 3)
    assert colour.shape == (3, 4, 3)
    np.testing.assert_array_equal(with_channels(colour, 1), grey)
    np.testing.assert_array_equal(with_channels(grey[..., None], 1), grey)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert with_channels(red, 1)[0, 0] == 76  # red's share of luma


@pytest.mark.parametrize(
    ("image", "channels", "told"),
    [
        (np.zeros((4, 4), np.float32), 1, "dtype float32"),
        (np.zeros((4, 4, 2), np.uint8), 1, "shape"),
        (np.zeros((0, 4), np.uint8), 1, "empty"),
        (np.zeros((4, 4), np.uint8), 2, "channels = 2"),
    ],
)
def test_what_is_no_picture_is_refused(image: np.ndarray, channels: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        with_channels(image, channels)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        letterbox_geometry(10, 10, 0, 10)


def test_a_bayer_frame_with_red_top_left_becomes_rgb() -> None:
    frame = np.zeros((16, 16), np.uint8)
    frame[::2, ::2] = 200  # red
    frame[1::2, 1::2] = 50  # blue
    frame[::2, 1::2] = frame[1::2, ::2] = 100  # green
    assert from_pixel_format(frame, "BayerRG8")[8, 8].tolist() == [200, 100, 50]


def test_plain_formats_pass_unchanged() -> None:
    grey, colour = np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint8)
    assert from_pixel_format(grey, "Mono8") is grey
    assert from_pixel_format(colour, "RGB8") is colour


def test_a_frame_that_does_not_fit_its_format_is_refused() -> None:
    with pytest.raises(ValueError, match="RGB8 frame of shape"):
        from_pixel_format(np.zeros((4, 6), np.uint8), "RGB8")
    with pytest.raises(ValueError, match="Mono8 frame of shape"):
        from_pixel_format(np.zeros((4, 6, 3), np.uint8), "Mono8")
