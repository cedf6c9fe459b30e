"""The journal's disk is full, read-only, locked by others, or gone: the line must not notice."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

from kinds import Injected, at_least, kind
from plant import Plant

from inspector.contract.errors import ExitCode


def mount(*arguments: str) -> None:
    """Only in a kind that has name spaces of its own: it vanishes with them."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    return filler


def _unwritable(plant: Plant, break_it: Callable[[], object], mend_it: Callable[[], object]) -> Injected:
    """The journal cannot be written for a hundred parts, then again."""
    plant.begin()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    break_it()
    plant.wait_event("journal_unwritable")
    plant.wait_verdicts(plant.heard() + 100)
    mend_it()
    plant.wait_event("journal_recovered")
    plant.finish()
    return at_least(len(plant.events("journal_unwritable")), 1, "event journal_unwritable")


@kind("disk_full", "storage", needs_root=True, subset=True)
def disk_full(plant: Plant) -> Injected:
    """The state directory's disk is full for a while: rows wait in memory."""
    plant.state.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(plant.state))
    plant.write(plant.camera("", 0))
    filler = plant.state / "filler"
    return _unwritable(plant, lambda: fill(plant.state), filler.unlink)


@kind("disk_full_to_the_end", "storage", needs_root=True)
def disk_full_to_the_end(plant: Plant) -> Injected:
    """The disk is full when the daemon stops: the next start takes the rows from the flight recorder."""
    plant.state.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(plant.state))
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_verdicts(60)
    filler = fill(plant.state)
    plant.wait_event("journal_unwritable")
    plant.wait_verdicts(plant.heard() + 60)
    plant.end()
    filler.unlink()
    plant.again()
    plant.finish()
    return at_least(len(plant.events("journal_unwritable")), 1, "event journal_unwritable")


@kind("disk_full_and_sigkill", "storage", needs_root=True)
def disk_full_and_sigkill(plant: Plant) -> Injected:
    """SIGKILL while rows wait in memory for a full disk."""
    plant.state.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(plant.state))
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_verdicts(60)
    filler = fill(plant.state)
    plant.wait_event("journal_unwritable")
    plant.wait_verdicts(plant.heard() + 60)
    plant.end(number=9)
    filler.unlink()
    plant.again()
    plant.finish()
    return at_least(len(plant.events("journal_unwritable")), 1, "event journal_unwritable")


@kind("journal_read_only", "storage", needs_root=True)
def journal_read_only(plant: Plant) -> Injected:
    """The state directory's file system turns read-only, as after a disk error; an administrator mounts another one in its place."""
    old = plant.folder / "old"
    image = plant.folder / "disk.img"
    for folder in (plant.state, old):
        folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    mount("-o", "loop", str(image), str(plant.state))
    plant.write(plant.camera("", 0))

    def break_it() -> None:
        subprocess.run(["mount", "-o", "remount,abort", str(plant.state)], check=False, capture_output=True)

    def mend_it() -> None:
        subprocess.run(["mount", "--move", str(plant.state), str(old)], check=True, capture_output=True)
        plant.journals.append(old / "journal.sqlite")
        mount("-t", "tmpfs", "tmpfs", str(plant.state))

    return _unwritable(plant, break_it, mend_it)


@kind("journal_read_only_at_start", "storage", needs_root=True)
def journal_read_only_at_start(plant: Plant) -> Injected:
    """The journal's disk is read-only when the daemon is started again: refused with exit code 73, until it is mended."""
    plant.state.mkdir()
    mount("-t", "tmpfs", "tmpfs", str(plant.state))
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    plant.end()
    mount("-o", "remount,ro", str(plant.state))
    refused = plant.daemon()
    plant.ended(refused, ExitCode.JOURNAL)
    mount("-o", "remount,rw", str(plant.state))
    plant.again()
    plant.finish()
    return at_least(int("read" in refused.said or "write" in refused.said), 1, "exit status 73")


def _lock(plant: Plant) -> sqlite3.Connection:
    other = sqlite3.connect(plant.state / "journal.sqlite", isolation_level=None, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    return other


@kind("journal_locked", "storage")
def journal_locked(plant: Plant) -> Injected:
    """Another process holds the database locked for a while."""
    plant.write(plant.camera("", 0))
    others: list[sqlite3.Connection] = []

    def mend_it() -> None:
        others[0].execute("ROLLBACK")
        others[0].close()

    return _unwritable(plant, lambda: others.append(_lock(plant)), mend_it)


@kind("journal_locked_at_start", "storage")
def journal_locked_at_start(plant: Plant) -> Injected:
    """Another process holds the database locked when the daemon is started again: refused with exit code 73."""
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    plant.end(number=9)
    other = _lock(plant)
    refused = plant.daemon()
    plant.ended(refused, ExitCode.JOURNAL)
    other.execute("ROLLBACK")
    other.close()
    plant.again()
    plant.finish()
    return at_least(int("locked" in refused.said), 1, "exit status 73")


@kind("journal_moved_away", "storage")
def journal_moved_away(plant: Plant) -> Injected:
    """Somebody moves the journal away while it is written: a new one is made."""
    plant.write(plant.camera("", 0))
    old = plant.folder / "old"
    old.mkdir()

    def move() -> None:
        for suffix in ("", "-wal", "-shm"):
            (plant.state / f"journal.sqlite{suffix}").replace(old / f"journal.sqlite{suffix}")
        plant.journals.append(old / "journal.sqlite")

    return _unwritable(plant, move, lambda: None)
