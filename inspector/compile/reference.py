"""Reference images and what the reference (torch) makes of them, kept beside the ONNX: a station without torch measures parity against them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.contract.errors import DataError, EngineError
from inspector.engine.preprocess import letterbox, with_channels
from inspector.surfaces.scene import SurfaceGenerator

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.network import InputRecipe

SUFFIX = ".reference.npz"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
SURFACE_SEED = 77
"""Of generated reference surfaces: neither the demo's nor those that the demo's engine is trained on."""
ABOUT, CANVASES, INNER = "about", "canvases", "inner."
"""Names of the arrays in the file; an inner tensor's begins with the last."""


@dataclass(frozen=True, slots=True)
class Reference:
    """n canvases and the outputs that an engine has to repeat."""

    source: str
    """What made the outputs, with its version."""
    weights_sha256: str
    canvases: NDArray[np.uint8]
    """[n, C, H, W]"""
    outputs: dict[str, NDArray[Any]]
    """By name, [n, ...]: the engine's outputs (:func:`~inspector.engine.null.engine_contract`), image by image."""
    inner: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Inner tensors of the first images, by name; only of a network that finds nothing: it is compared by them."""


def save_reference(reference: Reference, path: Path) -> None:
    """Write a reference.

    Raises:
        EngineError: the file cannot be written.
    """
    arrays: dict[str, Any] = {CANVASES: reference.canvases, **reference.outputs}
    arrays |= {INNER + name: value for name, value in reference.inner.items()}
    arrays[ABOUT] = np.array([reference.source, reference.weights_sha256])
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise EngineError(f"{path}: the reference outputs cannot be written: {error.strerror}") from None


def load_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        EngineError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            inner = {name.removeprefix(INNER): stored[name] for name in stored.files if name.startswith(INNER)}
            source, digest = (str(text) for text in stored[ABOUT])
            outputs = {name: stored[name] for name in stored.files if name not in {ABOUT, CANVASES} and not name.startswith(INNER)}
            return Reference(source, digest, stored[CANVASES], outputs, inner)
    except FileNotFoundError:
        raise EngineError(f"{path}: the reference outputs are missing, parity cannot be measured: copy the file that lies beside the ONNX") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise EngineError(f"{path}: the reference outputs are damaged, parity cannot be measured: copy the file anew") from None


def surface_canvases(size: InputRecipe, count: int) -> NDArray[np.uint8]:
    """Generated surfaces with defects as canvases, uint8 [count, C, H, W]."""
    generator = SurfaceGenerator(size.width_px, size.height_px, SURFACE_SEED, 1.0)
    return np.stack([letterbox(generator.render(index).image, size.height_px, size.width_px, size.channels)[0] for index in range(count)])


def folder_canvases(folder: Path, size: InputRecipe, count: int) -> NDArray[np.uint8]:
    """Up to ``count`` pictures of a folder, evenly spread over its names, as canvases, uint8 [n, C, H, W].

    Raises:
        DataError: there is no picture, or one cannot be read.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}); name a folder that does")
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))]
    return np.stack([letterbox(_read(path, size.channels), size.height_px, size.width_px, size.channels)[0] for path in chosen])


def _read(path: Path, channels: int) -> NDArray[np.uint8]:
    """A picture as [H, W] or [H, W, 3] RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f"{path}: is no picture that can be read; remove or replace it")
    return with_channels(np.asarray(image, np.uint8), channels)
