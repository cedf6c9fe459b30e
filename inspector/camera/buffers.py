"""What a GenTL buffer tells of its frame; producers leave out what they do not know, and each leaves out something else."""

from __future__ import annotations

from typing import Any


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
