"""The multiscale detector's part of an engine recipe: architecture, training, and the tolerances of its engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section
from inspector.config.network import BuildRecipe, Fraction, Positive, Precision, VariantRecipe


class NetworkRecipe(Section):
    """The multiscale detector's architecture; the defaults are Wei & Bi 2019, section 3."""

    architecture: Literal["multiscale"] = "multiscale"
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_lite0"] = "resnet101"
    backbone_width: Fraction = 1.0
    """Share of the backbone's channels that is kept (ImageNet weights load only at 1.0)."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 2
    """Leading stages (the stem is the first) whose weights are not trained."""
    pyramid: bool = True
    """False: the paper's baseline, C4 alone with all anchors."""
    levels: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Pyramid levels that carry anchors; level k has stride 2^k. The last may be one above the backbone's top (stride-2 subsampling)."""
    channels: Positive = 256
    anchor_sizes_px: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Square root of the anchor's area, one per level (all of them on C4 without the pyramid)."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    pooling: Literal["align", "max"] = "align"
    """align: RoIAlign, which is compiled. max: the paper's RoI max pooling, torch only."""
    pooled_size: Positive = 7
    pooling_levels: tuple[int, ...] = (2, 3, 4, 5)
    canonical_size_px: Annotated[float, Field(gt=0)] = 224.0
    """Equation 2: level = floor(k0 + log2(sqrt(w h) / canonical_size_px))."""
    canonical_level: Positive = 4
    hidden: Positive = 1024
    """Width of the two hidden layers."""
    box_output: Literal["per_class", "shared"] = "per_class"
    pre_nms: Positive = 1000
    """Anchors kept per level before suppression when the network runs (not trains)."""
    proposals: Positive = 256
    """Regions that reach the head (K; at most 3840)."""
    proposal_iou: Fraction = 0.7
    detections: Positive = 100
    detection_iou: Fraction = 0.5
    score_floor: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Detections under it are not reported at all, not even as raw scores."""
    nms_steps: Annotated[int, Field(ge=32, multiple_of=2)] = 32

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pyramid and len(self.anchor_sizes_px) != len(self.levels):
            raise ValueError(f"anchor_sizes_px has {len(self.anchor_sizes_px)} sizes for {len(self.levels)} levels: one per level")
        if self.pyramid and not set(self.pooling_levels) <= set(self.levels):
            raise ValueError(f"pooling_levels {self.pooling_levels} are not among levels {self.levels}")
        if self.proposals > 3840:
            raise ValueError(f"proposals = {self.proposals}: at most 3840, the limit of grid sampling in TensorRT")
        return self


class TrainingRecipe(VariantRecipe):
    """How the network is trained. The paper's recipe is ``engines/multiscale-paper.toml``."""

    optimiser: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    backbone_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """None: the same as ``learning_rate``."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    batch: Positive = 4
    epochs: Annotated[float, Field(gt=0)] = 12
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up_steps: Annotated[int, Field(ge=0)] = 150
    clip_norm: Annotated[float, Field(ge=0)] = 5.0
    """Gradient norm limit; 0: none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Exponential moving average of the weights; 0: none."""
    precision: Precision = "fp32"
    scales: tuple[float, ...] = (1.0,)
    """Factors on the input size; one is drawn per batch."""
    rpn_samples: Positive = 256
    rpn_positive_iou: Fraction = 0.7
    rpn_negative_iou: Fraction = 0.3
    train_pre_nms: Positive = 1000
    train_proposals: Positive = 256
    """Proposals per image that are matched to ground truth, before sampling."""
    roi_samples: Positive = 128
    roi_positive_share: Fraction = 0.25
    roi_iou: Fraction = 0.5
    smooth_l1_beta: Annotated[float, Field(gt=0)] = 1 / 9
    """Difference of box codes at which the box losses turn from quadratic to linear; 1 in the paper."""
    seed: Annotated[int, Field(ge=0)] = 0
    pretrained: Literal["none", "imagenet"] = "imagenet"


class CompileRecipe(BuildRecipe):
    """What ``inspector compile`` makes of a detector, and what it refuses.

    ``parity_min_matched`` is of detections with a score of at least ``parity_score``: the same class, IoU at least ``parity_iou``.
    """

    parity_score: Fraction = 0.3
    parity_iou: Fraction = 0.9
