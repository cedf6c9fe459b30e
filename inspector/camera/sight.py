"""What the camera process can prove to have seen, and whether the camera does what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.channel import CameraState

if TYPE_CHECKING:
    from inspector.camera.port import Frame
    from inspector.config.station import CameraConfig

_TRANSFER_MARGIN_NS = 50_000_000
"""An exposure that began this long (and its own length) before an empty fetch has arrived by then, or is missing for good."""
_STALLED_TRIGGERS = 3
"""So many triggers without any frame are more than single losses."""


_HOPELESS_TIMEOUTS = 3
"""A stall that lasts for so many timeouts more does not end by itself: some cameras send again only when they are opened anew."""


class Sight:
    """Fed by the loop with frames, empty fetches and answered checks.

    ``seen_ns``: whatever was exposed before it was told, or is missing in a way the daemon notices. A frame proves it up to its
    own exposure. Where silence is legal, an empty fetch proves it up to a margin before, once the camera has answered afterwards:
    a lost camera is silent too. ``sees_since_ns``: from then on it sees, without a stall: the start, or the exposure that ended the last stall.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._free_run = config.trigger == "free_run"
        self._timeout_ns = int(config.frame_timeout_s * 1e9)
        self._margin_ns = _TRANSFER_MARGIN_NS + int((config.exposure_us or 0.0) * 1e3)
        self._empty_ns = 0
        self._frame_ns = 0
        self._asked_ns: int | None = None
        self._count_at_frame: int | None = None
        self._stalled = False
        self._stalled_ns = 0
        self.seen_ns = self.sees_since_ns = 0

    @property
    def state(self) -> CameraState:
        """STREAMING or STALLED."""
        return CameraState.STALLED if self._stalled else CameraState.STREAMING

    def hopeless(self, now_ns: int) -> bool:
        """It has been stalled for so long that it should be opened again."""
        return self._stalled and now_ns - self._stalled_ns > _HOPELESS_TIMEOUTS * self._timeout_ns

    def started(self, now_ns: int) -> None:
        """The acquisition runs."""
        self.seen_ns = self.sees_since_ns = self._frame_ns = now_ns

    def triggered(self, now_ns: int) -> None:
        """A software trigger was sent."""
        if self._asked_ns is None:
            self._asked_ns = now_ns

    def frame(self, frame: Frame, exposure_ns: int) -> None:
        """A frame was told, with its exposure on the host's clock."""
        proven_ns = exposure_ns if frame.camera_ns else min(exposure_ns, frame.received_ns - self._margin_ns)
        if self._stalled:
            self.sees_since_ns = proven_ns
        self.seen_ns = max(self.seen_ns, proven_ns)
        self._frame_ns = frame.received_ns
        self._asked_ns = self._count_at_frame = None
        self._stalled = False

    def empty(self, begun_ns: int) -> None:
        """A fetch that began at ``begun_ns`` found nothing."""
        self._empty_ns = begun_ns

    def answered(self, now_ns: int, triggers: int | None) -> None:
        """The camera answered a check at ``now_ns``, after the fetches told so far; ``triggers`` is its own count."""
        if not self._free_run and not self._stalled:
            self.seen_ns = max(self.seen_ns, self._empty_ns - self._margin_ns)
        if triggers is not None and self._count_at_frame is None:
            self._count_at_frame = triggers
        silent = now_ns - self._frame_ns > self._timeout_ns
        unanswered = self._asked_ns is not None and now_ns - self._asked_ns > self._timeout_ns
        counted = triggers is not None and self._count_at_frame is not None and triggers - self._count_at_frame >= _STALLED_TRIGGERS
        stalled = unanswered or (silent and (self._free_run or counted))
        if stalled and not self._stalled:
            self._stalled_ns = now_ns
        self._stalled = stalled
