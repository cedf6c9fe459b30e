"""Boxes: overlap, coding against a reference, anchors, and suppression.

A box is ``(x1, y1, x2, y2)`` in pixels of the network's input, its sides at ``x2 - x1`` and ``y2 - y1``. All arithmetic is float32, whatever the
network's precision: half-precision coordinates are wrong by several pixels at 1280.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

Weights = tuple[float, float, float, float]

RPN_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
"""Scale of the box code in the region proposal network."""
HEAD_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)
"""Scale of the box code in the head: the inverse of the spread of its targets (Fast R-CNN)."""
MAX_LOG_GROWTH = math.log(1000.0 / 16.0)
"""Largest decoded log size ratio: keeps ``exp`` finite on an untrained network."""
SMALLEST_AREA_PX2 = 1e-9


def float32(values: Tensor) -> Tensor:
    """``values`` in float32; themselves where they are, so that no cast that does nothing enters a recorded graph."""
    return values if values.dtype == torch.float32 else values.float()


def area(boxes: Tensor) -> Tensor:
    """Areas in px² [...] of boxes [..., 4], float32."""
    boxes = float32(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        first: boxes [..., A, 4], px.
        second: boxes [..., B, 4], px.

    Returns:
        [..., A, B] float32 in 0..1; 0 where both boxes are empty.
    """
    first, second = float32(first), float32(second)
    top_left = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    bottom_right = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (area(first)[..., :, None] + area(second)[..., None, :] - shared + SMALLEST_AREA_PX2)


