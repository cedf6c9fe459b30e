"""Reading back: what was offered is what is read, and every filter means what it says."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.config.station import JournalConfig
from inspector.contract.errors import JournalError
from inspector.contract.pictures import picture_name
from inspector.contract.records import Action, Box, ClosedPart, Defect, Outcome, Picture, Reason, StageTimes
from inspector.journal.export import CSV_COLUMNS, utc_text, write_csv, write_json
from inspector.journal.reader import JournalReader, LoggedPart, PartQuery
from inspector.journal.writer import Journal


def fill(path: Path, parts: list[ClosedPart], boot_id: str = "boot-1") -> None:
    journal = Journal(JournalConfig(path=path), station="line-1", boot_id=boot_id)
    journal.start()
    assert all(journal.offer(part) for part in parts)
    assert journal.stop(20.0)


DAY_NS = 86_400 * 10**9
START_NS = 1_790_000_000 * 10**9


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory, made: SimpleNamespace) -> Path:
    """1201 parts of two boots: three pages."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    parts = []
    for number in range(1, 1201):
        if number % 10 == 0:
            part = made.make_part(number, Outcome.REJECT, defects=(made.make_defect("dent"), made.make_defect("scratch", counted=False)))
        elif number % 7 == 0:
            part = made.make_part(number, Outcome.UNINSPECTED, reason=Reason.LATE)
        else:
            part = made.make_part(number)
        parts.append(msgspec.structs.replace(part, closed_utc_ns=START_NS + number * 10**9))
    fill(path, parts)
    fill(path, [msgspec.structs.replace(made.make_part(1, camera="side"), closed_utc_ns=START_NS + DAY_NS)], "boot-2")
    return path


@pytest.fixture
def reader(journal: Path) -> Iterator[JournalReader]:
    with JournalReader(journal) as opened:
        yield opened


def numbers(reader: JournalReader, limit: int | None = None, **query: Any) -> list[int]:
    return [part.part_no for part in reader.parts(PartQuery(**query), limit=limit)]


def test_all_pages_in_order(reader: JournalReader) -> None:
    assert numbers(reader) == [*range(1, 1201), 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"outcome": "REJECT"}, list(range(10, 1201, 10))),
        ({"reason": "late"}, [number for number in range(7, 1201, 7) if number % 10]),
        ({"defect": "dent"}, list(range(10, 1201, 10))),
        ({"defect": "scratch"}, []),  # found, but not counted
        ({"stream": "side"}, [1]),
        ({"part_id": "P77"}, [77]),
        ({"boot_id": "boot-2"}, [1]),
        ({"since_utc_ns": START_NS + 1199 * 10**9}, [1199, 1200, 1]),
        ({"until_utc_ns": START_NS + 3 * 10**9}, [1, 2]),
        ({"outcome": "REJECT", "until_utc_ns": START_NS + 25 * 10**9}, [10, 20]),
    ],
)
def test_filters(reader: JournalReader, query: dict[str, Any], expected: list[int]) -> None:
    assert numbers(reader, **query) == expected


@pytest.mark.parametrize("limit", [1, 499, 500, 501, 1300])
def test_a_limit_gives_the_newest_in_order(reader: JournalReader, limit: int) -> None:
    assert numbers(reader, limit, boot_id="boot-1") == list(range(1, 1201))[-limit:]


def test_a_limit_with_a_filter_that_nothing_fits(reader: JournalReader) -> None:
    assert numbers(reader, 5, part_id="unknown") == []


@pytest.mark.parametrize("text", ["' OR 1=1 --", "P1'; DROP TABLE verdict; --", "%", "P_", "\x00", "🙂"])
def test_no_value_becomes_sql(reader: JournalReader, text: str) -> None:
    for field in ("outcome", "reason", "defect", "stream", "part_id", "boot_id"):
        assert numbers(reader, **{field: text}) == []
    assert len(numbers(reader)) == 1201


