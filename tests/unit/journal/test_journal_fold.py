"""Folding: rows as they would have been without the crash, once, however often it is repeated."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.config.station import JournalConfig
from inspector.contract.errors import JournalError
from inspector.contract.records import ClosedPart, Outcome, Picture, Reason
from inspector.journal import fold as room
from inspector.journal.database import WriterLock
from inspector.journal.fold import Boot, fold
from inspector.journal.store import Store
from inspector.journal.watermark import Watermark
from inspector.journal.writer import Journal
from inspector.line.record_file import decode_closed, encode_closed

BOOT = Boot("boot-1", "line-1", "inspectord 1", 1_700_000_000_000_000_000)
TABLES = {
    "boot": "SELECT boot_id, station, program, stopped_utc_ns FROM boot ORDER BY id",
    "verdict": "SELECT * FROM verdict ORDER BY stream, part_no",
    "view": "SELECT v.stream, v.part_no, w.* FROM view w JOIN verdict v ON v.id = w.verdict_id ORDER BY 1, 2, w.view_no",
    "defect": "SELECT v.stream, v.part_no, d.* FROM defect d JOIN verdict v ON v.id = d.verdict_id ORDER BY 1, 2, d.defect_no",
}


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, but for what only tells the order of writing (``id``) and the row's own keys to it."""
    connection = sqlite3.connect(path)
    try:
        found = {}
        for table, statement in TABLES.items():
            cursor = connection.execute(statement)
            kept = [at for at, column in enumerate(cursor.description) if column[0] not in {"id", "verdict_id"}]
            found[table] = [tuple(row[at] for at in kept) for row in cursor]
        return found
    finally:
        connection.close()


