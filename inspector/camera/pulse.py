"""The camera process's pulse: one page shared with the supervisor, written at every turn of the loop.

It tells what a socket cannot: that the loop stands still although nothing is to be said, and up to when the camera's sight
was whole when the process died without a word. 64-bit aligned stores, one writer, one reader, no locks.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from inspector.contract.channel import CameraState

_STATES = tuple(CameraState)
_BEAT, _SEEN, _STREAMING, _STATE = range(4)
_CAUSE_AT, _CAUSE_BYTES = 256, 1024


class Pulse:
    """Stamps are CLOCK_MONOTONIC in nanoseconds; 0: not yet."""

    def __init__(self, fd: int) -> None:
        """Map the page that ``fd`` holds; the descriptor stays the caller's."""
        self._map = mmap.mmap(fd, mmap.PAGESIZE)
        self._words = np.frombuffer(self._map, np.int64, count=4)

    @staticmethod
    def create() -> int:
        """The descriptor of a new page; the caller closes it."""
        fd = os.memfd_create("inspector-pulse", os.MFD_CLOEXEC)
        os.ftruncate(fd, mmap.PAGESIZE)
        return fd

    def reset(self) -> None:
        """Before a new incarnation: nothing beats, nothing was seen."""
        self._words[:] = 0
        self.cause = ""

    @property
    def beat_ns(self) -> int:
        """Last turn of the loop."""
        return int(self._words[_BEAT])

    @beat_ns.setter
    def beat_ns(self, at_ns: int) -> None:
        self._words[_BEAT] = at_ns

    @property
    def seen_ns(self) -> int:
        """Whatever was exposed before it has been told to the daemon, or is missing from the frame ids or the trigger count."""
        return int(self._words[_SEEN])

    @seen_ns.setter
    def seen_ns(self, at_ns: int) -> None:
        self._words[_SEEN] = at_ns

    @property
    def streaming_ns(self) -> int:
        """From then on the camera sees: when the acquisition ran, or the exposure of the frame that ended its last stall. 0: not yet."""
        return int(self._words[_STREAMING])

    @streaming_ns.setter
    def streaming_ns(self, at_ns: int) -> None:
        self._words[_STREAMING] = at_ns

    @property
    def state(self) -> CameraState:
        """What the process says of the camera."""
        return _STATES[int(self._words[_STATE])]

    @state.setter
    def state(self, state: CameraState) -> None:
        self._words[_STATE] = _STATES.index(state)

    @property
    def cause(self) -> str:
        """Why the process leaves, in its own words; empty: it has not said."""
        return self._map[_CAUSE_AT : _CAUSE_AT + _CAUSE_BYTES].rstrip(b"\0").decode(errors="replace")

    @cause.setter
    def cause(self, text: str) -> None:
        self._map[_CAUSE_AT : _CAUSE_AT + _CAUSE_BYTES] = text.encode()[:_CAUSE_BYTES].ljust(_CAUSE_BYTES, b"\0")

    def close(self) -> None:
        """Unmap."""
        del self._words
        self._map.close()