def test_counts(reader: JournalReader) -> None:
    late = len([number for number in range(7, 1201, 7) if number % 10])
    assert reader.counts("boot-1") == {"PASS": 1200 - 120 - late, "REJECT": 120, "UNINSPECTED": late}
    assert reader.counts("boot-2") == {"PASS": 1, "REJECT": 0, "UNINSPECTED": 0}
    assert reader.counts("unknown") == {"PASS": 0, "REJECT": 0, "UNINSPECTED": 0}
    assert sum(reader.counts().values()) == 1201
    assert reader.reasons() == {"late": late}
    assert (reader.logged("boot-1"), reader.logged("unknown")) == (1200, 0)
    assert reader.boots() == ["boot-1", "boot-2"]


def test_a_reader_cannot_write(reader: JournalReader) -> None:
    with pytest.raises(Exception, match="readonly"):
        reader._connection.exec_driver_sql("DELETE FROM verdict")
    reader._connection.rollback()


def test_reading_holds_no_transaction_between_pages(reader: JournalReader) -> None:
    parts = reader.parts()
    next(parts)
    assert not reader._connection.in_transaction()
    assert reader._connection.connection.dbapi_connection is not None
    assert not reader._connection.connection.dbapi_connection.in_transaction
    parts.close()


def test_reading_while_it_is_written(tmp_path: Path, made: SimpleNamespace) -> None:
    path = tmp_path / "journal.sqlite"
    fill(path, [made.make_part(number) for number in range(1, 1101)])
    writer = Journal(JournalConfig(path=path, commit_ms=1), station="line-1", boot_id="boot-2")
    writer.start()
    with JournalReader(path) as reader:
        for seen, part in enumerate(reader.parts(), 1):
            if part.boot_id == "boot-1":
                writer.offer(made.make_part(seen))
        assert writer.stop(10.0)
        assert writer.state().parts == 1100
        assert reader.logged("boot-2") == 1100


def test_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such journal"):
        JournalReader(tmp_path / "journal.sqlite")


@pytest.mark.parametrize("content", [b"", b"something else entirely, longer than a header of a hundred bytes" * 9])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="journal"):
        JournalReader(path)
    assert path.read_bytes() == content


