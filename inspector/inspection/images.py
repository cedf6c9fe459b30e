"""Images in the ring: who holds which slot, and an image on its way to the inspection."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.contract.channel import FrameRecord, OpenedRecord
    from inspector.contract.records import View
    from inspector.contract.ring import Ring

CHANNELS = {"Mono8": 1, "BayerRG8": 1, "RGB8": 3}
"""Bytes per pixel of the formats that can be inspected."""


class Slots:
    """The slots of one ring that the daemon holds. Any thread.

    Giving back and forgetting are one step: a slot given back may be filled and told again at once, by another image.
    """

    def __init__(self, ring: Ring) -> None:
        """Nothing is held."""
        self.ring = ring
        self._lock = threading.Lock()
        self._held: set[int] = set()

    def hold(self, slot: int) -> None:
        """The camera process has told of an image in ``slot``."""
        with self._lock:
            self._held.add(slot)

    def release(self, slot: int) -> None:
        """The image is done with; its slot is the camera process's again."""
        with self._lock:
            if slot in self._held:
                self._held.remove(slot)
                self.ring.release(slot)

    def holds(self, slot: int) -> bool:
        """Whether the daemon holds ``slot`` now."""
        with self._lock:
            return slot in self._held

    def held(self) -> set[int]:
        """The slots held now."""
        with self._lock:
            return set(self._held)


@dataclass(frozen=True, slots=True, eq=False)
class QueuedImage:
    """A part's view whose image waits in the ring. Whoever takes it releases it, once."""

    view: View
    record: FrameRecord
    opened: OpenedRecord | None
    """What the camera said when it was opened."""
    slots: Slots

    def raw(self) -> NDArray[np.uint8]:
        """The frame as it lies in the ring, not copied: uint8 [H,W], or [H,W,3] for RGB8. Not to be kept beyond ``release``.

        Raises:
            ValueError: the record's sizes do not fit each other or the slot, or the format is none that can be inspected.
        """
        record = self.record
        channels = CHANNELS.get(record.pixel_format)
        if channels is None:
            raise ValueError(f"pixel format {record.pixel_format} is none of {', '.join(CHANNELS)}")
        height, width, stride = record.height_px, record.width_px, record.stride_bytes
        if height < 1 or width < 1 or stride < width * channels or stride * (height - 1) + width * channels > record.size_bytes:
            raise ValueError(f"{record.size_bytes} bytes are no {width}x{height} image of {record.pixel_format} with rows of {stride} bytes")
        data = self.slots.ring.pixels(record.slot, record.size_bytes)
        if channels == 1:
            return np.ndarray((height, width), np.uint8, buffer=data, strides=(stride, 1))
        return np.ndarray((height, width, channels), np.uint8, buffer=data, strides=(stride, channels, 1))

    def release(self) -> None:
        """Give the slot back to the camera process."""
        self.slots.release(self.record.slot)
