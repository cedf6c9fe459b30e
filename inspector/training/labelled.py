"""Pictures with one class each, checked and decoded: what a classifier is trained on and measured with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.contract.errors import DataError
from inspector.training.datasets import checked_boxes
from inspector.training.image_labels import FORMS, RawImage, read_image_labels, told
from inspector.training.pictures import CACHE_BYTES, PictureSet, decode_checked, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

GOOD = "good"


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture with its class."""

    path: Path
    height_px: int
    width_px: int
    label: int
    """Index into the set's classes."""
    boxes: NDArray[np.float32]
    """[n, 4] (x1, y1, x2, y2), px, far edges as in ``datasets.Picture``: where the defects are, to measure a heat map; n is 0 without a COCO json."""
    box_classes: NDArray[np.int64]
    """[n] indices into the set's classes; not all of them need be ``label``."""


@dataclass(frozen=True, slots=True)
class LabelledDataset(PictureSet[LabelledPicture]):
    """Pictures with one class each, of one file or folder."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[len(self)] class of each picture, an index into ``classes``."""
        return np.array([picture.label for picture in self.pictures], np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[len(classes)] pictures of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def read_labelled(
    source: Path,
    classes: Sequence[str],
    *,
    images: Path | None = None,
    colour: bool = False,
    every_class: bool = True,
    good: str = GOOD,
    cache_bytes: int = CACHE_BYTES,
) -> LabelledDataset:
    """Pictures with image-level labels, all checked and decoded once.

    Args:
        source: one of three forms.

            - A folder with one sub-folder per class; pictures lie at any depth below. Hidden files and what has no picture's suffix are passed over.
            - A CSV file with the columns ``image`` (a path relative to ``images``) and ``class``; more columns are not looked at. Comma, semicolon
              or tab; UTF-8 with or without byte order mark.
            - A COCO json whose ``images`` have an ``image_class``. Where none has one it is taken from the annotations: all of one category tell
              the class, none tell ``good``. Boxes are kept whose category is among ``classes`` and that are not marked ``iscrowd``.
        classes: the network's classes, in order.
        images: where the pictures lie that a file names. None: beside the CSV; in ``images`` beside the json, else beside it.
        colour: decode to RGB, not grey.
        every_class: a class without a picture is a problem.
        good: the class of COCO pictures without annotations, as above.
        cache_bytes: how much decoded pixel data is kept in memory.

    Raises:
        DataError: the labels cannot be read; or, all listed at once: broken rows, a missing column, unknown classes, classes without a picture,
            pictures named twice, missing, empty, or that do not decode, and boxes that do not fit their picture.
    """
    problems: list[str] = []
    raw = read_image_labels(source, classes, images, good, problems)
    if not raw and not problems:
        raise DataError(f"{source}: names no pictures; name {FORMS}")
    numbers = {name: index for index, name in enumerate(classes)}
    problems += _unknown(source, raw, numbers)
    problems += _twice(raw)
    named = {item.class_name for item in raw}
    if every_class and named - {None}:
        problems += [
            f"{source}: class {name!r} of the recipe has no picture; add some, or take it from classes" for name in classes if name not in named
        ]
    pictures, cache = decode_checked(
        raw, lambda item, image: _checked(item, image, numbers, problems), problems, colour=colour, cache_bytes=cache_bytes
    )
    refuse(source, problems)
    return LabelledDataset(source, tuple(classes), pictures, colour, cache)


def _unknown(source: Path, raw: Sequence[RawImage], numbers: dict[str, int]) -> list[str]:
    """A line for each class that is not known, with the pictures that have it."""
    having: dict[str, list[str]] = {}
    for item in raw:
        if item.class_name is not None and item.class_name not in numbers:
            having.setdefault(item.class_name, []).append(f"{item.path} ({item.origin})")
    return [f"{source}: class {name!r} is not in the recipe ({', '.join(numbers)}): {told(items)}" for name, items in having.items()]


def _twice(raw: Sequence[RawImage]) -> list[str]:
    """A line for each picture that is named again."""
    lines = []
    first: dict[str, RawImage] = {}
    for item in raw:
        before = first.setdefault(_place(item.path), item)
        if before is not item:
            classes = f"as {before.class_name!r} and as {item.class_name!r}" if before.class_name != item.class_name else f"as {item.class_name!r}"
            lines.append(f"{item.path}: is named twice, {classes} ({before.origin}; {item.origin}); keep one")
    return lines


def _place(path: Path) -> str:
    """Where a picture really lies: the same for two ways to name it."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a name that no file can have; told as a missing picture
        return str(path)


def _checked(item: RawImage, decoded: NDArray[np.uint8], numbers: dict[str, int], problems: list[str]) -> LabelledPicture | None:
    """The picture with its class and boxes; None where something is wrong with it."""
    before = len(problems)
    boxes = checked_boxes(item.path, decoded.shape, item.size_px, item.labels, problems)
    if len(problems) > before or item.class_name not in numbers:
        return None
    kept = [index for index, label in enumerate(item.labels) if label.class_name in numbers and not label.ignored]
    return LabelledPicture(
        path=item.path,
        height_px=decoded.shape[0],
        width_px=decoded.shape[1],
        label=numbers[item.class_name],
        boxes=boxes[kept],
        box_classes=np.array([numbers[item.labels[index].class_name] for index in kept], np.int64),
    )
