"""When a stream could not see, as the controller knows it. All times are ages of the boot in milliseconds, at the station."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

_REMEMBERED = 256
"""Finished intervals; before the oldest of them nothing passes any more."""
_ROUNDING_MS = 0.001
"""An exposure that lies less than this inside an interval lies at its end: ages are rounded."""


@dataclass(slots=True)
class _Open:
    from_ms: float
    seq: int
    """Number of the message that told it; 0: a heartbeat did."""


class ClientSight:
    """The blind intervals of one stream and boot."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._finished: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._forgotten_ms = -math.inf
        self._saw_ms = -math.inf
        """The last heartbeat that said that it sees."""
        self.doubt_ms = -math.inf
        """Messages that were sent before this are lost: one of them may have told of an interval."""

    @property
    def blind(self) -> bool:
        """Whether an interval goes on."""
        return bool(self._open)

    def told(self, from_ms: float, to_ms: float | None, seq: int) -> None:
        """A published interval; ``to_ms`` None: it goes on. Told again with its end, it is over."""
        if to_ms is None:
            # After a repair the end may have come before the beginning.
            if not any(_same(begin, from_ms) for begin, _ in self._finished):
                self._open.append(_Open(from_ms, seq))
            return
        ended = [one for one in self._open if one.seq == 0 or _same(one.from_ms, from_ms)]
        self._open = [one for one in self._open if one not in ended]
        self._finish(from_ms, to_ms)
        for one in ended:
            if one.from_ms < from_ms:
                self._finish(one.from_ms, to_ms)

    def beat(self, at_ms: float, last_seq: int, *, blind: bool) -> None:
        """A heartbeat says whether the stream sees now; it knows of all messages up to ``last_seq``."""
        if blind:
            if not self._open:
                self._open.append(_Open(self._saw_ms, 0))
            return
        for one in self._open:
            if one.seq <= last_seq:
                self._finish(one.from_ms, at_ms)
        self._open = [one for one in self._open if one.seq > last_seq]
        self._saw_ms = max(self._saw_ms, at_ms)

    def covers(self, at_ms: float) -> bool:
        """Whether a part that was exposed at ``at_ms`` lies in a blind interval."""
        inside_ms, before_ms = at_ms - _ROUNDING_MS, at_ms + _ROUNDING_MS
        if at_ms < self._forgotten_ms or any(inside_ms > one.from_ms for one in self._open):
            return True
        return any(begin < inside_ms and before_ms < end for begin, end in self._finished)

    def _finish(self, from_ms: float, to_ms: float) -> None:
        if len(self._finished) == _REMEMBERED:
            self._forgotten_ms = max(self._forgotten_ms, self._finished[0][1])
        self._finished.append((from_ms, to_ms))


def _same(one_ms: float, other_ms: float) -> bool:
    return abs(one_ms - other_ms) < 2 * _ROUNDING_MS
