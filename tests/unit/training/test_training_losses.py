from __future__ import annotations

import math

import pytest
import torch

from inspector.config.detector import TrainingRecipe
from inspector.models.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, encode
from inspector.training.assign import (
    NEGATIVE,
    POSITIVE,
    UNUSED,
    AnchorSample,
    assign_anchors,
    sample_anchors,
    sample_regions,
    training_proposals,
)
from inspector.training.batches import Targets
from inspector.training.losses import Losses, head_losses, rpn_losses, smooth_l1

NONE = torch.zeros(0, 4)


def targets(*boxes: tuple[float, ...], classes: tuple[int, ...] | None = None, ignored: torch.Tensor = NONE) -> Targets:
    count = len(boxes)
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(classes or (1,) * count, dtype=torch.int64), ignored)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Assignment


def test_anchors_are_positive_from_07_and_negative_below_03() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 2], [50, 50, 60, 60.0]])
    labels, matched = assign_anchors(anchors, targets((0, 0, 10, 10)), 0.7, 0.3)
    assert labels.tolist() == [POSITIVE, POSITIVE, UNUSED, NEGATIVE, NEGATIVE]
    assert matched[:2].tolist() == [0, 0]


def test_the_best_anchor_of_a_box_is_positive_however_badly_it_fits() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [20, 20, 24, 30.0]])
    labels, matched = assign_anchors(anchors, targets((0, 0, 10, 10), (20, 20, 30, 30)), 0.7, 0.3)
    assert labels.tolist() == [POSITIVE, POSITIVE]
    assert matched.tolist() == [0, 1]


def test_a_best_anchor_is_trained_on_the_box_it_is_best_for() -> None:
    # The one anchor fits the first box better, but it is the only one that the second has.
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 6.0]])
    labels, matched = assign_anchors(anchors, targets((0, 0, 10, 10), (0, 0, 10, 3)), 0.7, 0.3)
    assert labels.tolist() == [POSITIVE, POSITIVE]
    assert matched.tolist() == [0, 1]


def test_a_box_that_no_anchor_comes_near_trains_none() -> None:
    labels, _ = assign_anchors(torch.tensor([[0, 0, 10, 10.0]]), targets((8, 8, 60, 60)), 0.7, 0.3)
    assert labels.tolist() == [NEGATIVE]


def test_without_labels_all_anchors_are_negative() -> None:
    labels, _ = assign_anchors(torch.tensor([[0, 0, 10, 10.0]]), targets(), 0.7, 0.3)
    assert labels.tolist() == [NEGATIVE]


def test_anchors_in_an_ignored_region_are_no_background() -> None:
    ignored = torch.tensor([[0, 0, 20, 20.0]])
    labels, _ = assign_anchors(torch.tensor([[0, 0, 10, 10], [16, 0, 26, 10], [40, 40, 50, 50.0]]), targets(ignored=ignored), 0.7, 0.3)
    assert labels.tolist() == [UNUSED, NEGATIVE, NEGATIVE]


def test_the_anchor_sample_is_bounded_and_its_codes_lead_to_the_box() -> None:
    anchors = torch.cat((torch.tensor([[0, 0, 10, 10.0]]).repeat(20, 1), torch.tensor([[50, 50, 60, 60.0]]).repeat(50, 1)))
    truth = targets((0, 0, 10, 9))
    sample = sample_anchors(anchors, truth, TrainingRecipe(rpn_samples=16), generator())
    assert len(sample.positive) == 8
    assert len(sample.negative) == 8
    assert (sample.positive < 20).all()
    assert (sample.negative >= 20).all()
    assert len(set(sample.positive.tolist())) == 8
    torch.testing.assert_close(sample.codes, encode(anchors[sample.positive], truth.boxes.repeat(8, 1), RPN_WEIGHTS))


def test_regions_take_the_class_of_the_box_they_fit() -> None:
    truth = targets((0, 0, 10, 10), (20, 20, 30, 30), classes=(3, 1))
    proposals = torch.tensor([[0, 0, 10, 8], [20, 20, 30, 29], [0, 0, 10, 4], [50, 50, 60, 60.0]])
    sample = sample_regions(proposals, truth, TrainingRecipe(roi_samples=8, roi_positive_share=0.5), generator())
    found = {tuple(box): kind for box, kind in zip(sample.boxes.tolist(), sample.classes.tolist(), strict=True)}
    assert found == {
        (0, 0, 10, 8): 3,
        (20, 20, 30, 29): 1,
        (0, 0, 10, 10): 3,  # true boxes are regions too
        (20, 20, 30, 30): 1,
        (0, 0, 10, 4): 0,
        (50, 50, 60, 60): 0,
    }
    positive = sample.classes > 0
    assert (sample.codes[~positive] == 0).all()
    near = sample.boxes[:, 3] == 8
    torch.testing.assert_close(sample.codes[near], encode(sample.boxes[near], truth.boxes[:1], HEAD_WEIGHTS))


