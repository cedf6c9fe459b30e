"""What reaches the product's thresholds, network by network. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inspector.contract.records import Box

if TYPE_CHECKING:
    from inspector.config.product import ClassifierRules, DetectorRules
    from inspector.engine.classifier import Classification
    from inspector.engine.detector import Detections
    from inspector.inspection.findings import Look, NetworkFacts

KEPT_SCORE = 0.05
"""Scores of classes under it are not kept, unless they count: raw scores are kept so that other thresholds can be tried on old results, and nobody
tries one so low. It is what detectors leave out, too (``score_floor`` of their recipes)."""


class Finding(msgspec.Struct, frozen=True):
    """A defect in the eyes of one network; whether it counts is the verdict's matter."""

    name: str
    score: float
    box_px: Box
    """In pixels of the camera's image."""
    reaches: bool
    """It reaches its class's threshold, and what else the network's rules ask of it."""
    source: str


class DetectionRules:
    """The product's rules for its detector."""

    def __init__(self, rules: DetectorRules, network: NetworkFacts) -> None:
        self._rules, self._network = rules, network

    def findings(self, found: Detections) -> list[Finding]:
        """Every detection, in the detector's order."""
        if not len(found):
            return []
        columns = zip(found.names, found.scores.tolist(), found.boxes_px.tolist(), strict=True)
        return [self._finding(name, score, Box(*box)) for name, score, box in columns]

    def _finding(self, name: str, score: float, box: Box) -> Finding:
        return Finding(name, score, box, self._reaches(name, score, box), self._network.name)

    def _reaches(self, name: str, score: float, box: Box) -> bool:
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


class ClassificationRules:
    """The product's rules for its classifier."""

    def __init__(self, rules: ClassifierRules, network: NetworkFacts) -> None:
        self.rules, self.network = rules, network

    def findings(self, look: Look) -> list[Finding]:
        """Every class but the good one whose score is kept or counts, best first.

        The predicted class lies where its heat map has its largest region; of others nothing is known but what was shown.
        """
        said = look.said
        scores = [(name, score) for name, score in zip(said.classes, said.scores.tolist(), strict=True) if name != self.network.good]
        found = []
        for name, score in sorted(scores, key=lambda item: -item[1]):
            reaches = not self._ignores(name) and score >= self._threshold(name)
            if score < KEPT_SCORE and not reaches:
                continue
            points = name == said.name and said.spots.regions
            box = look.on_image(said.spots.regions[0].box_px) if points else look.area_px
            found.append(Finding(name, score, box, reaches, self.network.name))
        return found

    def confirms(self, name: str, said: Classification) -> bool:
        """Whether the classifier, shown a detection of class ``name``, agrees that it is a defect.

        It is not asked about classes that it does not know or whose word of it is ignored: those are confirmed.
        """
        scores = dict(zip(said.classes, said.scores.tolist(), strict=True))
        if self._ignores(name):
            return True
        if self.network.good is not None:
            return bool(1 - scores[self.network.good] >= self._threshold(name))
        return name not in scores or bool(scores[name] >= self._threshold(name))

    def _ignores(self, name: str) -> bool:
        rule = self.rules.classes.get(name)
        return rule is not None and rule.ignore

    def _threshold(self, name: str) -> float:
        rule = self.rules.classes.get(name)
        return rule.threshold if rule is not None and rule.threshold is not None else self.rules.threshold
