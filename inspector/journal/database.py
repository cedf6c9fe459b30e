"""Opening the journal's file: the one writer with its lock and migrations, and read-only connections for everybody else.

SQLite before 3.51.3 can corrupt a write-ahead log that two connections reset at once, so that one connection alone writes and
checkpoints (in its commits), a lock file keeps a second daemon out, and readers are opened ``mode=ro``. Memory mapping stays off:
a disk error would then be a signal instead of an error.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, event
from sqlalchemy.exc import DatabaseError

from inspector.contract.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

MIGRATIONS = "inspector.journal:migrations"
CHECK_BYTES = 256 * 1024 * 1024
"""A journal up to this size is checked whole at start; a larger one would keep the line waiting."""
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_MEND = "set journal.path to a local folder that the daemon's user may write"


class WriterLock:
    """The right to write one journal: held by one process, released by the kernel when that process ends however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock of the journal at ``path``.

        Raises:
            JournalError: another process holds it, or the folder cannot be written.
        """
        lock_path = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"{path}: the journal cannot be made here ({error.strerror}); {_MEND}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise JournalError(f"{path}: another inspector (process {holder}) writes this journal; stop it or set another journal.path") from None
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._fd)
            raise JournalError(f"{path}: the journal cannot be written ({error.strerror}); {_MEND}") from None

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes hold locks on two files of that name."""
        os.close(self._fd)


def open_writer(path: Path, *, busy_s: float) -> Connection:
    """The writer's connection: WAL, every commit synced to the disk, transactions begun as writers. The caller holds the lock.

    Args:
        path: the journal; made when absent.
        busy_s: how long a foreign lock is waited for, in seconds.

    Raises:
        sqlalchemy.exc.DBAPIError: it cannot be opened.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "mmap_size = 0", f"journal_size_limit = {_WAL_KEPT_BYTES}"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    # The driver's own transactions are off (isolation_level=None). IMMEDIATE: a foreign lock shows at the beginning, when nothing is half done.
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine.connect()


def open_reader(path: Path) -> Connection:
    """A connection that can neither write nor checkpoint.

    Raises:
        JournalError: there is no journal at ``path``, or it cannot be read.
    """
    if not path.is_file():
        raise JournalError(f"{path}: no such journal; name the station's state directory or its journal file")
    wal = path.with_name(path.name + "-wal")
    # Reading a WAL journal needs its -shm file. Where that cannot be made (a read-only medium) and nothing waits in the log, the file
    # is whole by itself.
    modes = ["mode=ro"] if wal.exists() and wal.stat().st_size else ["mode=ro", "mode=ro&immutable=1"]
    problem = ""
    for mode in modes:
        uri = f"file:{quote(str(path.absolute()))}?{mode}"
        engine = create_engine("sqlite://", creator=lambda uri=uri: sqlite3.connect(uri, uri=True, timeout=5.0), poolclass=NullPool)
        connection = engine.connect()
        try:
            current = check_version(connection, path)
            connection.rollback()
        except DatabaseError as error:
            connection.close()
            problem = str(error.orig)
        except JournalError:
            connection.close()
            raise
        else:
            if current:
                return connection
            connection.close()
            raise JournalError(f"{path}: the journal is empty, or of an older inspector; start this version's daemon on it once")
    raise JournalError(f"{path}: the journal cannot be read ({problem}); check that it is a journal and that you may read its folder")


def check_version(connection: Connection, path: Path) -> bool:
    """True: the tables are this program's. False: they are older, or there are none yet.

    Raises:
        JournalError: they are newer.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_config())
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise JournalError(
            f"{path}: the journal was written by a newer inspector (tables {found}, this program knows {scripts.get_current_head()}); "
            "install that version, or set another journal.path"
        )
    return found == scripts.get_current_head()


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to this program's version, in one transaction.

    Raises:
        JournalError: the journal is newer than the program.
        sqlalchemy.exc.DBAPIError: it cannot be written.
    """
    with connection.begin():
        if not check_version(connection, path):
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def check_integrity(connection: Connection, path: Path) -> None:
    """Look for damage (PRAGMA quick_check) in a journal of up to ``CHECK_BYTES``.

    Raises:
        JournalError: it is damaged.
        sqlalchemy.exc.DBAPIError: it cannot be read.
    """
    if path.stat().st_size > CHECK_BYTES:
        return
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    connection.rollback()
    if said != "ok":
        raise damaged(path, str(said))


def damaged(path: Path, problem: str) -> JournalError:
    """What to say of a journal that SQLite calls broken."""
    return JournalError(f"{path}: the journal is damaged ({problem.splitlines()[0]}); move it and its -wal file away and start again")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("path_separator", "os")
    return config
