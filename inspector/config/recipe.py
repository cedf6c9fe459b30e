"""The engine recipe: everything that makes one network, in one TOML file (``engines/NAME.toml``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section, read_toml

Precision = Literal["fp32", "bf16"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class InputRecipe(Section):
    """What the network is fed: uint8 images, resized to fit and letterboxed to the right and bottom."""

    height_px: Positive
    """Rows of the network's input; a multiple of ``stride_px``."""
    width_px: Positive
    channels: Literal[1, 3] = 1
    """1: grey images, repeated to three planes inside the graph. 3: RGB."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted per plane (R, G, B), in grey levels 0..255."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Divided by per plane, in grey levels."""
    stride_px: Positive = 64
    """The coarsest stride of the network: height and width are multiples of it."""

    @model_validator(mode="after")
    def _whole_strides(self) -> Self:
        for name, size in (("height_px", self.height_px), ("width_px", self.width_px)):
            if size % self.stride_px:
                raise ValueError(f"{name} = {size} is not a multiple of stride_px = {self.stride_px}")
        return self


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


class TrainingRecipe(Section):
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
    flips: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal", "vertical", "both")
    """The paper's three flips; each image draws one of them or none."""
    smallest_crop: Fraction = 1.0
    """Shares of a picture's height and width that are trained on are drawn from smallest_crop .. 1; 1: whole pictures."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Contrast is drawn from 1 - contrast .. 1 + contrast."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Grey levels, drawn from -brightness .. brightness."""
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


class CompileRecipe(Section):
    """What ``inspector compile`` makes, and what it refuses."""

    precision: Precision = "fp32"
    """Of trunk and head; box arithmetic is float32 whatever it is."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of the engine; 0: all cores."""
    parity_min_matched: Fraction = 0.99
    """Share of torch's detections (score >= parity_score) that the engine must repeat, same class, IoU >= parity_iou."""
    parity_score: Fraction = 0.3
    parity_iou: Fraction = 0.9
    parity_score_tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest score difference of a matched pair."""
    budget_ms: Annotated[float, Field(ge=50)] = 1000.0
    """The inspection stage's budget per image; the heartbeat stops when the stage is older than it."""


class Recipe(Section):
    """One network. Unknown keys are refused."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Defect classes, in the order of the network's outputs (background is not named)."""
    input: InputRecipe
    network: NetworkRecipe = NetworkRecipe()
    training: TrainingRecipe = TrainingRecipe()
    compile: CompileRecipe = CompileRecipe()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: the file is missing, is no TOML, or has missing, unknown or impossible keys; all of them are listed.
    """
    return read_toml(path, Recipe)
