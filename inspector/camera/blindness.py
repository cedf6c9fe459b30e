"""The blind intervals of one camera: opened and closed in pairs, never overlapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.records import Blind

if TYPE_CHECKING:
    from collections.abc import Callable


class Blindness:
    """Publishes a ``Blind`` with ``to_ns`` None when sight is lost, and the same one with its end when it is back."""

    def __init__(self, stream: str, publish: Callable[[Blind], None]) -> None:
        self._stream = stream
        self._publish = publish
        self._open: Blind | None = None
        self._last_end_ns = 0

    @property
    def open(self) -> bool:
        """Whether the camera is blind now."""
        return self._open is not None

    def begin(self, from_ns: int, cause: str) -> None:
        """Blind since ``from_ns``, but not from before the end of the last interval. Does nothing while one is open."""
        if self._open is None:
            self._open = Blind(stream=self._stream, from_ns=max(from_ns, self._last_end_ns), to_ns=None, cause=cause)
            self._publish(self._open)

    def end(self, sees_since_ns: int, now_ns: int) -> None:
        """It sees again. Does nothing while it sees.

        Since ``sees_since_ns`` where that lies in this interval, else only since ``now_ns``: a process that was frozen does not know it.
        """
        if self._open is not None:
            blind, self._open = self._open, None
            self._last_end_ns = sees_since_ns if sees_since_ns > blind.from_ns else max(now_ns, blind.from_ns)
            self._publish(Blind(stream=blind.stream, from_ns=blind.from_ns, to_ns=self._last_end_ns, cause=blind.cause))
