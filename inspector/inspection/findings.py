"""What a product's networks are, and what they said of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inspector.contract.records import Box

if TYPE_CHECKING:
    from inspector.engine.classifier import Classification
    from inspector.engine.detector import Detections


class NetworkFacts(msgspec.Struct, frozen=True):
    """What the rules need to know of a network."""

    name: str
    """The source of its defects."""
    classes: tuple[str, ...]
    """In the order of its labels."""
    good: str | None = None
    """A classifier's class of images without a defect; None: every class is a defect."""

    @property
    def defects(self) -> tuple[str, ...]:
        """Its classes without the good one."""
        return tuple(name for name in self.classes if name != self.good)


class ProductFacts(msgspec.Struct, frozen=True):
    """The networks of a product."""

    detector: NetworkFacts
    classifier: NetworkFacts | None = None
    """None: the detector alone decides."""

    @property
    def defects(self) -> tuple[str, ...]:
        """Classes of all defects that can be named, each once, the detector's first."""
        return tuple(dict.fromkeys(self.detector.defects + (self.classifier.defects if self.classifier is not None else ())))


class Look(msgspec.Struct, frozen=True, eq=False):
    """The classifier's word on an image, or on a part of it."""

    said: Classification
    area_px: Box
    """What it was shown, in pixels of the camera's image; whole numbers."""
    detection: int | None = None
    """Index of the detection whose surroundings they are; None: it is the whole image."""

    def on_image(self, box: Box) -> Box:
        """A box in pixels of what was shown, as one in pixels of the camera's image."""
        x, y = self.area_px.x1, self.area_px.y1
        return Box(box.x1 + x, box.y1 + y, box.x2 + x, box.y2 + y)


class Findings(msgspec.Struct, frozen=True, eq=False):
    """What all networks of a product said of one image."""

    detections: Detections
    looks: tuple[Look, ...]
    """The classifier's, the whole image first, then detections, best first; none where there is no classifier."""
    preprocess_ms: float
    """Time that resizing and letterboxing took, summed over networks and crops. All but the first is done while an engine computes."""
    engine_ms: float
    """Time from submitting to the first network to having the last result."""
