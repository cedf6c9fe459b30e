"""How well a heat map points at the defect: its box and its hottest point against the true boxes, beside two controls that look at no map.

The controls come from the same pictures, so that a figure tells something: where defects fill half of every picture, a random point is right half the
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inspector.models.boxes import iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HIT_IOU = 0.3
"""Overlap from which a box counts as a hit. Low, for a map trained on names alone cannot know where a labeller ends a vague defect."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """Where one picture's map points, and where the defects are. Boxes are (x1, y1, x2, y2), px, x2 and y2 the far edges."""

    height_px: int
    width_px: int
    kind: int
    """The picture's true class, 0-based."""
    true_boxes: NDArray[Any]
    """[m, 4], px, with positive sides; none: the picture is left out. Those of other classes than ``kind`` are for the caller to leave out."""
    box: NDArray[Any] | None
    """[4], px: the largest region of the map; None: the map has no region, which hits nothing."""
    peak: tuple[float, float] | None
    """(x, y), px: where the map is largest, as a place in the boxes' coordinates or as the pixel's indices; None: the map is empty."""


@dataclass(frozen=True, slots=True)
class PointingFigures:
    """Shares of the pictures, and mean overlaps, all 0..1; None: there are no pictures with true boxes."""

    name: str
    pictures: int
    """Those with true boxes."""
    box_hits: float | None
    """Share whose box overlaps a true one by at least the threshold."""
    peak_hits: float | None
    """Share whose peak lies in a true box."""
    mean_iou: float | None
    """Mean of the overlap of the box with the true box that fits best."""
    whole_hits: float | None
    """Control: ``box_hits``, were the whole picture the box."""
    whole_iou: float | None
    """Control: ``mean_iou``, were the whole picture the box."""
    random_hits: float | None
    """Control: ``peak_hits`` to be expected of a point drawn evenly over the picture: the share of its area that true boxes cover."""


@dataclass(frozen=True, slots=True)
class Localisation:
    """How well a map points, on labelled pictures."""

    threshold: float
    """Overlap from which a box is a hit."""
    left_out: int
    """Pictures without true boxes."""
    classes: tuple[PointingFigures, ...]
    mean: PointingFigures
    """Mean of the classes that have pictures, each counting the same."""


def evaluate_localisation(pointed: Sequence[Pointed], classes: Sequence[str], threshold: float = HIT_IOU) -> Localisation:
    """Counts what a map's boxes and peaks meet.

    Args:
        pointed: of each picture.
        classes: names, in the order of ``Pointed.kind``.
        threshold: overlap (IoU), above 0 and up to 1, from which a box is a hit.

    Raises:
        ValueError: the threshold is out of its range, a class number is, a box or peak is not finite, or a picture's true boxes have no area
            inside it.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is {threshold}, it must be above 0 and up to 1")
    by_class: list[list[tuple[float, ...]]] = [[] for _ in classes]
    left_out = 0
    for number, one in enumerate(pointed):
        if not 0 <= one.kind < len(classes):
            raise ValueError(f"picture {number} is of class {one.kind}, there are {len(classes)} classes")
        if len(one.true_boxes):
            by_class[one.kind].append(_measured(one, number, threshold))
        else:
            left_out += 1
    rows = tuple(_figures(name, len(found), found) for name, found in zip(classes, by_class, strict=True))
    means = [np.mean(found, axis=0) for found in by_class if found]
    return Localisation(threshold, left_out, rows, _figures("mean", sum(row.pictures for row in rows), means))


def covered_share(boxes: NDArray[Any], height_px: int, width_px: int) -> float:
    """The share of a picture's area that lies in at least one of the boxes [m, 4], 0..1, exact: overlaps are counted once."""
    inside = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width_px, height_px, width_px, height_px])
    # All sides drawn through the picture cut it into cells that lie either in a box or outside it.
    xs, ys = np.unique(inside[:, 0::2]), np.unique(inside[:, 1::2])
    covered = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), np.bool_)
    for x1, y1, x2, y2 in inside:
        covered[np.searchsorted(ys, y1) : np.searchsorted(ys, y2), np.searchsorted(xs, x1) : np.searchsorted(xs, x2)] = True
    return float((np.diff(ys)[:, None] * np.diff(xs) * covered).sum() / (height_px * width_px))


def _measured(one: Pointed, number: int, threshold: float) -> tuple[float, ...]:
    """One picture's part in the shares, in the order of :class:`PointingFigures`."""
    true = np.asarray(one.true_boxes, np.float64).reshape(-1, 4)
    covered = covered_share(true, one.height_px, one.width_px)
    if not (true[:, :2] < true[:, 2:]).all() or not covered:
        raise ValueError(f"picture {number} has true boxes without area in its {one.width_px} x {one.height_px} px")
    if not all(np.isfinite(value).all() for value in (one.box, one.peak) if value is not None):
        raise ValueError(f"picture {number} has a box or a peak that is not finite: {one.box}, {one.peak}")
    best = 0.0 if one.box is None else _best_overlap(one.box, true)
    whole = _best_overlap(np.array([0, 0, one.width_px, one.height_px]), true)
    # From the near sides up to, not including, the far ones: right for pixel indices and for places alike.
    met = one.peak is not None and bool(((true[:, :2] <= one.peak) & (one.peak < true[:, 2:])).all(axis=1).any())
    # In the overlaps' own precision: 0.7 in float32 is less than 0.7.
    hit, whole_hit = (float(np.float32(value) >= np.float32(threshold)) for value in (best, whole))
    return hit, float(met), best, whole_hit, whole, covered


def _best_overlap(box: NDArray[Any], true: NDArray[np.float64]) -> float:
    """The overlap (IoU) of a box [4] with the one of [m, 4] that fits best."""
    given = torch.from_numpy(np.asarray(box, np.float64).reshape(1, 4))
    return float(iou(given, torch.from_numpy(true)).max())


def _figures(name: str, pictures: int, measured: Sequence[Any]) -> PointingFigures:
    """The mean of rows of six; None for each where there are no rows."""
    if not measured:
        return PointingFigures(name, pictures, None, None, None, None, None, None)
    return PointingFigures(name, pictures, *(float(value) for value in np.mean(measured, axis=0)))
