"""A camera's clock on the host's: a minimum-delay filter.

A frame's delay is never negative and often close to its least. The least difference between arrival and exposure over a window
is therefore the offset of the two clocks plus the least delay; what a frame took beyond that is its own delay. The camera's and the
host's quartz drift apart by some 100 ppm, which a window of ten seconds turns into at most a millisecond.
"""

from __future__ import annotations

_WINDOW_NS = 10_000_000_000
_BACKWARDS_NS = 1_000_000_000
"""A camera clock that goes back by more than a late frame can explain was reset."""


class ClockMap:
    """Maps one camera's exposure times to the host's monotonic clock. Used by one thread."""

    def __init__(self, window_ns: int = _WINDOW_NS) -> None:
        """``window_ns``: how long an observation counts, at least; twice as long at most."""
        self._window_ns = window_ns
        self._restarts = 0
        self._forget()

    def _forget(self) -> None:
        self._newest_ns: int | None = None
        self._since_ns: int | None = None
        self._before = self._now = 0

    @property
    def restarts(self) -> int:
        """How often the camera's clock was found to be another one."""
        return self._restarts

    def restart(self) -> None:
        """Forget what was observed: the camera's clock began anew."""
        self._restarts += 1
        self._forget()

    def to_host(self, camera_ns: int, received_ns: int) -> int:
        """Observe one frame and return its exposure time on the host's clock, at most ``received_ns``.

        Args:
            camera_ns: exposure time on the camera's clock; 0: it gives none, and arrival stands for exposure.
            received_ns: arrival on the host's monotonic clock.
        """
        if camera_ns == 0:
            return received_ns
        if self._newest_ns is not None and camera_ns < self._newest_ns - _BACKWARDS_NS:
            self.restart()
        self._newest_ns = camera_ns if self._newest_ns is None else max(self._newest_ns, camera_ns)
        offset = received_ns - camera_ns
        if self._since_ns is None or received_ns - self._since_ns >= self._window_ns:
            stale = self._since_ns is None or received_ns - self._since_ns >= 2 * self._window_ns
            self._before = offset if stale else self._now
            self._now = offset
            self._since_ns = received_ns
        self._now = min(self._now, offset)
        return camera_ns + min(self._before, self._now)
