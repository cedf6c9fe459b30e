"""Numbered surfaces with planted defects: picture ``index`` depends on the seed and the index alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inspector.surfaces.defects import DEFECT_KINDS, Patch, draw_defect, patch_extent
from inspector.surfaces.textures import render_texture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CHANGE_LEVELS = 8
"""A pixel belongs to a defect where the defect changed it by more than this many grey levels."""

_SMALLEST_PX = 48
_SMALLEST_BOX_PX = 6
_GAP_PX = 2
_ATTEMPTS = 30
_NOMINAL_WIDTH_PX = 640
_NOMINAL_HEIGHT_PX = 480
_TEXTURE_STREAM = 0
_DEFECT_STREAM = 1


@dataclass(frozen=True, slots=True)
class PlantedDefect:
    """A defect that was drawn, and so is known exactly."""

    kind: str
    """One of ``DEFECT_KINDS``."""
    box_px: tuple[int, int, int, int]
    """x1, y1, x2, y2: the tightest box around the pixels changed by more than ``CHANGE_LEVELS``; x2 and y2 are one past the last."""
    contrast: int
    """Largest change of a pixel, in grey levels."""
    area_px: int
    """Pixels changed by more than ``CHANGE_LEVELS``."""


@dataclass(frozen=True, slots=True)
class Surface:
    """One picture and what is planted on it."""

    image: NDArray[np.uint8]
    """Grey levels, ``[height, width]``."""
    defects: tuple[PlantedDefect, ...]
    """Empty on a clean surface. No two boxes touch."""


class SurfaceGenerator:
    """Generated surfaces. Holds no state but its settings: any index may be rendered, in any order, on any thread.

    Structures are drawn in proportion to the picture: 1280x960 shows the same kind of surface as 640x480, twice as large.

    Args:
        width_px: columns, at least 48.
        height_px: rows, at least 48.
        seed: not negative; other seeds give other surfaces.
        defect_rate: share of the pictures that carry at least one defect, 0..1.
        max_defects: most defects on one picture; one is the most likely number.
        kinds: the kinds to plant, all equally likely.
        one_kind: all defects of a picture are of one kind, so that the picture as a whole has one class.

    Raises:
        ValueError: an argument is out of its range, or ``kinds`` is empty or names a kind that is not drawn.
    """

    def __init__(
        self,
        width_px: int,
        height_px: int,
        seed: int,
        defect_rate: float = 0.3,
        *,
        max_defects: int = 3,
        kinds: Sequence[str] = DEFECT_KINDS,
        one_kind: bool = False,
    ) -> None:
        if min(width_px, height_px) < _SMALLEST_PX:
            raise ValueError(f"a surface of {width_px}x{height_px} px is too small: at least {_SMALLEST_PX} px a side")
        if seed < 0:
            raise ValueError(f"seed = {seed}: must not be negative")
        if not 0 <= defect_rate <= 1:
            raise ValueError(f"defect_rate = {defect_rate}: must be between 0 and 1")
        if max_defects < 1:
            raise ValueError(f"max_defects = {max_defects}: must be at least 1")
        unknown = sorted(set(kinds) - set(DEFECT_KINDS))
        if unknown or not kinds:
            raise ValueError(f"kinds {unknown or '()'} cannot be drawn: choose from {', '.join(DEFECT_KINDS)}")
        self.width_px = width_px
        self.height_px = height_px
        self.seed = seed
        self.defect_rate = defect_rate
        self.max_defects = max_defects
        self.kinds = tuple(kinds)
        self.one_kind = one_kind
        self._scale = min(max(min(width_px / _NOMINAL_WIDTH_PX, height_px / _NOMINAL_HEIGHT_PX), 0.4), 4.0)

    def render(self, index: int) -> Surface:
        """Picture number ``index`` (0, 1, ...), always the same for the same settings."""
        texture = render_texture(self._rng(index, _TEXTURE_STREAM), self.width_px, self.height_px, self._scale)
        rng = self._rng(index, _DEFECT_STREAM)
        image = texture.image
        planted: list[PlantedDefect] = []
        if rng.random() < self.defect_rate:
            wanted = self._number_of_defects(rng)
            taken: list[tuple[int, int, int, int]] = []
            kinds = (self._kind(rng, self.kinds),) if self.one_kind else self.kinds
            for _ in range(_ATTEMPTS):
                if len(planted) == wanted:
                    break
                defect = self._plant(rng, self._kind(rng, kinds), image, taken, along_x=texture.along_x)
                if defect is not None:
                    planted.append(defect)
        return Surface(image, tuple(planted))

    def render_clean(self, index: int) -> NDArray[np.uint8]:
        """Picture number ``index`` as it was before its defects; uint8 ``[height, width]``."""
        return render_texture(self._rng(index, _TEXTURE_STREAM), self.width_px, self.height_px, self._scale).image

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        if index < 0:
            raise ValueError(f"index = {index}: must not be negative")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(index, stream))))

    @staticmethod
    def _kind(rng: np.random.Generator, kinds: tuple[str, ...]) -> str:
        return kinds[int(rng.integers(len(kinds)))]

    def _number_of_defects(self, rng: np.random.Generator) -> int:
        """1..max_defects; each further defect is half as likely as the one before."""
        number = 1
        while number < self.max_defects and rng.random() < 0.5:
            number += 1
        return number

    def _plant(
        self,
        rng: np.random.Generator,
        kind: str,
        image: NDArray[np.uint8],
        taken: list[tuple[int, int, int, int]],
        *,
        along_x: bool,
    ) -> PlantedDefect | None:
        """Draws into ``image`` and notes the place in ``taken``; None where there is no room or nothing can be seen."""
        nominal_width, nominal_height = patch_extent(rng, kind, along_x=along_x)
        width_px = min(round(nominal_width * self._scale), self.width_px)
        height_px = min(round(nominal_height * self._scale), self.height_px)
        left = int(rng.integers(0, self.width_px - width_px + 1))
        top = int(rng.integers(0, self.height_px - height_px + 1))
        right, bottom = left + width_px, top + height_px
        if any(left < x2 + _GAP_PX and right + _GAP_PX > x1 and top < y2 + _GAP_PX and bottom + _GAP_PX > y1 for x1, y1, x2, y2 in taken):
            return None

        before = image[top:bottom, left:right]
        levels = draw_defect(rng, kind, Patch(before.astype(np.float64), along_x, self._scale))
        after = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        change = np.abs(after.astype(np.int16) - before)
        rows, columns = np.nonzero(change > CHANGE_LEVELS)
        if rows.size == 0:
            return None
        x1, y1, x2, y2 = (int(edge) for edge in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        if min(x2 - x1, y2 - y1) < _SMALLEST_BOX_PX:
            return None
        image[top:bottom, left:right] = after
        taken.append((left, top, right, bottom))
        return PlantedDefect(kind, (left + x1, top + y1, left + x2, top + y2), int(change.max()), int(rows.size))
