from __future__ import annotations

import math

import pytest
import torch

from inspector.models import pooling
from inspector.models.pooling import pool_on_canvas, pool_regions, region_levels, roi_align, roi_max


@pytest.fixture
def maps() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 6, 64 >> k, 96 >> k, generator=generator) for k in range(4)]


def boxes_within(height: int, width: int, seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 2, generator=generator).sort(dim=1).values * width
    y = torch.rand(count, 2, generator=generator).sort(dim=1).values * height
    return torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)


def slow_align(features: torch.Tensor, box: list[float], stride: int, size: int) -> torch.Tensor:
    """RoIAlign by its definition: bilinear samples at (i + 1/4, i + 3/4) of each bin."""
    channels, rows, columns = features.shape
    x1, y1, x2, y2 = (side / stride - 0.5 for side in box)
    result = torch.zeros(channels, size, size)
    for row in range(size):
        for column in range(size):
            for sub_y in (0.25, 0.75):
                for sub_x in (0.25, 0.75):
                    y = min(max(y1 + (y2 - y1) * (row + sub_y) / size, 0), rows - 1)
                    x = min(max(x1 + (x2 - x1) * (column + sub_x) / size, 0), columns - 1)
                    top, left = min(int(y), rows - 2), min(int(x), columns - 2)
                    low, right = y - top, x - left
                    corner = features[:, top : top + 2, left : left + 2]
                    value = corner[:, 0, 0] * (1 - low) * (1 - right) + corner[:, 0, 1] * (1 - low) * right
                    result[:, row, column] += (value + corner[:, 1, 0] * low * (1 - right) + corner[:, 1, 1] * low * right) / 4
    return result


def slow_max(features: torch.Tensor, box: list[float], stride: int, size: int) -> torch.Tensor:
    """RoI max pooling by its definition (Girshick 2015)."""
    channels, rows, columns = features.shape
    x1, y1, x2, y2 = (math.floor(side / stride + 0.5) for side in box)
    x2, y2, x1, y1 = min(x2, columns - 1), min(y2, rows - 1), min(x1, columns - 1), min(y1, rows - 1)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    result = torch.zeros(channels, size, size)
    for row in range(size):
        for column in range(size):
            top, bottom = y1 + math.floor(row * height / size), y1 + math.ceil((row + 1) * height / size)
            left, right = x1 + math.floor(column * width / size), x1 + math.ceil((column + 1) * width / size)
            result[:, row, column] = features[:, top:bottom, left:right].amax(dim=(1, 2))
    return result


@pytest.mark.parametrize("largest_cells", [pooling.SEPARABLE_MAX_CELLS, 0])
def test_roi_align_is_its_definition_either_way(maps: list[torch.Tensor], largest_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "SEPARABLE_MAX_CELLS", largest_cells)
    boxes = torch.cat((boxes_within(128, 192, 1, 6), torch.tensor([[0.0, 0, 192, 128], [190, 126, 192, 128]])))
    pooled = roi_align(maps[1][0], boxes, 4, 7)
    for value, box in zip(pooled, boxes.tolist(), strict=True):
        torch.testing.assert_close(value, slow_align(maps[1][0], box, 4, 7), atol=2e-5, rtol=1e-4)


def test_roi_max_is_its_definition(maps: list[torch.Tensor]) -> None:
    boxes = torch.cat((boxes_within(128, 192, 2, 8), torch.tensor([[0.0, 0, 192, 128], [190, 126, 192, 128], [7, 7, 8, 8]])))
    pooled = roi_max(maps[1][0], boxes, 4, 7)
    for value, box in zip(pooled, boxes.tolist(), strict=True):
        assert torch.equal(value, slow_max(maps[1][0], box, 4, 7))


def test_equation_2() -> None:
    sides = torch.tensor([1.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 2000.0])
    boxes = torch.stack((torch.zeros(8), torch.zeros(8), sides, sides), dim=1)
    assert (region_levels(boxes, (2, 3, 4, 5), 224.0, 4) + 2).tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    wide = torch.tensor([[0.0, 0, 448, 112]])  # the same area as 224 squared
    assert (region_levels(wide, (2, 3, 4, 5), 224.0, 4) + 2).tolist() == [4]
    assert region_levels(boxes, (4,), 224.0, 4).tolist() == [0] * 8


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_canvas_equals_pooling_image_by_image(maps: list[torch.Tensor], count: int) -> None:
    chosen, strides = maps[:count], [4, 8, 16, 32][:count]
    boxes = torch.stack([boxes_within(256, 384, seed, 12) for seed in (3, 4)])
    boxes[:, 0] = torch.tensor([0.0, 0, 384, 256])
    levels = torch.arange(24).reshape(2, 12) % count
    together = pool_on_canvas(chosen, strides, boxes, levels, 7)
    alone = [pool_regions([level[n] for level in chosen], strides, boxes[n], levels[n], 7, "align") for n in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_pooling_an_image_without_regions_gives_none(maps: list[torch.Tensor]) -> None:
    for method in ("align", "max"):
        pooled = pool_regions([maps[0][0]], [4], torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7, method)
        assert pooled.shape == (0, 6, 7, 7)
    assert roi_max(maps[0][0], torch.zeros(0, 4), 4, 7).shape == (0, 6, 7, 7)


@pytest.mark.parametrize("method", ["align", "max"])
def test_pooling_gives_gradients_to_the_level_it_read(maps: list[torch.Tensor], method: str) -> None:
    first, second = (level[0].clone().requires_grad_() for level in maps[:2])
    pool_regions([first, second], [4, 8], torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([1]), 7, method).sum().backward()
    assert first.grad is None
    assert second.grad is not None
    assert float(second.grad.sum()) == pytest.approx(49 * 6, rel=1e-4)