def test_the_region_sample_is_bounded_and_works_without_labels() -> None:
    proposals = torch.tensor([[0, 0, 10, 10.0]]).repeat(40, 1)
    sample = sample_regions(proposals, targets((0, 0, 10, 10)), TrainingRecipe(roi_samples=16, roi_positive_share=0.25), generator())
    assert (sample.classes > 0).sum() == 4
    background = sample_regions(proposals, targets(), TrainingRecipe(roi_samples=16), generator())
    assert background.classes.tolist() == [0] * 16


def test_proposals_are_suppressed_within_a_level_cut_and_ranked_over_all() -> None:
    anchors = [torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9.9], [90, 90, 120, 120.0]]), torch.tensor([[0, 0, 10, 10], [30, 30, 31, 31.0]])]
    logits = [torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.0, 9.0])]
    deltas = [torch.zeros(3, 4), torch.zeros(2, 4)]
    found = training_proposals(logits, deltas, anchors, TrainingRecipe(train_proposals=3), 100, 100, 0.7)
    torch.testing.assert_close(found, torch.tensor([[0, 0, 10, 9.9], [90, 90, 100, 100], [0, 0, 10, 10.0]]))
    one = training_proposals(logits, deltas, anchors, TrainingRecipe(train_pre_nms=1), 100, 100, 0.7)
    assert len(one) == 1  # the second level's best is too narrow


# Losses, against sums written out by hand


def test_smooth_l1_is_quadratic_then_linear() -> None:
    assert smooth_l1(torch.tensor([0.5, -0.5, 2.0, -3.0]), 1.0).tolist() == [0.125, 0.125, 1.5, 2.5]
    x = torch.linspace(-2, 2, 41)
    torch.testing.assert_close(smooth_l1(x, 1 / 9), torch.nn.functional.smooth_l1_loss(x, torch.zeros(41), beta=1 / 9, reduction="none"))


def test_rpn_losses_are_log_loss_and_smooth_l1_over_all_samples() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 9.0])
    deltas = torch.tensor([[0.5, 0, 0, 0], [9, 9, 9, 9], [0, 0, 3.0, 0], [9, 9, 9, 9]])
    sample = AnchorSample(torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([[0.0, 0, 0, 0], [0, 0, 1.0, 0]]))
    class_loss, box_loss = rpn_losses(logits, deltas, sample, 1.0)

    def p(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert float(class_loss) == pytest.approx(-(math.log(p(2)) + math.log(p(0.5)) + math.log(1 - p(-1))) / 3)
    assert float(box_loss) == pytest.approx((0.5 * 0.5**2 + (2.0 - 0.5)) / 3)


def test_head_losses_are_cross_entropy_and_the_true_class_s_box() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    deltas = torch.tensor([[[7.0, 7, 7, 7], [0.5, 0, 0, 2]], [[9.0, 9, 9, 9], [9, 9, 9, 9]]])
    classes = torch.tensor([2, 0])
    codes = torch.zeros(2, 4)
    class_loss, box_loss = head_losses(logits, deltas, classes, codes, 1.0)
    shares = [math.exp(x) for x in (1.0, 2.0, 0.0)]
    assert float(class_loss) == pytest.approx((-math.log(shares[2] / sum(shares)) + math.log(3)) / 2)
    assert float(box_loss) == pytest.approx((0.125 + 1.5) / 2)


def test_a_shared_box_serves_every_class() -> None:
    deltas = torch.tensor([[[0.5, 0, 0, 0]], [[2.0, 0, 0, 0]]])
    _, box_loss = head_losses(torch.zeros(2, 4), deltas, torch.tensor([3, 1]), torch.zeros(2, 4), 1.0)
    assert float(box_loss) == pytest.approx((0.125 + 1.5) / 2)


def test_empty_samples_cost_nothing() -> None:
    empty = AnchorSample(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), NONE)
    assert [float(x) for x in rpn_losses(torch.zeros(3), torch.zeros(3, 4), empty, 1.0)] == [0, 0]
    nothing = head_losses(torch.zeros(0, 3), torch.zeros(0, 2, 4), torch.zeros(0, dtype=torch.int64), NONE, 1.0)
    assert [float(x) for x in nothing] == [0, 0]


def test_the_total_is_the_sum() -> None:
    assert float(Losses(*(torch.tensor(x) for x in (1.0, 2.0, 3.0, 4.0))).total()) == 10
