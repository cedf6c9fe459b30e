"""Surroundings of a detection, to be shown to the classifier."""

from __future__ import annotations

import math

import msgspec

from inspector.contract.records import Box

LEAST_PX = 8
"""Sides of a crop at least, where the image has as many: less shows nothing, however large it is drawn."""


class Crop(msgspec.Struct, frozen=True):
    """A part of an image."""

    detection: int
    """Index of the detection that it surrounds."""
    left: int
    top: int
    right: int
    bottom: int
    """First column and row, and those after the last."""

    @property
    def box_px(self) -> Box:
        """Its edges."""
        return Box(float(self.left), float(self.top), float(self.right), float(self.bottom))


def surroundings(detection: int, box: Box, margin: float, width_px: int, height_px: int) -> Crop:
    """The pixels of a detection with a margin on every side, cut at the image's borders.

    Args:
        detection: its index.
        box: in pixels of the image, inside its borders.
        margin: as a share of the box's longer side.
        width_px: columns of the image.
        height_px: rows of the image.
    """
    grow_px = margin * max(box.x2 - box.x1, box.y2 - box.y1)
    left, right = _span(box.x1 - grow_px, box.x2 + grow_px, width_px)
    top, bottom = _span(box.y1 - grow_px, box.y2 + grow_px, height_px)
    return Crop(detection, left, top, right, bottom)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels that hold ``low .. high``, at least ``LEAST_PX`` of ``size``; at a border they reach further inwards."""
    missing = max(0.0, LEAST_PX - (high - low)) / 2
    first, last = max(0, math.floor(low - missing)), min(size, math.ceil(high + missing))
    return max(0, min(first, last - LEAST_PX)), min(size, max(last, first + LEAST_PX))
