"""A detector: camera images in, detections in the image's own pixels out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.preprocess import boxes_to_image, letterbox

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from inspector.engine.base import Engine, Ticket
    from inspector.engine.preprocess import LetterboxGeometry


class Detections(msgspec.Struct, frozen=True, eq=False):
    """What one network found in one image, in falling score order. The arrays are read-only and belong to this object."""

    boxes_px: NDArray[np.float32]
    """[n, 4] float32: x1, y1, x2, y2 in pixels of the image that was submitted, inside its borders."""
    scores: NDArray[np.float32]
    """[n] float32, raw scores above 0, at most 1."""
    labels: NDArray[np.int32]
    """[n] int32, index into ``classes``."""
    classes: tuple[str, ...]
    """Names of the network's defect classes."""
    preprocess_ms: float
    """Time that resizing and letterboxing took."""
    engine_ms: float
    """Time from submitting to having the outputs."""

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of each detection."""
        return tuple(self.classes[label] for label in self.labels.tolist())


@dataclass(frozen=True, slots=True)
class _Pending:
    """What is kept of a submitted image until it is collected."""

    canvas: NDArray[np.uint8]
    geometry: LetterboxGeometry
    height_px: int
    width_px: int
    preprocess_ms: float


class Detector:
    """Preprocessing, an engine, and the way back to the image's pixels. Used by one thread at a time; a context manager that closes its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._input = engine.manifest.input
        recipe = engine.manifest.recipe
        self._name, self._classes = recipe.name, recipe.classes
        self._pending: dict[int, _Pending] = {}

    @property
    def name(self) -> str:
        """The network's name, as its recipe says: the source of a defect."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """Defect classes, in the order of ``Detections.labels``."""
        return self._classes

    @property
    def budget_ms(self) -> float:
        """Time an image may take."""
        return self._engine.budget_ms

    @property
    def hash(self) -> str:
        """The engine's hash."""
        return self._engine.hash

    @property
    def in_flight(self) -> int:
        """Images that may be submitted before the first is collected; at least 2."""
        return self._engine.in_flight

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        """Letterbox an image and start it. The image may be reused as soon as it was collected.

        Args:
            image: uint8 [H, W] grey or [H, W, 3] RGB, any size.

        Raises:
            EngineError: as :meth:`Engine.submit`; :class:`EngineLostError` when the engine failed for good.
        """
        start = time.monotonic_ns()
        _, channels, height, width = self._input.shape
        try:
            canvas, geometry = letterbox(image, height, width, channels)
        except ValueError as error:
            raise EngineError(f"the detector was given {error}") from error
        preprocess_ms = (time.monotonic_ns() - start) / 1e6
        ticket = self._engine.submit(canvas)
        self._pending[ticket.number] = _Pending(canvas, geometry, image.shape[0], image.shape[1], preprocess_ms)
        return ticket

    def collect(self, ticket: Ticket) -> Detections:
        """The detections in a submitted image.

        Raises:
            EngineError: the engine failed on this image, or its suppression did not converge: there is no result.
                :class:`EngineLostError` when the engine failed for good.
        """
        pending = self._pending.pop(ticket.number, None)
        if pending is None:
            raise EngineError(f"ticket {ticket.number} is not in flight: it was collected before, or belongs to another engine")
        outputs = self._engine.collect(ticket)
        engine_ms = (time.monotonic_ns() - ticket.submitted_ns) / 1e6
        if not bool(np.all(outputs["converged"])):
            raise EngineError("non-maximum suppression did not converge on this image: raise network.nms_steps in the recipe and compile again")
        scores = outputs["scores"][0].astype(np.float32)
        used = np.flatnonzero(scores > 0)
        used = used[np.argsort(-scores[used], kind="stable")]
        labels = outputs["classes"][0].astype(np.int32)[used]
        boxes = boxes_to_image(outputs["boxes"][0].astype(np.float32)[used], pending.geometry, pending.height_px, pending.width_px)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()) or bool(np.any((labels < 0) | (labels >= len(self._classes)))):
            raise EngineError("the engine gave numbers that are no detections (not finite, or a class that does not exist): compile it again")
        arrays = (boxes, scores[used], labels)
        for array in arrays:
            array.flags.writeable = False
        return Detections(*arrays, self._classes, pending.preprocess_ms, engine_ms)

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Submit one image and wait for it.

        Raises:
            EngineError: as :meth:`submit` and :meth:`collect`.
        """
        return self.collect(self.submit(image))

    def warm_up(self, images: int = 3) -> float:
        """Run a few images of noise, so that the first part is not slower than the others; milliseconds of the last one.

        Raises:
            EngineError: the engine does not work.
        """
        _, channels, height, width = self._input.shape
        noise = np.random.default_rng(0).integers(0, 256, (channels, height, width), dtype=np.uint8)
        last_ms = 0.0
        for _ in range(images):
            start = time.monotonic_ns()
            self._engine.collect(self._engine.submit(noise))
            last_ms = (time.monotonic_ns() - start) / 1e6
        return last_ms

    def close(self) -> None:
        """Close the engine. Idempotent."""
        self._pending.clear()
        self._engine.close()

    def __enter__(self) -> Self:
        """The detector itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()
