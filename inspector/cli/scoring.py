"""Counted defects against planted ones: precision and recall of a demo run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inspector.contract.records import Defect
    from inspector.surfaces.scene import PlantedDefect

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """How the counted defects of many parts agree with the planted ones."""

    matched: int
    counted: int
    planted: int

    @property
    def precision(self) -> float | None:
        """Matched per counted; None: nothing was counted."""
        return self.matched / self.counted if self.counted else None

    @property
    def recall(self) -> float | None:
        """Matched per planted; None: nothing was planted."""
        return self.matched / self.planted if self.planted else None


@dataclass(frozen=True, slots=True)
class FoundBy:
    """What one network found."""

    name: str
    parts: int
    """Parts on which something of its own counted."""
    alone: int
    """Of these, parts on which nothing of any other network counted."""
    defective: int | None
    """Of ``parts``, those whose image has a planted defect; None: nothing is known of the images."""
    clean: int | None
    """Of ``parts``, those whose image has none."""


def found_by(networks: Sequence[str], parts: Sequence[tuple[Sequence[Defect], bool | None]]) -> tuple[FoundBy, ...]:
    """What each network found; ``parts`` are the defects of each inspected part, and whether its image has a planted one (None: not known)."""
    counted = [({defect.source for defect in defects if defect.counted}, planted) for defects, planted in parts]
    known = all(planted is not None for _, planted in counted)
    rows = []
    for name in networks:
        own = [(sources, planted) for sources, planted in counted if name in sources]
        truth = (sum(bool(planted) for _, planted in own), sum(not planted for _, planted in own)) if known else (None, None)
        rows.append(FoundBy(name, len(own), sum(sources == {name} for sources, _ in own), *truth))
    return tuple(rows)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def score_parts(parts: Iterable[tuple[Sequence[Defect], Sequence[PlantedDefect]]]) -> Score:
    """Match each part's counted defects to its planted ones: same class, IoU at least 0.5, best scores first, each planted defect once."""
    matched = counted = planted = 0
    for defects, truth in parts:
        found = sorted((defect for defect in defects if defect.counted), key=lambda defect: -defect.score)
        open_truth = list(truth)
        for defect in found:
            box = (defect.box_px.x1, defect.box_px.y1, defect.box_px.x2, defect.box_px.y2)
            fits = [(iou(box, other.box_px), index) for index, other in enumerate(open_truth) if other.kind == defect.name]
            best = max(fits, default=(0.0, -1))
            if best[0] >= MATCH_IOU:
                open_truth.pop(best[1])
                matched += 1
        counted += len(found)
        planted += len(truth)
    return Score(matched, counted, planted)
