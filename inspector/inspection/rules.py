"""The product's rules: which detections count as defects, and the outcome. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.records import Box, Defect, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.config.product import DetectorRules, Product
    from inspector.engine.detector import Detections


class DefectRules:
    """One product's rules for one detector's findings."""

    def __init__(self, product: Product, source: str) -> None:
        """``source``: the network's name; it stands on each defect."""
        self._rules: DetectorRules = product.detector
        self._px_per_mm = product.px_per_mm
        self._source = source

    def apply(self, found: Detections, camera: str) -> tuple[Outcome, tuple[Defect, ...]]:
        """The outcome, and every detection as a defect, counted or not, in the detector's order."""
        if not len(found):
            return Outcome.PASS, ()
        columns = zip(found.names, found.scores.tolist(), found.boxes_px.tolist(), strict=True)
        defects = tuple(self._defect(name, score, Box(*box), camera) for name, score, box in columns)
        return outcome(defects), defects

    def counts(self, name: str, score: float, box: Box) -> bool:
        """Whether a detection reaches its class's threshold and size, and lies where detections count."""
        rule = self._rules.classes.get(name)
        if rule is not None and rule.ignore:
            return False
        threshold = rule.threshold if rule is not None and rule.threshold is not None else self._rules.threshold
        min_side = rule.min_side_px if rule is not None and rule.min_side_px is not None else self._rules.min_side_px
        if score < threshold or max(box.x2 - box.x1, box.y2 - box.y1) < min_side:
            return False
        x, y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        regions = self._rules.regions
        return not regions or any(one.x1_px <= x <= one.x2_px and one.y1_px <= y <= one.y2_px for one in regions)

    def _defect(self, name: str, score: float, box: Box, camera: str) -> Defect:
        scale = self._px_per_mm
        in_mm = None if scale is None else Box(box.x1 / scale, box.y1 / scale, box.x2 / scale, box.y2 / scale)
        return Defect(
            name=name,
            score=score,
            box_px=box,
            counted=self.counts(name, score, box),
            source=self._source,
            camera=camera,
            box_mm=in_mm,
            area_mm2=None if in_mm is None else (in_mm.x2 - in_mm.x1) * (in_mm.y2 - in_mm.y1),
        )


def outcome(defects: Iterable[Defect]) -> Outcome:
    """REJECT if any defect counts."""
    return Outcome.REJECT if any(defect.counted for defect in defects) else Outcome.PASS
