"""Labelled pictures: one structure, and what checks and decodes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.contract.errors import DataError
from inspector.training.readers import RawPicture, read_coco, read_voc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CACHE_BYTES = 2 << 30
"""Decoded pictures beyond this are decoded anew each time."""
BORDER_TOLERANCE_PX = 1.0
"""Labelling tools round outwards: a box this far outside is cut, further is an error."""
PROBLEMS_SHOWN = 40


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
class Dataset:
    """Labelled pictures of one file or folder, decoded as far as the cache allows."""

    source: Path
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    colour: bool
    cache: tuple[NDArray[np.uint8], ...]
    """The first pictures, decoded."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The decoded picture: uint8 [H, W], or [H, W, 3] RGB when the data set was read with ``colour``. Not to be written to.

        Raises:
            DataError: it no longer decodes.
        """
        if index < len(self.cache):
            return self.cache[index]
        decoded = decode_image(self.pictures[index].path, colour=self.colour)
        if decoded is None:
            raise DataError(f"{self.pictures[index].path}: is no longer a picture that decodes; was it replaced while training?")
        return decoded

    def every(self, count: int) -> Dataset:
        """Every ``count``-th picture, from the first on."""
        return Dataset(self.source, self.classes, self.pictures[::count], self.colour, self.cache[::count])

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """All pictures in order."""
        return (self.image(index) for index in range(len(self)))


def decode_image(path: Path, *, colour: bool) -> NDArray[np.uint8] | None:
    """A picture file as uint8 [H, W] or, with ``colour``, [H, W, 3] RGB; None where it cannot be read or is no picture."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if not encoded.size:
        return None
    # The file's orientation tag is not applied: labels are given on the stored pixels.
    kind = (cv2.IMREAD_COLOR_RGB if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(encoded, kind)
    return None if decoded is None else np.asarray(decoded, np.uint8)


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
        DataError: the labels cannot be read; or, all listed at once: missing pictures, pictures that do not decode or differ in size from
            their label, unknown classes, boxes outside the picture or without area.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; name a COCO json file or a Pascal VOC folder")
    raw = read_voc(source, images) if source.is_dir() else read_coco(source, images)
    if not raw:
        raise DataError(f"{source}: names no pictures")
    problems: list[str] = []
    pictures: list[Picture] = []
    cache: list[NDArray[np.uint8]] = []
    numbers = {name: index for index, name in enumerate(classes)}
    room, caching = cache_bytes, True
    with ThreadPoolExecutor(2) as pool:
        for item, decoded in zip(raw, pool.map(lambda item: decode_image(item.path, colour=colour), raw), strict=True):
            picture = _checked(item, decoded, numbers, problems)
            if picture is None or decoded is None:
                continue
            pictures.append(picture)
            room -= decoded.nbytes
            caching = caching and room >= 0
            if caching:
                cache.append(decoded)
    if problems:
        more = [f"... and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        raise DataError("\n".join([f"{source}: {len(problems)} problems", *problems[:PROBLEMS_SHOWN], *more]))
    return Dataset(source, tuple(classes), tuple(pictures), colour, tuple(cache))


def _checked(item: RawPicture, decoded: NDArray[np.uint8] | None, numbers: dict[str, int], problems: list[str]) -> Picture | None:
    """The picture with its labels checked; None, and lines added to ``problems``, where something is wrong."""
    before = len(problems)
    if not item.path.is_file():
        problems.append(f"{item.path}: no such picture")
        return None
    if decoded is None:
        problems.append(f"{item.path}: does not decode as a picture")
        return None
    height, width = decoded.shape[:2]
    if item.size_px is not None and item.size_px != (height, width):
        problems.append(f"{item.path}: is {width} x {height} px, its label says {item.size_px[1]} x {item.size_px[0]}")
    boxes = np.array([label.box for label in item.labels], np.float64).reshape(-1, 4)
    for label, (x1, y1, x2, y2) in zip(item.labels, boxes, strict=True):
        where = f"{item.path}: {label.name}: box ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) of {label.origin}"
        if label.class_name not in numbers:
            problems.append(f"{item.path}: {label.name}: class {label.class_name!r} is not in the recipe ({', '.join(numbers)})")
        if not np.isfinite([x1, y1, x2, y2]).all():
            problems.append(f"{where} is not finite")
        elif x2 <= x1 or y2 <= y1:
            problems.append(f"{where} has no area")
        elif min(x1, y1) < -BORDER_TOLERANCE_PX or x2 > width + BORDER_TOLERANCE_PX or y2 > height + BORDER_TOLERANCE_PX:
            problems.append(f"{where} lies outside the picture of {width} x {height} px")
    if len(problems) > before:
        return None
    return Picture(
        path=item.path,
        height_px=height,
        width_px=width,
        boxes=np.clip(boxes, 0, [width, height, width, height]).astype(np.float32),
        classes=np.array([numbers[label.class_name] for label in item.labels], np.int64),
        ignored=np.array([label.ignored for label in item.labels], np.bool_),
    )
