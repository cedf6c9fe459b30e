"""Segmentation of heat maps: where the regions lie, against arithmetic written out, and what must not change them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from inspector.config.classifier import HeatMapRecipe
from inspector.engine.heatmap import MOST_REGIONS, NOTHING, SEGMENTED_PX, HotSpots, cells_on_picture, hot_spots
from inspector.engine.preprocess import letterbox_geometry

Map = NDArray[np.float32]
Size = tuple[int, int]

MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.float32, shape, elements=st.integers(-3, 16)))
IMAGES = st.tuples(st.integers(1, 300), st.integers(1, 300))
CANVASES = st.sampled_from([(64, 64), (64, 96), (32, 160), (700, 500)])
RULES = st.sampled_from([HeatMapRecipe(threshold=value) for value in ("otsu", 0.1, 0.41421356, 0.9, 1.0)])


def _spots(values: Map, image_px: Size, canvas_px: Size = (64, 64), rule: HeatMapRecipe | None = None, **settings: object) -> HotSpots:
    geometry = letterbox_geometry(*image_px, *canvas_px)
    return hot_spots(values, canvas_px, geometry, image_px, rule or HeatMapRecipe.model_validate(settings))


def _one_hot(shape: Size, row: int, column: int, value: float = 1.0) -> Map:
    values = np.zeros(shape, np.float32)
    values[row, column] = value
    return values


@given(MAPS, IMAGES, CANVASES, RULES)
def test_regions_lie_on_the_picture_and_hold_no_more_than_its_area(values: Map, image_px: Size, canvas_px: Size, rule: HeatMapRecipe) -> None:
    found = _spots(values, image_px, canvas_px, rule)
    height, width = image_px
    for region in found.regions:
        box = region.box_px
        assert 0 <= box.x1 < box.x2 <= width
        assert 0 <= box.y1 < box.y2 <= height
        assert 0 < region.area_px <= (box.x2 - box.x1) * (box.y2 - box.y1) * (1 + 1e-9)
        assert 0 <= region.heat <= 1
    assert sum(region.area_px for region in found.regions) <= height * width * (1 + 1e-9)
    assert all(one.area_px >= other.area_px for one, other in pairwise(found.regions))
    rows, columns = cells_on_picture(values.shape, canvas_px, letterbox_geometry(*image_px, *canvas_px))
    assert (found.peak_px is not None) == bool((values[:rows, :columns] > 0).any())
    if found.peak_px is not None:
        assert max(region.heat for region in found.regions) == 1


@given(MAPS, IMAGES, CANVASES)
def test_the_peak_lies_in_the_hottest_cell_that_touches_the_picture(values: Map, image_px: Size, canvas_px: Size) -> None:
    geometry = letterbox_geometry(*image_px, *canvas_px)
    cell_y, cell_x = canvas_px[0] / values.shape[0], canvas_px[1] / values.shape[1]
    rows, columns = math.ceil(geometry.height_px / cell_y - 1e-9), math.ceil(geometry.width_px / cell_x - 1e-9)
    on_picture = values[:rows, :columns]
    assume(on_picture.max() > 0)
    peak = _spots(values, image_px, canvas_px).peak_px
    assert peak is not None
    x, y = peak
    assert 0 < x < image_px[1]
    assert 0 < y < image_px[0]
    row, column = int(y * geometry.scale_y / cell_y), int(x * geometry.scale_x / cell_x)
    assert on_picture[row, column] == on_picture.max()


@given(MAPS, IMAGES, CANVASES, RULES, st.floats(1e-6, 1e6))
def test_the_unit_of_a_map_changes_nothing(values: Map, image_px: Size, canvas_px: Size, rule: HeatMapRecipe, factor: float) -> None:
    scaled = (values.astype(np.float64) * factor).astype(np.float32)
    assert _spots(scaled, image_px, canvas_px, rule) == _spots(values, image_px, canvas_px, rule)


@given(MAPS, IMAGES, CANVASES, RULES)
def test_what_is_hot_beside_the_picture_counts_nowhere(values: Map, image_px: Size, canvas_px: Size, rule: HeatMapRecipe) -> None:
    rows, columns = cells_on_picture(values.shape, canvas_px, letterbox_geometry(*image_px, *canvas_px))
    hot = values.copy()
    hot[rows:], hot[:, columns:] = 1000, 1000
    assert _spots(hot, image_px, canvas_px, rule) == _spots(values, image_px, canvas_px, rule)


def _enlarged(values: Map, image_px: Size, canvas_px: Size) -> NDArray[np.float64]:
    """The map at the middles of the canvas' pixels on the picture, linear between the middles of cells."""
    geometry = letterbox_geometry(*image_px, *canvas_px)
    rows, columns = cells_on_picture(values.shape, canvas_px, geometry)
    kept = np.maximum(values[:rows, :columns].astype(np.float64), 0)
    y = (np.arange(geometry.height_px) + 0.5) / canvas_px[0] * values.shape[0] - 0.5
    x = (np.arange(geometry.width_px) + 0.5) / canvas_px[1] * values.shape[1] - 0.5
    along_x = np.stack([np.interp(x, np.arange(columns), row) for row in kept])
    return np.stack([np.interp(y, np.arange(rows), column) for column in along_x.T], axis=1)


