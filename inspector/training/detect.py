"""Detections on whole pictures: the form in which every detector, trained or compiled, is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from inspector.engine.preprocess import LetterboxGeometry, boxes_to_image, letterbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from inspector.config.network import Precision
    from inspector.models.multiscale import MultiscaleDetector


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found on one picture, best first."""

    boxes: NDArray[np.float32]
    """[n, 4] (x1, y1, x2, y2), picture px."""
    scores: NDArray[np.float32]
    """[n], 0..1."""
    classes: NDArray[np.int64]
    """[n], 0-based."""


class Detector(Protocol):
    """Anything that can be evaluated."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Detections]:
        """Detections of each picture, uint8 [H, W] or [H, W, 3] RGB, of any sizes."""


def one_by_one(detect: Callable[[NDArray[np.uint8]], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]) -> Detector:
    """A detector of batches from a function of one picture that returns boxes [n, 4], scores [n] and classes [n] in picture px."""

    def each(images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [sorted_detections(*detect(image)) for image in images]

    return each


def sorted_detections(boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any]) -> Detections:
    """Detections from their arrays, brought into order; slots with score 0 are unused and left out."""
    scores = np.asarray(scores, np.float32).reshape(-1)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    return Detections(np.asarray(boxes, np.float32).reshape(-1, 4)[order], scores[order], np.asarray(classes, np.int64).reshape(-1)[order])


def torch_detector(model: MultiscaleDetector, precision: Precision = "fp32") -> Detector:
    """The detector of a torch model, on the CPU; pictures go through the same letterbox as in training and in the station.

    Args:
        model: put into evaluation mode.
        precision: of trunk and head; boxes are float32 whatever it is.
    """
    model.eval()
    size = model.input

    def detect(images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        made: list[tuple[NDArray[np.uint8], LetterboxGeometry]] = [letterbox(image, size.height_px, size.width_px, size.channels) for image in images]
        batch = torch.from_numpy(np.stack([canvas for canvas, _ in made])).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            boxes, scores, classes, _ = model(batch)
        found = zip(boxes.float().numpy(), scores.float().numpy(), classes.numpy(), strict=True)
        return [
            sorted_detections(boxes_to_image(b, geometry, image.shape[0], image.shape[1]), s, c)
            for image, (_, geometry), (b, s, c) in zip(images, made, found, strict=True)
        ]

    return detect


def detect_all(detector: Detector, images: Iterator[NDArray[np.uint8]], batch: int = 8) -> Iterator[Detections]:
    """Detections of all pictures in order, ``batch`` of them at a time."""
    waiting: list[NDArray[np.uint8]] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch:
            yield from detector(waiting)
            waiting = []
    if waiting:
        yield from detector(waiting)
