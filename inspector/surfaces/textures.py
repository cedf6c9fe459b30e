"""Bare surfaces: brushed, extruded aluminium as a line camera would see it, without defects.

Only integer arithmetic, interpolation and OpenCV's exact 8-bit resampling are used, so a picture depends on its random
generator alone and never on the instruction set of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Texture:
    """A surface without defects."""

    image: NDArray[np.uint8]
    """Grey levels, ``[height, width]``."""
    along_x: bool
    """True where the extrusion direction, and so the brush lines, run along the rows."""


def render_texture(rng: np.random.Generator, width_px: int, height_px: int, scale: float = 1.0) -> Texture:
    """A new surface: base level, profile ridges, uneven lighting, brush lines and sensor grain.

    Args:
        rng: the only source of chance.
        width_px: columns.
        height_px: rows.
        scale: pixels per nominal pixel; 1.0 draws the structures for a 640x480 picture.

    Returns:
        The surface; its levels stay away from 0 and 255, so that defects have room on both sides.
    """
    along_x = bool(rng.random() < 0.6)
    across_px, along_px = (height_px, width_px) if along_x else (width_px, height_px)
    level = rng.uniform(108, 152)
    profile = level + _smooth(rng, across_px, knots=6, amplitude=10.0) + _ridges(rng, across_px, scale)
    lighting = _smooth(rng, along_px, knots=4, amplitude=9.0)

    surface = profile.astype(np.int16)[:, None] + lighting.astype(np.int16)[None, :]
    surface += _brush_lines(rng, across_px, along_px, scale)
    if not along_x:
        surface = surface.T
    surface = surface + _grain(rng, width_px, height_px)
    return Texture(np.clip(surface, 40, 215).astype(np.uint8), along_x)


def _smooth(rng: np.random.Generator, length_px: int, knots: int, amplitude: float) -> NDArray[np.float64]:
    """A slowly varying line through ``knots`` random levels in -amplitude .. amplitude; shape ``[length_px]``."""
    levels = rng.uniform(-amplitude, amplitude, knots)
    return np.interp(np.arange(length_px), np.linspace(0, max(length_px - 1, 1), knots), levels)


def _ridges(rng: np.random.Generator, length_px: int, scale: float) -> NDArray[np.float64]:
    """Die lines (a bright and a dark flank) and flat steps across the profile; shape ``[length_px]``."""
    line = np.zeros(length_px)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, length_px))
        flank_px = max(1, round(float(rng.uniform(1.0, 2.5)) * scale))
        height = float(rng.uniform(5, 12))
        line[at : at + flank_px] += height
        line[at + flank_px : at + 2 * flank_px] -= height
    for _ in range(int(rng.integers(0, 3))):
        line[int(rng.integers(0, length_px)) :] += float(rng.uniform(-9, 9))
    return line


def _brush_lines(rng: np.random.Generator, across_px: int, along_px: int, scale: float) -> NDArray[np.int16]:
    """Fine streaks along the second axis; shape ``[across_px, along_px]``."""
    columns = max(2, round(along_px / (rng.uniform(25, 60) * scale)))
    return scaled_noise(stretched(noise(rng, across_px, columns), along_px, across_px), int(rng.integers(6, 13)))


def _grain(rng: np.random.Generator, width_px: int, height_px: int) -> NDArray[np.int16]:
    """Sensor noise, uniform in -a .. a grey levels; shape ``[height_px, width_px]``."""
    return scaled_noise(noise(rng, height_px, width_px), int(rng.integers(3, 7)))


def noise(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    """White noise, uniform in 0..255."""
    return rng.integers(0, 256, (rows, columns), dtype=np.uint8)


def stretched(coarse: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """``coarse`` enlarged linearly to ``[height_px, width_px]``, by OpenCV's exact arithmetic."""
    return np.asarray(cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def scaled_noise(values: NDArray[np.uint8], amplitude: int) -> NDArray[np.int16]:
    """Values of 0..255 as grey levels in ``-amplitude .. amplitude``, by integer arithmetic; the shape is kept."""
    levels = ((np.arange(256) - 128) * amplitude // 128).astype(np.int16)
    return levels[values]
