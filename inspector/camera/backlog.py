"""Since when the driver may hold a frame: what stands for the exposure of a frame that has no time of its own.

A fetch that found nothing, or had to wait for its frame, began with a driver that held none. That a fetch *took* long does not say that it
waited: while this process stood still, the driver kept frames back, and may still be handing them out, one every few milliseconds. So
after a standstill nothing is proven by waiting until a fetch found nothing, or as much time has passed as was lost.
"""

from __future__ import annotations

_WAITED_NS = 1_000_000
"""A fetch that took so long had to wait."""
_STANDSTILL_NS = 50_000_000
"""Fetches time out long before; a turn of the loop that took so long stood still, whatever it was that held it up."""


class Backlog:
    """Fed by the loop with every fetch. All times are the host's monotonic clock."""

    def __init__(self, started_ns: int) -> None:
        """``started_ns``: the acquisition runs, and no frame has come."""
        self._empty_ns = self._turn_ns = started_ns
        self._behind_ns = 0

    def nothing(self, begun_ns: int, ended_ns: int) -> None:
        """A fetch found no frame."""
        self._empty_ns = begun_ns
        if not self._stood_still(ended_ns):
            self._behind_ns = 0

    def frame(self, begun_ns: int, received_ns: int) -> int:
        """A fetch found a frame. Returns when the driver was last known to hold none: the frame was exposed after that."""
        waited = received_ns - begun_ns > _WAITED_NS
        if not self._stood_still(received_ns) and waited and received_ns > self._behind_ns:
            self._empty_ns = begun_ns
        return self._empty_ns

    def _stood_still(self, now_ns: int) -> bool:
        lost_ns, self._turn_ns = now_ns - self._turn_ns, now_ns
        if lost_ns <= _STANDSTILL_NS:
            return False
        self._behind_ns = max(self._behind_ns, now_ns + lost_ns)
        return True
