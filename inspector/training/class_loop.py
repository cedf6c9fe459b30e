"""The training of a classifier in two phases (Zhou et al. 2019, section 3): the new layers on frozen trunks, then all layers at a small rate."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from inspector.contract.errors import DataError
from inspector.engine.preprocess import letterbox
from inspector.training.augment import augment
from inspector.training.batches import epoch_indices
from inspector.training.checkpoint import Progress, load_checkpoint, read_progress, save_checkpoint, save_weights
from inspector.training.feature_cache import FeatureCache
from inspector.training.optimise import MovingAverage, rate_factor, set_rate
from inspector.training.stepping import CHECKPOINT, WEIGHTS, SteppedTraining, check_finite

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.classifier import PhaseRecipe
    from inspector.config.recipe import ClassifierRecipe
    from inspector.models.bilinear import BilinearClassifier
    from inspector.training.labelled import LabelledDataset
    from inspector.training.stepping import Listener

CACHED, DRAWN = 2, 3
"""Names of the random streams: a kept variant, and phase two's samples (0 and 1 are the detector's)."""
HEAD_COST, TRAINED_COST = 0.02, 3.0
"""Of a picture's step in phase one, and of a trunk in phase two, in units of its way forward through one trunk; for the estimate of the time left."""
NO_BOXES = np.empty((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class ClassBatch:
    """Pictures of one step, or what the trunks made of them."""

    labels: torch.Tensor
    """int64 [N]."""
    images: torch.Tensor | None
    """uint8 [N, C, H, W]; None in phase one."""
    maps: Sequence[torch.Tensor]
    """Each trunk's maps; none in phase two."""


class ClassifierTrainer(SteppedTraining[ClassBatch]):
    """Trains one classifier.

    Args:
        recipe: the network and how it is trained.
        model: the classifier with its starting weights; it is trained in place.
        dataset: what it learns from.
        minutes: time budget; None: epochs alone.
    """

    def __init__(self, recipe: ClassifierRecipe, model: BilinearClassifier, dataset: LabelledDataset, minutes: float | None = None) -> None:
        training = recipe.training
        phases = (training.new_layers, training.all_layers)
        self._steps = [max(1, round(phase.epochs * len(dataset) / phase.batch)) if phase.epochs else 0 for phase in phases]
        super().__init__(sum(self._steps), minutes, ("loss", "error"))
        self.recipe = recipe
        self.training = training
        self.dataset = dataset
        self.labels = torch.from_numpy(dataset.labels)
        self.model: BilinearClassifier = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        self.average: MovingAverage[BilinearClassifier] | None = None
        self._cache: FeatureCache | None = None
        self._begin_phase()
        self._rate = self.phase.learning_rate

    @property
    def first_phase(self) -> bool:
        """Whether the next step trains the new layers only."""
        return self.step < self._steps[0]

    @property
    def phase(self) -> PhaseRecipe:
        """Of the next step."""
        return self.training.new_layers if self.first_phase else self.training.all_layers

    @property
    def best_model(self) -> BilinearClassifier:
        """What is kept and evaluated: the moving average if there is one. Not for training."""
        return self.average.model if self.average is not None else self.model

    @property
    def step_share(self) -> float:
        """0..1, steps counted by what they cost; 1 after the last one alone."""
        return self._work(self.step) / self._work(self.total_steps)

    @property
    def preparation(self) -> str | None:
        """See :class:`SteppedTraining`."""
        variants = self.training.cached_variants
        told = f" in {variants} variants each" if variants > 1 else ""
        return f"first the features of {len(self.dataset)} pictures{told}, computed once" if self.first_phase else None

    def run(self, folder: Path, stop: threading.Event, listener: Listener) -> bool:
        """See :class:`SteppedTraining`; what is left of phase one begins with the frozen trunks' features of all pictures.

        Raises:
            DataError: as :class:`SteppedTraining`, or the folder has no room for the features, or the time budget ends with them.
        """
        try:
            if self.first_phase:
                self._compute_features(folder, stop)
            return super().run(folder, stop, listener)
        finally:
            self._close_cache()

    def prepare(self, step: int) -> ClassBatch:
        """See :class:`SteppedTraining`."""
        first = step < self._steps[0]
        phase = self.training.new_layers if first else self.training.all_layers
        indices = epoch_indices(self.training.seed, len(self.dataset), phase.batch, step if first else step - self._steps[0])
        random = np.random.default_rng([self.training.seed, DRAWN, step])
        labels = self.labels[indices]
        if first:
            variants = random.integers(self.training.cached_variants, size=len(indices)).tolist()
            maps = self._cache.maps(variants, indices) if self._cache is not None and self._cache.complete else []
            return ClassBatch(labels, None, maps)
        return ClassBatch(labels, torch.from_numpy(np.stack([self._canvas(index, random) for index in indices])), [])

    def take_step(self, batch: ClassBatch) -> torch.Tensor:
        """See :class:`SteppedTraining`; the losses are the cross-entropy and the share of pictures that were named wrong."""
        set_rate(self.optimiser, self._rate_factor())
        self._rate = self.optimiser.param_groups[-1]["lr"]
        torch.manual_seed(self.training.seed * 1_000_003 + self.step)  # for dropout
        logits = self._logits(batch)
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.training.label_smoothing)
        check_finite(loss, self.step, f"lower training.{'new_layers' if self.first_phase else 'all_layers'}.learning_rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.step - self._steps[0])
        self.step += 1
        if self.step == self._steps[0]:
            self._begin_phase()
        return torch.stack([loss.detach(), (logits.detach().argmax(1) != batch.labels).float().mean()])

    def place(self) -> tuple[float, float]:
        """See :class:`SteppedTraining`; the epochs of both phases are counted together."""
        before = min(self.step, self._steps[0]) * self.training.new_layers.batch
        after = max(0, self.step - self._steps[0]) * self.training.all_layers.batch
        return (before + after) / len(self.dataset), self._rate

    def save(self, folder: Path) -> None:
        """Writes the checkpoint and the weights to evaluate, their last layer centred (see ``BilinearClassifier.centred_weights``).

        Raises:
            DataError: a file cannot be written.
        """
        average = self.average.model if self.average is not None else None
        save_checkpoint(folder / CHECKPOINT, self.model, average, self.optimiser, Progress(self.step, self.elapsed_s, self._recipe_hash()))
        about = {"recipe": self.recipe.name, "classes": json.dumps(self.recipe.classes), "step": str(self.step)}
        save_weights(folder / WEIGHTS, self.best_model.centred_weights(), about)

    def resume(self, folder: Path) -> None:
        """Goes on from the checkpoint in ``folder``; the next step is the one that would have followed.

        Raises:
            DataError: it is missing, damaged, or of another recipe.
        """
        path = folder / CHECKPOINT
        progress = read_progress(path)
        if progress.recipe_hash != self._recipe_hash():
            raise DataError(f"{path}: the recipe or the data changed since; train without --resume, or bring them back")
        self.step, self.elapsed_s = progress.step, progress.elapsed_s
        self._begin_phase()
        load_checkpoint(path, self.model, self.average.model if self.average is not None else None, self.optimiser)

    def _work(self, step: int) -> float:
        """What all before ``step`` costs, in ways forward of one picture through one trunk."""
        features = self.training.cached_variants * len(self.dataset) if self._steps[0] else 0
        first = min(step, self._steps[0]) * self.training.new_layers.batch * HEAD_COST
        return features + first + max(0, step - self._steps[0]) * self.training.all_layers.batch * TRAINED_COST * len(self.model.trunks)

    def _compute_features(self, folder: Path, stop: threading.Event) -> None:
        """Fills the cache, as far as ``stop`` lets it. Only a training's first step pays for it from the time budget, not every resumption.

        Raises:
            DataError: there is no room for it, or the time budget ends before the first step.
        """
        began, first = time.monotonic(), self.step == 0

        def over() -> bool:
            return first and self.budget_s is not None and time.monotonic() - began >= self.budget_s

        training, ended = self.training, lambda: stop.is_set() or over()
        self._cache = FeatureCache(self.model, self._variant, training.cached_variants, len(self.dataset), folder, ended, training.precision)
        if not stop.is_set() and over():
            raise DataError(
                f"the time budget ended with the trunks' features, before the first step ({len(self.dataset)} pictures in "
                f"{self.training.cached_variants} variants each): give --minutes more, or lower training.cached_variants"
            )
        if first and self._cache.complete:
            self.elapsed_s += time.monotonic() - began

    def _begin_phase(self) -> None:
        """Freezes and thaws, and starts an optimiser of its own, as the phase of the next step wants it."""
        self.average = None
        if self.first_phase:
            self.model.freeze_trunks()
        else:
            self._close_cache()
            self.model.thaw_trunks(self.training.frozen_stages)
            if self.training.ema_decay:
                self.average = MovingAverage(self.model, self.training.ema_decay)
        rate = self.phase.learning_rate
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # With a weight decay of zero this is Adam, the paper's.
        self.optimiser = torch.optim.AdamW(
            [{"params": parameters, "lr": rate, "base_rate": rate}], lr=rate, weight_decay=self.phase.weight_decay, fused=True
        )

    def _logits(self, batch: ClassBatch) -> torch.Tensor:
        """Logits [N, C], float32."""
        model, low = self.model, self.training.precision == "bf16" and not self.first_phase
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            maps = (
                batch.maps if batch.images is None else model.trunk_maps(model.normalise(batch.images).contiguous(memory_format=torch.channels_last))
            )
            a, b = model.features(maps)
        descriptor = model.descriptor(model.pool(a.float(), b.float()))
        logits: torch.Tensor = model.head(functional.dropout(descriptor, self.training.dropout))
        return logits

    def _rate_factor(self) -> float:
        """Factor on the phase's learning rate."""
        begun, steps = (0, self._steps[0]) if self.first_phase else self._steps
        step = self.step - begun
        return rate_factor(self.phase, step, max(step / steps, self.time_share))

    def _variant(self, variant: int, index: int) -> NDArray[np.uint8]:
        """The canvas of a kept variant, uint8 [C, H, W]; the first is the picture as it is."""
        return self._canvas(index, np.random.default_rng([self.training.seed, CACHED, variant, index]) if variant else None)

    def _canvas(self, index: int, random: np.random.Generator | None) -> NDArray[np.uint8]:
        """The picture on its canvas, varied as the recipe says; as it is without ``random``."""
        image, size = self.dataset.image(index), self.recipe.input
        if random is not None:
            image, _ = augment(image, NO_BOXES, self.training, random)
        return letterbox(image, size.height_px, size.width_px, size.channels)[0]

    def _close_cache(self) -> None:
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _recipe_hash(self) -> str:
        """Of all that decides what a step does: network, input, training, classes and number of pictures."""
        parts = self.recipe.model_dump(mode="json", include={"classes", "input", "network", "training"})
        parts["pictures"] = len(self.dataset)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
