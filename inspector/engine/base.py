"""What every engine is to the inspection: two calls, and failures that never look like results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np

from inspector.contract.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from inspector.engine.manifest import Manifest, TensorSpec

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
"""An output of an engine; its dtype and shape stand in the manifest."""


class EngineLostError(EngineError):
    """The engine failed for good: rebuilding it did not help. The process is to end with the engine's exit code."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A submitted image. It is collected exactly once."""

    number: int
    """1, 2, 3, ... per engine."""
    submitted_ns: int
    """When it was submitted, CLOCK_MONOTONIC."""


@runtime_checkable
class Engine(Protocol):
    """One compiled network on one device. Used by one thread at a time; a context manager that frees the device's memory.

    An image that was submitted is read until it is collected: the caller leaves it unchanged until then. Arrays that ``collect`` returns belong to
    the caller. A failure raises, and the outputs of an earlier image are never returned in its place.
    """

    @property
    def manifest(self) -> Manifest:
        """What the engine was made from, with which tolerances, and what was measured."""

    @property
    def hash(self) -> str:
        """SHA-256 of the manifest, which holds the hashes of all that decides: results carry it."""

    @property
    def budget_ms(self) -> float:
        """Time an image may take, from the recipe."""

    @property
    def in_flight(self) -> int:
        """Images that may be submitted before the first is collected; at least 2."""

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        """Start one image and return at once.

        Args:
            image: uint8 [C, H, W], contiguous, as the manifest's input says.

        Raises:
            EngineError: the image does not fit the manifest, ``in_flight`` images are under way, or the runtime refuses it.
        """

    def collect(self, ticket: Ticket) -> dict[str, Array]:
        """Wait for an image and return its outputs by name, batch axis of 1 included, as the manifest's outputs say.

        Raises:
            EngineError: the runtime failed on this image, or the ticket is unknown or was collected before.
        """

    def close(self) -> None:
        """Wait for what is in flight, then free the device. Idempotent."""

    def __enter__(self) -> Self:
        """The engine itself."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""


def check_image(image: NDArray[np.uint8], expected: TensorSpec) -> None:
    """Whether an image fits the engine's input.

    Args:
        image: the canvas to be submitted, [C, H, W].
        expected: the manifest's input, [N, C, H, W].

    Raises:
        EngineError: naming what differs.
    """
    if image.dtype != np.dtype(expected.dtype) or image.shape != expected.shape[1:]:
        raise EngineError(f"an image of {image.dtype} {list(image.shape)} was given to an engine for {expected.dtype} {list(expected.shape[1:])}")
    if not image.flags.c_contiguous:
        raise EngineError("an image whose rows do not lie one after the other was given to an engine: make it contiguous first")


def check_outputs(outputs: Mapping[str, Array], expected: tuple[TensorSpec, ...]) -> None:
    """Whether outputs have the manifest's names, dtypes and shapes.

    Raises:
        EngineError: naming the first that differs.
    """
    for spec in expected:
        array = outputs.get(spec.name)
        if array is None:
            raise EngineError(f"the engine gave no output {spec.name!r}")
        if array.dtype != np.dtype(spec.dtype) or array.shape != spec.shape:
            raise EngineError(f"the engine's output {spec.name!r} is {array.dtype} {list(array.shape)} and not {spec.dtype} {list(spec.shape)}")
