"""Random changes of a labelled picture that keep its labels true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.network import VariantRecipe


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Areas [n] in px² of boxes [n, 4]."""
    sides: NDArray[np.float32] = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def flipped(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], *, horizontal: bool, vertical: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A picture and its boxes, mirrored.

    Args:
        image: uint8 [H, W] or [H, W, 3].
        boxes: float32 [n, 4] (x1, y1, x2, y2), px.
        horizontal: left and right change places.
        vertical: top and bottom change places.

    Returns:
        Picture and boxes, contiguous; the given ones themselves where nothing changes.
    """
    height, width = image.shape[:2]
    if horizontal:
        image = image[:, ::-1]
        boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
    if vertical:
        image = image[::-1]
        boxes = np.stack((boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]), axis=1)
    return np.ascontiguousarray(image), boxes


def turned(image: NDArray[np.uint8], boxes: NDArray[np.float32], quarters: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A picture and its boxes, turned to the left by ``quarters`` times 90 degrees.

    Args:
        image: uint8 [H, W] or [H, W, 3].
        boxes: float32 [n, 4] (x1, y1, x2, y2), px.
        quarters: 0..3.
    """
    for _ in range(quarters):
        width = image.shape[1]
        image = np.rot90(image)
        boxes = np.stack((boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]), axis=1)
    return np.ascontiguousarray(image), boxes


def with_contrast(image: NDArray[np.uint8], contrast: float, brightness: float) -> NDArray[np.uint8]:
    """The picture with its distance from its own mean times ``contrast``, then shifted by ``brightness`` grey levels, cut to 0..255."""
    mean = float(image.mean())
    levels = np.arange(256, dtype=np.float64)
    table = np.clip(np.rint((levels - mean) * contrast + mean + brightness), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def cropped(image: NDArray[np.uint8], boxes: NDArray[np.float32], window: tuple[int, int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A part of a picture, with its boxes cut at the part's borders; boxes outside it have no area then.

    Args:
        image: uint8 [H, W] or [H, W, 3].
        boxes: float32 [n, 4], px.
        window: (x1, y1, x2, y2), px, within the picture.
    """
    x1, y1, x2, y2 = window
    limits = np.array([x2 - x1, y2 - y1] * 2, np.float32)
    moved = boxes - np.array([x1, y1] * 2, np.float32)
    return np.ascontiguousarray(image[y1:y2, x1:x2]), np.minimum(np.maximum(moved, np.float32(0)), limits)


def augment(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], training: VariantRecipe, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """One random variant of a picture, as the recipe says.

    One of its flips or none, each as likely; contrast, brightness, mean level, size and place of the crop drawn evenly, turns too.

    Returns:
        The picture, and all its boxes; those that the crop left out have no area.
    """
    choice = int(random.integers(len(training.flips) + 1))
    contrast = 1 + training.contrast * float(random.uniform(-1, 1))
    brightness = training.brightness * float(random.uniform(-1, 1))
    if choice < len(training.flips):
        kind = training.flips[choice]
        image, boxes = flipped(image, boxes, horizontal=kind != "vertical", vertical=kind != "horizontal")
    if training.quarter_turns:
        image, boxes = turned(image, boxes, int(random.integers(4)))
    if training.gains is not None:
        contrast *= float(np.exp(random.uniform(*np.log(training.gains))))
    if training.mean_levels is not None:
        brightness += float(random.uniform(*training.mean_levels)) - float(image.mean())
    kept = training.unchanged_share > 0 and float(random.random()) < training.unchanged_share
    if not kept and (contrast, brightness) != (1.0, 0.0):
        image = with_contrast(image, contrast, brightness)
    if training.smallest_crop < 1:
        height, width = image.shape[:2]
        kept_height, kept_width = (max(1, round(size * float(random.uniform(training.smallest_crop, 1)))) for size in (height, width))
        x1, y1 = int(random.integers(width - kept_width + 1)), int(random.integers(height - kept_height + 1))
        image, boxes = cropped(image, boxes, (x1, y1, x1 + kept_width, y1 + kept_height))
    return image, boxes
