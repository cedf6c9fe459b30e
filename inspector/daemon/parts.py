"""What was started, and how it is stopped: in reverse order, each with its own time, all within one limit."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = logging.getLogger("inspector")
_LEAST_S = 0.05
"""What a part gets even when the limit is used up: enough for what has nothing left to do."""


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    stop: Callable[[float], bool]
    seconds: float


class Parts:
    """A stack of started parts. One that fails to stop does not keep the others from it."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._left: list[str] = []

    def started(self, name: str, stop: Callable[[float], bool], seconds: float) -> None:
        """Note a part; ``stop(deadline_s)`` ends it and tells whether nothing was left behind, ``seconds`` is the most it may take."""
        self._parts.append(_Part(name, stop, seconds))

    def stop(self, limit_s: float) -> bool:
        """Stop everything, last started first, within about ``limit_s``. True: nothing was left behind. Idempotent."""
        until = time.monotonic() + limit_s
        while self._parts:
            part = self._parts.pop()
            try:
                clean = part.stop(max(_LEAST_S, min(part.seconds, until - time.monotonic())))
            except Exception:
                LOG.exception("%s failed while it was stopped", part.name)
                clean = False
            if not clean:
                self._left.append(part.name)
                LOG.error("%s did not stop in time, or left something behind", part.name)
        return not self._left

    def left(self, name: str) -> bool:
        """Whether the part of this name did not end: what it uses must not be taken from it."""
        return name in self._left
