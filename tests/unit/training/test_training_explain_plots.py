from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.archive.overlay import FULL_FROM, STRONGEST_COLOUR
from inspector.contract.errors import DataError
from inspector.contract.records import Box, Defect
from inspector.engine.preprocess import letterbox
from inspector.training.explain_plots import (
    GAP_PX,
    NARROWEST_PX,
    OUTLINE,
    WIDEST_PX,
    Panel,
    beside,
    map_on_picture,
    overlay,
    strongest_of,
    write_picture,
)

GREY = np.full((40, 60), 90, np.uint8)


def defect(box: Box) -> Defect:
    return Defect("pit", 0.5, box, counted=True, source="x", camera="")


def header_px(drawn: Any) -> int:
    """Rows above a picture of one grey level."""
    return int(np.argmax((drawn[:, 0] == 90).all(-1)))


def test_the_map_is_colour_where_it_is_strong_and_the_picture_where_it_is_zero() -> None:
    heat = np.zeros((40, 60), np.float32)
    heat[10:20, 10:20] = 3e-9  # any unit
    heat[30, 30] = 1e-9
    drawn = overlay(GREY, heat).astype(int)
    assert (drawn[heat == 0] == 90).all()
    strong, weak = drawn[15, 15], drawn[30, 30]
    assert strong[2] > 190
    assert strong[1] > 190
    assert strong[0] < 180  # yellow
    assert weak.max() - weak.min() > 20  # a tint
    assert np.abs(weak - 90).sum() < np.abs(strong - 90).sum()


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_picture_shines_through_less_where_the_map_is_stronger(first: float, second: float) -> None:
    heat = np.array([[*sorted((first, second)), 1]], np.float32)
    dark, bright = (overlay(np.full((1, 3), grey, np.uint8), heat).astype(int)[0] for grey in (20, 220))
    seen = (bright - dark).mean(1)  # of the 200 grey levels between the two pictures
    assert seen[0] >= seen[1] - 1  # rounding
    assert seen[2] == pytest.approx(200 * (1 - STRONGEST_COLOUR), abs=2)  # the defect can be seen in the strongest colour
    assert seen[0] == pytest.approx(200 * (1 - STRONGEST_COLOUR * min(1, float(heat[0, 0]) / FULL_FROM) ** 2), abs=4)


