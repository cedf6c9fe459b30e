"""An engine that is opened anew once when it keeps failing, and then given up."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from inspector.contract.errors import EngineError
from inspector.engine.base import EngineLostError, Ticket, check_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from inspector.engine.base import Array, Engine
    from inspector.engine.manifest import Manifest


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """When an engine is opened anew, and when it is given up."""

    failures: int = 3
    """Failures in a row that end the engine's life: a CUDA error is sticky, the same context never works again."""
    healthy_after: int = 1000
    """Successes in a row after which a rebuilt engine may be rebuilt once more: what happened months ago is past."""


class GuardedEngine:
    """An :class:`Engine` around an opener. Every failure is raised; after ``failures`` in a row the engine is opened anew, once.

    What was in flight then fails too. If it keeps failing after that, or cannot be opened, :class:`EngineLostError` is raised, for good.
    """

    def __init__(self, open_engine: Callable[[], Engine], policy: GuardPolicy | None = None) -> None:
        self._open = open_engine
        self._policy = policy or GuardPolicy()
        self._engine: Engine = open_engine()
        self._manifest = self._engine.manifest
        self._hash = self._engine.hash
        self._failures = 0
        self._successes = 0
        self._rebuilds = 0
        self._may_rebuild = True
        self._lost: str | None = None
        self._number = 0
        self._inner: dict[int, Ticket | None] = {}  # None: the engine that had it is gone

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
        return self._engine.budget_ms

    @property
    def in_flight(self) -> int:
        """See :class:`Engine`."""
        return self._engine.in_flight

    @property
    def rebuilds(self) -> int:
        """How often the engine was opened anew."""
        return self._rebuilds

    def submit(self, image: NDArray[np.uint8]) -> Ticket:
        """See :class:`Engine`.

        Raises:
            EngineError: this image failed. :class:`EngineLostError`: the engine failed for good.
        """
        self._check_lost()
        check_image(image, self._manifest.input)
        if len(self._inner) >= self.in_flight:
            raise EngineError(f"{self.in_flight} images are in flight already: collect one first")
        try:
            inner = self._engine.submit(image)
        except EngineError as error:
            self._failed(error)
            raise
        self._number += 1
        self._inner[self._number] = inner
        return Ticket(self._number, inner.submitted_ns)

    def collect(self, ticket: Ticket) -> dict[str, Array]:
        """See :class:`Engine`.

        Raises:
            EngineError: this image failed. :class:`EngineLostError`: the engine failed for good.
        """
        if ticket.number not in self._inner:
            raise EngineError(f"ticket {ticket.number} is not in flight: it was collected before, or belongs to another engine")
        inner = self._inner.pop(ticket.number)
        self._check_lost()
        if inner is None:
            raise EngineError("the engine failed and was opened anew while this image was in flight")
        try:
            outputs = self._engine.collect(inner)
        except EngineError as error:
            self._failed(error)
            raise
        self._failures = 0
        self._successes += 1
        if self._successes >= self._policy.healthy_after:
            self._may_rebuild = True
        return outputs

    def _check_lost(self) -> None:
        """Raise the last error once more when there is no engine left."""
        if self._lost is not None:
            raise EngineLostError(self._lost)

    def _failed(self, error: EngineError) -> None:
        """Count a failure; open the engine anew, or give it up."""
        self._failures += 1
        self._successes = 0
        if self._failures < self._policy.failures:
            return
        # What the old engine had is lost whatever comes.
        self._inner = dict.fromkeys(self._inner)
        if not self._may_rebuild:
            self._lose(f"engine {self._manifest.recipe.name!r} failed again after it was opened anew: {error}", error)
        self._may_rebuild = False
        self._failures = 0
        with contextlib.suppress(EngineError):  # it is broken: what it says when it is freed adds nothing
            self._engine.close()
        try:
            engine = self._open()
        except EngineError as reason:
            self._lose(f"engine {self._manifest.recipe.name!r} failed and cannot be opened anew: {reason}", error)
        self._engine = engine
        self._rebuilds += 1
        if engine.hash != self._hash:
            self._lose(f"engine {self._manifest.recipe.name!r} failed, and its files were replaced meanwhile: start again to use the new ones", error)

    def _lose(self, sentence: str, cause: EngineError) -> NoReturn:
        """Give the engine up."""
        self._lost = sentence
        raise EngineLostError(sentence) from cause

    def close(self) -> None:
        """See :class:`Engine`."""
        self._inner.clear()
        self._engine.close()

    def __enter__(self) -> Self:
        """See :class:`Engine`."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See :class:`Engine`."""
        self.close()
