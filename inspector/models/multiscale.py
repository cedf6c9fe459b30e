"""The multiscale defect detection network (Wei & Bi 2019, section 3): Faster R-CNN on a feature pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from inspector.models.backbones import ResNet, build_backbone
from inspector.models.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, area, decode, float32, level_anchors, ranks_above, suppress
from inspector.models.pooling import pool_on_canvas, pool_regions, region_levels
from inspector.models.pyramid import FeaturePyramid, SingleMap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.config.detector import NetworkRecipe
    from inspector.config.network import InputRecipe

BASELINE_LEVEL = 4
"""The map of the paper's baseline."""
TOP_BACKBONE_LEVEL = 5
NEVER = -1e30
"""A logit below every real one."""


class Trace(NamedTuple):
    """All tensors at which the network may be cut, N images, K regions, C defect classes, D detections; float32 unless told."""

    maps: list[Tensor]
    """By level [N, channels, h_k, w_k]."""
    rpn_logits: list[Tensor]
    """By level [N, h_k w_k A]."""
    rpn_deltas: list[Tensor]
    """By level [N, h_k w_k A, 4]."""
    regions: Tensor
    """[N, K, 4] px; an empty box where there are fewer than K."""
    regions_converged: Tensor
    """[N] bool: suppression of the proposals reached its fixed point."""
    pooled: Tensor
    """[N K, channels, 7, 7]."""
    class_logits: Tensor
    """[N K, 1 + C], background first."""
    box_deltas: Tensor
    """[N K, C, 4], or [N K, 1, 4] where all classes share them."""
    boxes: Tensor
    """[N, D, 4] px."""
    scores: Tensor
    """[N, D] in 0..1; 0: an unused slot."""
    classes: Tensor
    """[N, D] int32, 0-based defect class."""
    converged: Tensor
    """[N] int32: 1 where both suppressions reached their fixed point."""


class RegionProposals(nn.Module):
    """The region proposal network's layers, shared by all levels: 3x3 convolution, then objectness and box code per anchor."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, h w A] and box code [N, h w A, 4], float32, in the order of the anchors, from a map [N, channels, h, w]."""
        hidden = functional.relu(self.conv(features))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        # int() here and below: while the graph is recorded a size is a tensor; only the batch may stay one.
        count = int(features.shape[2]) * int(features.shape[3]) * self.objectness.out_channels
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(-1, count, 4)
        return float32(logits), float32(deltas)


