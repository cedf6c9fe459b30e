"""A part's picture with what was found on it drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.contract.records import Defect

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_RED, _YELLOW, _WHITE, _DARK = (40, 40, 230), (0, 200, 230), (255, 255, 255), (40, 40, 40)  # BGR, as OpenCV writes it


def annotate(pixels: NDArray[np.uint8], lines: Sequence[str], defects: Sequence[Defect]) -> NDArray[np.uint8]:
    """A copy with a header above the image, so that no text covers the surface, and a box for every defect.

    Args:
        pixels: uint8 [H,W] (grey) or [H,W,3] (RGB).
        lines: text of the header, one string per line; letters outside ASCII become ``?``.
        defects: boxes in pixels of this image; counted ones are red, the others thin and yellow.

    Returns:
        uint8 [H + header, W, 3], BGR.
    """
    surface = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR)
    height, width = surface.shape[:2]
    scale = max(0.35, min(1.0, width / 1600))
    thickness = max(1, round(scale * 1.5))
    line_px = round(30 * scale) + 4
    for defect in sorted(defects, key=lambda one: one.counted):  # counted ones last: on top
        colour = _RED if defect.counted else _YELLOW
        x1, y1, x2, y2 = (
            round(float(np.clip(value, -1e6, 1e6))) for value in (defect.box_px.x1, defect.box_px.y1, defect.box_px.x2, defect.box_px.y2)
        )
        cv2.rectangle(surface, (x1, y1), (x2, y2), colour, 2 * thickness if defect.counted else thickness)
        label = _ascii(f"{defect.name} {defect.score:.2f}")
        (text_px, above_px), below_px = cv2.getTextSize(label, _FONT, scale, thickness)
        x, y = max(0, min(x1, width - text_px - 6)), y1 - below_px - 4 if y1 > line_px else min(height - below_px - 4, y2 + line_px)
        # On a plate of its own: a surface may have any brightness.
        cv2.rectangle(surface, (x, y - above_px - 4), (x + text_px + 6, y + below_px + 2), _DARK, cv2.FILLED)
        cv2.putText(surface, label, (x + 3, y), _FONT, scale, _WHITE if defect.counted else colour, thickness, cv2.LINE_AA)
    header = np.full((line_px * len(lines) + 6, width, 3), _DARK, dtype=np.uint8)
    for number, line in enumerate(lines):
        cv2.putText(header, _ascii(line), (6, line_px * (number + 1) - 4), _FONT, scale, _WHITE, thickness, cv2.LINE_AA)
    return np.concatenate((header, surface))


def _ascii(text: str) -> str:
    """What OpenCV's built-in font can write."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