@pytest.mark.needs_root
def test_a_journal_on_a_read_only_medium(tmp_path: Path, made: SimpleNamespace) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    fill(folder / "journal.sqlite", [made.make_part(1)])
    if subprocess.run(["mount", "--bind", folder, folder], check=False, capture_output=True).returncode:
        pytest.skip("no right to mount here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        with JournalReader(folder / "journal.sqlite") as reader:
            assert numbers(reader) == [1]
    finally:
        subprocess.run(["umount", folder], check=True)


def test_pictures_have_the_name_that_the_archive_gives_them(tmp_path: Path, made: SimpleNamespace) -> None:
    picture = Picture(camera="top", pixels=None, slot=0)  # type: ignore[arg-type]
    rejected = msgspec.structs.replace(made.make_part(1, Outcome.REJECT, pictures=(picture,)), closed_utc_ns=START_NS)
    passed = made.make_part(2, Outcome.PASS, pictures=(picture,))
    fill(tmp_path / "journal.sqlite", [rejected, passed])
    with JournalReader(tmp_path / "journal.sqlite") as reader:
        names = [part.views[0].picture for part in reader.parts()]
    assert names == [picture_name("boot-1", rejected, "top", START_NS), None]
    assert names[0] == "2026-09-21/boot-1_top_000000001_top.jpg"


def test_csv(reader: JournalReader) -> None:
    file = io.StringIO()
    assert write_csv(reader.parts(PartQuery(boot_id="boot-1")), file) == 1200
    file.seek(0)
    rows = list(csv.DictReader(file))
    assert len(rows) == 1200
    assert tuple(rows[0]) == CSV_COLUMNS
    assert (rows[9]["outcome"], rows[9]["defects"], rows[9]["defect_classes"], rows[9]["highest_score"]) == ("REJECT", "1", "dent", "0.9")
    assert rows[9]["closed_utc"] == utc_text(START_NS + 10 * 10**9)
    assert (rows[6]["reason"], rows[6]["highest_score"]) == ("late", "")


def test_json_lines(reader: JournalReader) -> None:
    file = io.StringIO()
    assert write_json(reader.parts(PartQuery(outcome="REJECT")), file) == 120
    first = json.loads(file.getvalue().splitlines()[0])
    assert first["part_no"] == 10
    assert [defect["counted"] for defect in first["defects"]] == [True, False]
    assert first["views"][0]["times"]["engine_ms"] == 6.0


def test_utc_text_cuts_and_never_rounds_up() -> None:
    assert utc_text(999_999_999) == "1970-01-01T00:00:00.999999Z"


# What was offered is what is read back, whatever it says.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MS = st.none() | st.floats(0, 1e6)
COORDINATE = st.floats(-1e4, 1e4)
BOX = st.builds(Box, COORDINATE, COORDINATE, COORDINATE, COORDINATE)
DEFECT = st.builds(
    Defect, name=TEXT, score=st.floats(0, 1), box_px=BOX, counted=st.booleans(), source=TEXT, camera=TEXT, box_mm=st.none() | BOX, area_mm2=MS
)
TIMES = st.builds(StageTimes, MS, MS, MS, MS, MS, MS, MS)
CHANGES = st.fixed_dictionaries(
    {
        "seq": st.integers(1, 2**53),
        "part_id": st.none() | TEXT,
        "outcome": st.sampled_from(Outcome),
        "reason": st.none() | st.sampled_from(Reason),
        "detail": TEXT,
        "action": st.sampled_from(Action),
        "defects": st.lists(DEFECT, max_size=4).map(tuple),
        "times": TIMES,
        "product": TEXT,
        "product_version": TEXT,
        "engines": st.lists(TEXT, max_size=3).map(tuple),
        "closed_utc_ns": st.integers(1, 2**61),
    }
)


def as_offered(part: ClosedPart) -> dict[str, Any]:
    offset_ns = part.closed_utc_ns - part.closed_ns
    values = {name: getattr(part, name) for name in ("stream", "part_no", "seq", "part_id", "detail", "product", "product_version", "engines")}
    values |= {"outcome": part.outcome.value, "reason": part.reason and part.reason.value, "action": part.action.value}
    values |= {"exposure_utc_ns": part.exposure_ns + offset_ns, "closed_utc_ns": part.closed_utc_ns, "times": msgspec.structs.asdict(part.times)}
    values["defects"] = [
        (
            one.name,
            one.score,
            one.counted,
            one.source,
            one.camera,
            msgspec.structs.astuple(one.box_px),
            one.box_mm and msgspec.structs.astuple(one.box_mm),
        )
        for one in part.defects
    ]
    return values


def as_logged(part: LoggedPart) -> dict[str, Any]:
    names = ("stream", "part_no", "seq", "part_id", "detail", "product", "product_version", "engines", "outcome", "reason", "action")
    values: dict[str, Any] = {name: getattr(part, name) for name in names}
    values |= {"exposure_utc_ns": part.exposure_utc_ns, "closed_utc_ns": part.closed_utc_ns, "times": part.times}
    values["defects"] = [(one.name, one.score, one.counted, one.source, one.camera, one.box_px, one.box_mm) for one in part.defects]
    return values


@settings(max_examples=15)
@given(changes=st.lists(CHANGES, min_size=1, max_size=8))
def test_what_was_offered_is_what_is_read(made: SimpleNamespace, changes: list[dict[str, Any]]) -> None:
    parts = [made.make_part(number, **change) for number, change in enumerate(changes, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        fill(path, parts)
        with JournalReader(path) as reader:
            logged = list(reader.parts())
    assert [as_logged(part) for part in logged] == [as_offered(part) for part in parts]


def test_the_file_is_plain_sqlite(journal: Path) -> None:
    """The queries of docs/journal.md run with any SQLite."""
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    text = (Path(__file__).parents[3] / "docs" / "journal.md").read_text()
    blocks = text.split("```sql\n")[1:]
    assert len(blocks) >= 4
    for block in blocks:
        connection.execute(block.partition("```")[0]).fetchall()
    connection.close()
