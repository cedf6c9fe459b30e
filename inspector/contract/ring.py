"""The bounded queue of images: page-aligned slots in an anonymous memfd shared by the daemon and one camera process.

One process writes (the camera process), one reads (the daemon). A slot's state is one aligned 32-bit word, so that a store is
atomic on the platforms that the package is built for; the record that names the slot travels over a socket, and that system
call orders the pixels before it. The daemon makes the memory once; every incarnation of the camera process inherits it, and
nothing is left behind when both are killed.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = 0x52494E47
_HEADER_WORDS = 16
_FREE, _FILLED = 0, 1
# Positions of 32-bit words in the header.
_AT_MAGIC, _AT_SLOTS, _AT_GENERATION, _AT_UNSENT = 0, 1, 2, 3
_AT_SLOT_BYTES = 4  # two words


def _round_up(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class Ring:
    """Slots for ``slots`` images of at most ``slot_bytes`` bytes.

    Raises:
        ValueError: the file descriptor does not hold a ring.
    """

    def __init__(self, fd: int) -> None:
        """Map the ring that ``fd`` holds; the descriptor stays the caller's."""
        size = os.fstat(fd).st_size
        if size < mmap.PAGESIZE:
            raise ValueError("the descriptor holds no ring: it is shorter than its header")
        self._map = mmap.mmap(fd, size)
        words = np.frombuffer(self._map, np.uint32, count=_HEADER_WORDS)
        if words[_AT_MAGIC] != _MAGIC:
            raise ValueError("the descriptor holds no ring: its first word is another")
        self.slots = int(words[_AT_SLOTS])
        self.slot_bytes = int(words[_AT_SLOT_BYTES : _AT_SLOT_BYTES + 2].view(np.uint64)[0])
        del words
        self._view()
        self._first = _round_up((_HEADER_WORDS + self.slots) * 4)
        self._stride = _round_up(self.slot_bytes)
        self._next = 0

    @staticmethod
    def create(slots: int, slot_bytes: int, name: str = "inspector-ring") -> int:
        """The descriptor of a new ring, all slots free; the caller closes it."""
        if slots < 1 or slot_bytes < 1:
            raise ValueError(f"a ring needs at least one slot and one byte, not {slots} and {slot_bytes}")
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        header = _round_up((_HEADER_WORDS + slots) * 4)
        os.ftruncate(fd, header + slots * _round_up(slot_bytes))
        words = np.zeros(_HEADER_WORDS, np.uint32)
        words[_AT_MAGIC], words[_AT_SLOTS] = _MAGIC, slots
        words[_AT_SLOT_BYTES : _AT_SLOT_BYTES + 2].view(np.uint64)[0] = slot_bytes
        os.pwrite(fd, words.tobytes(), 0)
        return fd

    # The camera process's side.

    def claim(self) -> int:
        """A free slot to write, or -1 when none is free. It stays free to others until ``fill``: there is one writer."""
        for step in range(self.slots):
            slot = (self._next + step) % self.slots
            if self._states[slot] == _FREE:
                self._next = (slot + 1) % self.slots
                return slot
        return -1

    def fill(self, slot: int) -> None:
        """Say that ``slot`` holds an image: call it after the copy and before the record is sent."""
        self._states[slot] = _FILLED

    def count_unsent(self) -> None:
        """Count a frame whose record could not be sent (the writer alone calls it)."""
        self._words[_AT_UNSENT] += np.uint32(1)

    # The daemon's side.

    def release(self, slot: int) -> None:
        """Give ``slot`` back to the camera process."""
        self._states[slot] = _FREE

    def release_unknown(self, held: set[int]) -> int:
        """Free every filled slot that is not in ``held``; only after the camera process was reaped. Returns how many."""
        lost = [slot for slot in range(self.slots) if self._states[slot] == _FILLED and slot not in held]
        for slot in lost:
            self._states[slot] = _FREE
        return len(lost)

    def next_generation(self) -> int:
        """The number of the next incarnation of the camera process, 1, 2, 3, ..."""
        self._words[_AT_GENERATION] += np.uint32(1)
        return self.generation

    @property
    def generation(self) -> int:
        """Number of the present incarnation."""
        return int(self._words[_AT_GENERATION])

    @property
    def unsent(self) -> int:
        """Frames since the ring's beginning whose records could not be sent (modulo 2^32)."""
        return int(self._words[_AT_UNSENT])

    @property
    def filled(self) -> int:
        """Slots that hold an image now: the queue's depth."""
        return int(np.count_nonzero(self._states))

    # Both sides.

    def pixels(self, slot: int, size_bytes: int) -> NDArray[np.uint8]:
        """The first ``size_bytes`` bytes of ``slot``, uint8, not copied.

        Raises:
            ValueError: no such slot, or more bytes than a slot has.
        """
        if not 0 <= slot < self.slots or not 0 <= size_bytes <= self.slot_bytes:
            raise ValueError(f"slot {slot} with {size_bytes} bytes: the ring has {self.slots} slots of {self.slot_bytes} bytes")
        return np.frombuffer(self._map, np.uint8, count=size_bytes, offset=self._first + slot * self._stride)

    def close(self) -> None:
        """Unmap. Arrays from ``pixels`` must be gone; the memory itself lives while a descriptor or mapping does."""
        del self._words, self._states
        try:
            self._map.close()
        except BufferError as error:
            self._view()  # whoever still holds an image can still give it back
            raise RuntimeError("the ring is still in use: an image of it was kept beyond its release") from error

    def _view(self) -> None:
        self._words = np.frombuffer(self._map, np.uint32, count=_HEADER_WORDS)
        self._states = np.frombuffer(self._map, np.uint32, count=self.slots, offset=_HEADER_WORDS * 4)

    def __enter__(self) -> Self:
        """The ring itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unmap."""
        self.close()
