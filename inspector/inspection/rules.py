"""From raw detections to defects that count: thresholds, sizes and regions of the product recipe. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.records import Box, Defect, Outcome

if TYPE_CHECKING:
    from inspector.config.product import DetectorRules, Product
    from inspector.engine.detector import Detections


class Rules:
    """What counts as a defect on one product."""

    def __init__(self, product: Product, source: str) -> None:
        """``source``: the network whose detections are judged."""
        self._source = source
        self._rules: DetectorRules = product.detector
        self._px_per_mm = product.px_per_mm

    def judge(self, detections: Detections, camera: str) -> tuple[Outcome, tuple[Defect, ...]]:
        """REJECT if any detection counts, else PASS; and every detection as a defect, counted or not, with its raw score."""
        boxes, scores = detections.boxes_px.tolist(), detections.scores.tolist()
        defects = tuple(self._defect(name, score, box, camera) for name, score, box in zip(detections.names, scores, boxes, strict=True))
        return (Outcome.REJECT if any(defect.counted for defect in defects) else Outcome.PASS), defects

    def _defect(self, name: str, score: float, corners: list[float], camera: str) -> Defect:
        x1, y1, x2, y2 = corners
        scale = self._px_per_mm
        return Defect(
            name=name,
            score=score,
            box_px=Box(x1, y1, x2, y2),
            counted=self._counts(name, score, x1, y1, x2, y2),
            source=self._source,
            camera=camera,
            box_mm=None if scale is None else Box(x1 / scale, y1 / scale, x2 / scale, y2 / scale),
            area_mm2=None if scale is None else (x2 - x1) * (y2 - y1) / scale**2,
        )

    def _counts(self, name: str, score: float, x1: float, y1: float, x2: float, y2: float) -> bool:
        rules = self._rules
        rule = rules.classes.get(name)
        threshold, min_side_px = rules.threshold, rules.min_side_px
        if rule is not None:
            if rule.ignore:
                return False
            threshold = threshold if rule.threshold is None else rule.threshold
            min_side_px = min_side_px if rule.min_side_px is None else rule.min_side_px
        if score < threshold or max(x2 - x1, y2 - y1) < min_side_px:
            return False
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        return not rules.regions or any(region.x1_px <= x <= region.x2_px and region.y1_px <= y <= region.y2_px for region in rules.regions)
