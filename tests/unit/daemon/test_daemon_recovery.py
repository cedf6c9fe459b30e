"""The next start: what the flight recorder has and the journal lacks is folded once; what was open is crashed; nothing is thrown away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from inspector.config.station import JournalConfig
from inspector.contract.errors import AddressError, ConfigError, JournalError
from inspector.contract.records import Action, Blind, Event, Outcome, Reason
from inspector.daemon import recovery as room
from inspector.daemon.recovery import Recovered, make_folder, open_recorder, runtime_folder
from inspector.journal.reader import JournalReader, LoggedPart
from inspector.journal.writer import Journal
from inspector.line import record_file as layout
from inspector.line.parts import Opened
from inspector.line.record_file import About
from inspector.line.recorder import FlightRecorder
from inspector.line.streams import Streams

MADE = SimpleNamespace(**run_path(str(Path(__file__).parents[2] / "assets" / "closed_parts.py")))
SIZE = 1024 * 1024


def about(boot_id: str) -> About:
    return About(
        station="s",
        boot_id=boot_id,
        program="inspectord 1",
        started_utc_ns=1_700_000_000_000_000_000,
        product="plate",
        product_version="7",
        engines=("ab",),
        uninspected=Action.DIVERT,
    )


class Place:
    """A runtime directory and a journal, and daemons that begin there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.folder.mkdir()
        self.journal = folder / "journal.sqlite"
        self.open: list[FlightRecorder] = []

    def start(self, boot_id: str) -> tuple[FlightRecorder, Recovered]:
        recorder, recovered = open_recorder(self.folder, self.journal, about(boot_id), SIZE)
        self.open.append(recorder)
        return recorder, recovered

    def kill(self, recorder: FlightRecorder) -> None:
        """As the kernel does it: the lock is gone, the stores stay."""
        assert recorder._map is not None
        recorder._words.release()
        recorder._map.close()
        recorder._map = None
        os.close(recorder._lock)
        recorder._lock = -1

    def logged(self, boot_id: str) -> list[LoggedPart]:
        with JournalReader(self.journal) as journal:
            return [part for part in journal.parts() if part.boot_id == boot_id]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for recorder in made.open:
        recorder.stop()


def opened(number: int, stream: str = "top") -> Opened:
    now_ns = time.monotonic_ns()
    return Opened(stream, number, f"P{number}", now_ns - 3_000_000, now_ns - 1_000_000, now_ns + 40_000_000)


def names(recovered: Recovered) -> list[str]:
    return [event.name for event in recovered.events if event.name not in {"recorder_on_disk", "recorder_not_locked"}]


def work(recorder: FlightRecorder, numbers: range, journal: Journal | None = None) -> None:
    for number in numbers:
        recorder.opened(opened(number))
        part = MADE.make_part(number, Outcome.REJECT if number % 3 == 0 else Outcome.PASS, seq=100 + number)
        part = msgspec.structs.replace(part, record_no=recorder.closed(part))
        if journal is not None:
            assert journal.offer(part)
    recorder.beat(time.monotonic_ns())


def test_a_first_start_has_nothing_to_tell(place: Place) -> None:
    _, recovered = place.start("a")
    assert (recovered.boot_id, recovered.last_alive_ns, names(recovered)) == (None, None, [])
    assert not [one for one in recovered.told(Streams(["top"])) if isinstance(one, Blind)]
    assert not place.journal.exists(), "nothing to fold: the journal is not touched"


def test_what_was_closed_is_folded_and_what_was_open_is_crashed(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 21))
    still = [opened(21), opened(22), opened(1, "side")]
    for one in still:
        recorder.opened(one)
    alive_ns = time.monotonic_ns()
    recorder.beat(alive_ns)
    place.kill(recorder)
    _, recovered = place.start("b")
    assert (recovered.boot_id, recovered.folded, recovered.crashed) == ("a", 20, {"top": 2, "side": 1})
    assert recovered.last_alive_ns == alive_ns
    assert names(recovered) == ["recovered"]
    parts = {(part.stream, part.part_no): part for part in place.logged("a")}
    assert len(parts) == 23
    assert all(parts["top", number].seq == 100 + number for number in range(1, 21))
    offset_ns = time.time_ns() - time.monotonic_ns()
    for one in still:
        part = parts[one.stream, one.part_no]
        assert (part.outcome, part.reason, part.seq, part.action) == (Outcome.UNINSPECTED, Reason.CRASHED, 0, Action.DIVERT)
        assert (part.part_id, part.product, part.product_version, part.engines, part.station) == (one.part_id, "plate", "7", ("ab",), "s")
        assert abs(part.opened_utc_ns - one.opened_ns - offset_ns) < 10_000_000
        assert abs(part.closed_utc_ns - alive_ns - offset_ns) < 10_000_000
        assert (part.views, part.defects) == ((), ())


