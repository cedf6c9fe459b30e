"""The journal as an output: a bounded queue in memory and one thread that writes it, in groups, through the one connection."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.errors import JournalError
from inspector.contract.records import ClosedPart, Event, EventLevel
from inspector.journal.rows import Entry
from inspector.journal.store import Store
from inspector.journal.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.config.station import JournalConfig
    from inspector.contract.records import OutputItem
    from inspector.journal.watermark import Runs

_WAKE_AT = 500
"""Items that wait: the thread writes at once instead of at the end of its interval."""
_BATCH = 2000
"""Items in one transaction at most."""
_BACK_OFF_MIN_S, _BACK_OFF_MAX_S = 0.1, 5.0
_SPARE_S = 0.4
"""Kept of a stop's deadline for closing the file."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """One consistent snapshot: ``accepted == committed + dropped + queued``."""

    writable: bool
    """False: the last attempt to write failed; rows wait in memory."""
    accepted: int
    """Items taken since the start."""
    committed: int
    """Items on the disk."""
    parts: int
    """Those of them that are parts: this boot's logged verdicts."""
    queued: int
    """Items in memory."""
    refused: int
    """Items not taken, because the queue was full or the journal stopped."""
    dropped: int
    """Items taken and lost: rows the database will never take, or still in memory at the end of a stop."""
    last_error: str
    """What the last failure said; stays after the recovery."""


def _ignore(*_: object) -> None:
    """The default listener."""


