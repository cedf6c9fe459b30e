"""Labelled pictures: one structure, and what checks and decodes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.contract.errors import DataError
from inspector.training.pictures import CACHE_BYTES, PictureSet, decode_checked, refuse
from inspector.training.readers import RawLabel, RawPicture, read_coco, read_voc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

BORDER_TOLERANCE_PX = 1.0
"""Labelling tools round outwards: a box this far outside is cut, further is an error."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture."""

    path: Path
    height_px: int
    width_px: int
    boxes: NDArray[np.float32]
    """[n, 4] (x1, y1, x2, y2), px; x2 and y2 are the far edges, so a box over the whole picture ends at its width and height."""
    classes: NDArray[np.int64]
    """[n] indices into the data set's classes."""
    ignored: NDArray[np.bool_]
    """[n]; COCO's iscrowd and VOC's difficult: neither trained on nor counted as a miss."""


@dataclass(frozen=True, slots=True)
class Dataset(PictureSet[Picture]):
    """Pictures with labelled boxes, of one file or folder."""


def read_dataset(
    source: Path, classes: Sequence[str], *, images: Path | None = None, colour: bool = False, cache_bytes: int = CACHE_BYTES
) -> Dataset:
    """The labelled pictures of a COCO json file or a Pascal VOC folder, all checked and decoded once.

    Args:
        source: a ``.json`` file, or a folder with ``Annotations/*.xml`` and ``JPEGImages`` or ``images``.
        classes: the network's classes, in order. The labels may use fewer, not others.
        images: where the pictures lie; None: the folder ``images`` beside the json, else the json's own folder.
        colour: decode to RGB, not grey.
        cache_bytes: how much decoded pixel data is kept in memory.

    Raises:
        DataError: the labels cannot be read; or, all listed at once: broken entries, missing pictures, pictures that do not decode or differ
            in size from their label, unknown classes, boxes outside the picture or without area.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; name a COCO json file or a Pascal VOC folder")
    problems: list[str] = []
    raw = read_voc(source, images, problems) if source.is_dir() else read_coco(source, images, problems)
    if not raw and not problems:
        raise DataError(f"{source}: names no pictures")
    numbers = {name: index for index, name in enumerate(classes)}
    pictures, cache = decode_checked(
        raw, lambda item, image: _checked(item, image, numbers, problems), problems, colour=colour, cache_bytes=cache_bytes
    )
    refuse(source, problems)
    return Dataset(source, tuple(classes), pictures, colour, cache)


def checked_boxes(
    path: Path, shape: tuple[int, ...], size_px: tuple[int, int] | None, labels: Sequence[RawLabel], problems: list[str]
) -> NDArray[np.float32]:
    """The labels' boxes, cut at the picture's border; every wrong one gets a line in ``problems``.

    Args:
        path: of the picture.
        shape: of the decoded picture, [H, W] or [H, W, 3].
        size_px: (height, width) by the labels.
        labels: n boxes.
        problems: gets the lines.

    Returns:
        [n, 4] (x1, y1, x2, y2), px.
    """
    height, width = shape[:2]
    if size_px is not None and size_px != (height, width):
        problems.append(f"{path}: is {width} x {height} px, its label says {size_px[1]} x {size_px[0]}")
    boxes = np.array([label.box for label in labels], np.float64).reshape(-1, 4)
    for label, (x1, y1, x2, y2) in zip(labels, boxes, strict=True):
        where = f"{path}: {label.name}: box ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) of {label.origin}"
        if not np.isfinite([x1, y1, x2, y2]).all():
            problems.append(f"{where} is not finite")
        elif x2 <= x1 or y2 <= y1:
            problems.append(f"{where} has no area")
        elif min(x1, y1) < -BORDER_TOLERANCE_PX or x2 > width + BORDER_TOLERANCE_PX or y2 > height + BORDER_TOLERANCE_PX:
            problems.append(f"{where} lies outside the picture of {width} x {height} px")
    return np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)


def _checked(item: RawPicture, decoded: NDArray[np.uint8], numbers: dict[str, int], problems: list[str]) -> Picture | None:
    """The picture with its labels checked; None, and lines added to ``problems``, where something is wrong."""
    before = len(problems)
    problems += [
        f"{item.path}: {label.name}: class {label.class_name!r} is not in the recipe ({', '.join(numbers)})"
        for label in item.labels
        if label.class_name not in numbers
    ]
    boxes = checked_boxes(item.path, decoded.shape, item.size_px, item.labels, problems)
    if len(problems) > before:
        return None
    return Picture(
        path=item.path,
        height_px=decoded.shape[0],
        width_px=decoded.shape[1],
        boxes=boxes,
        classes=np.array([numbers[label.class_name] for label in item.labels], np.int64),
        ignored=np.array([label.ignored for label in item.labels], np.bool_),
    )