def test_what_the_journal_has_is_not_written_again(place: Place) -> None:
    recorder, _ = place.start("a")
    told: list[int] = []
    config = JournalConfig(path=place.journal)
    journal = Journal(
        config, station="s", boot_id="a", on_committed=lambda up_to, missing: (told.append(up_to), recorder.committed(up_to, missing))[0]
    )
    journal.start()
    work(recorder, range(1, 31), journal)
    journal.stop(10)
    assert told[-1] == 30
    work(recorder, range(31, 41))
    recorder.committed(20)  # as if the watermark had not come so far: the journal itself decides
    place.kill(recorder)
    _, recovered = place.start("b")
    assert recovered.folded == 10
    assert [part.part_no for part in place.logged("a")] == list(range(1, 41))


def test_recovery_may_be_killed_and_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 11))
    recorder.opened(opened(11))
    place.kill(recorder)
    with monkeypatch.context() as patch:
        patch.setattr(FlightRecorder, "start", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place.start("b")
    assert len(place.logged("a")) == 11
    _, recovered = place.start("c")
    assert (recovered.boot_id, recovered.folded, recovered.crashed) == ("a", 0, {"top": 1})
    assert [part.part_no for part in place.logged("a")] == list(range(1, 12))


def test_a_clean_stop_leaves_nothing_to_fold_but_the_interval(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 6))
    recorder.committed(5)
    alive_ns = time.monotonic_ns()
    recorder.beat(alive_ns)
    recorder.stop()
    second, recovered = place.start("b")
    assert (recovered.boot_id, recovered.folded, recovered.last_alive_ns, names(recovered)) == ("a", 0, alive_ns, [])
    (blind,) = [one for one in recovered.told(Streams(["top"])) if isinstance(one, Blind)]
    assert blind.from_ns > max(recovered.seen_ns.values()), "a part that passed is not in the interval"
    assert blind.to_ns is not None
    assert blind.from_ns <= alive_ns < blind.to_ns
    second.stop()  # without a sign of life of its own, as where a port is taken
    _, third = place.start("c")
    assert (third.last_alive_ns, third.seen_ns) == (alive_ns, recovered.seen_ns)


def test_the_interval_begins_behind_the_newest_part_and_a_second_before_the_last_sign_of_life(place: Place) -> None:
    now_ns = time.monotonic_ns()
    recovered = Recovered("a", last_alive_ns=now_ns, seen_ns={"top": now_ns - 500, "left+right": now_ns - 10**10})
    blinds = [one for one in recovered.told(Streams(["top", "left", "right"], ["left", "right"])) if isinstance(one, Blind)]
    assert {one.stream: one.from_ns for one in blinds} == {"top": now_ns - 499, "left": now_ns - 10**9, "right": now_ns - 10**9}


def test_in_another_boot_of_the_machine_monotonic_stamps_mean_nothing(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 6))
    place.kill(recorder)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(room, "_MACHINE_BOOT", tmp_path / "boot_id")
    _, recovered = place.start("b")
    assert (recovered.folded, recovered.last_alive_ns, recovered.seen_ns) == (5, None, {})
    assert len(place.logged("a")) == 5


@pytest.mark.parametrize("kind", ["version", "header", "empty"])
def test_a_file_that_cannot_be_read_is_kept_aside(place: Place, kind: str) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 4))
    place.kill(recorder)
    data = bytearray(recorder.path.read_bytes())
    data[{"version": 8, "header": layout.ABOUT_AT + 3, "empty": 0}[kind]] ^= 255
    recorder.path.write_bytes(b"" if kind == "empty" else data)
    kept = recorder.path.read_bytes()
    second, recovered = place.start("b")
    assert names(recovered) == ["recorder_aside"]
    (aside,) = place.folder.glob("*.aside-*")
    assert aside.read_bytes() == kept
    assert aside.name in recovered.events[0].detail
    assert second.state().recorded == 0


