"""Which verdicts a controller has still to acknowledge. Pure.

Every verdict that does not pass is awaited from every controller that the station names. What is not acknowledged in time is overdue until it is
acknowledged or written off.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto

from inspector.contract.requests import AckState
from inspector.line.replay import REPLAY_MESSAGES

_REMEMBERED = 1024
"""Acknowledgements that ran ahead of the news that their verdict was sent, and failures that were told."""
_AT_ONCE = 500
"""Verdicts that become overdue in one call."""

_Key = tuple[str, int]


class Taken(Enum):
    """What an acknowledgement did."""

    EXPECTED = auto()
    """It was awaited."""
    KNOWN = auto()
    """Nobody waits for it: acknowledged before, a verdict that passes, or one of a controller that the station does not name."""
    FAILED = auto()
    """The part could not be rejected, diverted or stopped: heard for the first time."""


class Acks:
    """One controller's account. One thread owns it."""

    def __init__(self, ack_ms: float, limit: int = REPLAY_MESSAGES) -> None:
        """``limit``: verdicts that may be awaited; beyond it the oldest is written off: it cannot be replayed either."""
        self._ack_ns, self._limit = int(ack_ms * 1e6), limit
        self._awaited: OrderedDict[_Key, int] = OrderedDict()
        """Due times, in order."""
        self._overdue: OrderedDict[_Key, None] = OrderedDict()
        self._early: OrderedDict[_Key, None] = OrderedDict()
        self._failed: OrderedDict[_Key, None] = OrderedDict()
        self.overdue_in_all = 0
        """Verdicts that were not acknowledged in time, in this boot."""
        self.written_off = 0
        """Those that are not awaited any more though nobody acknowledged them."""

    @property
    def outstanding(self) -> int:
        """Verdicts that are awaited now, overdue ones too."""
        return len(self._awaited) + len(self._overdue)

    @property
    def overdue(self) -> int:
        """Of these: those whose time is over."""
        return len(self._overdue)

    def sent(self, stream: str, seq: int, sent_ns: int) -> None:
        """A verdict that does not pass was sent; in the order of sending."""
        key = (stream, seq)
        if key in self._early:
            del self._early[key]
            return
        self._awaited[key] = sent_ns + self._ack_ns
        if self.outstanding > self._limit:
            if not self._overdue:
                self._expire_first()
            self._overdue.popitem(last=False)
            self.written_off += 1

    def take(self, stream: str, seq: int, state: AckState, *, early: bool) -> Taken:
        """An acknowledgement came. ``early``: nobody knows yet that this message was sent."""
        key = (stream, seq)
        awaited = self._awaited.pop(key, None) is not None
        if not awaited and key in self._overdue:
            del self._overdue[key]
            awaited = True
        if not awaited and early:
            _remember(self._early, key)
        if state is AckState.FAILED and key not in self._failed:
            _remember(self._failed, key)
            return Taken.FAILED
        return Taken.EXPECTED if awaited else Taken.KNOWN

    def expire(self, now_ns: int) -> int:
        """How many verdicts have become overdue since the last call; a long list takes several calls."""
        before = self.overdue_in_all
        while self._awaited and self.overdue_in_all - before < _AT_ONCE and next(iter(self._awaited.values())) <= now_ns:
            self._expire_first()
        return self.overdue_in_all - before

    def write_off(self) -> int:
        """Wait no longer for what is overdue: somebody knows of it. How many these were."""
        late = len(self._overdue)
        self._overdue.clear()
        self.written_off += late
        return late

    def _expire_first(self) -> None:
        key, _ = self._awaited.popitem(last=False)
        self._overdue[key] = None
        self.overdue_in_all += 1


def _remember(kept: OrderedDict[_Key, None], key: _Key) -> None:
    kept[key] = None
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
