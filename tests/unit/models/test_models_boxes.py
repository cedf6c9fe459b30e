from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.models.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, decode, encode, iou, level_anchors, nms, ranks_above, suppress


def random_boxes(seed: int, count: int, size: float = 100.0, smallest: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    sides = smallest + torch.rand(count, 2, generator=generator) * size / 2
    return torch.cat((corner, corner + sides), dim=1)


def test_iou_by_hand() -> None:
    first = torch.tensor([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    second = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    assert iou(first, second).tolist() == [pytest.approx([1 / 3, 1.0, 0.0]), [0.0, 0.0, 0.0]]


def test_iou_is_float32_for_half_precision_boxes() -> None:
    assert iou(torch.zeros(1, 4, dtype=torch.bfloat16), torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), weights=st.sampled_from([RPN_WEIGHTS, HEAD_WEIGHTS]))
def test_decode_is_the_inverse_of_encode(seed: int, weights: tuple[float, float, float, float]) -> None:
    reference, boxes = random_boxes(seed, 8, smallest=4.0), random_boxes(seed + 1, 8, smallest=4.0)
    back = decode(reference, encode(reference, boxes, weights), weights, 1000, 1000, clip=False)
    torch.testing.assert_close(back, boxes, atol=1e-3, rtol=1e-5)


def test_decode_clips_and_limits_growth() -> None:
    deltas = torch.tensor([[0.0, 0.0, 100.0, 100.0], [-50.0, 0.0, 0.0, 0.0]])
    boxes = decode(torch.tensor([10.0, 10, 20, 20]), deltas, RPN_WEIGHTS, 40, 60)
    assert boxes.tolist() == [[0.0, 0.0, 60.0, 40.0], [0.0, 10.0, 0.0, 20.0]]
    free = decode(torch.tensor([10.0, 10, 20, 20]), deltas[:1], RPN_WEIGHTS, 40, 60, clip=False)
    assert (free[0, 2] - free[0, 0]).item() == pytest.approx(10 * 1000 / 16)


def test_anchors_by_hand() -> None:
    anchors = level_anchors(2, 3, 8, (16.0,), (0.25, 1.0))
    assert anchors.shape == (12, 4)
    assert anchors[0].tolist() == [4 - 16, 4 - 4, 4 + 16, 4 + 4]  # height over width 1:4, area 256
    assert anchors[1].tolist() == [-4, -4, 12, 12]
    assert anchors[2].tolist() == [12 - 16, 0, 12 + 16, 8]  # the next column
    assert anchors[-1].tolist() == [20 - 8, 12 - 8, 20 + 8, 12 + 8]


def test_anchors_keep_their_area_at_every_ratio_and_size() -> None:
    anchors = level_anchors(1, 1, 16, (32.0, 512.0), (0.5, 1.0, 2.0))
    sides = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(sides.prod(1).sqrt(), torch.tensor([32.0] * 3 + [512.0] * 3))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0] * 2))


def test_nms_keeps_by_score_then_index_and_honours_groups() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.9, 0.9, 0.1])
    assert nms(boxes, scores, 0.5).tolist() == [1, 3]
    assert nms(boxes, scores, 0.5, groups=torch.tensor([0, 0, 1, 0])).tolist() == [1, 2, 3]
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), threshold=st.floats(0.05, 0.9))
def test_the_fixed_point_is_greedy_suppression(seed: int, count: int, threshold: float) -> None:
    boxes = random_boxes(seed, count, size=60.0)
    scores = torch.linspace(1, 0.1, count)
    greedy = set(nms(boxes, scores, threshold).tolist())
    for steps in (0, 2, 4, 32):
        keep, converged = suppress(boxes, threshold, steps)
        kept = set(torch.nonzero(keep)[:, 0].tolist())
        assert greedy <= kept, "an even number of steps lost a box"
        if converged:
            assert kept == greedy
    keep, converged = suppress(boxes, threshold, 60)  # a chain has at most as many links as boxes
    assert converged
    assert set(torch.nonzero(keep)[:, 0].tolist()) == greedy


def test_a_long_chain_is_told_as_not_converged() -> None:
    x = torch.arange(80.0) * 4  # each box overlaps only its neighbours
    boxes = torch.stack((x, torch.zeros(80), x + 10, torch.full((80,), 10.0)), dim=1)
    keep, converged = suppress(boxes, 0.3, 32)
    assert not converged
    assert set(nms(boxes, torch.linspace(1, 0.1, 80), 0.3).tolist()) < set(torch.nonzero(keep)[:, 0].tolist())
    assert suppress(boxes, 0.3, 80)[1]


def test_suppression_of_unsorted_boxes_with_equal_scores_goes_by_key() -> None:
    boxes = random_boxes(3, 40, size=30.0)
    scores = torch.tensor([0.25, 0.5, 0.75, 1.0]).repeat(10)
    greedy = set(nms(boxes, scores, 0.3).tolist())
    for order in (torch.arange(40), torch.randperm(40, generator=torch.Generator().manual_seed(0))):
        keep, converged = suppress(boxes[order], 0.3, 40, ranks_above(scores[order], order))
        assert converged
        assert set(order[keep].tolist()) == greedy


def test_an_odd_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        suppress(torch.zeros(2, 4), 0.5, 33)
