"""What the recipes of all networks have in common: their input, how pictures are varied in training, and how the engine is built."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section

Precision = Literal["fp32", "bf16"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Backbone = Literal["vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_lite0"]


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


class VariantRecipe(Section):
    """How each training picture is varied."""

    flips: tuple[Literal["horizontal", "vertical", "both"], ...] = ("horizontal", "vertical", "both")
    """The paper's three flips; each image draws one of them or none."""
    smallest_crop: Fraction = 1.0
    """Shares of a picture's height and width that are trained on are drawn from smallest_crop .. 1; 1: whole pictures."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Contrast is drawn from 1 - contrast .. 1 + contrast."""
    brightness: Annotated[float, Field(ge=0)] = 0.0
    """Grey levels, drawn from -brightness .. brightness."""
    quarter_turns: bool = False
    """Each image is turned by 0, 90, 180 or 270 degrees, for surfaces without an up and down."""
    mean_levels: tuple[float, float] | None = None
    """The picture's mean is moved to a grey level drawn from this range: for lines whose light changes."""
    gains: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """The picture's distance from its own mean is multiplied by a factor drawn from this range, evenly in its logarithm."""
    unchanged_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the images whose grey levels stay as they are."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, pair in (("mean_levels", self.mean_levels), ("gains", self.gains)):
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}: the second is the larger one")
        return self


class BuildRecipe(Section):
    """What ``inspector compile`` makes of any network."""

    precision: Precision = "fp32"
    """Of trunk and head; box arithmetic, and what follows a classifier's features, is float32 whatever it is."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of the engine; 0: all cores."""
    parity_min_matched: Fraction = 0.99
    """Share of torch's results that the engine must repeat."""
    parity_score_tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest difference of a score."""
    budget_ms: Annotated[float, Field(ge=50)] = 1000.0
    """The inspection stage's budget per image; the heartbeat stops when the stage is older than it."""
