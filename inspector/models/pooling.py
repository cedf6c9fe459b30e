"""Region pooling: the level of equation 2 (Wei & Bi 2019), RoIAlign, the paper's RoI max pooling, and RoIAlign on one canvas for the compiled graph.

The paper pools by maximum over quantised bins (Fast R-CNN). The default here is RoIAlign with 2x2 samples per bin (He et al. 2017): the compiled
graph can express it by grid sampling, and nothing is rounded to cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from inspector.models.boxes import area, float32

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES = 2
"""RoIAlign's samples per bin and axis."""
SEPARABLE_MAX_CELLS = 4096
"""Largest map for which two matrix products beat grid sampling on a CPU, both passes (50x50: 9 against 14 ms; 240x320: 910 against 226 ms)."""


def region_levels(boxes: Tensor, levels: Sequence[int], canonical_size_px: float, canonical_level: int) -> Tensor:
    """Index into ``levels`` of the map a region is pooled from: floor(k0 + log2(sqrt(w h) / s0)), equation 2, held within ``levels``.

    The areas are compared with the powers themselves: a logarithm near a whole number would be rounded differently by different runtimes.

    Args:
        boxes: [..., 4], px.
        levels: rising without gaps.
        canonical_size_px: s0, 224 in the paper.
        canonical_level: k0, 4 in the paper.

    Returns:
        [...] int64, 0 .. len(levels) - 1.
    """
    areas = area(boxes)
    index = torch.zeros_like(areas)
    for level in levels[1:]:
        smallest = (canonical_size_px * 2.0 ** (level - canonical_level)) ** 2
        index = index + (areas >= smallest).float()
    return index.long()


