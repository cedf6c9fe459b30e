"""Input saliency of the multiscale detector (Wei & Bi 2019, section 5.3): which pixels its classification hangs on. Torch, offline.

The map is the derivative of the classification layer's loss with respect to the image (Simonyan et al. 2014 take the class score; the loss is what
the paper takes). The loss is the head's cross-entropy of the regions behind the reported detections, against the classes that the network itself
reports: no labels are needed, and the map explains what was found, right or wrong.

**Regions are constants.** The gradient runs from a region's class logits through its pooled cells into the maps and the image. It does not run
through the region's coordinates into the region proposal network, as it does not in training (Faster R-CNN, and ``MultiscaleDetector.pool``): the map
tells what the class of *this* place hangs on, not what would move the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from inspector.models.boxes import HEAD_WEIGHTS, decode

if TYPE_CHECKING:
    from inspector.models.multiscale import MultiscaleDetector


@dataclass(frozen=True, slots=True)
class DetectorSaliency:
    """What the classes of ``n`` detections on one image hang on, best detection first. Boxes are px of the network's input."""

    boxes: Tensor
    """[n, 4] float32, as the network reports them."""
    scores: Tensor
    """[n] float32, 0..1."""
    classes: Tensor
    """[n] int64, 0-based defect class."""
    regions: Tensor
    """[n, 4] float32: the proposal behind each detection, from which the head told the class."""
    each: Tensor
    """[n, H, W] float32, at least 0: of each detection's own loss, -log(score)."""
    together: Tensor
    """[H, W] float32, at least 0: of the mean of their losses. A detection with a score near 1 has hardly any loss left and weighs little in it."""

    def inside(self) -> Tensor:
        """[n] float32, 0..1: the share of each detection's own map that lies in its box. A pixel counts by its middle."""
        rows, columns = (torch.arange(size, device=self.each.device) + 0.5 for size in self.each.shape[1:])
        x1, y1, x2, y2 = self.boxes[:, None].unbind(-1)  # [n, 1]
        within = ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None]
        # In float64, and 0 where a map is zero everywhere.
        each = self.each.double()
        return ((each * within).sum((1, 2)) / each.sum((1, 2)).clamp(min=torch.finfo(torch.float64).tiny)).float()


def detector_saliency(model: MultiscaleDetector, image: Tensor, count: int = 8, min_score: float = 0.0) -> DetectorSaliency | None:
    """The saliency of the detections on an image: max over planes of abs(d loss / d x), x the normalised image that the first convolution sees.

    One unit of x is one standard deviation of the recipe's input (``std`` grey levels). One backward pass through the trunk per detection.

    Args:
        model: put into evaluation mode; its weights and their gradients are not touched.
        image: uint8 [C, H, W], of the size of the network's input (letterboxed).
        count: most detections that are explained; the best.
        min_score: detections below it are left out, 0..1.

    Returns:
        None where the network reports no such detection: there is no class to explain then, and a map of zeros would say that no pixel matters.

    Raises:
        ValueError: ``image`` is of another dtype or shape, or ``count`` is not positive.
    """
    expected = (model.input.channels, model.input.height_px, model.input.width_px)
    if image.dtype != torch.uint8 or tuple(image.shape) != expected:
        raise ValueError(f"an image {list(image.shape)} of {image.dtype}: it must be uint8 {list(expected)}")
    if count < 1:
        raise ValueError(f"count = {count}: at least one detection is to be explained")
    model.eval()
    x = model.normalise(image[None]).detach()
    with torch.enable_grad():
        maps = model.features(x.requires_grad_())
        found = _reported(model, maps, count, min_score)
        if found is None:
            return None
        logits, _ = model.head(model.pool(maps, [found.regions]))
        # In float64: one minus a score near one, which is the gradient, has few digits in float32.
        losses = functional.cross_entropy(logits.double(), found.classes + 1, reduction="none")
        each: list[Tensor] = []
        total = torch.zeros_like(x[0])
        for index, loss in enumerate(losses.unbind()):
            (gradient,) = torch.autograd.grad(loss, x, retain_graph=index + 1 < len(losses))
            each.append(_strength(gradient[0]))
            total += gradient[0]
    return DetectorSaliency(*found, each=torch.stack(each), together=_strength(total / len(losses)))


def _strength(gradient: Tensor) -> Tensor:
    """[H, W] float32: the largest absolute value over the planes of [3, H, W]."""
    return gradient.abs().amax(dim=0).float()


class _Reported(NamedTuple):
    """The first four fields of :class:`DetectorSaliency`."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    regions: Tensor


@torch.no_grad()
def _reported(model: MultiscaleDetector, maps: list[Tensor], count: int, min_score: float) -> _Reported | None:
    """The best detections on one image, from its maps, and the region behind each; None where there are none."""
    regions, _ = model.propose(*model.rpn(maps), model.anchors(maps))
    logits, deltas = model.head(model.pool(maps, regions.unbind()))
    boxes, scores, classes, _ = (result[0] for result in model.finish(regions, logits, deltas))
    taken = torch.nonzero((scores > 0) & (scores >= min_score))[:count, 0]
    if not len(taken):
        return None
    boxes, scores, classes = boxes[taken], scores[taken], classes[taken].long()
    # A detection has its region's share of its class and the box decoded from it, both bit by bit: the region that repeats both is the one.
    shares = functional.softmax(logits, dim=-1)[:, 1:]  # [K, C]
    decoded = decode(regions[0, :, None], deltas, HEAD_WEIGHTS, model.input.height_px, model.input.width_px)  # [K, C or 1, 4]
    decoded = decoded.expand(-1, model.class_count, 4)
    misfit = (shares[:, classes] - scores).abs() + (decoded[:, classes] - boxes).abs().sum(dim=-1)  # [K, n]
    return _Reported(boxes, scores, classes, regions[0, misfit.argmin(dim=0)])
