"""The training of a detector: its step and its files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from inspector.contract.errors import DataError
from inspector.training.batches import Batch, BatchSource
from inspector.training.checkpoint import Progress, load_checkpoint, save_checkpoint, save_weights
from inspector.training.losses import Losses, detection_losses
from inspector.training.optimise import MovingAverage, make_optimiser, rate_factor, set_rate
from inspector.training.stepping import CHECKPOINT, WEIGHTS, SteppedTraining, check_finite

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.config.recipe import DetectorRecipe
    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.datasets import Dataset


class Trainer(SteppedTraining[Batch]):
    """Trains one detector.

    Args:
        recipe: the network and how it is trained.
        model: the detector with its starting weights; it is frozen and trained in place.
        dataset: what it learns from.
        minutes: time budget; the schedule ends with it if the epochs do not end before. None: epochs alone.
    """

    def __init__(self, recipe: DetectorRecipe, model: MultiscaleDetector, dataset: Dataset, minutes: float | None = None) -> None:
        self.recipe = recipe
        self.training = recipe.training
        self.model: MultiscaleDetector = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.model.freeze()
        self.source = BatchSource(dataset, recipe.input, recipe.training)
        super().__init__(round(self.training.epochs * self.source.steps_per_epoch), minutes, Losses._fields)
        self.optimiser = make_optimiser(self.model, self.training)
        self.average = MovingAverage(self.model, self.training.ema_decay) if self.training.ema_decay else None

    @property
    def best_model(self) -> MultiscaleDetector:
        """What is kept and evaluated: the moving average if there is one. Not for training."""
        return self.average.model if self.average is not None else self.model

    def prepare(self, step: int) -> Batch:
        """See :class:`SteppedTraining`."""
        return self.source.batch(step)

    def take_step(self, batch: Batch) -> torch.Tensor:
        """See :class:`SteppedTraining`."""
        return torch.stack(self.train_step(batch))

    def place(self) -> tuple[float, float]:
        """See :class:`SteppedTraining`."""
        return self.step / self.source.steps_per_epoch, self.optimiser.param_groups[-1]["lr"]

    def train_step(self, batch: Batch) -> Losses:
        """One step on a batch; its losses, without graph.

        Raises:
            DataError: a loss is not finite; the state is as before the step.
        """
        set_rate(self.optimiser, rate_factor(self.training, self.step, self.share_done))
        random = torch.Generator().manual_seed(self.training.seed * 1_000_003 + self.step)
        losses = detection_losses(self.model, batch, self.training, random)
        total = losses.total()
        check_finite(total, self.step, "lower training.learning_rate, or use clip_norm and warm_up_steps")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self.training.clip_norm:
            parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.training.clip_norm)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        return Losses(*(loss.detach() for loss in losses))

    def save(self, folder: Path) -> None:
        """Writes the checkpoint and the weights to evaluate.

        Raises:
            DataError: a file cannot be written.
        """
        average = self.average.model if self.average is not None else None
        save_checkpoint(folder / CHECKPOINT, self.model, average, self.optimiser, Progress(self.step, self.elapsed_s, self._recipe_hash()))
        about = {"recipe": self.recipe.name, "classes": json.dumps(self.recipe.classes), "step": str(self.step)}
        save_weights(folder / WEIGHTS, self.best_model.state_dict(), about)

    def resume(self, folder: Path) -> None:
        """Goes on from the checkpoint in ``folder``; the next step is the one that would have followed.

        Raises:
            DataError: it is missing, damaged, or of another recipe.
        """
        average = self.average.model if self.average is not None else None
        progress = load_checkpoint(folder / CHECKPOINT, self.model, average, self.optimiser)
        if progress.recipe_hash != self._recipe_hash():
            raise DataError(f"{folder / CHECKPOINT}: the recipe or the data changed since; train without --resume, or bring them back")
        self.step, self.elapsed_s = progress.step, progress.elapsed_s

    def _recipe_hash(self) -> str:
        """Of all that decides what a step does: network, input, training, classes and number of pictures."""
        parts = self.recipe.model_dump(mode="json", include={"classes", "input", "network", "training"})
        parts["pictures"] = len(self.source.dataset)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