def _samples(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Sampling positions [..., size * SAMPLES] between two borders [...], evenly spread; in the borders' unit."""
    count = size * SAMPLES
    share = (torch.arange(count, dtype=torch.float32, device=low.device) + 0.5) / count
    return low[..., None] + (high - low)[..., None] * share


def roi_align(features: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """RoIAlign (aligned, 2x2 samples per bin) of one image's map, differentiable in ``features``.

    Args:
        features: [C, h, w].
        boxes: [R, 4], px of the network's input, within the image.
        stride: px per cell.
        size: bins per axis.

    Returns:
        [R, C, size, size] of the type of ``features``.
    """
    channels, rows, columns = features.shape
    # A cell's value stands at its centre, half a cell from its border.
    x1, y1, x2, y2 = (float32(boxes) / stride - 0.5).unbind(-1)
    xs = _samples(x1, x2, size).clamp(0, columns - 1)
    ys = _samples(y1, y2, size).clamp(0, rows - 1)
    if rows * columns > SEPARABLE_MAX_CELLS:
        return _sampled(features, xs, ys, size)
    # Bilinear sampling is separable: tent weights along each axis, averaged over a bin's samples.
    weights_y = _tents(ys, rows, size).to(features.dtype)
    weights_x = _tents(xs, columns, size).to(features.dtype)
    lines = weights_y.reshape(-1, rows) @ features.permute(1, 2, 0).reshape(rows, columns * channels)
    pooled = torch.matmul(weights_x[:, None], lines.view(-1, size, columns, channels))
    return pooled.permute(0, 3, 1, 2)


def _tents(positions: Tensor, cells: int, size: int) -> Tensor:
    """Weights [R, size, cells] of each cell in each bin, for sampling positions [R, size * SAMPLES] in cells."""
    distance = (positions[..., None] - torch.arange(cells, dtype=torch.float32, device=positions.device)).abs()
    return (1 - distance).clamp(min=0).view(-1, size, SAMPLES, cells).mean(2)


def _sampled(features: Tensor, xs: Tensor, ys: Tensor, size: int) -> Tensor:
    """[R, C, size, size], by grid sampling at columns ``xs`` and rows ``ys`` [R, size * SAMPLES]."""
    channels, rows, columns = features.shape
    grid = _grid(xs, ys, rows, columns)
    values = functional.grid_sample(float32(features[None]), grid[None].flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False)
    pooled = functional.avg_pool2d(values, SAMPLES).view(channels, -1, size, size)
    return pooled.transpose(0, 1).to(features.dtype)


def _grid(xs: Tensor, ys: Tensor, rows: int, columns: int) -> Tensor:
    """grid_sample's coordinates [..., ys, xs, 2] in -1..1 of positions in cells [..., n]."""
    x = (xs + 0.5) * (2.0 / columns) - 1.0
    y = (ys + 0.5) * (2.0 / rows) - 1.0
    count = int(x.shape[-1])
    leading = [1] * (x.dim() - 1)
    return torch.stack((x[..., None, :].repeat(*leading, count, 1), y[..., :, None].repeat(*leading, 1, count)), dim=-1)


def roi_max(features: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """RoI max pooling (Girshick 2015; the paper's), of one image's map; bins are whole cells. Torch only.

    Args:
        features: [C, h, w].
        boxes: [R, 4], px of the network's input, within the image.
        stride: px per cell.
        size: bins per axis.

    Returns:
        [R, C, size, size] of the type of ``features``.
    """
    rows, columns = features.shape[-2:]
    limits = torch.tensor((columns - 1, rows - 1, columns - 1, rows - 1))
    cells = torch.floor(boxes.detach().float().cpu() / stride + 0.5).long().minimum(limits).clamp(min=0)
    pooled = [
        functional.adaptive_max_pool2d(features[:, y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1], size)  # the same bins: floor and ceiling
        for x1, y1, x2, y2 in cells.tolist()
    ]
    return torch.stack(pooled) if pooled else features.new_zeros((0, features.shape[0], size, size))


def pool_regions(maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, levels: Tensor, size: int, method: str) -> Tensor:
    """Pools each region of one image from its level.

    Args:
        maps: [C, h_k, w_k] by level.
        strides: px per cell by level.
        boxes: [R, 4], px.
        levels: [R] int64, index into ``maps``.
        size: bins per axis.
        method: ``align`` or ``max``.

    Returns:
        [R, C, size, size], in the order of ``boxes``.
    """
    kernel = roi_max if method == "max" else roi_align
    parts: list[Tensor] = []
    order: list[Tensor] = []
    for index, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = torch.nonzero(levels == index)[:, 0]
        if len(chosen):
            parts.append(kernel(features, boxes[chosen], stride, size))
            order.append(chosen)
    if not parts:
        return maps[0].new_zeros((0, maps[0].shape[0], size, size))
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def pool_on_canvas(maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, levels: Tensor, size: int) -> Tensor:
    """RoIAlign of all images' regions by one grid sampling, on one canvas that holds all levels; the form that is compiled.

    The finest map lies on the left, the others under one another on its right. Sampling positions are held within their own level.

    Args:
        maps: [N, C, h_k, w_k], finest first, each at most half the size of the one before it.
        strides: px per cell by level.
        boxes: [N, K, 4], px.
        levels: [N, K] int64, index into ``maps``.
        size: bins per axis.

    Returns:
        [N * K, C, size, size] float32.
    """
    finest, *others = maps
    channels, rows, columns = (int(size) for size in finest.shape[1:])
    count = int(boxes.shape[1])
    canvas = float32(finest)
    if others:
        width = max(int(other.shape[-1]) for other in others)
        used = sum(int(other.shape[-2]) for other in others)
        height = max(rows, used)
        stack = [functional.pad(float32(other), (0, width - int(other.shape[-1]))) for other in others]
        right = functional.pad(torch.cat(stack, dim=2), (0, 0, 0, height - used))
        canvas = torch.cat((functional.pad(canvas, (0, 0, 0, height - rows)), right), dim=3)
    table: list[tuple[float, ...]] = []  # cells per px, last column, last row, left, top
    top = 0
    for index, (level, stride) in enumerate(zip(maps, strides, strict=True)):
        left = columns if index else 0
        table.append((1.0 / stride, int(level.shape[-1]) - 1.0, int(level.shape[-2]) - 1.0, float(left), float(top)))
        top += int(level.shape[-2]) if index else 0
    scale, last_column, last_row, left_cell, top_cell = torch.tensor(table, dtype=torch.float32, device=boxes.device)[levels].unbind(-1)
    x1, y1, x2, y2 = (float32(boxes) * scale[..., None] - 0.5).unbind(-1)
    nothing = torch.zeros_like(last_column)[..., None]
    xs = torch.minimum(torch.maximum(_samples(x1, x2, size), nothing), last_column[..., None]) + left_cell[..., None]
    ys = torch.minimum(torch.maximum(_samples(y1, y2, size), nothing), last_row[..., None]) + top_cell[..., None]
    grid = _grid(xs, ys, int(canvas.shape[2]), int(canvas.shape[3]))
    side = size * SAMPLES
    values = functional.grid_sample(canvas, grid.reshape(-1, count * side, side, 2), mode="bilinear", padding_mode="border", align_corners=False)
    pooled = functional.avg_pool2d(values, SAMPLES).reshape(-1, channels, count, size, size)
    return pooled.transpose(1, 2).reshape(-1, channels, size, size)
