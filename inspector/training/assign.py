"""Which anchors and regions are trained on, and towards what."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from inspector.models.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, area, decode, encode, iou, nms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.config.detector import TrainingRecipe
    from inspector.training.batches import Targets

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1
BEST_ANCHOR_MIN_IOU = 0.2
"""A true box that no anchor fits better than this trains none: its code would be far outside the others' range."""
TIE = 1e-4
"""Anchors this near to a true box's best one count as best too."""
IGNORED_SHARE = 0.5
"""An anchor or region with this share of its area in an ignored region is no negative."""
SMALLEST_SIDE_PX = 2.0
"""Proposals narrower than this are not trained on."""


class AnchorSample(NamedTuple):
    """The anchors of one image that the RPN is trained on."""

    positive: Tensor
    """int64 [P], indices of anchors with p* = 1."""
    negative: Tensor
    """int64 [Q], indices of anchors with p* = 0."""
    codes: Tensor
    """float32 [P, 4], t* of the positive ones."""


class RegionSample(NamedTuple):
    """The regions of one image that the head is trained on."""

    boxes: Tensor
    """float32 [S, 4], px."""
    classes: Tensor
    """int64 [S]; 0: background."""
    codes: Tensor
    """float32 [S, 4]; zero for background."""


def assign_anchors(anchors: Tensor, targets: Targets, positive_iou: float, negative_iou: float) -> tuple[Tensor, Tensor]:
    """Labels of all anchors of one image (Faster R-CNN, section 3.1.2; Wei & Bi 2019, section 3.2).

    Positive: IoU with a true box of at least ``positive_iou``, or no anchor has more with that
    box. Negative: below ``negative_iou`` with all of them.

    Args:
        anchors: [A, 4], px.
        targets: true boxes.
        positive_iou: 0..1.
        negative_iou: 0..1.

    Returns:
        Labels int64 [A] (``POSITIVE``, ``NEGATIVE``, ``UNUSED``) and the index of the true box that fits each anchor best, int64 [A].
    """
    labels = torch.full((len(anchors),), NEGATIVE, dtype=torch.int64)
    matched = torch.zeros(len(anchors), dtype=torch.int64)
    if len(targets.boxes):
        overlaps = iou(anchors, targets.boxes)
        best, matched = overlaps.max(dim=1)
        labels[best >= negative_iou] = UNUSED
        best_of_box = overlaps.amax(dim=0)
        own = (overlaps >= best_of_box - TIE) & (overlaps > BEST_ANCHOR_MIN_IOU)
        is_best = own.any(dim=1)
        # An anchor that is some box's best is trained on that box, unless it fits another well enough by itself.
        weak = is_best & (best < positive_iou)
        matched = torch.where(weak, torch.where(own, overlaps, -1.0).argmax(dim=1), matched)
        labels[(best >= positive_iou) | is_best] = POSITIVE
    labels[(labels == NEGATIVE) & _mostly_ignored(anchors, targets.ignored)] = UNUSED
    return labels, matched


def sample_anchors(anchors: Tensor, targets: Targets, training: TrainingRecipe, random: torch.Generator) -> AnchorSample:
    """At most ``rpn_samples`` anchors of one image, at most half of them positive."""
    labels, matched = assign_anchors(anchors, targets, training.rpn_positive_iou, training.rpn_negative_iou)
    positive = _drawn(torch.nonzero(labels == POSITIVE)[:, 0], training.rpn_samples // 2, random)
    negative = _drawn(torch.nonzero(labels == NEGATIVE)[:, 0], training.rpn_samples - len(positive), random)
    codes = encode(anchors[positive], targets.boxes[matched[positive]], RPN_WEIGHTS)
    return AnchorSample(positive, negative, codes)


def training_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    training: TrainingRecipe,
    height_px: int,
    width_px: int,
    threshold: float,
) -> Tensor:
    """One image's proposals for the head: per level the best anchors, decoded and suppressed; then the best of all levels.

    Args:
        logits: by level [A_k].
        deltas: by level [A_k, 4].
        anchors: by level [A_k, 4], px.
        training: ``train_pre_nms`` anchors per level, ``train_proposals`` in the end.
        height_px: rows of the canvas.
        width_px: columns of the canvas.
        threshold: IoU above which suppression drops the lower-scored box, within a level.

    Returns:
        float32 [K, 4] px, best first, without gradient.
    """
    boxes, scores = [], []
    with torch.no_grad():
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            best, index = level_logits.topk(min(training.train_pre_nms, len(level_logits)))
            found = decode(level_anchors[index], level_deltas[index], RPN_WEIGHTS, height_px, width_px)
            wide = ((found[:, 2] - found[:, 0]) >= SMALLEST_SIDE_PX) & ((found[:, 3] - found[:, 1]) >= SMALLEST_SIDE_PX)
            found, best = found[wide], best[wide]
            kept = nms(found, best, threshold)
            boxes.append(found[kept])
            scores.append(best[kept])
        all_scores = torch.cat(scores)
        return torch.cat(boxes)[all_scores.topk(min(training.train_proposals, len(all_scores))).indices]


def sample_regions(proposals: Tensor, targets: Targets, training: TrainingRecipe, random: torch.Generator) -> RegionSample:
    """At most ``roi_samples`` of one image's proposals and true boxes, at most ``roi_positive_share`` of them on defects.

    A region is of the class of the true box that fits it best if their IoU is at least ``roi_iou``, else background.

    Args:
        proposals: [K, 4], px.
        targets: true boxes; they take part as regions, so that the head sees positives from the first step.
        training: the recipe's numbers.
        random: source of the draws.

    Returns:
        The sample, positive regions first.
    """
    regions = torch.cat((proposals, targets.boxes))
    if len(targets.boxes):
        best, matched = iou(regions, targets.boxes).max(dim=1)
    else:
        best, matched = torch.zeros(len(regions)), torch.zeros(len(regions), dtype=torch.int64)
    on_defect = best >= training.roi_iou
    positive = _drawn(torch.nonzero(on_defect)[:, 0], max(1, int(training.roi_samples * training.roi_positive_share)), random)
    off_defect = ~on_defect & ~_mostly_ignored(regions, targets.ignored)
    negative = _drawn(torch.nonzero(off_defect)[:, 0], training.roi_samples - len(positive), random)
    chosen = torch.cat((positive, negative))
    classes = torch.zeros(len(chosen), dtype=torch.int64)
    codes = torch.zeros(len(chosen), 4)
    if len(positive):
        classes[: len(positive)] = targets.classes[matched[positive]]
        codes[: len(positive)] = encode(regions[positive], targets.boxes[matched[positive]], HEAD_WEIGHTS)
    return RegionSample(regions[chosen], classes, codes)


def _drawn(candidates: Tensor, count: int, random: torch.Generator) -> Tensor:
    """At most ``count`` of ``candidates`` [n], drawn evenly without repeats."""
    return candidates[torch.randperm(len(candidates), generator=random)[:count]]


def _mostly_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Bool [A]: whether at least half of a box lies in one ignored region."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool)
    sides = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:]) - torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    shared = sides.clamp(min=0).prod(dim=2).amax(dim=1)
    return shared >= IGNORED_SHARE * area(boxes).clamp(min=1e-9)
