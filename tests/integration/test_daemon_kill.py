"""A daemon that is killed at any step: received is a part of recorded, and recorded is what the journal has after the next start."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from inspector.contract.errors import ExitCode
from inspector.line import record_file as layout
from inspector.line.record_file import Recording

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """``tests/faults/kill_minus_nine.py``."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("kill_minus_nine", TESTS / "faults" / "kill_minus_nine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_minus_nine"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["kill_minus_nine"]
        sys.path[:] = path


def recording_of(site: Any) -> Path:
    return site.state / "run" / "test.recording"


def dies(site: Any, point: str, number: int, wire: Any) -> None:
    """A daemon that is killed at this step."""
    command = [sys.executable, str(TESTS / "assets" / "run_and_die.py"), point, str(number), str(site.station)]
    environment = os.environ | {"INSPECTOR_TEST_PARENT": str(os.getpid())}
    with (site.folder / f"{point}.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as daemon:
        children: list[psutil.Process] = []

        def over() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                children.extend(psutil.Process(daemon.pid).children(recursive=True))
            return daemon.poll() is not None

        try:
            wire.until(over, f"the kill at {point}")
        finally:
            daemon.kill()
        assert daemon.wait() == -signal.SIGKILL, (site.folder / f"{point}.log").read_text()
        psutil.wait_procs(children, 5)
    wire.rest()


def live(site: Any, wire: Any, verdicts: int = 20) -> str:
    """A start that lives, and stops: its boot id."""
    known = {one.boot_id for one in wire.beats}
    running = site.run()
    wire.until(lambda: sum(one.boot_id not in known for one in wire.verdicts) >= verdicts, "verdicts of the next start")
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    return str(wire.beats[-1].boot_id)


def check(site: Any, script: ModuleType, wire: Any, recording: Recording) -> list[Any]:
    """The statement; the journal's parts of that boot."""
    boot = recording.about.boot_id
    with site.read() as journal:
        logged = [part for part in journal.parts() if part.boot_id == boot]
    heard = [one for one in wire.verdicts if one.boot_id == boot]
    assert list(script.compare(recording, heard, logged)) == []
    return logged


@pytest.mark.parametrize(
    ("point", "recorded", "crashed_is"),
    [("before_record", 29, 30), ("half_a_record", 29, 30), ("after_record", 30, None), ("after_send", None, None)],
)
def test_killed_between_two_steps_of_the_line_thread(
    site: Any, script: ModuleType, tmp_path: Path, point: str, recorded: int | None, crashed_is: int | None
) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    dies(site, point, 30, wire)
    left = script.read_whole(recording_of(site), tmp_path / "copy")
    heard = [one for one in wire.verdicts if one.boot_id == left.about.boot_id]
    if recorded is not None:
        assert len(left.closed) == recorded
        assert len(heard) <= 29, "what was not sent cannot be heard"
    live(site, wire)
    logged = check(site, script, wire, left)
    if crashed_is is not None:
        assert (logged[-1 - (len(left.open) - 1)].part_no, logged[-1].reason) == (crashed_is, "crashed")
    if point == "after_record":
        row = next(one for one in logged if one.part_no == 30)
        assert row.seq == left.closed[-1].seq > heard[-1].seq
        assert row.outcome in {"PASS", "REJECT"}


@pytest.mark.parametrize("point", ["before_commit", "after_commit"])
def test_killed_around_a_commit(site: Any, script: ModuleType, tmp_path: Path, point: str) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    dies(site, point, 8, wire)
    left = script.read_whole(recording_of(site), tmp_path / "copy")
    assert left.closed
    live(site, wire)
    check(site, script, wire, left)


def test_killed_while_it_recovers_and_again(site: Any, script: ModuleType, tmp_path: Path) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    dies(site, "before_commit", 6, wire)
    left, kept = script.read_whole(recording_of(site), tmp_path / "copy"), recording_of(site).read_bytes()
    dies(site, "before_commit", 1, wire)
    dies(site, "after_commit", 1, wire)
    dies(site, "after_fold", 1, wire)
    assert recording_of(site).read_bytes() == kept
    live(site, wire)
    check(site, script, wire, left)


def told(site: Any) -> tuple[list[Any], list[Any]]:
    """Events of recovery and intervals between two starts, from the journal, which has what was sent.

    On the wire they are a boot's first messages, mostly sent before a subscriber is back: it asks for them again.
    """
    with site.read() as journal:
        events = [one for one in journal.events() if one.name in {"recovered", "recorder_aside", "recorder_overwritten"}]
        return events, [one for one in journal.blinds() if "started anew" in one.cause]


def exposures(site: Any, boot: str) -> list[int]:
    with site.read() as journal:
        return [part.exposure_utc_ns for part in journal.parts() if part.boot_id == boot]


def test_the_next_start_tells_what_was_lost_and_since_when_it_was_blind(site: Any) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    dies(site, "after_record", 50, wire)
    boot = live(site, wire)
    (event,), (blind,) = told(site)
    with site.read() as journal:
        first = journal.boots()[0]
    assert event.boot_id == blind.boot_id == boot
    assert first in event.detail
    assert blind.to_utc_ns is not None
    assert max(exposures(site, first)) - 1_000_000 < blind.from_utc_ns < blind.to_utc_ns < min(exposures(site, boot))


def test_after_a_clean_stop_only_the_interval_is_told(site: Any) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    first = live(site, wire)
    assert recording_of(site).stat().st_size == layout.PAGE_BYTES
    second = live(site, wire)
    events, (blind,) = told(site)
    assert events == []
    assert blind.boot_id == second
    assert max(exposures(site, first)) - 1_000_000 < blind.from_utc_ns < min(exposures(site, second))


def test_a_recording_of_another_version_is_kept_aside(site: Any) -> None:
    site.write(site.camera(rate=200))
    wire = site.wire()
    live(site, wire)
    data = bytearray(recording_of(site).read_bytes())
    struct.pack_into("<I", data, 8, 99)
    recording_of(site).write_bytes(data)
    live(site, wire)
    (event,), blinds = told(site)
    assert event.name == "recorder_aside"
    assert "version 99" in event.detail
    assert blinds == [], "nothing is known of the time before"
    (aside,) = recording_of(site).parent.glob("*.aside-*")
    assert aside.read_bytes() == bytes(data)


def test_a_second_daemon_with_the_same_recorder_is_refused(site: Any) -> None:
    site.write()
    running = site.run()
    running.wait_ready()
    code, said = site.complain()
    assert code == ExitCode.UNAVAILABLE
    assert len(said) == 1
    assert f"process {running.process.pid}" in said[0]
    assert "runtime_dir" in said[0]
    assert running.end() == ExitCode.OK, running.said


@pytest.mark.slow
def test_killed_at_random_instants_under_load(script: ModuleType, tmp_path: Path) -> None:
    """A little of what ``tests/faults/kill_minus_nine.py`` does by itself."""
    # A socket's path has room for a hundred letters.
    with tempfile.TemporaryDirectory(prefix="kill-") as folder, tempfile.TemporaryDirectory(prefix="kill-", dir="/dev/shm") as memory:
        kills = script.run(Path(folder), Path(memory), 6, 5, 200)
    assert [problem for one in kills for problem in one.problems] == []
    assert sum(one.folded for one in kills) > 0
    assert sum(one.crashed for one in kills) > 0
    assert sum(one.received for one in kills) > 100
