"""Heat in colour over a grey picture."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.contract.records import Defect, HeatMap

HOTTEST = 255
"""Level of a map's largest value."""
COLOURS = cv2.COLORMAP_INFERNO
"""Rises in brightness from end to end, so it is read without colour vision and in black and white too."""
FIRST_COLOUR = 96
"""The darkest colours are left out: they look like dark surface."""
FULL_FROM = 0.5
"""Share of the largest value from which the colour is as strong as it gets; below it fades with the square, so that a map's faint noise does not
tint the whole picture."""
STRONGEST_COLOUR = 0.7
"""Share of the colour where it is strongest: the defect can still be seen in it."""


def coloured(picture: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Heat over a picture: yellow where it is strongest, over red and purple to the picture's own grey where there is none.

    Args:
        picture: uint8 [H, W], grey.
        levels: uint8 [H, W], 0 (none) to ``HOTTEST``.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    colours, remains = _tables()
    under = cv2.multiply(picture, cv2.LUT(levels, remains), scale=1 / 255)
    return np.asarray(cv2.add(cv2.cvtColor(under, cv2.COLOR_GRAY2BGR), cv2.applyColorMap(levels, colours)), np.uint8)


def heat_levels(maps: Sequence[HeatMap], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Heat maps where they lie on a picture, each as shares of its own largest value, linear between the middles of its cells.

    Of maps of the whole picture the strongest is seen. Within the map of a part of it that one alone is, and of several again the strongest.

    Args:
        maps: any number.
        height_px: of the picture.
        width_px: of the picture.

    Returns:
        uint8 [height_px, width_px], 0 to ``HOTTEST``.
    """
    levels = np.zeros((height_px, width_px), np.uint8)
    whole = [one for one in maps if is_whole(one, height_px, width_px)]
    parts = [one for one in maps if not is_whole(one, height_px, width_px)]
    for one in whole:
        _raise(levels, one)
    for one in parts:
        levels[window(one, height_px, width_px)] = 0
    for one in parts:
        _raise(levels, one)
    return levels


def is_whole(one: HeatMap | Defect, height_px: int, width_px: int) -> bool:
    """True: it is of the whole picture."""
    box = one.box_px
    return box.x1 < 0.5 and box.y1 < 0.5 and box.x2 > width_px - 0.5 and box.y2 > height_px - 0.5


def window(one: HeatMap, height_px: int, width_px: int) -> tuple[slice, slice]:
    """Rows and columns of the picture whose middles lie in the map's box; empty where none do."""
    box = one.box_px
    return _span(box.y1, box.y2, height_px), _span(box.x1, box.x2, width_px)


def _span(first: float, last: float, size_px: int) -> slice:
    if not (math.isfinite(first) and math.isfinite(last) and first < last):
        return slice(0, 0)
    start, stop = (min(max(math.ceil(edge - 0.5), 0), size_px) for edge in (first, last))
    return slice(start, stop)


def _raise(levels: NDArray[np.uint8], one: HeatMap) -> None:
    """Levels up to the map's."""
    rows, columns = window(one, *levels.shape)
    strongest = float(one.values.max(initial=0))
    if rows.stop <= rows.start or columns.stop <= columns.start or not 0 < strongest < math.inf:
        return
    small = np.rint(np.maximum(one.values, 0) * (HOTTEST / strongest)).astype(np.uint8)
    box, (height, width) = one.box_px, small.shape
    across, down = width / (box.x2 - box.x1), height / (box.y2 - box.y1)  # cells per pixel
    # Pixel k of the window lies at left + k + 0.5 on the picture, the middle of cell k at k + 0.5 cells.
    to_cells = np.array([[across, 0, (columns.start + 0.5 - box.x1) * across - 0.5], [0, down, (rows.start + 0.5 - box.y1) * down - 0.5]])
    size = columns.stop - columns.start, rows.stop - rows.start
    placed = cv2.warpAffine(small, to_cells, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    levels[rows, columns] = np.maximum(levels[rows, columns], placed)


@cache
def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For each level the colour that is added to the picture, [256, 1, 3] BGR, and how much of the picture remains, [256], of 255."""
    share = np.arange(256) / HOTTEST
    cover = STRONGEST_COLOUR * np.minimum(share / FULL_FROM, 1) ** 2
    order = np.rint(FIRST_COLOUR + share * (255 - FIRST_COLOUR)).astype(np.uint8)[:, None]
    remains = np.rint(255 * (1 - cover)).astype(np.uint8)
    colours = cv2.applyColorMap(order, COLOURS) * (1 - remains / 255)[:, None, None]
    return np.rint(colours).astype(np.uint8), remains
