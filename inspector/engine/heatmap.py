"""From a heat map to the regions that are hot (Zhou et al. 2019, equation 6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np

from inspector.contract.records import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.classifier import HeatMapRecipe
    from inspector.engine.preprocess import LetterboxGeometry

LEVELS = 255
"""Otsu's threshold is looked for among as many."""
STEPS = 2**16
"""Values are rounded to as many steps of the largest: the unit of a map, and the last bit of its arithmetic, decide nothing."""
SEGMENTED_PX = 448 * 448
"""A larger canvas is segmented at a lower resolution, with at most as many pixels: a map has far fewer cells, and counting pixels would take longer
than all else. Well below 2^18, so that the labels of a map that is hot at every other pixel fit their 16 bits."""
MOST_REGIONS = 16
"""The largest are kept: a map that is hot in a hundred places points at nothing."""


class Region(msgspec.Struct, frozen=True):
    """A connected hot region (8 neighbours)."""

    box_px: Box
    """Tightest box, in pixels of the picture."""
    area_px: float
    """In px² of the picture."""
    heat: float
    """The map's largest value in it, as a share of the whole map's: 0..1."""


class HotSpots(msgspec.Struct, frozen=True):
    """What a heat map points at."""

    regions: tuple[Region, ...]
    """Largest area first, at most ``MOST_REGIONS``; none where the map is nowhere above zero."""
    peak_px: tuple[float, float] | None
    """(x, y) of the middle of the hottest cell, of its part on the picture, in pixels of the picture; None where the map is nowhere above zero."""


NOTHING = HotSpots((), None)


def cells_on_picture(cells: tuple[int, int], canvas_px: tuple[int, int], geometry: LetterboxGeometry) -> tuple[int, int]:
    """Rows and columns of a map's cells that touch the picture; the others saw the filling beside it alone.

    Args:
        cells: rows and columns of the map over the whole canvas: cell k of n covers the canvas from ``k * size / n`` to ``(k + 1) * size / n``.
        canvas_px: height and width of the canvas.
        geometry: where the picture lies on the canvas.
    """
    return -(-geometry.height_px * cells[0] // canvas_px[0]), -(-geometry.width_px * cells[1] // canvas_px[1])


def hot_spots(
    values: NDArray[np.float32], canvas_px: tuple[int, int], geometry: LetterboxGeometry, image_px: tuple[int, int], rule: HeatMapRecipe
) -> HotSpots:
    """Segments a heat map, enlarged linearly between the middles of its cells.

    A threshold is a share of the largest value of the enlarged map on the picture. Boxes and areas are as fine as the canvas, or, where that has
    more than ``SEGMENTED_PX`` pixels, as a canvas of as many. OpenCV releases the interpreter's lock meanwhile.

    Args:
        values: float32 [h, w], the map over the whole canvas; what is negative counts as zero. A map that is not finite points at nothing.
        canvas_px: height and width of the canvas.
        geometry: where the picture lies on the canvas; what is hot beside the picture counts nowhere.
        image_px: height and width of the picture.
        rule: threshold and smallest area.
    """
    rows, columns = cells_on_picture(values.shape, canvas_px, geometry)
    shares = np.maximum(values[:rows, :columns], 0).astype(np.float64)
    largest = float(shares.max())
    if not 0 < largest < math.inf:
        return NOTHING
    shares = np.rint(shares * (STEPS / largest))
    warm = _enlarged(shares.astype(np.float32), values.shape, canvas_px, geometry)
    # Of the picture, one pixel of `warm` is 1 / scale wide and high.
    scale_x, scale_y = warm.shape[1] / image_px[1], warm.shape[0] / image_px[0]
    warmest = float(warm.max())
    # 16 bits for a label: half the memory to go through.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(_hot(warm, warmest, rule), connectivity=8, ltype=cv2.CV_16U)
    areas_px = stats[:, cv2.CC_STAT_AREA] / (scale_x * scale_y)
    kept = np.flatnonzero(areas_px >= rule.min_area_px)
    kept = kept[kept > 0]  # 0 is what is cold
    regions = []
    for label in kept[np.argsort(-areas_px[kept], kind="stable")[:MOST_REGIONS]].tolist():
        left, top, width, height = (int(value) for value in stats[label, : cv2.CC_STAT_AREA])
        window = np.s_[top : top + height, left : left + width]
        _, heat, _, _ = cv2.minMaxLoc(warm[window], cv2.inRange(labels[window], label, label))
        right, bottom = min((left + width) / scale_x, float(image_px[1])), min((top + height) / scale_y, float(image_px[0]))
        regions.append(Region(Box(left / scale_x, top / scale_y, right, bottom), float(areas_px[label]), heat / warmest))
    return HotSpots(tuple(regions), _peak(shares, values.shape, canvas_px, geometry))


def _enlarged(shares: NDArray[np.float32], cells: tuple[int, int], canvas_px: tuple[int, int], geometry: LetterboxGeometry) -> NDArray[np.float32]:
    """The map in pixels of the canvas, or larger ones, that fill the picture exactly. Beyond the outermost cells their values go on."""
    rows, columns = shares.shape
    whole = cv2.copyMakeBorder(shares, 0, cells[0] - rows, 0, cells[1] - columns, cv2.BORDER_REPLICATE)
    # Linear resizing keeps cell k between k and k + 1 cell sizes: both grids begin at the same corner, and values lie in the middle of pixels.
    warm = cv2.resize(whole, (canvas_px[1], canvas_px[0]), interpolation=cv2.INTER_LINEAR)[: geometry.height_px, : geometry.width_px]
    shrink = math.sqrt(SEGMENTED_PX / warm.size)
    if shrink < 1:
        warm = cv2.resize(warm, tuple(max(1, math.floor(size * shrink)) for size in warm.shape[::-1]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(warm, np.float32)


def _hot(warm: NDArray[np.float32], warmest: float, rule: HeatMapRecipe) -> NDArray[np.uint8]:
    """1 where the map reaches the threshold."""
    if rule.threshold != "otsu":
        return (warm >= np.float32(rule.threshold * warmest)).view(np.uint8)
    levels = np.asarray(cv2.convertScaleAbs(warm, alpha=LEVELS / warmest), np.uint8)
    if int(levels.min()) == int(levels.max()):
        return np.ones_like(levels)  # equally hot everywhere: there is nothing to divide
    _, mask = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(mask, np.uint8)


def _peak(shares: NDArray[np.float64], cells: tuple[int, int], canvas_px: tuple[int, int], geometry: LetterboxGeometry) -> tuple[float, float]:
    """The middle of the hottest cell, the first of equals: a lone hot cell is flattened by enlarging, and so might lose to a warm plateau."""
    row, column = (int(index) for index in np.unravel_index(int(shares.argmax()), shares.shape))
    cell_y, cell_x = canvas_px[0] / cells[0], canvas_px[1] / cells[1]
    x = (column * cell_x + min((column + 1) * cell_x, geometry.width_px)) / 2
    y = (row * cell_y + min((row + 1) * cell_y, geometry.height_px)) / 2
    return x / geometry.scale_x, y / geometry.scale_y
