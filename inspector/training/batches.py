"""Training batches. What step k sees depends on the seed and k alone, so that a resumed training needs no random state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inspector.engine.preprocess import boxes_to_canvas, letterbox
from inspector.training.augment import areas, augment

if TYPE_CHECKING:
    from torch import Tensor

    from inspector.config.detector import TrainingRecipe
    from inspector.config.network import InputRecipe
    from inspector.training.datasets import Dataset

CANVAS_STEP_PX = 32
"""Scaled canvases are rounded to this: the coarsest stride of a backbone."""
SMALLEST_VISIBLE_SHARE = 0.4
"""A defect of which a crop leaves less is neither trained on nor background."""
ORDER, CHANGES = 0, 1
"""Names of the two random streams."""


@dataclass(frozen=True, slots=True)
class Targets:
    """True boxes of one image on its canvas."""

    boxes: Tensor
    """float32 [n, 4] (x1, y1, x2, y2), canvas px."""
    classes: Tensor
    """int64 [n], 1 .. classes: 0 is the head's background."""
    ignored: Tensor
    """float32 [m, 4], canvas px: regions that are neither defect nor background."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one step, all of one size."""

    images: Tensor
    """uint8 [N, C, H, W]."""
    targets: tuple[Targets, ...]


def epoch_indices(seed: int, count: int, batch: int, step: int) -> list[int]:
    """Which of ``count`` pictures the ``batch`` of ``step`` (0, 1, ...) sees: each once per epoch, in an order drawn per epoch."""
    chosen: list[int] = []
    position, end = step * batch, (step + 1) * batch
    while position < end:
        epoch, place = divmod(position, count)
        order = np.random.default_rng([seed, ORDER, epoch]).permutation(count)
        part = order[place : place + end - position].tolist()
        chosen += part
        position += len(part)
    return chosen


class BatchSource:
    """Makes the batch of any step.

    Args:
        dataset: labelled pictures.
        input: size and channels of the network's input.
        training: batch size, scales, augmentation and seed.
    """

    def __init__(self, dataset: Dataset, input: InputRecipe, training: TrainingRecipe) -> None:  # noqa: A002 (the recipe's name)
        self.dataset = dataset
        self.input = input
        self.training = training

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which as many pictures are seen as there are."""
        return len(self.dataset) / self.training.batch

    def batch(self, step: int) -> Batch:
        """The batch of ``step`` (0, 1, ...). Thread-safe: nothing is kept between calls.

        Raises:
            DataError: a picture no longer decodes.
        """
        random = np.random.default_rng([self.training.seed, CHANGES, step])
        scale = self.training.scales[int(random.integers(len(self.training.scales)))]
        height, width = self.canvas_size(scale)
        made = [self._sample(index, height, width, random) for index in self.indices(step)]
        return Batch(torch.from_numpy(np.stack([canvas for canvas, _ in made])), tuple(targets for _, targets in made))

    def canvas_size(self, scale: float) -> tuple[int, int]:
        """Height and width in px of the canvas at ``scale``; at 1.0 the network's input itself."""
        if scale == 1.0:
            return self.input.height_px, self.input.width_px
        height, width = (max(1, round(size * scale / CANVAS_STEP_PX)) * CANVAS_STEP_PX for size in (self.input.height_px, self.input.width_px))
        return height, width

    def indices(self, step: int) -> list[int]:
        """Which pictures ``step`` sees."""
        return epoch_indices(self.training.seed, len(self.dataset), self.training.batch, step)

    def _sample(self, index: int, height_px: int, width_px: int, random: np.random.Generator) -> tuple[np.ndarray, Targets]:
        """One augmented picture on its canvas, uint8 [C, height_px, width_px], with its targets."""
        picture = self.dataset.pictures[index]
        image, boxes = augment(self.dataset.image(index), picture.boxes, self.training, random)
        canvas, geometry = letterbox(image, height_px, width_px, self.input.channels)
        placed = torch.from_numpy(boxes_to_canvas(boxes, geometry))
        # What a crop left over of a defect may no longer look like one.
        visible = areas(boxes) / areas(picture.boxes)
        true = torch.from_numpy(~picture.ignored & (visible >= SMALLEST_VISIBLE_SHARE))
        ignored = torch.from_numpy(visible > 0) & ~true
        return canvas, Targets(placed[true], torch.from_numpy(picture.classes)[true] + 1, placed[ignored])
