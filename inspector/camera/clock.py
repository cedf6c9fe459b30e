"""A camera's clock on the host's: a minimum-delay filter, held in place by reading the camera's clock where it can be read.

A frame's delay is never negative and often close to its least. The least difference between arrival and exposure over a window
is therefore the offset of the two clocks plus the least delay; what a frame took beyond that is its own delay. The camera's and the
host's quartz drift apart by some 100 ppm, which a window of ten seconds turns into at most a millisecond.

The first frame has no others to be measured by: taken alone, a frame that was two seconds on its way would look as if it had just
been exposed. So the clock itself is read (GenICam's TimestampLatch) before the acquisition runs, from time to time, and whenever a
frame's time contradicts what is known. A reading lies between two instants of the host's clock: it bounds the offset from both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW_NS = 10_000_000_000
_BACKWARDS_NS = 1_000_000_000
"""A camera clock that goes back by more than most late frames explain: it may have been reset."""
_SLACK_NS = 5_000_000
"""A frame's time stamp and a reading of the same clock agree within this: cameras stamp at the start or the end of a short exposure."""
_REFRESH_NS = 1_000_000_000
_DRIFT = 5_000
"""The clocks may part by one nanosecond in so many."""
_LONGEST_NS = 60_000_000_000
"""No frame is on its way for so long: such a difference says that frames are stamped by another clock than the one that is read."""
_STRIKES = 3
"""So many contradictions in a row are no corrupt stamps: what is read is not the frames' clock, or does not count nanoseconds."""


class Reading(NamedTuple):
    """The camera's clock, read at an instant between two of the host's."""

    begun_ns: int
    camera_ns: int
    ended_ns: int


class ClockMap:
    """Maps one camera's exposure times to the host's monotonic clock. Used by one thread."""

    def __init__(self, read: Callable[[], Reading | None] | None = None, window_ns: int = _WINDOW_NS) -> None:
        """``read`` reads the camera's clock, None where it cannot; ``window_ns``: how long a frame counts, at least; twice as long at most."""
        self._read = read
        self._window_ns = window_ns
        self._reading: Reading | None = None
        self._strikes = 0
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

    @property
    def reads(self) -> bool:
        """Whether the camera's clock is read, and makes sense."""
        return self._reading is not None

    def refresh(self, now_ns: int) -> None:
        """Read the camera's clock if it was not read for a second. Call it before the first frame, and often."""
        if self._reading is None or now_ns - self._reading.ended_ns >= _REFRESH_NS:
            self._check()

    def _check(self) -> None:
        if self._read is None:
            return
        last, self._reading = self._reading, self._read()
        if self._reading is None:
            self._read = None
        elif last is not None:
            low_ns, high_ns = _bounds(last, self._reading.ended_ns)
            begun_ns, _, ended_ns = self._reading
            if ended_ns - self._reading.camera_ns < low_ns or begun_ns - self._reading.camera_ns > high_ns:
                self._restart()  # the camera's clock was set
                self._strike()

    def to_host(self, camera_ns: int, received_ns: int, since_ns: int | None = None) -> int:
        """Observe one frame and return its exposure time on the host's clock, at most ``received_ns``.

        Args:
            camera_ns: exposure time on the camera's clock; 0: it gives none, and ``since_ns`` stands for it.
            received_ns: arrival on the host's monotonic clock.
            since_ns: when the driver was last known to hold no frame: without a time of its own a frame may have waited there since then.
                None: not known, arrival counts.
        """
        if camera_ns == 0:
            return received_ns if since_ns is None else min(since_ns, received_ns)
        offset = received_ns - camera_ns
        back = self._newest_ns is not None and camera_ns < self._newest_ns - _BACKWARDS_NS
        if self._reading is not None and (back or self._contradicts(offset, received_ns)):
            self._check()
        if self._reading is not None:
            if self._contradicts(offset, received_ns):
                self._strike()
                return received_ns  # the stamp is no time of this clock
            self._strikes = 0
        elif back:
            self._restart()
        self._newest_ns = camera_ns if self._newest_ns is None else max(self._newest_ns, camera_ns)
        if self._since_ns is None or received_ns - self._since_ns >= self._window_ns:
            stale = self._since_ns is None or received_ns - self._since_ns >= 2 * self._window_ns
            self._before = offset if stale else self._now
            self._now = offset
            self._since_ns = received_ns
        self._now = min(self._now, offset)
        least = min(self._before, self._now)
        if self._reading is not None:
            least = min(least, _bounds(self._reading, received_ns)[1])
        return min(camera_ns + least, received_ns)

    def _restart(self) -> None:
        self._restarts += 1
        self._forget()

    def _strike(self) -> None:
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self._reading = self._read = None

    def _contradicts(self, offset: int, received_ns: int) -> bool:
        if self._reading is None:
            return False
        low_ns, high_ns = _bounds(self._reading, received_ns)
        return not low_ns - _SLACK_NS <= offset <= high_ns + _LONGEST_NS


def _bounds(reading: Reading, now_ns: int) -> tuple[int, int]:
    """Least and greatest difference of the clocks, host less camera, that a reading allows at ``now_ns``."""
    drift_ns = max(0, now_ns - reading.ended_ns) // _DRIFT
    return reading.begun_ns - reading.camera_ns - drift_ns, reading.ended_ns - reading.camera_ns + drift_ns
