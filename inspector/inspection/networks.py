"""A product's networks as one: they look at an image beside each other, and what fails in one of them fails the image."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar

import msgspec
import numpy as np

from inspector.contract.errors import EngineError
from inspector.contract.records import Box
from inspector.engine import opening
from inspector.engine.base import EngineLostError
from inspector.inspection.findings import Findings, Look, NetworkFacts, ProductFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from inspector.config.classifier import MapKind
    from inspector.config.product import Product
    from inspector.engine.base import Ticket
    from inspector.engine.classifier import Classification, Classifier
    from inspector.engine.detector import Detections, Detector
    from inspector.engine.network import PictureNetwork
    from inspector.inspection.crops import Crop

Result = TypeVar("Result")
Sight = Literal["image", "detections", "both"]


class CropChoice(Protocol):
    """Which parts of an image the classifier is shown, once the detector has spoken."""

    def crops(self, found: Detections, width_px: int, height_px: int) -> list[Crop]:
        """Crops inside an image of that size, in the order in which they are shown."""


class Shown(msgspec.Struct, frozen=True, eq=False):
    """An image that the networks have."""

    picture: NDArray[np.uint8]
    detector: Ticket
    classifier: Ticket | None
    """None: the classifier was not given the whole image."""


class Networks:
    """A detector, and a classifier or none. Used by one thread at a time.

    Both are started with an image and compute at the same time, each in its own lane. Crops follow when the detections are known: one at a time,
    as the next image may have the classifier's other place.

    Args:
        detector: says what is where.
        classifier: says what the image, or a part of it, shows.
        on: what the classifier is shown.
    """

    def __init__(self, detector: Detector, classifier: Classifier | None = None, on: Sight = "image") -> None:
        self._detector, self._classifier = detector, classifier
        self._on = on

    @property
    def all(self) -> tuple[Detector | Classifier, ...]:
        """The networks, the detector first."""
        return (self._detector,) if self._classifier is None else (self._detector, self._classifier)

    @property
    def facts(self) -> ProductFacts:
        """Who they are."""
        detector, classifier = self._detector, self._classifier
        second = None if classifier is None else NetworkFacts(classifier.name, classifier.classes, classifier.good)
        return ProductFacts(NetworkFacts(detector.name, detector.classes), second)

    @property
    def hashes(self) -> tuple[str, ...]:
        """The engines' hashes, the detector's first."""
        return tuple(one.hash for one in self.all)

    @property
    def budget_ms(self) -> float:
        """Longest time between two signs of life: all that engines may have to compute until the next result.

        That is an image in both networks; with crops and whole images one more, which lies before a crop in the classifier's lane.
        """
        looks = 2 if self._on == "both" else 1
        return self._detector.budget_ms + (0.0 if self._classifier is None else looks * self._classifier.budget_ms)

    @property
    def in_flight(self) -> int:
        """Images that may be submitted before the first is collected; at least 2."""
        return min(one.in_flight for one in self.all)

    def submit(self, picture: NDArray[np.uint8]) -> Shown:
        """Start an image: uint8 [H,W] or [H,W,3]. It is not changed until it is collected.

        Raises:
            EngineError: a network does not take it; nothing of it is under way. :class:`EngineLostError`: an engine failed for good.
        """
        ticket = _submit(self._detector, picture)
        if self._classifier is None or self._on == "detections":
            return Shown(picture, ticket, None)
        try:
            return Shown(picture, ticket, _submit(self._classifier, picture))
        except EngineError:
            _discard(self._detector, ticket)
            raise

    def collect(self, shown: Shown, rules: CropChoice, go_on: Callable[[], bool]) -> Findings:
        """Wait for an image, and show its crops.

        Args:
            shown: what ``submit`` returned.
            rules: choose the crops.
            go_on: called before each crop, a sign of life; False: it is too late, no further crop is shown.

        Raises:
            EngineError: a network failed, and nothing of the image is under way. :class:`EngineLostError`: an engine failed for good.
        """
        try:
            detections = _collect(self._detector, shown.detector)
        except EngineError:
            if self._classifier is not None and shown.classifier is not None:
                _discard(self._classifier, shown.classifier)
            raise
        looks: list[Look] = []
        if self._classifier is not None:
            height, width = shown.picture.shape[:2]
            if shown.classifier is not None:
                looks.append(Look(_collect(self._classifier, shown.classifier), Box(0.0, 0.0, float(width), float(height))))
            if self._on != "image":
                for crop in rules.crops(detections, width, height):
                    if not go_on():
                        break
                    looks.append(Look(self._look(self._classifier, shown.picture, crop), crop.box_px, crop.detection))
        return Findings(
            detections,
            tuple(looks),
            preprocess_ms=detections.preprocess_ms + sum(one.said.preprocess_ms for one in looks),
            engine_ms=(time.monotonic_ns() - shown.detector.submitted_ns) / 1e6,
        )

    def warm_up(self) -> float:
        """Run a few images of noise through each; milliseconds of one more.

        Raises:
            EngineError: an engine does not work.
        """
        return sum(one.warm_up() for one in self.all)

    def close(self) -> None:
        """Close all engines. Idempotent."""
        try:
            self._detector.close()
        finally:
            if self._classifier is not None:
                self._classifier.close()

    def __enter__(self) -> Self:
        """The networks themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    @staticmethod
    def _look(classifier: Classifier, picture: NDArray[np.uint8], crop: Crop) -> Classification:
        return _collect(classifier, _submit(classifier, picture[crop.top : crop.bottom, crop.left : crop.right]))


def open_networks(
    product: Product,
    open_detector: Callable[[Path], Detector] = opening.open_detector,
    open_classifier: Callable[[Path, MapKind | None], Classifier] = opening.open_classifier,
) -> Networks:
    """The networks of a product.

    Args:
        product: names the engines.
        open_detector: opens a manifest; another one for tests and measurements.
        open_classifier: the same, with the heat map that it is to give out.

    Raises:
        EngineError: an engine does not fit this machine, is damaged, or is of the wrong kind; none is left open.
    """
    detector = open_detector(product.detector.engine)
    if product.classifier is None:
        return Networks(detector)
    try:
        classifier = open_classifier(product.classifier.engine, product.classifier.map)
    except BaseException:
        detector.close()
        raise
    return Networks(detector, classifier, product.classifier.on)


def _submit(network: PictureNetwork[Result], picture: NDArray[np.uint8]) -> Ticket:
    with _named(network):
        return network.submit(picture)


def _collect(network: PictureNetwork[Result], ticket: Ticket) -> Result:
    with _named(network):
        return network.collect(ticket)


def _discard(network: PictureNetwork[Result], ticket: Ticket) -> None:
    """Wait for an image that has failed already: its place is free again. Only a lost engine is worse than what is known."""
    try:
        network.collect(ticket)
    except EngineLostError:
        raise
    except EngineError:
        return


@contextlib.contextmanager
def _named(network: PictureNetwork[Result]) -> Iterator[None]:
    """A failure is told with the network that failed; an engine that is lost names itself."""
    try:
        yield
    except EngineLostError:
        raise
    except EngineError as error:
        raise EngineError(f"{network.name}: {error}") from error
