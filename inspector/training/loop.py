"""The training loop: one step, and the run around it with its budget, log, checkpoints and clean stop."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from inspector.contract.errors import DataError
from inspector.training.batches import BatchSource
from inspector.training.checkpoint import Progress, load_checkpoint, save_checkpoint, save_weights
from inspector.training.losses import Losses, detection_losses
from inspector.training.optimise import MovingAverage, make_optimiser, rate_factor, set_rate

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from inspector.config.recipe import DetectorRecipe
    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.batches import Batch
    from inspector.training.datasets import Dataset

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
LOG_STEPS = 20
"""Steps of which one line of the log is the mean."""
CHECKPOINT_S = 300.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one line of the log says: means over the steps since the last."""

    step: int
    epoch: float
    share_done: float
    """0..1 of the training."""
    elapsed_s: float
    step_s: float
    learning_rate: float
    """Of the head."""
    rpn_class: float
    rpn_box: float
    head_class: float
    head_box: float

    @property
    def remaining_s(self) -> float:
        """Estimated time to the end."""
        return self.elapsed_s * (1 - self.share_done) / max(self.share_done, 1e-6)


class Listener(Protocol):
    """Who is told how it goes."""

    def __call__(self, report: StepReport) -> None:
        """Takes one report."""


class Trainer:
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
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.model.freeze()
        self.source = BatchSource(dataset, recipe.input, recipe.training)
        self.total_steps = max(1, round(self.training.epochs * self.source.steps_per_epoch))
        self.budget_s = minutes * 60 if minutes is not None else None
        self.optimiser = make_optimiser(self.model, self.training)
        self.average = MovingAverage(self.model, self.training.ema_decay) if self.training.ema_decay else None
        self.step = 0
        self.elapsed_s = 0.0

    @property
    def best_model(self) -> MultiscaleDetector:
        """What is kept and evaluated: the moving average if there is one. Not for training."""
        return self.average.model if self.average is not None else self.model

    @property
    def share_done(self) -> float:
        """0..1, by steps or by time, whichever is further."""
        by_time = self.elapsed_s / self.budget_s if self.budget_s else 0.0
        return min(1.0, max(self.step / self.total_steps, by_time))

    def train_step(self, batch: Batch) -> Losses:
        """One step on a batch; its losses, without graph.

        Raises:
            DataError: a loss is not finite; the state is as before the step.
        """
        set_rate(self.optimiser, rate_factor(self.training, self.step, self.share_done))
        random = torch.Generator().manual_seed(self.training.seed * 1_000_003 + self.step)
        losses = detection_losses(self.model, batch, self.training, random)
        total = losses.total()
        if not torch.isfinite(total):
            raise DataError(
                f"step {self.step}: the loss is {float(total.detach())}; lower training.learning_rate, or use clip_norm and warm_up_steps"
            )
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

    def run(self, folder: Path, stop: threading.Event, listener: Listener) -> bool:
        """Trains to the end or until ``stop`` is set; a checkpoint is written every five minutes and at the end either way.

        Args:
            folder: where checkpoint, weights and log go; it exists.
            stop: set it (from a signal handler, say) to end after the step at hand.
            listener: gets a report every ``LOG_STEPS`` steps.

        Returns:
            Whether the training is complete.

        Raises:
            DataError: a loss is not finite, a picture no longer decodes, or a file cannot be written.
        """
        saved = time.monotonic()
        sums, steps, spent = torch.zeros(len(Losses._fields)), 0, 0.0
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            following = pool.submit(self.source.batch, self.step)
            while self.share_done < 1.0 and not stop.is_set():
                began = time.monotonic()
                batch = following.result()
                following = pool.submit(self.source.batch, self.step + 1)
                sums += torch.stack(self.train_step(batch))
                took = time.monotonic() - began
                self.elapsed_s += took
                steps, spent = steps + 1, spent + took
                if steps == LOG_STEPS or self.share_done >= 1.0:
                    self._report(folder, sums / steps, spent / steps, listener)
                    sums, steps, spent = torch.zeros(len(Losses._fields)), 0, 0.0
                if time.monotonic() - saved > CHECKPOINT_S:
                    self.save(folder)
                    saved = time.monotonic()
        self.save(folder)
        return self.share_done >= 1.0

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

    def _report(self, folder: Path, losses: torch.Tensor, step_s: float, listener: Listener) -> None:
        """Appends to the log and tells the listener."""
        values = dict(zip(Losses._fields, losses.tolist(), strict=True))
        rate = self.optimiser.param_groups[-1]["lr"]
        epoch = self.step / self.source.steps_per_epoch
        report = StepReport(self.step, epoch, self.share_done, self.elapsed_s, step_s, rate, **values)
        line = {name: getattr(report, name) for name in StepReport.__slots__}
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        listener(report)

    def _recipe_hash(self) -> str:
        """Of all that decides what a step does: network, input, training, classes and number of pictures."""
        parts = self.recipe.model_dump(mode="json", include={"classes", "input", "network", "training"})
        parts["pictures"] = len(self.source.dataset)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
