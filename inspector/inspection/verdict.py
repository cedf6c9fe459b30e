"""From what a product's networks say to its defects and one outcome. Pure."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, assert_never

from inspector.contract.records import Box, Defect, HeatMap, Outcome
from inspector.inspection.crops import surroundings
from inspector.inspection.rules import ClassificationRules, DetectionRules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.config.product import Product
    from inspector.engine.detector import Detections
    from inspector.inspection.crops import Crop
    from inspector.inspection.findings import Findings, ProductFacts
    from inspector.inspection.rules import Finding


class ProductRules:
    """One product's rules for its networks' findings.

    Args:
        product: detector's and classifier's rules.
        networks: what decides; with a classifier where the product has one.
    """

    def __init__(self, product: Product, networks: ProductFacts) -> None:
        self._px_per_mm = product.px_per_mm
        self._detector = DetectionRules(product.detector, networks.detector)
        rules, network = product.classifier, networks.classifier
        self._classifier = None if rules is None or network is None else ClassificationRules(rules, network)

    def crops(self, found: Detections, width_px: int, height_px: int) -> list[Crop]:
        """What the classifier is to be shown of an image of that size: detections that count by the detector's rules, best first."""
        if self._classifier is None or not self._classifier.rules.sees_detections:
            return []
        rules = self._classifier.rules
        reaching = [(index, one.box_px) for index, one in enumerate(self._detector.findings(found)) if one.reaches]
        return [surroundings(index, box, rules.crop_margin, width_px, height_px) for index, box in reaching[: rules.max_crops]]

    def apply(self, found: Findings, camera: str) -> tuple[Outcome, tuple[Defect, ...]]:
        """The outcome, and everything that was found as a defect, counted or not: the detector's in its order, then the classifier's."""
        detected = self._detector.findings(found.detections)
        classified = [] if self._classifier is None else [one for look in found.looks for one in self._classifier.findings(look)]
        counted = self._counted(found, detected, classified)
        defects = tuple(self._defect(one, camera, counts=counts) for one, counts in zip(chain(detected, classified), counted, strict=True))
        return outcome(defects), defects

    def heat(self, found: Findings) -> tuple[HeatMap, ...]:
        """Heat maps of all that the classifier did not call good, on the camera's image."""
        if self._classifier is None:
            return ()
        network = self._classifier.network
        return tuple(
            HeatMap(one.said.name, one.said.score, network.name, one.said.heat, one.on_image(one.said.heat_box_px))
            for one in found.looks
            if one.said.name != network.good
        )

    def _counted(self, found: Findings, detected: list[Finding], classified: list[Finding]) -> list[bool]:
        """Whether each of the detector's findings counts, then each of the classifier's."""
        alone = [one.reaches for one in detected]
        classifier = self._classifier
        if classifier is None:
            return alone
        match classifier.rules.verdict:
            case "either":
                return alone + [one.reaches for one in classified]
            case "agree":
                agreed = any(alone) and (any(one.reaches for one in classified) or _unseen(classifier, found, alone))
                return [agreed and one.reaches for one in chain(detected, classified)]
            case "confirm":
                confirmed = [one.reaches and _confirmed(classifier, found, index, one.name) for index, one in enumerate(detected)]
                return confirmed + [False] * len(classified)
            case rule:
                assert_never(rule)

    def _defect(self, one: Finding, camera: str, *, counts: bool) -> Defect:
        box, scale = one.box_px, self._px_per_mm
        in_mm = None if scale is None else Box(box.x1 / scale, box.y1 / scale, box.x2 / scale, box.y2 / scale)
        return Defect(
            name=one.name,
            score=one.score,
            box_px=box,
            counted=counts,
            source=one.source,
            camera=camera,
            box_mm=in_mm,
            area_mm2=None if in_mm is None else (in_mm.x2 - in_mm.x1) * (in_mm.y2 - in_mm.y1),
        )


def outcome(defects: Iterable[Defect]) -> Outcome:
    """REJECT if any defect counts."""
    return Outcome.REJECT if any(defect.counted for defect in defects) else Outcome.PASS


def _unseen(classifier: ClassificationRules, found: Findings, reaching: list[bool]) -> bool:
    """Whether a detection that counts was not shown to the classifier, which was to see them: there it cannot have disagreed."""
    shown = {look.detection for look in found.looks}
    return classifier.rules.sees_detections and any(one and index not in shown for index, one in enumerate(reaching))


def _confirmed(classifier: ClassificationRules, found: Findings, index: int, name: str) -> bool:
    """Whether the classifier calls a detection a defect, or was not shown it."""
    place = index if classifier.rules.sees_detections else None
    said = next((look.said for look in found.looks if look.detection == place), None)
    return said is None or classifier.confirms(name, said)
