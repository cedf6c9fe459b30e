"""Optimiser, learning rate and moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from inspector.config.classifier import PhaseRecipe
    from inspector.config.detector import TrainingRecipe
    from inspector.models.multiscale import MultiscaleDetector

ModelT = TypeVar("ModelT", bound=nn.Module)

COSINE_END = 0.01
"""Share of the learning rate that is left in the end."""
FIRST_STEPS = 10
"""The moving average forgets the random start over about this many steps."""


def make_optimiser(model: MultiscaleDetector, training: TrainingRecipe) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters: the backbone's in one group, all others in the next."""
    backbone_rate = training.backbone_learning_rate or training.learning_rate
    groups = [
        {"params": list(model.backbone_parameters()), "lr": backbone_rate, "base_rate": backbone_rate},
        {"params": list(model.head_parameters()), "lr": training.learning_rate, "base_rate": training.learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=training.momentum, weight_decay=training.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=training.weight_decay, fused=True)


def rate_factor(training: TrainingRecipe | PhaseRecipe, step: int, share_done: float) -> float:
    """Factor on every learning rate at ``step`` (0, 1, ...) when ``share_done`` (0..1) of the training, or phase, lies behind."""
    warm = min(1.0, (step + 1) / training.warm_up_steps) if training.warm_up_steps else 1.0
    if training.schedule == "constant":
        return warm
    return warm * (COSINE_END + (1 - COSINE_END) * 0.5 * (1 + math.cos(math.pi * min(1.0, share_done))))


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to ``factor`` times its own."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_rate"] * factor


class MovingAverage(Generic[ModelT]):
    """An exponential moving average of a model's trainable weights, in a model of its own; frozen ones are the same in both.

    Args:
        model: what is averaged.
        decay: share of the average that a step keeps; it rises to this from 0.1, so that the start is soon forgotten.
    """

    def __init__(self, model: ModelT, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(requires_grad=False)
        self.decay = decay
        pairs = [(mean, source) for mean, source in zip(self.model.parameters(), model.parameters(), strict=True) if source.requires_grad]
        self._means = [mean.data for mean, _ in pairs]
        self._sources = [source.data for _, source in pairs]

    def update(self, step: int) -> None:
        """Takes in the weights after ``step`` (0, 1, ...)."""
        decay = min(self.decay, (1 + step) / (FIRST_STEPS + step))
        torch._foreach_lerp_(self._means, self._sources, 1 - decay)
