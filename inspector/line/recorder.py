"""The flight recorder: what was opened and closed is stored in a memory-mapped file before it goes to the wire.

``opened``, ``closed`` and ``beat`` are stores into memory, without a system call: the kernel keeps what a killed process has stored. What the
journal has committed may be overwritten; anything else is overwritten only when the ring is full of it, and that is counted. A part that is
still open when its record would be overwritten is recorded again.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
import zlib
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.errors import AddressError, ConfigError
from inspector.contract.records import Action
from inspector.line import record_file as layout
from inspector.line.memory import lies_in_memory, lock_in_memory
from inspector.line.record_file import RecorderState

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.contract.records import ClosedPart
    from inspector.line.parts import Opened
    from inspector.line.record_file import About

SIZE_BYTES = 64 * 1024 * 1024
"""More than a hundred thousand parts: more than the journal keeps in memory while the disk refuses."""
_SLACK_BYTES = 16 * 1024
"""Kept free, so that an open part can be recorded again before its old record goes."""
_LARGEST = 16
"""One record takes at most so small a part of the ring, and all open parts a quarter of it."""
_WORD = (1 << 64) - 1


class FlightRecorder:
    """One station's recorder. ``lock``, then ``start``; then the line thread alone calls ``opened``, ``closed`` and ``beat``.

    Args:
        folder: the runtime directory.
        station: name of the station.
        size_bytes: of the whole file.
    """

    def __init__(self, folder: Path, station: str, size_bytes: int = SIZE_BYTES) -> None:
        self.path = folder / f"{station}.recording"
        self._capacity = layout.aligned(size_bytes - layout.PAGE_BYTES)
        self._lock = -1
        self._map: mmap.mmap | None = None
        self._words = memoryview(bytearray(8 * layout.WORDS)).cast("Q")
        self._mutex = threading.Lock()  # the journal's thread against the stopping one; the line thread never takes it
        self._head = self._tail = 0
        self._open: dict[tuple[str, int], tuple[int, bytes]] = {}
        """Position and body of the record of every open part, oldest first."""
        self._open_bytes = 0
        self._recorded = self._overwritten = self._unrecorded = 0
        self._oldest = 1
        """Number of the oldest close in the ring."""
        self._about: About | None = None
        self._rules: tuple[str, Action] = ("", Action.STOP)
        self._seen_ns: dict[str, int] = {}
        self._told: tuple[int, tuple[tuple[int, int], ...]] = (0, ())
        self._in_memory = self._locked_in_memory = False

    def lock(self) -> None:
        """Keep a second daemon out, until ``stop`` or the end of the process.

        Raises:
            AddressError: another process holds the recorder.
            ConfigError: the folder cannot be written.
        """
        path = self.path.with_suffix(".lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError([f"runtime_dir: {path} cannot be made ({error.strerror}); name a folder that the service may write"]) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise AddressError(
                f"{self.path}: another inspector (process {holder}) records into this file: stop it or set another runtime_dir in the station file"
            ) from None
        except OSError as error:
            os.close(lock)
            raise ConfigError([f"runtime_dir: {path} cannot be written ({error.strerror}); name a folder with free space"]) from None
        self._lock = lock

    def start(self, about: About, alive_ns: int = 0) -> None:
        """Make the file anew, all of its pages at hand; what was there before is gone. The caller has the lock.

        Args:
            about: whose recording it is.
            alive_ns: last sign of life of the station before this start, monotonic; it counts until the first ``beat``.

        Raises:
            ConfigError: there is no room for it.
        """
        new = self.path.with_suffix(".new")
        size = layout.PAGE_BYTES + self._capacity
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)  # else a store into the mapping could be the process's end
                data = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise ConfigError([f"runtime_dir: {new} of {size} bytes cannot be made ({error.strerror}); name a folder with free space"]) from None
        for offset in range(0, size, mmap.PAGESIZE):  # a page that is first touched here is no page fault later
            data[offset] = 0
        data[: layout.PAGE_BYTES] = layout.page(about, self._capacity)
        self._about, self._seen_ns = about, dict(about.seen_ns)
        self.use(about.product_version, about.uninspected)
        self._in_memory, self._locked_in_memory = lies_in_memory(new), lock_in_memory(data)
        self._map = data
        self._words = memoryview(data)[layout.WORDS_AT : layout.WORDS_AT + 8 * layout.WORDS].cast("Q")
        self._words[layout.OFFSET] = (time.time_ns() - time.monotonic_ns()) & _WORD
        self._words[layout.ALIVE] = alive_ns
        new.replace(self.path)

    def stop(self, _: float = 0.0) -> bool:
        """Unmap and give the lock back; where the journal has everything, nothing is left but the header. Idempotent."""
        with self._mutex:
            data, self._map = self._map, None
            if data is not None:
                words, self._words = self._words, memoryview(bytearray(8 * layout.WORDS)).cast("Q")
                if not self._open and self._told == (self._recorded, ()):
                    words[layout.CLEAN] = 1
                    self._leave_header(words.tobytes())
                words.release()
                data.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)
        return True

    # The line thread.

    def opened(self, part: Opened) -> None:
        """A part was opened."""
        try:
            body = layout.encode_opened(part, *self._rules)
        except (TypeError, ValueError, OverflowError):  # what cannot be encoded must not end the line thread
            self._unrecorded += 1
            return
        if self._append(layout.OPENED, part.part_no, body):
            self._open[part.stream, part.part_no] = (self._head - layout.aligned(layout.RECORD_BYTES + len(body)), body)
            self._open_bytes += len(body)

    def closed(self, part: ClosedPart) -> int:
        """A part was closed, and is about to go to the wire. The record's number, 1, 2, 3, ...; 0: it could not be recorded (counted)."""
        try:
            body = layout.encode_closed(part)
        except (TypeError, ValueError, OverflowError):
            self._unrecorded += 1
            return 0
        number = self._recorded + 1
        if not self._append(layout.CLOSED, number, body):
            return 0
        self._recorded = number
        _, opened = self._open.pop((part.stream, part.part_no), (0, b""))
        self._open_bytes -= len(opened)
        self._seen_ns[part.stream] = max(self._seen_ns.get(part.stream, 0), layout.exposed_ns(part))
        return number

    def beat(self, now_ns: int) -> None:
        """The line thread lives."""
        self._words[layout.ALIVE] = now_ns
        self._words[layout.OFFSET] = (time.time_ns() - time.monotonic_ns()) & _WORD

    def use(self, product_version: str, uninspected: Action) -> None:
        """What parts that are opened from now on are inspected by, and act as if they are never closed."""
        self._rules = (product_version, uninspected)

    # The journal's thread.

    def committed(self, up_to: int, missing: tuple[tuple[int, int], ...] = ()) -> None:
        """Every close up to number ``up_to`` is in the journal, but for those from..to in ``missing``: the next start folds them."""
        with self._mutex:
            missing = tuple(one for one in missing if one[1] >= self._oldest)  # what is overwritten holds nothing back
            self._told = (up_to, missing)
            self._words[layout.COMMITTED] = min([up_to, *(first - 1 for first, _ in missing)])

    # Any thread.

    def state(self) -> RecorderState:
        """How it is now."""
        return RecorderState(
            recorded=self._recorded,
            committed=self._told[0],
            open=len(self._open),
            overwritten=self._overwritten,
            unrecorded=self._unrecorded,
            used_bytes=self._head - self._tail,
            size_bytes=self._capacity,
            in_memory=self._in_memory,
            locked_in_memory=self._locked_in_memory,
        )

    # Inside.

    def _leave_header(self, words: bytes) -> None:
        """A small file instead of the large one: the next start learns when this one was last alive, and that nothing is left to do."""
        if self._about is None:
            return
        new = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):  # then the large one says the same
            new.write_bytes(layout.page(msgspec.structs.replace(self._about, seen_ns=self._seen_ns), self._capacity, words))
            new.replace(self.path)

    def _append(self, kind: int, number: int, body: bytes) -> bool:
        size = layout.aligned(layout.RECORD_BYTES + len(body))
        if self._map is None or size > self._capacity // _LARGEST:
            self._unrecorded += 1
            return False
        # Twice: the ring's end may have to be skipped, and that is less than the record.
        while self._capacity - (self._head - self._tail) < 2 * size + _SLACK_BYTES:
            self._drop_oldest(self._map)
        self._put(self._map, kind, number, body)
        return True

    def _put(self, data: mmap.mmap, kind: int, number: int, body: bytes) -> None:
        """Store a record where there is room. The body first, the header with the checksum last: half of one is seen as such."""
        head, length = self._head, len(body)
        left = self._capacity - head % self._capacity
        if left < layout.RECORD_BYTES + length:
            if left >= layout.RECORD_BYTES:
                self._store(data, head, layout.SKIPPED, 0, left - layout.RECORD_BYTES, b"")
            head += left
        self._store(data, head, kind, number, length, body)
        self._head = head = head + layout.aligned(layout.RECORD_BYTES + length)
        self._words[layout.HEAD] = head

    def _store(self, data: mmap.mmap, position: int, kind: int, number: int, length: int, body: bytes) -> None:
        rest = layout.RECORD_REST.pack(length, position, number, kind, 0)
        checksum = zlib.crc32(body, zlib.crc32(rest))
        start = layout.PAGE_BYTES + position % self._capacity
        end = start + layout.RECORD_BYTES
        data[end : end + len(body)] = body
        data[start:end] = checksum.to_bytes(4, "little") + rest

    def _drop_oldest(self, data: mmap.mmap) -> None:
        tail = self._tail
        left = self._capacity - tail % self._capacity
        if left < layout.RECORD_BYTES:
            size = left
        else:
            _, length, _, number, kind, _ = layout.RECORD_HEAD.unpack_from(data, layout.PAGE_BYTES + tail % self._capacity)
            size = layout.aligned(layout.RECORD_BYTES + length)
            if kind == layout.CLOSED:
                self._oldest = number + 1
                up_to, missing = self._told
                if number > up_to or any(first <= number <= last for first, last in missing):
                    self._count_overwritten()
            elif kind == layout.OPENED:
                self._keep_open(data, tail)
        self._tail = tail + size
        self._words[layout.TAIL] = self._tail  # before anything is stored over it

    def _keep_open(self, data: mmap.mmap, tail: int) -> None:
        """Record the part of the oldest record again if it is still open."""
        key, (position, body) = next(iter(self._open.items()), (("", 0), (-1, b"")))
        if position != tail:
            return
        del self._open[key]
        if self._open_bytes > self._capacity // 4:
            self._open_bytes -= len(body)
            self._count_overwritten()
            return
        self._put(data, layout.OPENED, key[1], body)
        self._open[key] = (self._head - layout.aligned(layout.RECORD_BYTES + len(body)), body)

    def _count_overwritten(self) -> None:
        self._overwritten += 1
        self._words[layout.OVERWRITTEN] = self._overwritten
