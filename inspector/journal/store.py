"""The journal's one writer connection: opened, migrated and checked, then batch after batch, each in one transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, union_all, update
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, NotSupportedError, OperationalError, ProgrammingError

from inspector.contract.errors import JournalError
from inspector.journal.database import WriterLock, check_integrity, damaged, migrate, open_writer
from inspector.journal.rows import Entry, RowBuilder, insert_statements
from inspector.journal.schema import BLIND, BOOT, EVENT, LATE_RESULT, VERDICT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection

_BUSY_S = 0.25
"""A foreign lock is waited for so long; then the batch waits in memory and the thread can still be stopped."""
_START_BUSY_S = 2.0
_LOOK_EVERY_S = 1.0
_KEYS = 500
"""Values in one statement: older SQLite takes 999."""
_ROW_ERRORS = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
"""What SQLite says of a row, not of the disk."""


class Store:
    """Owned by one thread at a time: the starting one, then the journal's.

    Args:
        path: the journal's file.
        station: name of the station.
        boot_id: this start of the daemon.
        program: name and version of the program.
        started_utc_ns: when that start was, ns since 1970; None: now.
    """

    def __init__(self, path: Path, station: str, boot_id: str, program: str, started_utc_ns: int | None = None) -> None:
        self._path = path
        started_utc_ns = time.time_ns() if started_utc_ns is None else started_utc_ns
        self._boot = {"boot_id": boot_id, "station": station, "program": program, "started_utc_ns": started_utc_ns}
        self._row = 0
        self._statements = insert_statements()
        self._lock: WriterLock | None = None
        self._connection: Connection | None = None
        self._builder = RowBuilder(0, boot_id)
        self._file: tuple[int, int] = (0, 0)
        self._looked_at = 0.0

    @property
    def is_open(self) -> bool:
        """True: batches can be written."""
        return self._connection is not None

    def open(self, *, check: bool) -> int:
        """Open, migrate and, with ``check``, look for damage; returns the highest id in use.

        Raises:
            JournalError: one sentence naming the path and the mend.
        """
        self._lock = WriterLock(self._path)
        try:
            self._connection = open_writer(self._path, busy_s=_START_BUSY_S if check else _BUSY_S)
            if check:
                check_integrity(self._connection, self._path)
            migrate(self._connection, self._path)
            last_id = self._enter_boot(self._connection)
            self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
            self._connection.rollback()
            self._file = self._identity()
        except OSError as error:
            self.close()
            raise JournalError(f"{self._path}: the journal cannot be read ({error.strerror}); check its folder") from None
        except OperationalError as error:
            self.close()
            raise JournalError(
                f"{self._path}: the journal cannot be written ({error.orig}); give the daemon's user write access and free space, "
                "end what holds it locked, or set another journal.path"
            ) from None
        except DatabaseError as error:
            self.close()
            raise damaged(self._path, str(error.orig)) from None
        except BaseException:
            self.close()
            raise
        return last_id

    def write(self, entries: list[Entry]) -> None:
        """One transaction with every row of ``entries``, on the disk when this returns.

        Raises:
            JournalError: the disk is full, read-only, locked or failing, or the file was removed or replaced: try again later.
            Exception: any other error is a defect of the rows; nothing of them is in the journal.
        """
        if self._connection is None:
            raise JournalError(f"{self._path}: the journal is closed")
        self._look()
        rows = self._builder.rows(entries)
        try:
            with self._connection.begin():
                for table, statement in self._statements.items():
                    if rows[table]:
                        self._connection.exec_driver_sql(statement, rows[table])
        except _ROW_ERRORS:
            raise
        except DatabaseError as error:
            raise JournalError(f"{self._path}: {error.orig}") from error

    def known(self, keys: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """Those of ``keys`` (stream, part number) that the journal has of this boot.

        Raises:
            JournalError: it cannot be read.
        """
        if self._connection is None:
            raise JournalError(f"{self._path}: the journal is closed")
        by_stream: dict[str, list[int]] = {}
        for stream, part_no in keys:
            by_stream.setdefault(stream, []).append(part_no)
        found: set[tuple[str, int]] = set()
        try:
            for stream, numbers in by_stream.items():
                for begin in range(0, len(numbers), _KEYS):
                    asked = VERDICT.c.part_no.in_(numbers[begin : begin + _KEYS])
                    statement = select(VERDICT.c.part_no).where(VERDICT.c.boot == self._row, VERDICT.c.stream == stream, asked)
                    found |= {(stream, int(number)) for number in self._connection.execute(statement).scalars()}
        except DatabaseError as error:
            raise JournalError(f"{self._path}: {error.orig}") from error
        finally:
            self._connection.rollback()
        return found

    def close(self, *, stopped: bool = False) -> None:
        """Close the file and give the lock back; ``stopped`` notes a clean stop of the daemon first, if the disk lets it."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                try:
                    if stopped:
                        with connection.begin():
                            connection.execute(update(BOOT).where(BOOT.c.boot_id == self._boot["boot_id"]).values(stopped_utc_ns=time.time_ns()))
                except DatabaseError:
                    pass  # a boot without a stop reads as killed: the safe side
                finally:
                    connection.close()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.release()

    def _enter_boot(self, connection: Connection) -> int:
        boot_id = str(self._boot["boot_id"])
        with connection.begin():
            row = connection.execute(select(BOOT.c.id).where(BOOT.c.boot_id == boot_id)).scalar()
            if row is None:
                row = connection.execute(insert(BOOT).values(self._boot).returning(BOOT.c.id)).scalar_one()
            highest = union_all(*(select(func.max(table.c.id).label("id")) for table in (VERDICT, LATE_RESULT, BLIND, EVENT))).subquery()
            last_id = connection.execute(select(func.max(highest.c.id))).scalar()
        self._row = int(row)
        self._builder = RowBuilder(self._row, boot_id)
        return int(last_id or 0)

    def _identity(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _look(self) -> None:
        # SQLite goes on writing into a file that was removed or replaced: those rows would be lost without an error.
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        try:
            same = self._identity() == self._file
        except OSError:
            same = False
        if not same:
            raise JournalError(f"{self._path}: the journal's file was removed or replaced; a new one is made")
