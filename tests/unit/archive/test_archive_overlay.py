"""Heat over a picture: in its own place, of its own strength, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from inspector.archive.overlay import HOTTEST, coloured, heat_levels, is_whole, window
from inspector.contract.records import Box, HeatMap

Map = NDArray[np.float32]
MAPS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda shape: arrays(np.float32, shape, elements=st.integers(-2, 9)))


def _heat(values: Map | list[list[float]], *corners: float) -> HeatMap:
    return HeatMap("scratch", 0.9, "bilinear", np.asarray(values, np.float32), Box(*corners))


def _expected(one: HeatMap, height: int, width: int) -> NDArray[np.float64]:
    """Shares of the map at the middles of the picture's pixels, nan outside its box."""
    box, values = one.box_px, np.maximum(one.values.astype(np.float64), 0)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    rows, columns = values.shape
    at_x, at_y = (x - box.x1) / (box.x2 - box.x1) * columns - 0.5, (y - box.y1) / (box.y2 - box.y1) * rows - 0.5
    along_x = np.stack([np.interp(at_x, np.arange(columns), row) for row in values])
    placed: NDArray[np.float64] = np.stack([np.interp(at_y, np.arange(rows), column) for column in along_x.T], axis=1) / max(values.max(), 1e-9)
    placed[(y < box.y1) | (y >= box.y2)] = np.nan
    placed[:, (x < box.x1) | (x >= box.x2)] = np.nan
    return placed


@given(MAPS, st.integers(1, 60), st.integers(1, 60), st.tuples(*[st.floats(-30, 70)] * 2), st.tuples(*[st.floats(1, 90)] * 2))
def test_a_map_lies_where_its_box_says(values: Map, height: int, width: int, corner: tuple[float, float], size: tuple[float, float]) -> None:
    one = _heat(values, *corner, corner[0] + size[0], corner[1] + size[1])
    expected = np.nan_to_num(_expected(one, height, width)) * HOTTEST
    np.testing.assert_allclose(heat_levels([one], height, width), expected, atol=2)  # of 255: rounded twice
    rows, columns = window(one, height, width)
    assert np.isfinite(_expected(one, height, width)).sum() == len(range(height)[rows]) * len(range(width)[columns])


def test_a_map_that_reaches_beyond_the_picture_is_cut_not_squeezed() -> None:
    levels = heat_levels([_heat([[0, 0], [0, 1]], 0, 0, 80, 80)], 50, 80)
    assert levels[49, 79] == round(HOTTEST * (49.5 - 20) / 40)  # the lower cells' middle is at row 60
    assert levels[10, 70] == levels[40, 10] == 0


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_map_without_heat_leaves_the_picture_as_it_is(value: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    shown = coloured(picture, heat_levels([_heat([[value, value]], 0, 0, 40, 30)], 30, 40))
    assert (shown == cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)).all()


@pytest.mark.parametrize(
    "corners", [(50, 50, 60, 60), (5, 5, 5, 9), (9, 5, 5, 9), (np.nan, 0, 5, 5), (0, 0, np.inf, 5), (-1e30, -1e30, -1e29, -1e29)]
)
def test_boxes_without_a_pixel_are_drawn_nowhere(corners: tuple[float, ...]) -> None:
    assert not heat_levels([_heat([[1, 1]], *corners)], 40, 40).any()


def test_each_map_is_shown_by_its_own_largest_value() -> None:
    levels = heat_levels([_heat([[1e-6]], 0, 0, 10, 10), _heat([[1e6]], 20, 20, 30, 30)], 40, 40)
    assert (levels[:10, :10] == HOTTEST).all()
    assert (levels[20:30, 20:30] == HOTTEST).all()
    assert np.count_nonzero(levels) == 200


def test_inside_a_parts_map_that_one_alone_is_seen() -> None:
    whole, part = _heat([[1.0]], 0, 0, 40, 40), _heat([[0, 1], [0, 0]], 10, 10, 30, 30)
    levels = heat_levels([part, whole], 40, 40)
    assert levels[5, 5] == HOTTEST
    assert levels[28, 12] == 0
    assert levels[12, 28] == HOTTEST


@pytest.mark.parametrize("order", [lambda maps: maps, lambda maps: maps[::-1]])
def test_of_parts_that_overlap_the_strongest_is_seen_in_any_order(order: Callable[[list[HeatMap]], list[HeatMap]]) -> None:
    one, other = _heat([[1, 0]], 0, 0, 20, 10), _heat([[0, 1]], 10, 0, 30, 10)
    levels = heat_levels(order([one, other]), 40, 40)
    assert levels[5, 2] == levels[5, 28] == HOTTEST
    assert levels[5, 11] == levels[5, 18] == round(HOTTEST * 0.35)
    assert levels[15, 5] == 0


def test_whole_is_what_covers_every_pixel() -> None:
    assert is_whole(_heat([[1]], 0, 0, 40, 30), 30, 40)
    assert is_whole(_heat([[1]], 0, 0, 40, 55), 30, 40)
    assert not is_whole(_heat([[1]], 0, 0, 39, 30), 30, 40)
    assert not is_whole(_heat([[1]], 2, 0, 40, 30), 30, 40)
    assert not is_whole(_heat([[1]], 0, 1, 40, 30), 30, 40)
    assert not is_whole(_heat([[1]], 0, 0, 40, 28), 30, 40)


def test_colours_rise_in_brightness_and_let_the_surface_shine_through() -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    dark, bright = (coloured(np.full((1, 256), grey, np.uint8), levels).astype(int) for grey in (60, 160))
    assert (dark[0, 0] == 60).all()
    assert (np.abs(dark[0, :40] - 60).max(axis=1) < 20).all(), "faint heat tints nothing"
    luma = dark @ (0.114, 0.587, 0.299)
    assert (np.diff(luma[0, 128:]) > -1).all()
    assert luma[0, 255] > luma[0, 128] > luma[0, 0]
    assert ((bright - dark)[0].min(axis=1) >= 20).all(), "at the hottest place too"
    assert dark[0, 255, 2] > dark[0, 255, 0] + 50, "not grey"


def test_the_inputs_stay_as_they_are() -> None:
    picture, one = np.full((20, 20), 80, np.uint8), _heat([[1, 2]], 0, 0, 20, 20)
    one.values.flags.writeable = False
    coloured(picture, heat_levels([one], 20, 20))
    assert (picture == 80).all()
