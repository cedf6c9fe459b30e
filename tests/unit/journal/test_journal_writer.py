"""The journal's writer: a real SQLite file, real faults, real kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from inspector.config.station import JournalConfig
from inspector.contract.errors import ExitCode, JournalError
from inspector.contract.records import Blind, Event, EventLevel, LateResult, Outcome, Reason
from inspector.journal.reader import JournalReader, PartQuery
from inspector.journal.writer import Journal

ASSETS = Path(__file__).parents[2] / "assets" / "closed_parts.py"


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what another thread does; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


class Station:
    """Makes journals and stops them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._journals: list[Journal] = []

    def journal(self, boot_id: str = "boot-1", **settings: Any) -> Journal:
        config = JournalConfig(path=self.path, **({"commit_ms": 5.0} | settings))
        journal = Journal(config, station="line-1", boot_id=boot_id, on_event=self.events.append)
        self._journals.append(journal)
        return journal

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def close(self) -> None:
        for journal in self._journals:
            journal.stop(5.0)


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path / "state" / "journal.sqlite")
    yield made
    made.close()


def read(path: Path) -> list[Any]:
    with JournalReader(path) as reader:
        return list(reader.parts())


def test_everything_offered_is_there_after_the_stop(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal(commit_ms=10_000.0)  # only the stop can have written it
    journal.start()
    for number in range(1, 301):
        assert journal.offer(made.make_part(number, Outcome.REJECT if number % 3 == 0 else Outcome.PASS))
    assert journal.stop(10.0)
    state = journal.state()
    assert (state.accepted, state.committed, state.parts, state.queued, state.refused, state.dropped) == (300, 300, 300, 0, 0, 0)
    assert [part.part_no for part in read(station.path)] == list(range(1, 301))


def test_rows_reach_the_disk_without_a_stop(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    journal.offer(made.make_part(1))
    until(lambda: journal.state().parts == 1)
    assert len(read(station.path)) == 1


def test_the_settings_that_keep_a_journal_whole(station: Station, made: SimpleNamespace) -> None:
    station.journal().start()
    with sqlite3.connect(f"file:{station.path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    journal = station._journals[0]
    assert journal._store._connection is not None
    assert journal._store._connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    assert journal._store._connection.exec_driver_sql("PRAGMA mmap_size").scalar() in (0, None)
    journal._store._connection.rollback()


def test_blind_events_and_late_results_are_kept(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    now_ns = time.monotonic_ns()
    journal.offer(Blind("top", now_ns - 10**9, None, "camera lost"))
    journal.offer(Event("camera_lost", EventLevel.ERROR, "no answer", now_ns, "top"))
    journal.offer(LateResult("top", 7, made.make_proposal(), now_ns))
    journal.offer(Blind("top", now_ns - 10**9, now_ns, "camera lost, and back"))
    assert journal.stop(5.0)
    with JournalReader(station.path) as reader:
        (blind,) = reader.blinds()
        (event,) = reader.events()
    assert blind.to_utc_ns is not None
    assert blind.to_utc_ns - blind.from_utc_ns == 10**9
    assert blind.cause == "camera lost, and back"
    assert (event.name, event.level, event.stream) == ("camera_lost", "error", "top")
    assert abs(event.at_utc_ns - time.time_ns()) < 60 * 10**9
    connection = sqlite3.connect(station.path)
    row = connection.execute("SELECT part_no, outcome, engine_ms, defects FROM late_result").fetchone()
    connection.close()
    assert row[:3] == (7, "REJECT", 6.0)
    assert '"scratch"' in row[3]


def test_a_clean_stop_is_told_from_a_kill(station: Station) -> None:
    for boot_id in ("one", "two"):
        journal = station.journal(boot_id)
        journal.start()
        assert journal.stop(5.0)
    connection = sqlite3.connect(station.path)
    rows = connection.execute("SELECT boot_id, stopped_utc_ns >= started_utc_ns FROM boot ORDER BY id").fetchall()
    connection.close()
    assert rows == [("one", 1), ("two", 1)]


def test_a_full_queue_refuses_and_counts(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal(max_queued=100, commit_ms=60_000.0)
    assert not journal.offer(made.make_part(1)), "not started yet"
    journal.start()
    taken = [journal.offer(made.make_part(number)) for number in range(1, 151)]
    assert taken == [True] * 100 + [False] * 50
    assert journal.state().refused == 51
    assert journal.stop(5.0)
    assert not journal.offer(made.make_part(999)), "stopped"
    assert len(read(station.path)) == 100


def test_a_foreign_lock_never_stops_the_offers_and_nothing_is_lost(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    journal.offer(made.make_part(1))
    until(lambda: journal.state().parts == 1)
    foreign = sqlite3.connect(station.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    for number in range(2, 1001):
        assert journal.offer(made.make_part(number))
    assert time.monotonic() - began < 2.0
    until(lambda: not journal.state().writable)
    assert "locked" in journal.state().last_error
    assert journal.state().queued == 999
    foreign.execute("ROLLBACK")
    foreign.close()
    until(lambda: journal.state().parts == 1000)
    assert station.names() == ["journal_unwritable", "journal_recovered"]
    assert [part.part_no for part in read(station.path)] == list(range(1, 1001))


def test_a_stop_while_the_disk_refuses_keeps_its_deadline_and_counts(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    foreign = sqlite3.connect(station.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    for number in range(1, 11):
        journal.offer(made.make_part(number))
    began = time.monotonic()
    assert not journal.stop(1.5)
    assert time.monotonic() - began < 1.7
    foreign.close()
    journal._thread.join(5.0)
    state = journal.state()
    assert (state.dropped, state.queued) == (10, 0)


def test_a_removed_journal_is_noticed_and_made_anew(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    for path in station.path.parent.iterdir():
        path.unlink()
    for number in range(1, 4):
        journal.offer(made.make_part(number))
        journal._store._looked_at = 0.0
    until(lambda: station.path.exists() and journal.state().parts == 3)
    assert journal.stop(5.0)
    assert len(read(station.path)) == 3
    assert "journal_recovered" in station.names()


def test_one_row_that_cannot_be_kept_costs_that_row_alone(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal(commit_ms=10_000.0)
    journal.start()
    journal.offer(made.make_part(1))
    journal.offer(made.make_part(1, detail="the same number again"))
    journal.offer(made.make_part(2, detail="\ud800"))
    journal.offer(made.make_part(3))
    assert not journal.stop(5.0), "two were lost: that is no clean stop"
    state = journal.state()
    assert (state.accepted, state.committed, state.dropped) == (4, 2, 2)
    assert [part.part_no for part in read(station.path)] == [1, 3]
    assert station.names() == ["journal_row_lost", "journal_row_lost"]
    assert "top/1" in station.events[0].detail


def test_sixty_four_bit_counters_survive(station: Station, made: SimpleNamespace) -> None:
    part = made.make_part(1)
    view = msgspec.structs.replace(part.views[0].view, frame_id=2**64 - 1, frame_no=2**63, encoder=-5)
    closed = msgspec.structs.replace(part.views[0], view=view)
    journal = station.journal()
    journal.start()
    journal.offer(msgspec.structs.replace(part, views=(closed,)))
    assert journal.stop(5.0)
    (logged,) = read(station.path)
    assert (logged.views[0].frame_id, logged.views[0].frame_no, logged.views[0].encoder) == (2**64 - 1, 2**63, -5)


def refusal(station: Station) -> str:
    with pytest.raises(JournalError) as caught:
        station.journal().start()
    assert caught.value.exit_code is ExitCode.JOURNAL
    text = str(caught.value)
    assert str(station.path) in text
    assert "\n" not in text
    return text


def test_a_second_writer_is_refused(station: Station) -> None:
    station.journal().start()
    assert f"process {os.getpid()}" in refusal(station)


def test_a_locked_journal_is_refused_at_start(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    station.journal().start()
    station.close()
    monkeypatch.setattr("inspector.journal.store._START_BUSY_S", 0.1)
    foreign = sqlite3.connect(station.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    try:
        assert "locked" in refusal(station)
    finally:
        foreign.close()


def test_a_file_that_is_no_journal_is_refused(station: Station) -> None:
    station.path.parent.mkdir()
    station.path.write_bytes(b"not a database, but long enough to be read as one " * 100)
    assert "damaged" in refusal(station)


def test_a_damaged_journal_is_refused(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal()
    journal.start()
    for number in range(1, 501):
        journal.offer(made.make_part(number, Outcome.REJECT))
    assert journal.stop(5.0)
    with station.path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(6 * 4096))
    assert "damaged" in refusal(station)


def test_a_folder_in_the_place_of_the_journal_is_refused(station: Station) -> None:
    station.path.mkdir(parents=True)
    assert "cannot be" in refusal(station)


def test_a_file_in_the_place_of_the_folder_is_refused(station: Station) -> None:
    station.path.parent.write_text("")
    assert "cannot be made" in refusal(station)


def test_a_newer_journal_is_refused(station: Station) -> None:
    station.journal().start()
    station.close()
    connection = sqlite3.connect(station.path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    assert "newer inspector" in refusal(station)
    with pytest.raises(JournalError, match="newer inspector"):
        JournalReader(station.path)


def test_start_after_a_refusal(station: Station) -> None:
    station.path.parent.mkdir()
    station.path.write_bytes(b"x" * 4096)
    refusal(station)
    station.path.unlink()
    journal = station.journal()
    journal.start()
    assert journal.stop(5.0)


_WRITER = """
import runpy, sys, itertools, time
from pathlib import Path
from inspector.config.station import JournalConfig
from inspector.contract.records import Outcome
from inspector.journal.writer import Journal
made = runpy.run_path(sys.argv[1])
journal = Journal(JournalConfig(path=Path(sys.argv[2]), commit_ms=1.0), station="line-1", boot_id=sys.argv[3])
journal.start()
for number in itertools.count(1):
    journal.offer(made["make_part"](number, Outcome.REJECT))
    print(journal.state().parts, flush=True)
    time.sleep(0.0005)
"""


def test_kill_at_any_instant_leaves_a_healthy_journal_with_every_committed_part(station: Station) -> None:
    for attempt, lines in enumerate((1, 40, 133, 300)):
        boot_id = f"killed-{attempt}"
        process = subprocess.Popen([sys.executable, "-c", _WRITER, ASSETS, station.path, boot_id], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = "0"
        for _ in range(lines):
            said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.stdout.close()
        process.wait(10)
        committed = int((rest or [said])[-1])
        following = station.journal(f"after-{attempt}")
        following.start()  # checks the file, and is not kept out by the dead writer's lock
        assert following.stop(5.0)
        with JournalReader(station.path) as reader:
            numbers = [part.part_no for part in reader.parts(PartQuery(boot_id=boot_id))]
            complete = all(part.views and part.defects for part in reader.parts(PartQuery(boot_id=boot_id)))
        assert len(numbers) >= committed
        assert numbers == list(range(1, len(numbers) + 1))
        assert complete


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", folder], check=False, capture_output=True).returncode:
        pytest.skip("no right to mount here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.needs_root
def test_a_full_disk_never_stops_the_offers_and_loses_nothing(small_disk: Path, made: SimpleNamespace) -> None:
    station = Station(small_disk / "journal.sqlite")
    journal = station.journal(max_queued=2000)
    journal.start()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    number = 0
    while journal.state().writable:
        number += 1
        assert journal.offer(made.make_part(number, Outcome.UNINSPECTED, reason=Reason.LATE))
        time.sleep(0.0002)
        assert number < 1900
    assert "full" in journal.state().last_error
    ballast.unlink()
    until(lambda: journal.state().parts == number)
    assert station.names() == ["journal_unwritable", "journal_recovered"]
    assert journal.stop(5.0)
    assert len(read(station.path)) == number


@pytest.mark.needs_root
def test_a_disk_that_turns_read_only(small_disk: Path, made: SimpleNamespace) -> None:
    station = Station(small_disk / "journal.sqlite")
    journal = station.journal()
    journal.start()
    journal.offer(made.make_part(1))
    until(lambda: journal.state().parts == 1)
    # A read-only bind mount on top: what is opened anew by that path cannot be written.
    station_path = small_disk
    connection = journal._store._connection
    assert connection is not None
    connection.exec_driver_sql("PRAGMA query_only = 1")
    connection.rollback()
    subprocess.run(["mount", "--bind", station_path, station_path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", station_path], check=True)
        for number in range(2, 12):
            assert journal.offer(made.make_part(number))
        until(lambda: not journal.state().writable)
        with pytest.raises(JournalError, match="cannot be"):
            Journal(JournalConfig(path=station.path), station="s", boot_id="other").start()
    finally:
        subprocess.run(["umount", station_path], check=True)
    until(lambda: journal.state().parts == 11)
    assert journal.stop(5.0)
    assert len(read(station.path)) == 11


def test_offers_from_many_threads_are_all_accounted_for(station: Station, made: SimpleNamespace) -> None:
    journal = station.journal(max_queued=500, commit_ms=1.0)
    journal.start()
    part = made.make_part(1)
    events = [Event("noise", EventLevel.INFO, str(number), part.closed_ns) for number in range(400)]
    threads = [threading.Thread(target=lambda: [journal.offer(event) for event in events]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.stop(10.0)
    state = journal.state()
    assert state.accepted + state.refused == 1600
    with JournalReader(station.path) as reader:
        assert sum(1 for _ in reader.events()) == state.committed == state.accepted