def written(path: Path, parts: list[ClosedPart]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a daemon that lived on, but for its stop."""
    journal = Journal(JournalConfig(path=path), station=BOOT.station, boot_id=BOOT.boot_id, program=BOOT.program)
    journal.start()
    assert all(journal.offer(part) for part in parts)
    assert journal.stop(10)
    found = rows(path)
    found["boot"] = [(*row[:-1], None) for row in found["boot"]]
    return found


def some(made: SimpleNamespace) -> list[ClosedPart]:
    picture = Picture("top", np.zeros((4, 4), np.uint8), 0)
    views = made.make_part(5).views + made.make_part(5, camera="side").views
    huge = msgspec.structs.replace(views[0], view=msgspec.structs.replace(views[0].view, frame_id=2**64 - 1))
    return [
        made.make_part(1),
        made.make_part(2, Outcome.REJECT, pictures=(picture,)),
        made.make_part(3, Outcome.UNINSPECTED, reason=Reason.LATE, detail="no result", part_id=None),
        made.make_part(4, Outcome.REJECT, camera="side", defects=(made.make_defect(), made.make_defect("dent", score=0.1, counted=False))),
        made.make_part(5, views=(huge, views[1]), stream="top+side"),
    ]


def recorded(parts: list[ClosedPart]) -> list[ClosedPart]:
    """As the flight recorder gives them back."""
    body = [msgspec.msgpack.decode(encode_closed(part))[3] for part in parts]
    return [decode_closed(msgspec.msgpack.encode(one)) for one in body]


def test_the_rows_are_those_of_a_daemon_that_lived_on(tmp_path: Path, made: SimpleNamespace) -> None:
    parts = some(made)
    result = fold(tmp_path / "folded.sqlite", BOOT, recorded(parts))
    assert len(result.written) == len(parts)
    assert (result.known, result.refused) == (0, ())
    lived = written(tmp_path / "lived.sqlite", parts)
    assert rows(tmp_path / "folded.sqlite") == lived
    assert [len(lived[table]) for table in TABLES] == [1, 5, 6, 3]
    assert any(str(row[-1]).endswith(".jpg") for row in lived["view"])


@pytest.mark.parametrize("there", [0, 2, 5])
def test_only_what_is_missing_is_written(tmp_path: Path, made: SimpleNamespace, there: int) -> None:
    path, parts = tmp_path / "journal.sqlite", some(made)
    written(path, parts[:there])
    result = fold(path, BOOT, parts)
    assert (result.known, len(result.written)) == (there, 5 - there)
    again = fold(path, BOOT, parts)
    assert (again.known, again.written, again.refused) == (5, (), ())
    assert [row[1:3] for row in rows(path)["verdict"]] == [("side", 4), ("top", 1), ("top", 2), ("top", 3), ("top+side", 5)]


def test_the_same_numbers_of_another_boot_are_other_parts(tmp_path: Path, made: SimpleNamespace) -> None:
    path = tmp_path / "journal.sqlite"
    fold(path, BOOT, some(made))
    other = msgspec.structs.replace(made.make_part(1), seq=77)
    assert len(fold(path, Boot("boot-2", "line-1", "p", 1), [other]).written) == 1
    assert len(rows(path)["verdict"]) == 6


def test_a_fold_that_is_killed_between_its_transactions_is_finished_by_the_next(
    tmp_path: Path, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "journal.sqlite", [made.make_part(number) for number in range(1, 31)]
    monkeypatch.setattr(room, "_BATCH", 10)
    write, left = Store.write, [1]

    def killed(self: Store, entries: Any) -> None:
        if not left:
            raise JournalError("killed")
        left.pop()
        write(self, entries)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", killed)
        with pytest.raises(JournalError):
            fold(path, BOOT, parts)
    assert len(rows(path)["verdict"]) == 10
    result = fold(path, BOOT, parts)
    assert (result.known, len(result.written)) == (10, 20)
    assert [row[2] for row in rows(path)["verdict"]] == list(range(1, 31))


def test_a_row_that_the_database_never_takes_keeps_no_other_out(tmp_path: Path, made: SimpleNamespace) -> None:
    parts = [made.make_part(number) for number in range(1, 8)]
    parts[3] = msgspec.structs.replace(parts[3], seq=2**70)
    result = fold(tmp_path / "journal.sqlite", BOOT, parts)
    assert [one.part_no for one in result.refused] == [4]
    assert [one.part_no for one in result.written] == [1, 2, 3, 5, 6, 7]
    assert [row[2] for row in rows(tmp_path / "journal.sqlite")["verdict"]] == [1, 2, 3, 5, 6, 7]


def test_a_journal_that_another_daemon_writes_is_left_alone(tmp_path: Path, made: SimpleNamespace) -> None:
    lock = WriterLock(tmp_path / "journal.sqlite")
    with pytest.raises(JournalError, match="another inspector"):
        fold(tmp_path / "journal.sqlite", BOOT, some(made))
    lock.release()
    assert len(fold(tmp_path / "journal.sqlite", BOOT, some(made)).written) == 5


class Told:
    def __init__(self) -> None:
        self.last: tuple[int, tuple[tuple[int, int], ...]] = (0, ())

    def __call__(self, up_to: int, missing: tuple[tuple[int, int], ...]) -> None:
        self.last = (up_to, missing)


def test_the_journal_tells_what_it_has_and_what_it_has_refused(tmp_path: Path, made: SimpleNamespace) -> None:
    told = Told()
    config = JournalConfig(path=tmp_path / "journal.sqlite", max_queued=100, commit_ms=60_000)
    journal = Journal(config, station="s", boot_id="b", on_committed=told)
    journal.start()
    part = made.make_part(1)
    taken = [journal.offer(msgspec.structs.replace(part, part_no=number, record_no=number)) for number in range(1, 131)]
    refused = [number for number, one in enumerate(taken, 1) if not one]
    assert refused == list(range(101, 131))
    assert told.last == (0, ())
    assert journal.stop(10)
    assert told.last == (100, ((101, 130),))


def test_a_row_that_is_lost_counts_as_missing(tmp_path: Path, made: SimpleNamespace) -> None:
    told = Told()
    journal = Journal(JournalConfig(path=tmp_path / "journal.sqlite"), station="s", boot_id="b", on_committed=told)
    journal.start()
    for number in range(1, 8):
        journal.offer(made.make_part(number, record_no=number, seq=2**70 if number == 3 else number))
    journal.stop(10)
    assert told.last == (7, ((3, 3),))


@given(lost=st.lists(st.booleans(), min_size=1, max_size=1500))
def test_no_lost_part_is_ever_told_as_committed(made: SimpleNamespace, lost: list[bool]) -> None:
    """However many runs there are; only where there are too many may something count as missing that is not."""
    part, watermark = made.make_part(1), Watermark()
    told: tuple[int, tuple[tuple[int, int], ...]] = (0, ())
    for number, one in enumerate(lost, 1):
        part = msgspec.structs.replace(part, record_no=number)
        if one:
            watermark.lost(part)
        else:
            told = watermark.committed([part]) or told
    missing = {number for first, last in told[1] for number in range(first, last + 1)}
    truly = {number for number, one in enumerate(lost[: told[0]], 1) if one}
    assert truly <= missing
    if len(truly) <= 256:
        assert missing == truly
