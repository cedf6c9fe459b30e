"""What a detector and a classifier do alike: preprocessing, an engine, and the way back to the picture."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.preprocess import letterbox

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from inspector.engine.base import Array, Engine, Ticket
    from inspector.engine.preprocess import LetterboxGeometry

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Submitted:
    """What is kept of a submitted picture until it is collected."""

    canvas: NDArray[np.uint8]
    geometry: LetterboxGeometry
    height_px: int
    width_px: int
    preprocess_ms: float
    engine_ms: float = 0.0
    """Time from submitting to having the outputs."""


class PictureNetwork(ABC, Generic[Result]):
    """A compiled network that takes pictures of any size. Used by one thread at a time; a context manager that closes its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._input = engine.manifest.input
        recipe = engine.manifest.recipe
        self._name, self._classes = recipe.name, recipe.classes
        self._pending: dict[int, Submitted] = {}

    @abstractmethod
    def _read(self, outputs: dict[str, Array], one: Submitted) -> Result:
        """What the engine's outputs say of a picture; EngineError where they make no sense."""

    @property
    def name(self) -> str:
        """The network's name, as its recipe says: the source of a defect."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
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
            raise EngineError(f"{self._name} was given {error}") from error
        preprocess_ms = (time.monotonic_ns() - start) / 1e6
        ticket = self._engine.submit(canvas)
        self._pending[ticket.number] = Submitted(canvas, geometry, image.shape[0], image.shape[1], preprocess_ms)
        return ticket

    def collect(self, ticket: Ticket) -> Result:
        """What was found in a submitted image.

        Raises:
            EngineError: the engine failed on this image, or its outputs make no sense: there is no result.
                :class:`EngineLostError` when the engine failed for good.
        """
        one = self._pending.pop(ticket.number, None)
        if one is None:
            raise EngineError(f"ticket {ticket.number} is not in flight: it was collected before, or belongs to another engine")
        outputs = self._engine.collect(ticket)
        engine_ms = (time.monotonic_ns() - ticket.submitted_ns) / 1e6
        return self._read(outputs, Submitted(one.canvas, one.geometry, one.height_px, one.width_px, one.preprocess_ms, engine_ms))

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
        """The network itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()
