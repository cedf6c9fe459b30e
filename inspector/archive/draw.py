"""A part's picture with what was found on it drawn in, and where a classifier looked."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.archive.overlay import coloured, heat_levels, is_whole, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.contract.records import Defect, HeatMap

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_RED, _YELLOW, _WHITE, _DARK = (40, 40, 230), (0, 200, 230), (255, 255, 255), (40, 40, 40)  # BGR, as OpenCV writes it
_CYAN = (230, 200, 0)
"""Of outlines on heat: no level of it has this colour."""
_WIDE = 16 / 9
"""Pictures that are wider than a screen get their heat below, all others beside: both are seen as large as a screen allows."""
_MOVES = 3
"""Heights of itself that a label may move up or down; bounded, because a picture may have a hundred."""


def annotate(pixels: NDArray[np.uint8], lines: Sequence[str], defects: Sequence[Defect], heat: Sequence[HeatMap] = ()) -> NDArray[np.uint8]:
    """A copy with a header above the image, so that no text covers the surface, and a box for every defect.

    With heat maps the picture is shown once more, beside the first or, where it is wide, below it: in grey, with the heat in colour over it,
    and under it a line for each map. A map of a part of the picture has an outline and, like each of several, a number. Where more than one
    network has a share in the picture, every box names its own.

    Args:
        pixels: uint8 [H,W] (grey) or [H,W,3] (RGB).
        lines: text of the header, one string per line; letters outside ASCII become ``?``.
        defects: boxes in pixels of this image; counted ones are red, the others thin and yellow, or left out if they are of the whole picture.
        heat: where classifiers looked.

    Returns:
        uint8 [H + header, W, 3], BGR; with heat maps twice as wide or high.
    """
    surface = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR), np.uint8)
    pen = _Pen.for_width(surface.shape[1])
    # Two networks find the same defect: their labels must not hide each other, nor who is who.
    height, width = surface.shape[:2]
    plates = _Plates(height, defects) if len({one.source for one in defects} | {one.source for one in heat}) > 1 else None
    # What did not count and lies nowhere, a classifier's lesser classes, would frame every picture.
    drawn = [one for one in defects if one.counted or not is_whole(one, height, width)]
    for defect in sorted(drawn, key=lambda one: one.counted):  # counted ones last: on top
        pen.defect(surface, defect, plates)
    if not heat:
        return np.concatenate((pen.text(lines, surface.shape[1]), surface))
    below = width > _WIDE * height
    gap = np.full((pen.gap_px, width, 3) if below else (height, pen.gap_px, 3), _DARK, np.uint8)
    panels = np.concatenate((surface, gap, _heat_panel(pixels, heat, pen)), axis=0 if below else 1)
    total_px = panels.shape[1]
    return np.concatenate((pen.text(lines, total_px), panels, pen.text(pen.columns(_captions(heat, height, width), total_px), total_px)))


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes of text and lines."""

    scale: float
    thickness: int
    line_px: int

    @classmethod
    def for_width(cls, width_px: int) -> _Pen:
        scale = max(0.35, min(1.0, width_px / 1600))
        return cls(scale, max(1, round(scale * 1.5)), round(30 * scale) + 4)

    @property
    def gap_px(self) -> int:
        """Between two panels."""
        return 4 * self.thickness

    def defect(self, surface: NDArray[np.uint8], defect: Defect, plates: _Plates | None) -> None:
        """A box with class and score; with ``plates`` also the network, where no other label is."""
        height, width = surface.shape[:2]
        colour = _RED if defect.counted else _YELLOW
        x1, y1, x2, y2 = (
            round(float(np.clip(value, -1e6, 1e6))) for value in (defect.box_px.x1, defect.box_px.y1, defect.box_px.x2, defect.box_px.y2)
        )
        cv2.rectangle(surface, (x1, y1), (x2, y2), colour, 2 * self.thickness if defect.counted else self.thickness)
        label = _ascii(f"{defect.name} {defect.score:.2f}" + (f" {defect.source}" if plates else ""))
        (text_px, above_px), below_px = cv2.getTextSize(label, _FONT, self.scale, self.thickness)
        x, y = max(0, min(x1, width - text_px - 6)), y1 - below_px - 4 if y1 > self.line_px else min(height - below_px - 4, y2 + self.line_px)
        if plates:
            y += plates.place(x, y - above_px - 4, x + text_px + 6, y + below_px + 2)
        # On a plate of its own: a surface may have any brightness.
        cv2.rectangle(surface, (x, y - above_px - 4), (x + text_px + 6, y + below_px + 2), _DARK, cv2.FILLED)
        cv2.putText(surface, label, (x + 3, y), _FONT, self.scale, _WHITE if defect.counted else colour, self.thickness, cv2.LINE_AA)

    def text(self, lines: Sequence[str], width_px: int) -> NDArray[np.uint8]:
        """A strip with lines of text."""
        strip = np.full((self.line_px * len(lines) + 6, width_px, 3), _DARK, dtype=np.uint8)
        for number, line in enumerate(lines):
            cv2.putText(strip, _ascii(line), (6, self.line_px * (number + 1) - 4), _FONT, self.scale, _WHITE, self.thickness, cv2.LINE_AA)
        return strip

    def columns(self, captions: Sequence[str], width_px: int) -> list[str]:
        """Captions as lines of text: one that is too long is broken."""
        letter_px = max(cv2.getTextSize(_ascii(one), _FONT, self.scale, self.thickness)[0][0] / len(one) for one in captions)
        letters = max(12, int((width_px - 12) / letter_px))
        return [line for one in captions for line in textwrap.wrap(one, letters, subsequent_indent="    ", break_on_hyphens=False)]

    def outline(self, panel: NDArray[np.uint8], where: tuple[slice, slice], number: int) -> None:
        """A part of the panel, and its number above it, or inside where there is no room."""
        rows, columns = where
        cv2.rectangle(panel, (columns.start, rows.start), (columns.stop - 1, rows.stop - 1), _CYAN, self.thickness)
        (text_px, above_px), _ = cv2.getTextSize(str(number), _FONT, self.scale, self.thickness)
        top = rows.start - above_px - 7 if rows.start > above_px + 7 else rows.start
        cv2.rectangle(panel, (columns.start, top), (columns.start + text_px + 5, top + above_px + 7), _DARK, cv2.FILLED)
        cv2.putText(panel, str(number), (columns.start + 3, top + above_px + 4), _FONT, self.scale, _CYAN, self.thickness, cv2.LINE_AA)


