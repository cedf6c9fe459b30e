"""Folding: parts of an earlier start of the daemon that the journal does not have, written as they would have been."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.errors import JournalError
from inspector.journal.rows import Entry
from inspector.journal.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inspector.contract.records import ClosedPart

_BATCH = 2000
"""Parts in one transaction at most."""


@dataclass(frozen=True, slots=True)
class Boot:
    """A start of the daemon, as the journal names it."""

    boot_id: str
    station: str
    program: str
    started_utc_ns: int


@dataclass(frozen=True, slots=True)
class Folded:
    """What became of the parts."""

    written: tuple[ClosedPart, ...]
    known: int
    """Were in the journal already."""
    refused: tuple[ClosedPart, ...]
    """Rows that the database will never take."""


def fold(path: Path, boot: Boot, parts: Sequence[ClosedPart]) -> Folded:
    """Write those of ``parts`` that the journal at ``path`` lacks, under their own boot; on the disk when this returns.

    May be repeated, also after it was killed half-way: a part that is there is left as it is. Each part has its wall clock
    (``closed_utc_ns``), and every stream and part number is given once. No journal may run meanwhile: this takes the writer's lock.

    Raises:
        JournalError: the journal cannot be written, is locked, damaged, or newer than the program.
    """
    store = Store(path, boot.station, boot.boot_id, boot.program, boot.started_utc_ns)
    next_id = store.open(check=True) + 1
    written: list[ClosedPart] = []
    refused: list[ClosedPart] = []
    try:
        known = store.known([(part.stream, part.part_no) for part in parts])
        missing = [part for part in parts if (part.stream, part.part_no) not in known]
        entries = [Entry(part, 0, number) for number, part in enumerate(missing, next_id)]
        for begin in range(0, len(entries), _BATCH):
            batch = entries[begin : begin + _BATCH]
            lost = _write(store, batch)
            refused += lost
            given_up = {(part.stream, part.part_no) for part in lost}
            written += [part for part in missing[begin : begin + _BATCH] if (part.stream, part.part_no) not in given_up]
    finally:
        store.close()
    return Folded(tuple(written), len(known), tuple(refused))


def _write(store: Store, batch: list[Entry]) -> list[ClosedPart]:
    """Write ``batch``; those of it that the database will never take."""
    try:
        store.write(batch)
    except JournalError:
        raise
    except Exception:  # noqa: BLE001 - whatever is wrong with one row must not keep the others out, nor the station from starting
        if len(batch) == 1:
            return [batch[0].item]  # type: ignore[list-item]
        half = len(batch) // 2
        return _write(store, batch[:half]) + _write(store, batch[half:])
    return []
