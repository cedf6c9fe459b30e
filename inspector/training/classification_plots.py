"""Pictures of a classifier's evaluation: the confusion matrix, and a sheet of pictures with their heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from inspector.engine.preprocess import with_channels
from inspector.training.curves import save_figure
from inspector.training.explain_plots import overlay

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.training.classification import Classification

TILE_PX = 224
"""Longer side of a picture on the sheet."""
GAP_PX = 8
LINE_PX = 16
COLUMNS = 6
OUTLINE = (255, 255, 0)
"""Of true boxes: cyan, which the heat's colours (purple, red, yellow) do not have. BGR, as all colours here."""
RIGHT, WRONG, PAPER = (0, 0, 0), (0, 0, 220), 255
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands below a picture: three lines, red where the class given is not the true one."""

    file: str
    true: str
    """Names of classes."""
    given: str
    score: float
    """Of the class given, 0..1."""

    @property
    def wrong(self) -> bool:
        """Another class was given."""
        return self.true != self.given

    @property
    def lines(self) -> tuple[str, ...]:
        """File, true class, class given with its score."""
        return self.file, f"is {self.true}", f"named {self.given} {self.score:.3f}"


def draw_confusion(result: Classification, picture: Path, title: str) -> None:
    """Draws the confusion matrix as a PNG: counts, each row coloured by its shares of the true class.

    Raises:
        DataError: the picture cannot be written.
    """
    counts = np.array(result.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [row.name for row in result.classes]
    side = 3 + 0.6 * len(names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, given in np.ndindex(counts.shape):
        axes.text(given, true, str(counts[true, given]), ha="center", va="center", color="white" if shares[true, given] > 0.5 else "black")
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.set(xlabel="class given", ylabel="true class", title=title)
    save_figure(figure, picture)


def heat_sheet(
    images: Sequence[NDArray[np.uint8]],
    maps: Sequence[NDArray[np.float32]],
    captions: Sequence[Caption],
    boxes: Sequence[NDArray[Any]],
    columns: int = COLUMNS,
) -> NDArray[np.uint8]:
    """Pictures side by side, each with its map in colour over its own grey, its true boxes outlined, and its caption below.

    Args:
        images: at least one, uint8 [H, W] or [H, W, 3] RGB, of any sizes; each is brought to ``TILE_PX`` at its longer side.
        maps: float32 [h, w], over the whole picture, finite, of any size and unit: colours are shares of each map's own largest value. What is
            negative counts as zero; a map that is nowhere above zero leaves its picture grey.
        captions: one for each picture.
        boxes: true boxes [m, 4] (x1, y1, x2, y2) of each picture, in its px; m may be 0.
        columns: pictures in a row.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        ValueError: there are no pictures, not as many maps, captions and boxes as pictures, or a map is not finite.
    """
    if not images or not len(images) == len(maps) == len(captions) == len(boxes):
        raise ValueError(
            f"{len(images)} pictures, {len(maps)} maps, {len(captions)} captions, {len(boxes)} sets of boxes; there must be as many of each"
        )
    tiles = [_tile(*one) for one in zip(images, maps, captions, boxes, strict=True)]
    width = min(columns, len(tiles))
    tiles += [np.full_like(tiles[0], PAPER)] * (-len(tiles) % width)
    return np.vstack([np.hstack(tiles[start : start + width]) for start in range(0, len(tiles), width)])


def _tile(image: NDArray[np.uint8], heat: NDArray[np.float32], caption: Caption, boxes: NDArray[Any]) -> NDArray[np.uint8]:
    """One picture with its caption, on paper of a size that is the same for all."""
    scale = TILE_PX / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    grey = cv2.resize(with_channels(image, 1), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    warm = cv2.resize(np.maximum(heat, 0).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    drawn = overlay(np.asarray(grey, np.uint8), np.asarray(warm, np.float32))
    for x1, y1, x2, y2 in np.asarray(boxes, np.float64).reshape(-1, 4):
        # The far edge is the first pixel that no longer belongs to the box.
        near, far = (round(x1 * scale), round(y1 * scale)), (max(round(x2 * scale), 1) - 1, max(round(y2 * scale), 1) - 1)
        cv2.rectangle(drawn, near, far, OUTLINE, 1)
    tile = np.full((TILE_PX + len(caption.lines) * LINE_PX + 2 * GAP_PX, TILE_PX + GAP_PX, 3), PAPER, np.uint8)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    tile[top : top + height, left : left + width] = drawn
    for number, line in enumerate(caption.lines, start=1):
        place = (2, TILE_PX + number * LINE_PX)
        cv2.putText(tile, _cut(line), place, FONT, FONT_SCALE, WRONG if caption.wrong else RIGHT, 1, cv2.LINE_AA)
    return tile


def _cut(line: str) -> str:
    """The line, with its middle left out where it is wider than a picture: file names differ at their ends."""
    kept = len(line)
    shown = line
    while cv2.getTextSize(shown, FONT, FONT_SCALE, 1)[0][0] > TILE_PX - 2:
        kept -= 1
        shown = f"{line[: kept // 2]}..{line[len(line) - (kept - kept // 2) :]}"
    return shown