def _flood(mask: NDArray[np.bool_]) -> list[set[Size]]:
    """Connected pixels (8 neighbours), one at a time."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(lambda shape: arrays(np.float32, shape, elements=st.integers(0, 9))),
    IMAGES,
    st.sampled_from([(64, 64), (48, 80)]),
)
def test_boxes_areas_and_heat_are_those_of_a_flood_fill(values: Map, image_px: Size, canvas_px: Size) -> None:
    threshold = 0.41421356  # no share that small whole numbers have: rounding decides nothing
    warm = _enlarged(values, image_px, canvas_px)
    assume(warm.max() > 0)
    geometry = letterbox_geometry(*image_px, *canvas_px)
    expected = []
    for region in _flood(warm >= threshold * warm.max()):
        y, x = np.array(sorted(region)).T
        corners = x.min() / geometry.scale_x, y.min() / geometry.scale_y, (x.max() + 1) / geometry.scale_x, (y.max() + 1) / geometry.scale_y
        expected.append((*corners, len(region) / (geometry.scale_x * geometry.scale_y), warm[y, x].max() / warm.max()))
    found = _spots(values, image_px, canvas_px, threshold=threshold).regions
    rows = [(one.box_px.x1, one.box_px.y1, one.box_px.x2, one.box_px.y2, one.area_px, one.heat) for one in found]
    np.testing.assert_allclose(sorted(rows), sorted(expected), rtol=1e-4, atol=1e-6)


@given(IMAGES, st.data())
def test_half_of_a_lone_cells_heat_is_that_cell_wherever_the_picture_lies(image_px: Size, data: st.DataObject) -> None:
    """Cell k covers the canvas from k to k + 1 cell sizes: enlarging moves nothing, and the way back to the picture is exact."""
    geometry = letterbox_geometry(*image_px, 64, 64)
    rows, columns = geometry.height_px // 8, geometry.width_px // 8  # whole cells on the picture
    assume(rows and columns)
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    found = _spots(_one_hot((8, 8), row, column), image_px, threshold=0.5)
    assert len(found.regions) == 1
    box, sx, sy = found.regions[0].box_px, geometry.scale_x, geometry.scale_y
    assert (box.x1, box.y1) == pytest.approx((8 * column / sx, 8 * row / sy))
    assert (box.x2, box.y2) == pytest.approx((8 * (column + 1) / sx, 8 * (row + 1) / sy))
    assert found.peak_px == pytest.approx(((8 * column + 4) / sx, (8 * row + 4) / sy))
    assert found.regions[0].heat == 1


@pytest.mark.parametrize(
    ("image_px", "box", "peak"),
    [
        ((64, 64), (24, 8, 32, 16), (28, 12)),
        ((100, 200), (75, 25, 100, 50), (87.5, 37.5)),  # wide: 200 px on 64
        ((200, 100), (75, 25, 100, 50), (87.5, 37.5)),  # tall: the same cells, the filling lies at the right
        ((16, 16), (6, 2, 8, 4), (7, 3)),  # enlarged fourfold
    ],
)
def test_letterboxed_pictures_map_back_exactly(image_px: Size, box: tuple[float, ...], peak: tuple[float, float]) -> None:
    found = _spots(_one_hot((8, 8), 1, 3), image_px, threshold=0.5)
    one = found.regions[0].box_px
    assert (one.x1, one.y1, one.x2, one.y2) == pytest.approx(box)
    assert found.peak_px == pytest.approx(peak)


@pytest.mark.parametrize("cells", [(13, 13), (7, 25)])
def test_cells_that_are_no_whole_pixels_are_met_to_the_pixel(cells: Size) -> None:
    cell_y, cell_x = 200 / cells[0], 200 / cells[1]
    for row, column in ((0, 0), (3, 4), (cells[0] - 1, cells[1] - 1)):
        box = _spots(_one_hot(cells, row, column), (200, 200), (200, 200), threshold=0.5).regions[0].box_px
        assert (box.x1, box.x2) == pytest.approx((column * cell_x, (column + 1) * cell_x), abs=1)
        assert (box.y1, box.y2) == pytest.approx((row * cell_y, (row + 1) * cell_y), abs=1)


def test_a_canvas_too_large_to_be_segmented_as_it_is_loses_at_most_a_coarse_pixel() -> None:
    image_px, canvas_px = (1920, 2560), (960, 1280)
    coarse = 2 * math.sqrt(960 * 1280 / SEGMENTED_PX)
    found = _spots(_one_hot((60, 80), 20, 50), image_px, canvas_px, threshold=0.5)
    box = found.regions[0].box_px
    assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx((1600, 640, 1632, 672), abs=coarse)
    assert found.peak_px == pytest.approx((1616, 656))
    whole = _spots(np.ones((60, 80), np.float32), image_px, canvas_px).regions[0]
    assert (whole.box_px.x2, whole.box_px.y2) == pytest.approx((2560, 1920))
    assert whole.area_px == pytest.approx(2560 * 1920)


@pytest.mark.parametrize("threshold", ["otsu", 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 4)])
def test_an_equally_hot_map_is_one_region_as_large_as_the_picture(shape: Size, threshold: str | float) -> None:
    found = _spots(np.full(shape, 0.07, np.float32), (50, 100), threshold=threshold)
    box = found.regions[0].box_px
    assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx((0, 0, 100, 50))
    assert found.regions[0].area_px == pytest.approx(5000)


def test_threshold_one_keeps_the_hottest_pixels_alone() -> None:
    found = _spots(_one_hot((4, 4), 1, 2), (64, 64), threshold=1.0)
    assert [region.area_px for region in found.regions] == [4]  # the four pixels around the cell's middle
    assert (found.regions[0].box_px.x1, found.regions[0].box_px.y1) == (39, 23)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), -2.0), np.full((3, 3), np.nan), np.full((3, 3), np.inf)])
def test_a_map_without_heat_points_at_nothing(values: NDArray[np.float64]) -> None:
    assert _spots(values.astype(np.float32), (64, 64)) == NOTHING


def test_what_is_negative_counts_as_zero() -> None:
    values = _one_hot((8, 8), 2, 2) - _one_hot((8, 8), 2, 3, 50)
    assert _spots(values, (64, 64)) == _spots(_one_hot((8, 8), 2, 2), (64, 64))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 3.0), (8.0, 9.0), (0.1, 8.0)])
def test_otsu_tells_two_plateaus_apart(low: float, high: float) -> None:
    values = np.full((8, 8), low, np.float32)
    values[:, 5:] = high
    values += np.random.default_rng(0).uniform(0, 0.05 * (high - low), values.shape).astype(np.float32)
    found = _spots(values, (64, 64))
    assert len(found.regions) == 1
    box = found.regions[0].box_px
    assert (box.y1, box.x2, box.y2) == (0, 64, 64)
    assert box.x1 == pytest.approx(40, abs=4)  # half a cell: the slope between the plateaus


def test_otsu_finds_what_a_fixed_threshold_joins() -> None:
    values = np.full((8, 8), 6, np.float32)
    values[1, 1] = values[6, 6] = 10
    assert len(_spots(values, (64, 64)).regions) == 2
    assert len(_spots(values, (64, 64), threshold=0.5).regions) == 1


def test_each_region_tells_its_own_heat_and_the_largest_comes_first() -> None:
    values = _one_hot((8, 8), 0, 0, 1.0)
    values[4:7, 4:7] = 0.75
    found = _spots(values, (64, 64), threshold=0.5).regions
    assert [round(region.heat, 6) for region in found] == [0.75, 1]
    assert found[0].area_px > 5 * found[1].area_px


def test_a_hotter_region_in_the_corner_of_anothers_box_is_not_its_heat() -> None:
    values = np.zeros((8, 8), np.float32)
    values[0:7, 0] = values[6, 0:7] = 0.75  # an L
    values[2, 4] = 1
    assert [round(region.heat, 6) for region in _spots(values, (8, 8), (8, 8), threshold=0.5).regions] == [0.75, 1]


def test_the_smallest_regions_are_dropped() -> None:
    values = _one_hot((8, 8), 0, 0)
    values[4:7, 4:7] = 1
    large, small = _spots(values, (64, 64), threshold=0.5).regions
    assert _spots(values, (64, 64), threshold=0.5, min_area_px=small.area_px).regions == (large, small)
    assert _spots(values, (64, 64), threshold=0.5, min_area_px=small.area_px + 0.01).regions == (large,)
    dropped = _spots(values, (64, 64), threshold=0.5, min_area_px=5000)
    assert dropped.regions == ()
    assert dropped.peak_px is not None


def test_of_a_map_that_is_hot_all_over_the_largest_regions_are_kept() -> None:
    values = np.zeros((32, 32), np.float32)
    values[1::4, 1::4] = 1  # 64 lone cells
    values[29:31, 1:31:8] = 1  # four of them grow
    found = _spots(values, (128, 128), (128, 128), threshold=0.5).regions
    assert len(found) == MOST_REGIONS
    assert [region.box_px.y1 > 110 for region in found] == [True] * 4 + [False] * 12


def test_a_map_as_fine_as_a_large_canvas_and_hot_at_every_other_pixel_is_segmented_too() -> None:
    values = np.zeros((960, 1280), np.float32)
    values[::2, ::2] = 1  # 307200 regions, were it not segmented more coarsely: too many for their labels
    assert len(_spots(values, (960, 1280), (960, 1280), threshold=0.5).regions) == MOST_REGIONS


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    values = np.eye(8, dtype=np.float32)
    assert len(_spots(values, (8, 8), (8, 8), threshold=0.5).regions) == 1
    values[3, 3] = 0
    assert len(_spots(values, (8, 8), (8, 8), threshold=0.5).regions) == 2