def test_a_map_of_zeros_leaves_the_picture() -> None:
    drawn = overlay(GREY, np.zeros((40, 60), np.float32))
    assert np.array_equal(drawn, np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize(
    ("picture", "heat", "told"),
    [
        (GREY, np.zeros((40, 61), np.float32), "of the map's size"),
        (np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60, 3), np.float32), "must be a grey"),
        (GREY.astype(np.float32), np.zeros((40, 60), np.float32), "uint8"),
        (GREY, np.full((40, 60), -1, np.float32), "below 0"),
        (GREY, np.full((40, 60), np.nan, np.float32), "not finite"),
    ],
)
def test_what_is_no_map_of_a_picture_is_refused(picture: Any, heat: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        overlay(picture, heat)


@pytest.mark.parametrize("image_px", [(100, 200), (33, 20), (64, 128)])
def test_a_map_of_the_input_lies_on_the_picture(image_px: tuple[int, int]) -> None:
    """A bright spot of the picture, letterboxed, is at its place again, and what lies beside the picture is gone."""
    picture = np.zeros(image_px, np.uint8)
    row, column = int(image_px[0] * 0.7), int(image_px[1] * 0.3)
    picture[row - 3 : row + 4, column - 3 : column + 4] = 255
    canvas, geometry = letterbox(picture, 64, 128, 1)
    found = map_on_picture(canvas[0].astype(np.float32), (64, 128), geometry, image_px)
    assert found.shape == image_px
    assert found.dtype == np.float32
    assert np.abs(found - picture).mean() < 8
    rows, columns = np.nonzero(found > found.max() / 2)
    assert abs(rows.mean() - row) < 1
    assert abs(columns.mean() - column) < 1


def test_a_coarse_map_lies_on_the_picture_too() -> None:
    cells = np.zeros((4, 8), np.float32)
    cells[1, 2] = 1  # rows 16-31, columns 32-47 of a canvas of 64 x 128
    _, geometry = letterbox(np.zeros((128, 128), np.uint8), 64, 128, 1)  # the picture covers the left half, at half its size
    found = map_on_picture(cells, (64, 128), geometry, (128, 128))
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 32 <= row < 64
    assert 64 <= column < 96
    assert found[:, :32].max() == 0


def test_several_maps_are_seen_however_weak() -> None:
    maps = np.zeros((3, 30, 30), np.float32)
    maps[0, 5, 5], maps[1, 20, 20] = 1e-30, 1e3
    shown = strongest_of(maps, 1.0)
    assert shown.dtype == np.float32
    assert shown[5, 5] == shown[20, 20] == 1
    assert 0 < shown[5, 6] < 1  # spread
    assert shown[12, 28] == 0
    assert np.array_equal(strongest_of(maps, 0) > 0, (maps > 0).any(0))


def test_panels_stand_beside_one_another_at_one_height() -> None:
    two = beside([Panel(GREY, ("one line",)), Panel(np.repeat(GREY[..., None], 3, 2), ("a", "b", "c"))])
    assert two.dtype == np.uint8
    assert two.shape[1:] == (2 * NARROWEST_PX + GAP_PX, 3)
    height = two.shape[0] - header_px(two)
    assert height == round(40 * NARROWEST_PX / 60)
    assert header_px(two) == header_px(two[:, -NARROWEST_PX:])
    assert (two[:, NARROWEST_PX : NARROWEST_PX + GAP_PX] == 255).all()


@pytest.mark.parametrize("width", [300, 640, 1000, 2000])
def test_long_captions_are_wrapped_before_they_are_cut(width: int) -> None:
    picture = np.full((40, width), 90, np.uint8)
    one = header_px(beside([Panel(picture, ("word",))]))
    drawn = beside([Panel(picture, ("non_conducting 0.99 (45 % inside), " * 8,))])
    top = header_px(drawn)
    assert top > 3 * one
    assert (drawn[:top, -4:] == drawn[0, 0]).all()  # no letter reaches the border
    assert (drawn[:top, drawn.shape[1] // 2 :] > 200).any()


@pytest.mark.parametrize("width", [20, 640, 900, 3000])
def test_boxes_grow_and_shrink_with_the_picture(width: int) -> None:
    height = width // 2
    picture = np.full((height, width), 90, np.uint8)
    box = Box(width * 0.25, height * 0.5, width * 0.75, height * 0.9)
    panels = [Panel(picture, ("x",), (defect(box),)), Panel(picture, ("x",), outlines=(box,))]
    drawn = beside(panels)
    wide = min(max(width, NARROWEST_PX), WIDEST_PX)
    assert drawn.shape[1] == 2 * wide + GAP_PX
    top = header_px(drawn)
    red = (drawn[:, :wide].astype(int) - [40, 40, 230] == 0).all(-1)
    white = (drawn[:, wide + GAP_PX :] == OUTLINE).all(-1)
    white[:top] = False  # the words above
    for sides in (red, white):
        rows, columns = np.nonzero(sides)
        # Lines have a width of up to four pixels.
        assert abs(columns.min() - wide * 0.25) < 4
        assert abs(columns.max() - wide * 0.75) < 4
        assert abs(rows.max() - top - wide / 2 * 0.9) < 4


def test_colours_stay() -> None:
    blue = np.zeros((40, 60, 3), np.uint8)
    blue[..., 0] = 200  # BGR
    assert tuple(beside([Panel(blue, ("x",))])[-1, -1]) == (200, 0, 0)


def test_panels_of_several_sizes_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one, all of one size"):
        beside([Panel(GREY, ()), Panel(GREY[1:], ())])
    with pytest.raises(ValueError, match="at least one"):
        beside([])


def test_a_picture_is_written_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.png"
    write_picture(path, GREY)
    assert np.array_equal(np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)), GREY)
    with pytest.raises(DataError, match="cannot be written"):
        write_picture(path / "below.png", GREY)
