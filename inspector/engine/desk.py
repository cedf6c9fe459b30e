"""What all engines do alike: tickets, checks on the way in and out, and closing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from inspector.contract.errors import EngineError
from inspector.engine.base import Ticket, check_image, check_outputs
from inspector.engine.manifest import manifest_hash

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from inspector.engine.base import Array
    from inspector.engine.manifest import Manifest

IN_FLIGHT = 2
"""One image computes, the next waits beside it: more would only wait longer."""

Job = TypeVar("Job")


class TicketedEngine(ABC, Generic[Job]):
    """An :class:`~inspector.engine.base.Engine` but for its arithmetic: a backend says how a job starts, ends, and what is freed.

    Args:
        manifest: what the engine is held to.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._hash = manifest_hash(manifest)
        self._jobs: dict[int, Job] = {}
        self._number = 0
        self._closed = False

    @abstractmethod
    def _start(self, image: NDArray[np.uint8]) -> Job:
        """Start a checked image; raises EngineError."""

    @abstractmethod
    def _finish(self, job: Job) -> dict[str, Array]:
        """Wait for a job and return its outputs as arrays of their own; raises EngineError."""

    @abstractmethod
    def _free(self) -> None:
        """Wait for what is in flight and free everything; called once."""

    @property
    def manifest(self) -> Manifest:
        """See :class:`~inspector.engine.base.Engine`."""
        return self._manifest

    @property
    def hash(self) -> str:
        """See :class:`~inspector.engine.base.Engine`."""
        return self._hash

    @property
    def budget_ms(self) -> float:
        """See :class:`~inspector.engine.base.Engine`."""
        return self._manifest.budget_ms

    @property
    def in_flight(self) -> int:
        """See :class:`~inspector.engine.base.Engine`."""
        return IN_FLIGHT

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        """See :class:`~inspector.engine.base.Engine`."""
        if self._closed:
            raise EngineError("the engine is closed")
        check_image(image, self._manifest.input)
        if len(self._jobs) >= IN_FLIGHT:
            raise EngineError(f"{IN_FLIGHT} images are in flight already: collect one first")
        submitted_ns = time.monotonic_ns()
        job = self._start(image)
        self._number += 1
        self._jobs[self._number] = job
        return Ticket(self._number, submitted_ns)

    def collect(self, ticket: Ticket) -> dict[str, Array]:
        """See :class:`~inspector.engine.base.Engine`."""
        if ticket.number not in self._jobs:
            raise EngineError(f"ticket {ticket.number} is not in flight: it was collected before, or belongs to another engine")
        outputs = self._finish(self._jobs.pop(ticket.number))
        check_outputs(outputs, self._manifest.outputs)
        return outputs

    def close(self) -> None:
        """See :class:`~inspector.engine.base.Engine`.

        Raises:
            EngineError: the device could not be freed.
        """
        if not self._closed:
            self._closed = True
            self._jobs.clear()
            self._free()

    def __enter__(self) -> Self:
        """See :class:`~inspector.engine.base.Engine`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See :class:`~inspector.engine.base.Engine`."""
        self.close()