class _Plates:
    """Where labels lie on a picture of ``height_px`` rows: not on one another, and best not on what was found."""

    def __init__(self, height_px: int, defects: Sequence[Defect]) -> None:
        self._height = height_px
        self._labels: list[tuple[float, float, float, float]] = []
        boxes = [one.box_px for one in defects if one.counted]
        self._found = [(box.x1, box.y1, box.x2, box.y2) for box in boxes]

    def place(self, x1: int, y1: int, x2: int, y2: int) -> int:
        """How far a label has to move down (or up: negative) to where nothing is, or else no other label; 0 where there is no such place near it."""
        moves = sorted((times * (y2 - y1 + 1) for times in range(-_MOVES, _MOVES + 1)), key=abs)
        free = [move for move in moves if self._free(self._labels, x1, y1 + move, x2, y2 + move)]
        move = next((move for move in free if self._free(self._found, x1, y1 + move, x2, y2 + move)), free[0] if free else 0)
        self._labels.append((x1, y1 + move, x2, y2 + move))
        return move

    def _free(self, taken: Sequence[tuple[float, float, float, float]], x1: int, y1: int, x2: int, y2: int) -> bool:
        inside = y1 >= 0 and y2 <= self._height
        return inside and not any(x1 <= right and left <= x2 and y1 <= bottom and top <= y2 for left, top, right, bottom in taken)


def _heat_panel(pixels: NDArray[np.uint8], heat: Sequence[HeatMap], pen: _Pen) -> NDArray[np.uint8]:
    """The picture in grey with its heat, uint8 [H, W, 3] BGR."""
    grey = pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    panel = coloured(grey, heat_levels(heat, height, width))
    for number, one in enumerate(heat, 1):
        if not is_whole(one, height, width):
            pen.outline(panel, window(one, height, width), number)
    return panel


def _captions(heat: Sequence[HeatMap], height_px: int, width_px: int) -> list[str]:
    captions = []
    for number, one in enumerate(heat, 1):
        whole = is_whole(one, height_px, width_px)
        which = "heat" if whole and len(heat) == 1 else f"heat {number}" + (", whole picture" if whole else "")
        captions.append(f"{which}: {one.name} {one.score:.2f}  {one.source}")
    return captions


def _ascii(text: str) -> str:
    """What OpenCV's built-in font can write."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