def encode(reference: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """The code of ``boxes`` against ``reference`` (Faster R-CNN, equation 2; the paper's t in equation 6).

    Args:
        reference: anchors or regions [..., 4] with positive sides, px.
        boxes: targets [..., 4] with positive sides, px.
        weights: factors on (dx, dy, dw, dh).

    Returns:
        [..., 4] float32, no unit.
    """
    x, y, width, height = _centres(float32(reference))
    to_x, to_y, to_width, to_height = _centres(float32(boxes))
    return torch.stack(
        (
            weights[0] * (to_x - x) / width,
            weights[1] * (to_y - y) / height,
            weights[2] * torch.log(to_width / width),
            weights[3] * torch.log(to_height / height),
        ),
        dim=-1,
    )


def decode(reference: Tensor, deltas: Tensor, weights: Weights, height: int, width: int, clip: bool = True) -> Tensor:
    """The boxes that ``deltas`` mean against ``reference``; the inverse of :func:`encode`.

    Args:
        reference: anchors or regions [..., 4], px; broadcast against ``deltas``.
        deltas: [..., 4], no unit. Growth is limited to 62.5 times.
        weights: the factors given to :func:`encode`.
        height: rows of the network's input, px.
        width: columns of the network's input, px.
        clip: whether boxes are cut at the input's borders.

    Returns:
        [..., 4] float32, px.
    """
    x, y, reference_width, reference_height = _centres(float32(reference))
    dx, dy, dw, dh = float32(deltas).unbind(-1)
    centre_x = x + dx / weights[0] * reference_width
    centre_y = y + dy / weights[1] * reference_height
    half_width = reference_width * torch.exp((dw / weights[2]).clamp(max=MAX_LOG_GROWTH)) / 2
    half_height = reference_height * torch.exp((dh / weights[3]).clamp(max=MAX_LOG_GROWTH)) / 2
    sides = [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height]
    if clip:
        sides = [side.clamp(0.0, float(limit)) for side, limit in zip(sides, (width, height, width, height), strict=True)]
    return torch.stack(sides, dim=-1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre x, centre y, width and height [...] of boxes [..., 4]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height


def level_anchors(rows: int, columns: int, stride_px: int, sizes_px: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors of one map, centred on its cells.

    Args:
        rows: height of the map in cells.
        columns: width of the map in cells.
        stride_px: side of a cell.
        sizes_px: square roots of the anchors' areas.
        ratios: height over width.

    Returns:
        [rows * columns * len(sizes) * len(ratios), 4] float32 px: cells row by row; within a cell size by size, ratio by ratio.
    """
    half = [
        (size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2)  # half width, half height
        for size in sizes_px
        for ratio in ratios
    ]
    shapes = torch.tensor([(-w, -h, w, h) for w, h in half], dtype=torch.float32)
    y = (torch.arange(rows, dtype=torch.float32) + 0.5) * stride_px
    x = (torch.arange(columns, dtype=torch.float32) + 0.5) * stride_px
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((grid_x, grid_y, grid_x, grid_y), dim=-1)
    return (centres[:, :, None, :] + shapes).reshape(-1, 4)


def nms(boxes: Tensor, scores: Tensor, threshold: float, groups: Tensor | None = None) -> Tensor:
    """Greedy non-maximum suppression, for training and as the reference; equal scores rank by index.

    Args:
        boxes: [R, 4], px.
        scores: [R].
        threshold: IoU above which the lower-scored box is dropped.
        groups: [R] integers; boxes of different groups never suppress each other.

    Returns:
        [kept] int64 indices into ``boxes``, in score order.
    """
    order = torch.argsort(scores.detach().float(), descending=True, stable=True)
    ranked = boxes.detach()[order]
    overlapping = iou(ranked, ranked) > threshold
    if groups is not None:
        overlapping &= groups[order][:, None] == groups[order][None, :]
    matrix = overlapping.cpu().numpy()
    alive = np.ones(len(matrix), dtype=bool)
    for rank in range(len(matrix)):
        if alive[rank]:
            alive[rank + 1 :] &= ~matrix[rank, rank + 1 :]
    return order[torch.from_numpy(alive).to(order.device)]


def ranks_above(scores: Tensor, keys: Tensor) -> Tensor:
    """Whether box i ranks above box j: the higher score, and the lower key where scores are equal.

    Sorting leaves equal scores in an order that differs between runtimes; this total order does not.

    Args:
        scores: [..., K] float32.
        keys: [..., K], distinct numbers within each row.

    Returns:
        [..., K, K] bool.
    """
    higher = scores[..., :, None] > scores[..., None, :]
    equal = scores[..., :, None] == scores[..., None, :]
    return higher | (equal & (keys[..., :, None] < keys[..., None, :]))


def suppress(boxes: Tensor, threshold: float, steps: int, above: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression as a fixed-point iteration over the IoU matrix, with a fixed number of operations.

    Starting with every box kept, each step keeps the boxes that no kept box above them overlaps. The sequence encloses greedy suppression:
    after an even number of steps every box that greedy suppression keeps is kept, and once a step changes nothing the two are equal.

    Args:
        boxes: [..., K, 4], px; in falling score order unless ``above`` is given.
        threshold: IoU above which the lower-ranked box is dropped.
        steps: number of steps, even.
        above: [..., K, K] bool, whether box i ranks above box j (:func:`ranks_above`); None: the order of the boxes. A box that must not take part
            has a row of False.

    Returns:
        ``(keep, converged)``: [..., K] bool, and [...] bool: whether one more step would change nothing.

    Raises:
        ValueError: ``steps`` is odd or negative.
    """
    if steps < 0 or steps % 2:
        raise ValueError(f"steps = {steps}: an even number, for an odd one can lose boxes that greedy suppression keeps")
    if above is None:
        count = boxes.shape[-2]
        above = torch.ones(count, count, dtype=torch.bool, device=boxes.device).triu(1)
    blocks = ((iou(boxes, boxes) > threshold) & above).float()
    keep = (blocks[..., :1, :] >= 0).float()  # ones
    for _ in range(steps):
        keep = _step(keep, blocks)
    again = _step(keep, blocks)
    return keep[..., 0, :] > 0, (keep - again).abs().amax(dim=(-2, -1)) == 0


def _step(keep: Tensor, blocks: Tensor) -> Tensor:
    """Kept boxes [..., 1, K] (0 or 1) that no kept box above them blocks: counts are whole numbers, so 1 - count, at least 0, is exact."""
    return torch.relu(1 - torch.matmul(keep, blocks))
