"""Feed files: the images that a simulated camera shows, raw and memory-mapped, so that a frame costs one copy."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_HEADER = struct.Struct("<8s6I")
_MAGIC = b"INSPFEED"
_VERSION = 1
_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"}


def write_feed(path: Path, images: Iterable[NDArray[np.uint8]]) -> int:
    """Write ``images`` (uint8, all [H,W] grey or all [H,W,3] RGB, one size) as a feed file; returns how many.

    Raises:
        DataError: no image, another dtype, or an image of another size than the first.
    """
    shape: tuple[int, ...] | None = None
    count = 0
    with path.open("wb") as file:
        file.write(bytes(_HEADER.size))
        for image in images:
            if image.dtype != np.uint8 or image.ndim not in {2, 3} or (image.ndim == 3 and image.shape[2] != 3):
                raise DataError(f"image {count} of the feed is {image.dtype} {image.shape}: give uint8 [H,W] or [H,W,3]")
            if shape is None:
                shape = image.shape
            elif image.shape != shape:
                raise DataError(f"image {count} of the feed has shape {image.shape}, the first has {shape}: a camera's images are of one size")
            file.write(np.ascontiguousarray(image).data)
            count += 1
        if shape is None:
            raise DataError("a feed needs at least one image")
        file.seek(0)
        channels = 3 if len(shape) == 3 else 1
        file.write(_HEADER.pack(_MAGIC, _VERSION, count, shape[1], shape[0], channels, 0))
    return count


def image_files(folder: Path) -> list[Path]:
    """The image files in ``folder``, in name order.

    Raises:
        DataError: there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no images there ({', '.join(sorted(_SUFFIXES))})")
    return files


def read_image(path: Path, *, grey: bool | None = None) -> NDArray[np.uint8]:
    """One image file as uint8 [H,W] or [H,W,3] (RGB); ``grey`` None: as the file has it, three equal channels counting as colour.

    Raises:
        DataError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR if grey is False else cv2.IMREAD_ANYCOLOR)
    if image is None:
        raise DataError(f"{path}: cannot be read as an image")
    return np.asarray(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_folder(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """The images in ``folder`` in name order: grey if the first one is, else RGB.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    grey: bool | None = None
    for path in image_files(folder):
        image = read_image(path, grey=grey)
        if grey is None:
            # Grey pictures are often stored with three equal channels.
            grey = image.ndim == 2 or bool((image[..., :1] == image).all())
            image = image[..., 0] if grey and image.ndim == 3 else image
        yield image
