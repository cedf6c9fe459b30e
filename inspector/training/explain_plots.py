"""Pictures that explain a decision: a map in colour over the grey picture, and panels with captions beside one another."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np

from inspector.archive.draw import annotate
from inspector.archive.overlay import HOTTEST, coloured
from inspector.contract.errors import DataError
from inspector.contract.records import Box

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.contract.records import Defect
    from inspector.engine.preprocess import LetterboxGeometry

NARROWEST_PX, WIDEST_PX = 640, 1280
"""Panels are brought to a width between: captions stay legible beside a picture of 200 px, and one of 8000 px stays a picture that a viewer opens."""
CAPTION_LETTERS = 76
"""Letters per line of a caption; their size grows with the panel's width, so the number holds for all widths."""
GAP_PX = 8
OUTLINE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of several, with words above it and boxes on it."""

    pixels: NDArray[np.uint8]
    """[H, W] grey or [H, W, 3] BGR, as :func:`overlay` makes it."""
    caption: tuple[str, ...]
    """Lines; long ones are wrapped."""
    defects: tuple[Defect, ...] = ()
    """Boxes with names and scores, in px of ``pixels``; counted ones are red."""
    outlines: tuple[Box, ...] = ()
    """Thin boxes without words, in px of ``pixels``, for a map that words would hide."""


def overlay(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map in colour over a picture: yellow where the map is strongest, over red and purple to the picture's own grey where it is zero.

    Args:
        picture: uint8 [H, W], grey.
        heat: float32 [H, W], at least 0, of any unit: colours are shares of its largest value. Zero everywhere: the picture stays grey.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        ValueError: the two differ in size, or the map is not finite or somewhere negative.
    """
    if picture.dtype != np.uint8 or picture.ndim != 2 or heat.shape != picture.shape:
        raise ValueError(f"a map {heat.shape} over a picture {picture.shape} of {picture.dtype}: it must be a grey uint8 picture of the map's size")
    strongest = float(heat.max(initial=0))
    if not (np.isfinite(heat).all() and (heat >= 0).all()):
        raise ValueError("the map is not finite or somewhere below 0")
    return coloured(picture, np.rint(heat * (HOTTEST / strongest if strongest > 0 else 0)).astype(np.uint8))


def map_on_picture(
    values: NDArray[np.float32], canvas_px: tuple[int, int], geometry: LetterboxGeometry, image_px: tuple[int, int]
) -> NDArray[np.float32]:
    """A map of the network's input as a map of the picture that was letterboxed into it; what lies beside the picture is cut off.

    Args:
        values: float32 [h, w], at least 0, over the whole canvas in cells of any size.
        canvas_px: height and width of the canvas.
        geometry: where the picture lies on it.
        image_px: height and width of the picture.

    Returns:
        float32 [H, W], at least 0.
    """
    full = values if values.shape == canvas_px else cv2.resize(values, canvas_px[::-1], interpolation=cv2.INTER_LINEAR)
    covered = full[: geometry.height_px, : geometry.width_px]
    shrinks = geometry.scale_x > 1
    return np.asarray(cv2.resize(covered, image_px[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.float32)


def strongest_of(maps: NDArray[np.float32], spread_px: float) -> NDArray[np.float32]:
    """Several maps as one that shows them all: at each pixel the largest share of a map's own strongest value.

    Args:
        maps: float32 [n, H, W], at least 0.
        spread_px: standard deviation of the blur that makes lone pixels visible; 0: none.

    Returns:
        float32 [H, W], 0..1; 1 at the strongest place of each map that is not zero everywhere.
    """
    shown = np.zeros(maps.shape[1:], np.float32)
    for one in maps:
        largest = float(one.max())
        if largest > 0:
            share = one / largest  # first: a sure detection's derivatives are small enough to vanish in what follows
            blurred = np.asarray(cv2.GaussianBlur(share, (0, 0), spread_px) if spread_px > 0 else share, np.float32)
            shown = np.maximum(shown, blurred / blurred.max())
    return shown


def beside(panels: Sequence[Panel]) -> NDArray[np.uint8]:
    """Panels in a row, all brought to the width of the first and with captions of the same height.

    Args:
        panels: at least one; pictures of one size.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        ValueError: there is no panel, or their pictures differ in size.
    """
    sizes = {panel.pixels.shape[:2] for panel in panels}
    if len(sizes) != 1:
        raise ValueError(f"panels of the sizes {sorted(sizes)}: there must be at least one, all of one size")
    captions = [[line for text in panel.caption for line in textwrap.wrap(text, CAPTION_LETTERS) or [""]] for panel in panels]
    lines = max(len(caption) for caption in captions)
    drawn: list[NDArray[np.uint8]] = []
    for panel, caption in zip(panels, captions, strict=True):
        pixels, scale = _of_panel_width(panel.pixels)
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)
        for box in panel.outlines:
            x1, y1, x2, y2 = (round(side * scale) for side in msgspec.structs.astuple(box))
            cv2.rectangle(rgb, (x1, y1), (x2, y2), OUTLINE, 1)
        defects = [msgspec.structs.replace(one, box_px=Box(*(side * scale for side in msgspec.structs.astuple(one.box_px)))) for one in panel.defects]
        part = annotate(rgb, caption + [""] * (lines - len(caption)), defects)
        if drawn:
            drawn.append(np.full((part.shape[0], GAP_PX, 3), 255, np.uint8))
        drawn.append(part)
    return np.concatenate(drawn, axis=1)


def _of_panel_width(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The picture at a panel's width, and by how much its sides grew."""
    height, width = pixels.shape[:2]
    wanted = min(max(width, NARROWEST_PX), WIDEST_PX)
    if wanted == width:
        return pixels, 1.0
    scale = wanted / width
    size = (wanted, max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8), scale


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes uint8 [H, W] or [H, W, 3] BGR as a PNG; its folder is made where it is missing.

    Raises:
        DataError: the file cannot be written.
    """
    _, encoded = cv2.imencode(".png", pixels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
