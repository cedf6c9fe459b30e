"""The ten defect kinds of aluminium profiles, drawn procedurally.

Kinds and names follow Wei & Bi 2019 (Materials 12(10), 1681, section 4.1: the Tianchi aluminium profile pictures). Each
kind has an extent (how large a patch it needs) and a drawing on that patch. A drawing returns new grey levels; where
they differ from the old ones lies the defect, so its box needs no separate bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.surfaces.textures import noise, scaled_noise, stretched

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]
    Levels = NDArray[np.float64]

DEFECT_KINDS: tuple[str, ...] = (
    "dent",
    "non_conducting",
    "scratch",
    "orange_peel",
    "leakage",
    "bump",
    "pit",
    "bulging_powder",
    "coating_crack",
    "dirty_spot",
)
"""Names of the defect classes, in the order of every network's outputs and every label file."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Where a defect is drawn."""

    levels: NDArray[np.float64]
    """Grey levels of the surface, ``[height, width]``; not to be written to."""
    along_x: bool
    """True where the brush lines run along the rows."""
    scale: float
    """Pixels per nominal pixel."""

    @property
    def width_px(self) -> int:
        """Columns."""
        return int(self.levels.shape[1])

    @property
    def height_px(self) -> int:
        """Rows."""
        return int(self.levels.shape[0])

    def px(self, nominal: float) -> int:
        """A nominal length in pixels of this patch, at least 1."""
        return max(1, round(nominal * self.scale))


Draw = Callable[[np.random.Generator, Patch], "Levels"]


def patch_extent(rng: np.random.Generator, kind: str, *, along_x: bool) -> tuple[float, float]:
    """Width and height, in nominal pixels, of the patch that a new defect of ``kind`` needs."""
    shortest, longest, slimmest, broadest = _EXTENTS[kind]
    length = float(rng.uniform(shortest, longest))
    breadth = length * float(rng.uniform(slimmest, broadest))
    if kind == "non_conducting":  # lies along the extrusion direction
        return (length, breadth) if along_x else (breadth, length)
    return (length, breadth) if rng.random() < 0.5 else (breadth, length)


def draw_defect(rng: np.random.Generator, kind: str, patch: Patch) -> Levels:
    """New grey levels of ``patch`` with a defect of ``kind`` on it; float, not yet limited to 0..255."""
    return _DRAWINGS[kind](rng, patch)


def _dent(rng: np.random.Generator, patch: Patch) -> Levels:
    """A shallow hollow: the flank towards the light is dark, the other one bright."""
    depth = _blurred(_blob(rng, patch, share=0.72, roughness=0.05), 0.10 * min(patch.width_px, patch.height_px))
    shift = max(2, round(0.09 * min(patch.width_px, patch.height_px)))
    light_x, light_y = _light(rng)
    slope = _shifted(depth, light_x * shift, light_y * shift) - _shifted(depth, -light_x * shift, -light_y * shift)
    return patch.levels + slope * rng.uniform(75, 100) - depth * 8.0