class DetectionHead(nn.Module):
    """Two hidden layers, then class logits and box code."""

    def __init__(self, inputs: int, hidden: int, classes: int, boxes: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(inputs, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.classes = nn.Linear(hidden, classes + 1)
        self.boxes = nn.Linear(hidden, 4 * boxes)
        for layer, std in ((self.classes, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        for layer in (self.hidden1, self.hidden2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [R, classes + 1] and box code [R, boxes, 4], float32, from [R, channels, size, size]."""
        hidden = functional.relu(self.hidden1(pooled.flatten(1)))
        hidden = functional.relu(self.hidden2(hidden))
        return float32(self.classes(hidden)), float32(self.boxes(hidden)).reshape(-1, self.boxes.out_features // 4, 4)


class MultiscaleDetector(nn.Module):
    """The detector; random weights come from torch's global generator.

    Args:
        network: architecture and widths.
        input: size, channels and normalisation of the images.
        classes: number of defect classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: NetworkRecipe, input: InputRecipe, classes: int) -> None:  # noqa: A002 (the recipe's name)
        super().__init__()
        self.network = network
        self.input = input
        self.class_count = classes
        self.levels = network.levels if network.pyramid else (BASELINE_LEVEL,)
        self.pooling_levels = network.pooling_levels if network.pyramid else (BASELINE_LEVEL,)
        self.tap_levels = tuple(level for level in self.levels if level <= TOP_BACKBONE_LEVEL)
        sizes = network.anchor_sizes_px
        self.anchor_sizes_px = tuple((size,) for size in sizes) if network.pyramid else (sizes,)
        self.backbone = build_backbone(network.backbone, network.backbone_width, max(self.tap_levels))
        widths = [self.backbone.widths[level] for level in self.tap_levels]
        self.pyramid = (
            FeaturePyramid(widths, network.channels, extra=len(self.levels) > len(self.tap_levels))
            if network.pyramid
            else SingleMap(widths[0], network.channels)
        )
        self.proposals = RegionProposals(network.channels, len(self.anchor_sizes_px[0]) * len(network.anchor_ratios))
        codes = classes if network.box_output == "per_class" else 1
        self.detection = DetectionHead(network.channels * network.pooled_size**2, network.hidden, classes, codes)
        self.register_buffer("mean", torch.tensor(input.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(input.std).view(1, 3, 1, 1), persistent=False)
        self._anchors: dict[tuple[int, int, int, torch.device], Tensor] = {}

    # The parts, in the order in which an image passes them.

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] to float32 [N, 3, H, W]: grey repeated, mean subtracted, divided by the spread."""
        return (images.float() - self.mean) / self.std

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps [N, channels, H / 2^k, W / 2^k] of ``levels`` from float [N, 3, H, W]; the one map of C4 without the pyramid."""
        maps: list[Tensor] = self.pyramid(self.backbone.taps(x, self.tap_levels))
        return maps

    def rpn(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits [N, h w A] and box code [N, h w A, 4] by level, float32."""
        pairs = [self.proposals(features) for features in maps]
        return [logits for logits, _ in pairs], [deltas for _, deltas in pairs]

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors [h w A, 4] by level, float32 px."""
        found = []
        for level, sizes, features in zip(self.levels, self.anchor_sizes_px, maps, strict=True):
            key = (level, int(features.shape[-2]), int(features.shape[-1]), features.device)
            anchors = self._anchors.get(key)
            if anchors is None:
                anchors = level_anchors(key[1], key[2], 2**level, sizes, self.network.anchor_ratios).to(features.device)
                if not torch.compiler.is_compiling():  # while tracing there are no values to keep
                    self._anchors[key] = anchors
            found.append(anchors)
        return found

    def pool(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """[sum R_i, channels, size, size], regions [R_i, 4] px of image i pooled from the level of equation 2; differentiable in the maps."""
        chosen, strides = self._pooling_maps(maps)
        levels = [self._levels_of(regions) for regions in boxes]
        network = self.network
        # unbind, not an index per image: its backward pass makes no full-size zero gradients.
        images = list(zip(*(features.unbind(0) for features in chosen), strict=True))
        parts = [
            pool_regions(image, strides, regions.detach(), level, network.pooled_size, network.pooling)
            for image, regions, level in zip(images, boxes, levels, strict=True)
        ]
        return torch.cat(parts)

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [R, classes + 1], background first, and box code [R, classes or 1, 4], float32."""
        logits, deltas = self.detection(pooled)
        return logits, deltas

    def _pooling_maps(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
        """The maps that regions are pooled from, and their strides in px."""
        by_level = dict(zip(self.levels, maps, strict=True))
        return [by_level[level] for level in self.pooling_levels], [2**level for level in self.pooling_levels]

    def _levels_of(self, boxes: Tensor) -> Tensor:
        """Equation 2."""
        return region_levels(boxes, self.pooling_levels, self.network.canonical_size_px, self.network.canonical_level)

    # The whole, with fixed shapes.

    def propose(self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Regions [N, K, 4] px, best first, empty where fewer are left, and [N] bool: whether their suppression converged."""
        network = self.network
        boxes, scores, converged = [], [], []
        for level_logits, level_deltas, level_anchor in zip(logits, deltas, anchors, strict=True):
            best, index = level_logits.topk(min(network.pre_nms, int(level_logits.shape[1])), dim=1)
            code = level_deltas.gather(1, index[..., None].repeat(1, 1, 4))
            level_boxes = decode(level_anchor[index], code, RPN_WEIGHTS, self.input.height_px, self.input.width_px)
            keep, done = suppress(level_boxes, network.proposal_iou, network.nms_steps, ranks_above(best, index))
            keep = keep & (area(level_boxes) > 0)
            boxes.append(level_boxes)
            scores.append(torch.where(keep, best, NEVER))
            converged.append(done)
        all_scores = torch.cat(scores, dim=1)
        best, index = all_scores.topk(min(network.proposals, int(all_scores.shape[1])), dim=1)
        regions = torch.cat(boxes, dim=1).gather(1, index[..., None].repeat(1, 1, 4))
        return regions * (best > NEVER / 2).float()[..., None], torch.stack(converged).all(dim=0)

    def finish(self, regions: Tensor, class_logits: Tensor, box_deltas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections from regions [N, K, 4] and the head's outputs: boxes [N, D, 4], scores [N, D], classes [N, D] int32, converged [N] bool."""
        network, count = self.network, int(regions.shape[1])
        codes = int(box_deltas.shape[1])
        shares = functional.softmax(float32(class_logits), dim=-1).reshape(-1, count, self.class_count + 1)
        scores = shares[..., 1:].transpose(1, 2)  # [N, C, K]
        deltas = box_deltas.reshape(-1, count, codes, 4).transpose(1, 2)
        boxes = decode(regions[:, None], deltas, HEAD_WEIGHTS, self.input.height_px, self.input.width_px)
        taking_part = (scores >= network.score_floor) & (area(regions) > 0)[:, None] & (area(boxes) > 0)
        keys = torch.arange(count, device=regions.device)
        above = ranks_above(scores, keys) & taking_part[..., None]
        keep, converged = suppress(boxes, network.detection_iou, network.nms_steps, above)
        slots = self.class_count * count
        kept = (scores * (keep & taking_part).float()).reshape(-1, slots)
        best, index = kept.topk(min(network.detections, slots), dim=1)
        flat = boxes.repeat(1, self.class_count // codes, 1, 1).reshape(-1, slots, 4)
        chosen = flat.gather(1, index[..., None].repeat(1, 1, 4)) * (best > 0).float()[..., None]
        class_of_slot = torch.tensor([index for index in range(self.class_count) for _ in range(count)], dtype=torch.int32, device=regions.device)
        return chosen, best, class_of_slot[index], converged.all(dim=1)

    def trace(self, images: Tensor) -> Trace:
        """Every named tensor of one pass over uint8 [N, C, H, W]."""
        maps = self.features(self.normalise(images))
        logits, deltas = self.rpn(maps)
        regions, regions_converged = self.propose(logits, deltas, self.anchors(maps))
        chosen, strides = self._pooling_maps(maps)
        if self.network.pooling == "align":
            pooled = pool_on_canvas(chosen, strides, regions, self._levels_of(regions), self.network.pooled_size)
        else:  # torch only: region max pooling has no form of fixed shapes
            pooled = self.pool(maps, regions.unbind(0))
        class_logits, box_deltas = self.head(pooled)
        boxes, scores, classes, converged = self.finish(regions, class_logits, box_deltas)
        both = (converged & regions_converged).to(torch.int32)
        return Trace(maps, logits, deltas, regions, regions_converged, pooled, class_logits, box_deltas, boxes, scores, classes, both)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections of uint8 [N, C, H, W]: boxes [N, D, 4] px, scores [N, D] (0: unused), classes [N, D] int32, converged [N] int32."""
        found = self.trace(images)
        return found.boxes, found.scores, found.classes, found.converged

    # Training.

    def freeze(self) -> None:
        """Stops the training of the first ``frozen_stages`` stages, and of a ResNet's batch normalisations in all stages."""
        for stage in self.backbone.stages()[: self.network.frozen_stages]:
            for module in stage:
                module.requires_grad_(requires_grad=False)
        if isinstance(self.backbone, ResNet):
            for norm in self.backbone.norms():
                norm.requires_grad_(requires_grad=False)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters of the backbone."""
        return (parameter for parameter in self.backbone.parameters() if parameter.requires_grad)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Trainable parameters of all that follows the backbone."""
        parts = (self.pyramid, self.proposals, self.detection)
        return (parameter for part in parts for parameter in part.parameters() if parameter.requires_grad)
