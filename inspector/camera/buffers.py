"""What a GenTL buffer tells of its frame; producers leave out what they do not know, and each leaves out something else."""

from __future__ import annotations

from typing import Any

_MODULO = 1 << 16
"""Frame ids are compared by their lowest 16 bits: some drivers' have no more."""

_CONFIRMED_BY = 8
"""Frames in a row that are doubted before another distance is believed: two may be damaged alike."""
_BEGUN_BY = 2
"""The same at the beginning, if the distance is an unusual one."""
_WRAP_WITHIN = 256
"""Frames that may be missing at the wrap."""


class ChunkCheck:
    """Whether chunk data are the frame's own and whole: the frame id in them keeps its distance from the buffer's."""

    def __init__(self) -> None:
        """No frame came yet: the two begin alike, or one apart."""
        self._settled: set[int] = {0, 1, _MODULO - 1}
        self._doubtful: int | None = None
        self._doubts = 0
        self._frame_id = 0

    def fits(self, frame_id: int, chunk_frame_id: int) -> bool:
        """False: this frame's chunk data are not to be believed. Another distance is, when several frames in a row have it."""
        distance = (chunk_frame_id - frame_id) % _MODULO
        # A counter of 16 bits that skips 0 has wrapped, the other one has not. Else a lower id is a frame that was overtaken.
        anew = frame_id + _MODULO - self._frame_id < _WRAP_WITHIN
        self._frame_id = frame_id
        self._doubts = self._doubts + 1 if distance == self._doubtful else 1
        self._doubtful = distance
        enough = _CONFIRMED_BY if len(self._settled) == 1 else _BEGUN_BY
        if distance in self._settled or self._doubts > enough or anew:
            self._settled = {distance}
            return True
        return False


class BufferReader:
    """Reads the binding's buffers. Its exceptions are handed in: one module alone imports it."""

    def __init__(self, errors: tuple[type[Exception], ...]) -> None:
        """``errors``: what the binding raises where the producer does not tell."""
        self._errors = errors
        self._has_offset = True

    def padding(self, buffer: Any) -> int:  # noqa: ANN401 - the binding has no types
        """Bytes behind each row."""
        try:
            return int(buffer.padding_x)
        except self._errors:
            return 0

    def offset(self, buffer: Any) -> int:  # noqa: ANN401
        """Bytes before the image."""
        if self._has_offset:
            try:
                return int(buffer.image_offset)
            except self._errors:
                self._has_offset = False
        return 0

    def timestamp_ns(self, buffer: Any) -> int:  # noqa: ANN401
        """Exposure on the camera's clock; 0: this frame has none, though the next one may."""
        try:
            return int(buffer.timestamp_ns)
        except self._errors:
            return 0

    def overflown(self, buffer: Any) -> bool:  # noqa: ANN401
        """More came than the buffer holds: what is in it is no whole image, though such a buffer need not say that it is incomplete."""
        try:
            return bool(buffer.has_received_larger_payload())
        except self._errors:
            return False

    def has_chunks(self, buffer: Any) -> bool:  # noqa: ANN401
        """Whether the frame has chunk data. Of one that has none, the chunk nodes would show what lies in another frame's memory."""
        try:
            return bool(buffer.is_containing_chunk_data())
        except self._errors:
            pass
        try:
            return int(buffer.num_chunks) > 0
        except self._errors:
            return False