def _non_conducting(rng: np.random.Generator, patch: Patch) -> Levels:
    """A bright, dull band along the profile where the bath did not take: the texture is gone."""
    mask = np.zeros(patch.levels.shape, np.uint8)
    inset = patch.px(4)
    radius = max(1, min(patch.width_px, patch.height_px) // 5)
    right, bottom = patch.width_px - 1 - inset, patch.height_px - 1 - inset
    cv2.rectangle(mask, (inset + radius, inset), (right - radius, bottom), 255, cv2.FILLED)
    cv2.rectangle(mask, (inset, inset + radius), (right, bottom - radius), 255, cv2.FILLED)
    for corner_x in (inset + radius, right - radius):
        for corner_y in (inset + radius, bottom - radius):
            cv2.circle(mask, (corner_x, corner_y), radius, 255, cv2.FILLED)
    share = _blurred(mask, 1.5 * patch.scale)
    dull = float(patch.levels.mean()) + rng.uniform(32, 46)
    return patch.levels + share * 0.8 * (dull - patch.levels)


def _scratch(rng: np.random.Generator, patch: Patch) -> Levels:
    """A thin, slightly bent bright groove with a dark lip, from corner to corner."""
    width, height = patch.width_px, patch.height_px
    margin = patch.px(4)
    start, end = np.array([margin, margin], float), np.array([width - 1 - margin, height - 1 - margin], float)
    middle = (start + end) / 2 + rng.uniform(-0.12, 0.12, 2) * (width, height)
    t = np.linspace(0, 1, 16)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    if rng.random() < 0.5:
        curve[:, 0] = width - 1 - curve[:, 0]
    thickness = patch.px(rng.uniform(1.4, 2.6))
    groove, lip = _line(patch, curve, thickness), _line(patch, curve + patch.px(1.6), thickness)
    return patch.levels + groove * rng.uniform(60, 85) - np.maximum(lip - groove, 0) * rng.uniform(35, 50)


def _orange_peel(rng: np.random.Generator, patch: Patch) -> Levels:
    """A large field of round mottles, like the skin of an orange."""
    field = _blurred(_blob(rng, patch, share=0.93, roughness=0.12), 2.5 * patch.scale)
    return patch.levels + field * _mottle(rng, patch, cell=rng.uniform(5.0, 7.0)) * rng.uniform(75, 100)


def _leakage(rng: np.random.Generator, patch: Patch) -> Levels:
    """The base metal shows through: a dark, ragged, sharply bounded area with coarse streaks and a pale rim."""
    outline = _blob(rng, patch, share=0.90, roughness=0.65, corners=40, smooth=True)
    inner = _blurred(outline, 0.6 * patch.scale)
    wider = np.asarray(cv2.dilate(outline, np.ones((3, 3), np.uint8), iterations=patch.px(1)), np.uint8)
    rim = _blurred(wider, 0.6 * patch.scale) - inner
    across, along = (patch.height_px, patch.width_px) if patch.along_x else (patch.width_px, patch.height_px)
    streaks = scaled_noise(stretched(noise(rng, max(2, across // patch.px(3)), 2), along, across), 22)
    streaks = streaks if patch.along_x else streaks.T
    return patch.levels + inner * (streaks - rng.uniform(38, 52)) + rim * 28.0


def _bump(rng: np.random.Generator, patch: Patch) -> Levels:
    """A knock by a hard corner: an angular mark with one bright and one dark facet."""
    shape = _blob(rng, patch, share=0.88, roughness=0.25, corners=int(rng.integers(5, 8)))
    inside = _blurred(shape, 0.5 * patch.scale)
    normal_x, normal_y = _light(rng)
    rows, columns = np.indices(patch.levels.shape)
    side = (columns - (patch.width_px - 1) / 2) * normal_x + (rows - (patch.height_px - 1) / 2) * normal_y
    facet = np.where(side > 0, rng.uniform(48, 68), -rng.uniform(48, 68))
    return patch.levels + inside * facet


def _pit(rng: np.random.Generator, patch: Patch) -> Levels:
    """A small, deep, round hole: nearly black, with a bright crescent where the far wall catches the light."""
    centre = (patch.width_px // 2, patch.height_px // 2)
    half_px = min(patch.width_px, patch.height_px) / 2
    wall, hole = np.zeros(patch.levels.shape, np.uint8), np.zeros(patch.levels.shape, np.uint8)
    cv2.circle(wall, centre, max(2, round(half_px * 0.84)), 255, cv2.FILLED, cv2.LINE_AA)
    light_x, light_y = _light(rng)
    shift = half_px * 0.16
    bottom = (round(centre[0] - light_x * shift), round(centre[1] - light_y * shift))
    cv2.circle(hole, bottom, max(1, round(half_px * 0.66)), 255, cv2.FILLED, cv2.LINE_AA)
    rim, dark = _blurred(wall, 0.5 * patch.scale), _blurred(hole, 0.7 * patch.scale)
    return patch.levels + np.maximum(rim - dark, 0) * rng.uniform(45, 65) - dark * rng.uniform(70, 90)


def _bulging_powder(rng: np.random.Generator, patch: Patch) -> Levels:
    """A cluster of bright grains under the coating, each with a small shadow."""
    grains, shadows = np.zeros(patch.levels.shape, np.uint8), np.zeros(patch.levels.shape, np.uint8)
    count = max(9, round(patch.width_px * patch.height_px / patch.scale**2 / rng.uniform(130, 190)))
    offset, margin = patch.px(1.8), patch.px(6)
    spread_x, spread_y = patch.width_px / 2 - margin, patch.height_px / 2 - margin
    angles, radii = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    for angle, radius in zip(angles, radii, strict=True):
        x = round(patch.width_px / 2 + np.cos(angle) * radius * spread_x)
        y = round(patch.height_px / 2 + np.sin(angle) * radius * spread_y)
        size = patch.px(rng.uniform(1.2, 2.6))
        cv2.circle(shadows, (x + offset, y + offset), size, 255, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(grains, (x, y), size, 255, cv2.FILLED, cv2.LINE_AA)
    bright, dark = grains / 255.0, shadows / 255.0
    return patch.levels + bright * rng.uniform(55, 75) - np.maximum(dark - bright, 0) * rng.uniform(35, 50)


def _coating_crack(rng: np.random.Generator, patch: Patch) -> Levels:
    """Thin dark cracks: a zigzag across the patch, with branches off it."""
    size = np.array([patch.width_px, patch.height_px], float)
    low, high = np.full(2, float(patch.px(3))), size - 1 - patch.px(3)
    steps = 9
    main = np.linspace((0.0, rng.uniform(0.2, 0.8)), (1.0, rng.uniform(0.2, 0.8)), steps) * size
    if patch.height_px > patch.width_px:
        main = np.linspace((rng.uniform(0.2, 0.8), 0.0), (rng.uniform(0.2, 0.8), 1.0), steps) * size
    main += rng.uniform(-0.09, 0.09, main.shape) * min(size)
    cracks = np.zeros(patch.levels.shape)
    paths = [main]
    for joint in rng.permutation(steps - 2)[: int(rng.integers(4, 7))] + 1:
        reach = rng.uniform(0.3, 0.5) * min(size)
        turn_x, turn_y = _light(rng)
        branch = main[joint] + np.linspace(0, reach, 5)[:, None] * (turn_x, turn_y)
        branch[1:] += rng.uniform(-0.05, 0.05, (4, 2)) * min(size)
        paths.append(branch)
    for path in paths:
        cracks = np.maximum(cracks, _line(patch, np.clip(path, low, high), patch.px(rng.uniform(1.0, 2.0))))
    return patch.levels - cracks * rng.uniform(60, 80)


def _dirty_spot(rng: np.random.Generator, patch: Patch) -> Levels:
    """A dark stain with soft edges."""
    stain = _blurred(_blob(rng, patch, share=0.80, roughness=0.30, corners=12, smooth=True), 0.07 * min(patch.width_px, patch.height_px))
    return patch.levels - stain * (rng.uniform(62, 84) + 10.0 * _mottle(rng, patch, cell=8.0))


def _blob(rng: np.random.Generator, patch: Patch, *, share: float, roughness: float, corners: int = 28, smooth: bool = False) -> Mask:
    """A filled closed outline of 255 on 0 around the middle, its radius ``share`` of the patch's half less up to ``roughness``.

    ``smooth`` makes neighbouring radii alike: bays and tongues instead of spikes.
    """
    angles = np.arange(corners) * (2 * np.pi / corners) + rng.uniform(0, np.pi)
    depth = rng.random(corners)
    if smooth:
        depth = (np.roll(depth, 2) + 2 * np.roll(depth, 1) + 3 * depth + 2 * np.roll(depth, -1) + np.roll(depth, -2)) / 9
    radii = share * (1 - roughness * depth)
    x = (patch.width_px - 1) / 2 * (1 + np.cos(angles) * radii)
    y = (patch.height_px - 1) / 2 * (1 + np.sin(angles) * radii)
    mask = np.zeros(patch.levels.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(np.stack([x, y], axis=1)).astype(np.int32)], 255)
    return mask


def _line(patch: Patch, points: Levels, thickness_px: int) -> Levels:
    """A smooth-edged open line through ``points`` (``[n, 2]``, x and y in pixels), 0..1."""
    mask = np.zeros(patch.levels.shape, np.uint8)
    cv2.polylines(mask, [np.rint(points).astype(np.int32)], isClosed=False, color=255, thickness=thickness_px, lineType=cv2.LINE_AA)
    return mask / 255.0


def _blurred(mask: Mask, sigma_px: float) -> Levels:
    """The mask as 0..1 with soft edges (OpenCV's 8-bit Gaussian is exact fixed-point arithmetic)."""
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(sigma_px, 0.3), borderType=cv2.BORDER_CONSTANT), np.float64) / 255.0


def _mottle(rng: np.random.Generator, patch: Patch, *, cell: float) -> Levels:
    """Smooth noise in -1..1 with grains of ``cell`` nominal pixels."""
    rows, columns = (max(2, round(size / (cell * patch.scale))) for size in (patch.height_px, patch.width_px))
    fine = stretched(noise(rng, rows, columns), patch.width_px, patch.height_px)
    smooth = np.asarray(cv2.GaussianBlur(fine, (0, 0), max(0.45 * cell * patch.scale, 0.3)), np.uint8)
    return scaled_noise(smooth, 128) / 128.0


def _light(rng: np.random.Generator) -> tuple[float, float]:
    """A random direction, as a unit vector (x, y)."""
    angle = float(rng.uniform(0, 2 * np.pi))
    return float(np.cos(angle)), float(np.sin(angle))


def _shifted(levels: Levels, right_px: float, down_px: float) -> Levels:
    """``levels`` moved by whole pixels; the masks that are moved end in zeros, so that wrapping round brings nothing in."""
    return np.roll(levels, (round(down_px), round(right_px)), axis=(0, 1))


# Shortest and longest length of the patch in nominal pixels, and the least and largest share of it that is the breadth.
_EXTENTS: dict[str, tuple[float, float, float, float]] = {
    "dent": (60, 110, 0.7, 1.0),
    "non_conducting": (110, 240, 0.28, 0.55),
    "scratch": (60, 170, 0.4, 1.0),
    "orange_peel": (110, 200, 0.6, 1.0),
    "leakage": (60, 130, 0.5, 1.0),
    "bump": (30, 56, 0.6, 1.0),
    "pit": (20, 36, 1.0, 1.0),
    "bulging_powder": (60, 120, 0.6, 1.0),
    "coating_crack": (80, 170, 0.6, 1.0),
    "dirty_spot": (44, 100, 0.6, 1.0),
}
_DRAWINGS: dict[str, Draw] = {
    "dent": _dent,
    "non_conducting": _non_conducting,
    "scratch": _scratch,
    "orange_peel": _orange_peel,
    "leakage": _leakage,
    "bump": _bump,
    "pit": _pit,
    "bulging_powder": _bulging_powder,
    "coating_crack": _coating_crack,
    "dirty_spot": _dirty_spot,
}