class Journal:
    """Output that keeps parts, late results, blind intervals and events in SQLite.

    Args:
        config: path, commit interval and bound; the path is absolute.
        station: name of the station.
        boot_id: this start of the daemon.
        program: name and version of the program, kept with the boot.
        on_event: told when the journal becomes unwritable, recovers, or loses a row; called from the journal's thread.
        on_committed: told the flight recorder's number up to which every part is on the disk, and the runs of numbers below it that never
            will be (first, last); called from the journal's thread, must return at once.
    """

    def __init__(
        self,
        config: JournalConfig,
        *,
        station: str,
        boot_id: str,
        program: str = "inspector",
        on_event: Callable[[Event], None] = _ignore,
        on_committed: Callable[[int, Runs], None] = _ignore,
    ) -> None:
        self._config = config
        self._store = Store(config.path, station, boot_id, program)
        self._on_event = on_event
        self._on_committed = on_committed
        self._watermark = Watermark()
        self._mutex = threading.Lock()  # guards the queue and the counts; never held while the disk works
        self._queue: deque[tuple[OutputItem, int]] = deque()
        self._batch: list[Entry] = []
        self._accepted = self._committed = self._parts = self._refused = self._dropped = 0
        self._open = False
        self._writable = True
        self._last_error = ""
        self._failed_at = 0.0
        self._next_id = 1
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Open, migrate and check the journal, then start its thread.

        Raises:
            JournalError: it cannot be written, is locked, damaged, or newer than the program.
        """
        self._next_id = self._store.open(check=True) + 1
        self._open = True
        self._thread.start()

    def offer(self, item: OutputItem) -> bool:
        """Take ``item`` if there is room. Any thread; never waits for the disk."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        with self._mutex:
            waiting = len(self._queue) + len(self._batch)
            if not self._open or waiting >= self._config.max_queued:
                self._refused += 1
                self._watermark.lost(item)
                return False
            self._queue.append((item, offset_ns))
            self._accepted += 1
        if waiting >= _WAKE_AT and not self._wake.is_set():
            self._wake.set()
        return True

    def state(self) -> JournalState:
        """How it is now. Any thread."""
        with self._mutex:
            return JournalState(
                writable=self._writable and (not self._open or self._thread.is_alive()),
                accepted=self._accepted,
                committed=self._committed,
                parts=self._parts,
                queued=len(self._queue) + len(self._batch),
                refused=self._refused,
                dropped=self._dropped,
                last_error=self._last_error,
            )

    def stop(self, deadline_s: float) -> bool:
        """Refuse from now on, write what waits, close the file. True: every accepted item is on the disk and the thread has ended."""
        with self._mutex:
            self._open = False
        if self._thread.ident is None:
            return True
        self._give_up_at = time.monotonic() + max(deadline_s / 2, deadline_s - _SPARE_S)
        self._stop.set()
        self._wake.set()
        self._thread.join(deadline_s)
        state = self.state()
        return not self._thread.is_alive() and state.accepted == state.committed

    # From here on: the journal's thread.

    def _run(self) -> None:
        back_off_s = _BACK_OFF_MIN_S
        while True:
            stopping = self._stop.is_set()  # read before the queue: what was offered before the stop is taken below
            self._take()
            if not self._batch:
                if stopping:
                    break
                self._wait(self._config.commit_ms / 1000)
            elif self._commit():
                back_off_s = _BACK_OFF_MIN_S
                if not stopping and len(self._queue) < _WAKE_AT:
                    self._wait(self._config.commit_ms / 1000)
            elif stopping:
                if time.monotonic() >= self._give_up_at:
                    break
                time.sleep(0.02)
            else:
                self._stop.wait(back_off_s)
                back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)
        with self._mutex:
            self._dropped += len(self._batch) + len(self._queue)  # above the watermark: the next start folds its parts
            self._batch.clear()
            self._queue.clear()
        self._store.close(stopped=True)

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        if not self._stop.is_set():
            self._wake.clear()

    def _take(self) -> None:
        """Fill the batch from the queue, up to its bound."""
        with self._mutex:
            while self._queue and len(self._batch) < _BATCH:
                item, offset_ns = self._queue.popleft()
                self._batch.append(Entry(item, offset_ns, self._next_id))
                self._next_id += 1

    def _commit(self) -> bool:
        """Write the batch; False: the disk refuses, it stays in memory."""
        try:
            if not self._store.is_open:
                self._next_id = max(self._next_id, self._store.open(check=False) + 1)
            self._store.write(self._batch)
        except JournalError as error:
            self._failed(str(error))
            return False
        except Exception:  # noqa: BLE001 - whatever is wrong with one row must not stop the journal
            return self._commit_singly()
        self._done(self._batch)
        return True

    def _commit_singly(self) -> bool:
        """The batch holds a row that the database will never take: write the others, count it and tell."""
        while self._batch:
            entry = self._batch[:1]
            try:
                self._store.write(entry)
            except JournalError as error:
                self._failed(str(error))
                return False
            except Exception as error:  # noqa: BLE001 - see above
                self._lost(entry[0].item, error)
            else:
                self._done(entry)
        return True

    def _done(self, entries: list[Entry]) -> None:
        parts = sum(isinstance(entry.item, ClosedPart) for entry in entries)
        with self._mutex:
            self._committed += len(entries)
            self._parts += parts
            told = self._watermark.committed(entry.item for entry in entries)
            del self._batch[: len(entries)]
            recovered, self._writable = not self._writable, True
            waiting = len(self._queue) + len(self._batch)
        if told is not None:
            self._on_committed(*told)
        if recovered:
            blocked_s = time.monotonic() - self._failed_at
            self._tell("journal_recovered", EventLevel.INFO, f"the journal is written again after {blocked_s:.1f} s; {waiting} items wait")

    def _lost(self, item: OutputItem, error: Exception) -> None:
        problem = str(error).partition("\n")[0]
        with self._mutex:
            self._dropped += 1
            self._watermark.lost(item)
            self._last_error = problem
            del self._batch[:1]
        named = f"part {item.stream}/{item.part_no}" if isinstance(item, ClosedPart) else type(item).__name__
        self._tell("journal_row_lost", EventLevel.ERROR, f"{named} cannot be kept in the journal: {problem}")

    def _failed(self, problem: str) -> None:
        # The connection is made anew for every attempt: after a disk error, or on another mount, the old one may never work again.
        self._store.close()
        first_line = problem.partition("\n")[0]
        with self._mutex:
            first, self._writable = self._writable, False
            self._last_error = first_line
            waiting = len(self._queue) + len(self._batch)
        if first:
            self._failed_at = time.monotonic()
            detail = f"the journal cannot be written ({first_line}): {waiting} items wait in memory, {self._config.max_queued} at most"
            self._tell("journal_unwritable", EventLevel.ERROR, detail)

    def _tell(self, name: str, level: EventLevel, detail: str) -> None:
        self._on_event(Event(name=name, level=level, detail=detail, at_ns=time.monotonic_ns()))
