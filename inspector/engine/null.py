"""An engine that does nothing: the plumbing is measured and tested with it, and it finds no defects, ever."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Self

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.base import Ticket, check_image
from inspector.engine.manifest import SCHEMA, Backend, Device, Manifest, TensorSpec, manifest_hash, utc_now

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from inspector.config.recipe import Recipe
    from inspector.engine.base import Array


def detector_contract(recipe: Recipe) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    """Input and outputs of a detector for one image: the names, dtypes and shapes that every backend is held to."""
    slots = recipe.network.detections
    image = TensorSpec("image", "uint8", (1, recipe.input.channels, recipe.input.height_px, recipe.input.width_px))
    return image, (
        TensorSpec("boxes", "float32", (1, slots, 4)),
        TensorSpec("scores", "float32", (1, slots)),
        TensorSpec("classes", "int32", (1, slots)),
        TensorSpec("converged", "int32", (1,)),
    )


def null_manifest(recipe: Recipe) -> Manifest:
    """The manifest of an engine that does nothing with a recipe's images."""
    image, outputs = detector_contract(recipe)
    return Manifest(
        schema=SCHEMA,
        recipe_values=recipe.model_dump(mode="json"),
        files=(),
        weights_sha256="",
        backend=Backend("null", "1"),
        device=Device("cpu", platform.processor(), platform.machine()),
        precision=recipe.compile.precision,
        cuts=(),
        threads=0,
        input=image,
        outputs=outputs,
        parity=None,
        latency=None,
        budget_ms=recipe.compile.budget_ms,
        created_utc=utc_now(),
    )


class NullEngine:
    """An :class:`Engine` that answers at once, with no detections.

    Args:
        recipe: input size, classes and budget.
        in_flight: images that may be under way.
    """

    def __init__(self, recipe: Recipe, in_flight: int = 2) -> None:
        self._manifest = null_manifest(recipe)
        self._hash = manifest_hash(self._manifest)
        self._in_flight = in_flight
        self._number = 0
        self._tickets: set[int] = set()

    @property
    def manifest(self) -> Manifest:
        """See :class:`Engine`."""
        return self._manifest

    @property
    def hash(self) -> str:
        """See :class:`Engine`."""
        return self._hash

    @property
    def budget_ms(self) -> float:
        """See :class:`Engine`."""
        return self._manifest.budget_ms

    @property
    def in_flight(self) -> int:
        """See :class:`Engine`."""
        return self._in_flight

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        """See :class:`Engine`."""
        check_image(image, self._manifest.input)
        if len(self._tickets) >= self._in_flight:
            raise EngineError(f"{self._in_flight} images are in flight already: collect one first")
        self._number += 1
        self._tickets.add(self._number)
        return Ticket(self._number, time.monotonic_ns())

    def collect(self, ticket: Ticket) -> dict[str, Array]:
        """See :class:`Engine`."""
        if ticket.number not in self._tickets:
            raise EngineError(f"ticket {ticket.number} is not in flight: it was collected before, or belongs to another engine")
        self._tickets.remove(ticket.number)
        return {spec.name: np.full(spec.shape, spec.name == "converged", spec.dtype) for spec in self._manifest.outputs}

    def close(self) -> None:
        """See :class:`Engine`."""
        self._tickets.clear()

    def __enter__(self) -> Self:
        """See :class:`Engine`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See :class:`Engine`."""
        self.close()