def test_of_a_damaged_ring_what_is_before_the_damage_is_folded_and_the_file_is_kept(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 6))
    middle = recorder._head
    work(recorder, range(6, 11))
    place.kill(recorder)
    data = bytearray(recorder.path.read_bytes())
    data[layout.PAGE_BYTES + middle + 40] ^= 1
    recorder.path.write_bytes(data)
    _, recovered = place.start("b")
    assert recovered.folded == 5
    assert names(recovered) == ["recovered", "recorder_aside"]
    assert len(list(place.folder.glob("*.aside-*"))) == 1


def test_a_row_that_the_journal_never_takes_keeps_the_station_from_nothing(place: Place) -> None:
    recorder, _ = place.start("a")
    recorder.closed(MADE.make_part(1, seq=2**63))
    recorder.closed(MADE.make_part(2))
    place.kill(recorder)
    _, recovered = place.start("b")
    assert recovered.folded == 1
    assert names(recovered) == ["recovered", "recorder_aside"]


def test_what_was_overwritten_is_told(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 4001))
    place.kill(recorder)
    _, recovered = place.start("b")
    assert names(recovered) == ["recovered", "recorder_overwritten"]
    assert recovered.folded + recorder.state().overwritten == 4000


def test_a_journal_that_cannot_be_written_leaves_the_recording(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 4))
    place.kill(recorder)
    place.journal.write_bytes(b"no journal" * 1000)
    with pytest.raises(JournalError):
        place.start("b")
    place.journal.unlink()
    assert place.start("c")[1].folded == 3


def test_a_second_daemon_is_refused_and_the_first_goes_on(place: Place) -> None:
    recorder, _ = place.start("a")
    with pytest.raises(AddressError):
        place.start("b")
    assert recorder.closed(MADE.make_part(1)) == 1


CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_daemon_recovery as test
from inspector.journal.store import Store
write = Store.write
def late(self, entries):
    write(self, entries)
    print("written", flush=True)
    sys.stdin.read()
Store.write = late
test.open_recorder(Path({folder!r}), Path({journal!r}), test.about("b"), test.SIZE)
"""


def test_recovery_itself_killed_between_the_journal_and_the_new_file(place: Place) -> None:
    recorder, _ = place.start("a")
    work(recorder, range(1, 11))
    recorder.opened(opened(11))
    place.kill(recorder)
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(place.folder), journal=str(place.journal))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
    _, recovered = place.start("c")
    assert (recovered.boot_id, recovered.folded, recovered.crashed) == ("a", 0, {"top": 1})
    assert [part.part_no for part in place.logged("a")] == list(range(1, 12))


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (None, {}, "state/run"),
        (None, {"RUNTIME_DIRECTORY": "/run/inspector"}, "/run/inspector"),
        (None, {"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a"),
        (Path("/dev/shm/x"), {"RUNTIME_DIRECTORY": "/run/inspector"}, "/dev/shm/x"),
    ],
)
def test_the_runtime_directory(tmp_path: Path, configured: Path | None, environment: dict[str, str], expected: str) -> None:
    station: Any = SimpleNamespace(runtime_dir=configured, state_dir=tmp_path / "state")
    assert runtime_folder(station, environment) == tmp_path / expected


def test_a_folder_is_private_and_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "run", "runtime_dir", 0o700)
    assert (tmp_path / "a" / "run").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="runtime_dir"):
        make_folder(tmp_path / "file" / "run", "runtime_dir")


def test_the_events_say_where_the_file_lies(place: Place) -> None:
    recorder, recovered = place.start("a")
    told = {event.name for event in recovered.events}
    assert ("recorder_on_disk" in told) == (not recorder.state().in_memory)
    assert ("recorder_not_locked" in told) == (not recorder.state().locked_in_memory)
    assert all(isinstance(one, Event) for one in recovered.told(Streams(["top"])))
