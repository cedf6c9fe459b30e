"""The four losses of Wei & Bi 2019 (equations 3 to 6), which are Faster R-CNN's, and their sum over a batch.

With p the objectness, p* its label, t a box code, t* its target, u the true class, and L1 the smooth L1 distance:

- RPN: (1 / N) sum -log[p* p + (1 - p*)(1 - p)]  +  (1 / N) sum p* L1(t - t*), over the N anchors sampled per image;
- head: (1 / M) sum -log softmax(logits)_u  +  (1 / M) sum [u >= 1] L1(t_u - t*), over the M regions sampled in the batch.

The box losses are divided by all samples, not by the positive ones, so that both terms of a line weigh every sample alike (their balance is 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from inspector.training.assign import sample_anchors, sample_regions, training_proposals

if TYPE_CHECKING:
    from inspector.config.detector import TrainingRecipe
    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.assign import AnchorSample
    from inspector.training.batches import Batch


class Losses(NamedTuple):
    """The four terms, float32 scalars."""

    rpn_class: Tensor
    rpn_box: Tensor
    head_class: Tensor
    head_box: Tensor

    def total(self) -> Tensor:
        """Their sum: what is minimised."""
        return self.rpn_class + self.rpn_box + self.head_class + self.head_box


def smooth_l1(difference: Tensor, beta: float) -> Tensor:
    """0.5 x^2 / beta where |x| < beta, else |x| - 0.5 beta (Fast R-CNN, equation 3, has beta = 1); of each element."""
    size = difference.abs()
    return torch.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def rpn_losses(logits: Tensor, deltas: Tensor, sample: AnchorSample, beta: float) -> tuple[Tensor, Tensor]:
    """The RPN's two losses on one image.

    Args:
        logits: float32 [A], of all anchors.
        deltas: float32 [A, 4].
        sample: the anchors trained on.
        beta: where smooth L1 turns linear.

    Returns:
        Class and box loss, scalars; zero for an empty sample.
    """
    count = max(1, len(sample.positive) + len(sample.negative))
    chosen = torch.cat((logits[sample.positive], logits[sample.negative]))
    truth = torch.zeros_like(chosen)
    truth[: len(sample.positive)] = 1
    class_loss = functional.binary_cross_entropy_with_logits(chosen, truth, reduction="sum") / count
    box_loss = smooth_l1(deltas[sample.positive] - sample.codes, beta).sum() / count
    return class_loss, box_loss


def head_losses(logits: Tensor, deltas: Tensor, classes: Tensor, codes: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The head's two losses on the regions of a batch.

    Args:
        logits: float32 [M, 1 + C], background first.
        deltas: float32 [M, C, 4], or [M, 1, 4] where all classes share the box.
        classes: int64 [M], 0: background.
        codes: float32 [M, 4].
        beta: where smooth L1 turns linear.

    Returns:
        Class and box loss, scalars; zero for an empty sample.
    """
    count = max(1, len(classes))
    class_loss = functional.cross_entropy(logits, classes, reduction="sum") / count
    positive = torch.nonzero(classes > 0)[:, 0]
    column = classes[positive] - 1 if deltas.shape[1] > 1 else torch.zeros_like(positive)
    box_loss = smooth_l1(deltas[positive, column] - codes[positive], beta).sum() / count
    return class_loss, box_loss


def detection_losses(model: MultiscaleDetector, batch: Batch, training: TrainingRecipe, random: torch.Generator) -> Losses:
    """The losses of one batch, with their graph.

    Args:
        model: in training mode.
        batch: images and true boxes.
        training: the recipe's numbers; with ``precision`` bf16 the convolutions and products run in bfloat16, boxes and losses in float32.
        random: source of the samples drawn.

    Returns:
        Four scalars, each the mean over the batch.
    """
    height, width = batch.images.shape[-2:]
    beta = training.smooth_l1_beta
    with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
        x = model.normalise(batch.images).contiguous(memory_format=torch.channels_last)
        maps = model.features(x)
        level_logits, level_deltas = model.rpn(maps)
        level_anchors = model.anchors(maps)
    anchors = torch.cat(level_anchors)
    # unbind, not an index per image: its backward pass makes no full-size zero gradients.
    logits = torch.cat(level_logits, dim=1).float().unbind(0)
    deltas = torch.cat(level_deltas, dim=1).float().unbind(0)
    sizes = [len(level) for level in level_anchors]
    rpn_class, rpn_box = torch.zeros(()), torch.zeros(())
    regions = []
    for image_logits, image_deltas, targets in zip(logits, deltas, batch.targets, strict=True):
        class_loss, box_loss = rpn_losses(image_logits, image_deltas, sample_anchors(anchors, targets, training, random), beta)
        rpn_class, rpn_box = rpn_class + class_loss, rpn_box + box_loss
        proposals = training_proposals(
            torch.split(image_logits.detach(), sizes),
            torch.split(image_deltas.detach(), sizes),
            level_anchors,
            training,
            height,
            width,
            model.network.proposal_iou,
        )
        regions.append(sample_regions(proposals, targets, training, random))
    with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
        class_logits, box_deltas = model.head(model.pool(maps, [region.boxes for region in regions]))
    classes, codes = torch.cat([region.classes for region in regions]), torch.cat([region.codes for region in regions])
    head_class, head_box = head_losses(class_logits.float(), box_deltas.float(), classes, codes, beta)
    return Losses(rpn_class / len(logits), rpn_box / len(logits), head_class, head_box)
