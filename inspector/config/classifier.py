"""The bilinear classifier's part of an engine recipe: architecture, heat map, training, and the tolerances of its engine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section
from inspector.config.network import Backbone, BuildRecipe, Fraction, Positive, Precision, VariantRecipe

MapKind = Literal["contribution", "grad_cam"]


class BilinearNetwork(Section):
    """The bilinear model B = (fA, fB, P, F) of Zhou et al. 2019; the defaults are its D-VGG16."""

    architecture: Literal["bilinear"]
    backbone: Backbone = "vgg16"
    backbone_width: Fraction = 1.0
    """Share of the backbone's channels that is kept (ImageNet weights load only at 1.0)."""
    level: Annotated[int, Field(ge=2, le=5)] = 4
    """The backbone's map that is used: level k has stride 2^k. VGG16's last convolutions have stride 16."""
    streams: Literal[1, 2] = 2
    """Trunks per feature function. 2: the paper's D-VGG16, whose two outputs are concatenated. 1: plain BCNN."""
    trunks: Literal["independent", "shared"] = "independent"
    """shared: one trunk for both feature functions and all streams, with 1x1 convolutions of their own; as long as the trunks are frozen with
    equal weights the same function, at a fraction of the work."""
    channels: Annotated[int, Field(ge=0)] = 256
    """Outputs of each stream's 1x1 convolution; 0: there is none, the trunk's own channels are the feature."""
    activation: Literal["relu", "none"] = "none"
    """What follows the 1x1 convolution; the paper does not say (docs/decisions/0010)."""
    pooling: Literal["bilinear", "average"] = "bilinear"
    """average: the plain control: the mean of fA over all positions, and no fB."""
    positions: Literal["sum", "mean"] = "sum"
    """How the outer products of all positions are pooled: equation 3's sum, or its mean (the same model with other weights of the last layer, but
    trained from another start)."""
    normalise: Literal["none", "sqrt_l2"] = "none"
    """sqrt_l2: signed square root and L2 norm before the last layer."""
    root_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    """What is added to the magnitudes under the square root. Where an entry is small against it the root is not steeper than against the others: far
    below their size (some 1e-6 of it), a map hangs on the last bits of its arithmetic (docs/decisions/0010)."""
    descriptor_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on what the last layer sees: with an L2 norm of one it learns slowly (the same model with other weights, from another start)."""
    border_cells: Annotated[int, Field(ge=0)] = 0
    """Outermost rings of the map that are not pooled: what they see is for a good part padding, and evidence found there points nowhere."""
    gradient: Literal["true", "norm_constant"] = "norm_constant"
    """Grad-CAM through the L2 norm: the true gradient, whose share in the feature itself is zero, or with the norm held constant."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.backbone == "vgg16" and self.level == 5:
            raise ValueError("level = 5: VGG16 is used up to its last convolution, which has stride 16: level = 4")
        if self.pooling == "average" and self.normalise != "none":
            raise ValueError('normalise belongs to pooling = "bilinear"')
        if self.channels == 0 and self.activation == "relu":
            raise ValueError('activation = "relu" follows the 1x1 convolution, and channels = 0 leaves that out')
        return self


class HeatMapRecipe(Section):
    """From a map to regions (equation 6)."""

    map: MapKind = "contribution"
    """Which of the two maps is segmented and shown, unless the product says otherwise."""
    threshold: Literal["otsu"] | Fraction = "otsu"
    """otsu, or a share of the map's largest value; what is at least as hot belongs to a region."""
    min_area_px: Annotated[float, Field(ge=0)] = 0.0
    """Regions smaller than this, in px² of the picture, are dropped."""


class PhaseRecipe(Section):
    """One phase of training; Adam."""

    epochs: Annotated[float, Field(ge=0)]
    """0: the phase is left out."""
    learning_rate: Annotated[float, Field(gt=0)]
    batch: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled from the gradient (AdamW); 0: plain Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the rate rises to its full value."""


class ClassifierTraining(VariantRecipe):
    """How the classifier is trained: two phases, as in the paper, section 3.

    In the first the trunks are frozen, and their features of every picture are computed once and kept.
    """

    new_layers: PhaseRecipe = PhaseRecipe(epochs=30, learning_rate=1e-3, batch=64)
    """Phase one: trunks frozen, only the new layers."""
    all_layers: PhaseRecipe = PhaseRecipe(epochs=10, learning_rate=1e-5, batch=16)
    """Phase two: all layers."""
    frozen_stages: Annotated[int, Field(ge=0, le=6)] = 0
    """Leading stages of the trunk (the stem is the first) that phase two does not train either."""
    cached_variants: Positive = 1
    """Of each picture, whose features are kept for phase one: the picture as it is, and as many more, varied at random, as make this number."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pooled feature's entries that are left out at random while training."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Exponential moving average of the weights in phase two; 0: none."""
    precision: Precision = "fp32"
    seed: Annotated[int, Field(ge=0)] = 0
    pretrained: Literal["none", "imagenet"] = "imagenet"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.new_layers.epochs == 0 and self.all_layers.epochs == 0:
            raise ValueError("new_layers.epochs and all_layers.epochs are both 0: nothing would be trained")
        return self


class ClassifierCompile(BuildRecipe):
    """What ``inspector compile`` makes of a classifier, and what it refuses; ``parity_min_matched`` is of predicted classes."""

    parity_map_tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference of a heat map, as a share of its largest value."""
