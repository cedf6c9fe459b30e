"""What every set of labelled pictures does: decode, keep what fits in memory, and tell all that is wrong at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import cv2
import numpy as np

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CACHE_BYTES = 2 << 30
"""Decoded pictures beyond this are decoded anew each time."""
PROBLEMS_SHOWN = 40
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Where a folder is searched: what counts as a picture, in lower case."""


class OnDisk(Protocol):
    """What lies in a file."""

    @property
    def path(self) -> Path:
        """The file."""
        ...


PictureT = TypeVar("PictureT", bound=OnDisk)
RawT = TypeVar("RawT", bound=OnDisk)


@dataclass(frozen=True, slots=True)
class PictureSet(Generic[PictureT]):
    """Labelled pictures of one file or folder, decoded as far as the cache allows."""

    source: Path
    classes: tuple[str, ...]
    pictures: tuple[PictureT, ...]
    colour: bool
    cache: tuple[NDArray[np.uint8], ...]
    """The first pictures, decoded."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The decoded picture: uint8 [H, W], or [H, W, 3] RGB when the set was read with ``colour``. Not to be written to.

        Raises:
            DataError: it no longer decodes.
        """
        if index < len(self.cache):
            return self.cache[index]
        decoded = decode_image(self.pictures[index].path, colour=self.colour)
        if decoded is None:
            raise DataError(f"{self.pictures[index].path}: is no longer a picture that decodes; was it replaced while training?")
        return decoded

    def images(self) -> Iterator[NDArray[np.uint8]]:
        """All pictures in order."""
        return (self.image(index) for index in range(len(self)))

    def every(self, count: int) -> Self:
        """Every ``count``-th picture, from the first on."""
        return replace(self, pictures=self.pictures[::count], cache=self.cache[::count])


def decode_image(path: Path, *, colour: bool) -> NDArray[np.uint8] | None:
    """A picture file as uint8 [H, W] or, with ``colour``, [H, W, 3] RGB; None where it cannot be read or is no picture."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    if not encoded.size:
        return None
    # The file's orientation tag is not applied: labels are given on the stored pixels.
    kind = (cv2.IMREAD_COLOR_RGB if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(encoded, kind)
    except cv2.error:  # a damaged header that tells an impossible size
        return None
    return None if decoded is None else np.asarray(decoded, np.uint8)


def decode_checked(
    raw: Sequence[RawT],
    check: Callable[[RawT, NDArray[np.uint8]], PictureT | None],
    problems: list[str],
    *,
    colour: bool,
    cache_bytes: int,
) -> tuple[tuple[PictureT, ...], tuple[NDArray[np.uint8], ...]]:
    """Decodes every picture once and checks its labels against it.

    Args:
        raw: pictures as the labels name them.
        check: makes the checked picture of one that decodes; None: something is wrong with it, and told.
        problems: gets a line for each picture that is missing, empty, or does not decode.
        colour: decode to RGB, not grey.
        cache_bytes: how much decoded pixel data is kept.

    Returns:
        The checked pictures in order, and the first of them decoded, as many as fit.
    """
    pictures: list[PictureT] = []
    cache: list[NDArray[np.uint8]] = []
    room = cache_bytes
    with ThreadPoolExecutor(2) as pool:
        for item, decoded in zip(raw, pool.map(lambda item: decode_image(item.path, colour=colour), raw), strict=True):
            if decoded is None:
                problems.append(f"{item.path}: {_why_not(item.path)}")
                continue
            picture = check(item, decoded)
            if picture is None:
                continue
            pictures.append(picture)
            room -= decoded.nbytes
            if room >= 0:
                cache.append(decoded)
    return tuple(pictures), tuple(cache)


def refuse(source: Path, problems: Sequence[str]) -> None:
    """Nothing where there are no problems.

    Raises:
        DataError: there are some; the first 40 are listed, and all are counted.
    """
    if not problems:
        return
    more = [f"... and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise DataError("\n".join([f"{source}: {count}", *problems[:PROBLEMS_SHOWN], *more]))


def _why_not(path: Path) -> str:
    """Why a picture gave no pixels."""
    try:
        if path.is_file():
            return "does not decode as a picture" if path.stat().st_size else "is an empty file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "no such picture" + ("; write / between folders, not \\" if "\\" in str(path) else "")
