"""SIGTERM and SIGINT at any moment, and kill -9: every part has its verdict, on the wire and in the journal, and nothing stays behind."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from inspector.camera.simulator.log import read_trigger_log
from inspector.contract.errors import ExitCode
from inspector.contract.records import Outcome, Reason

GROUP = 'views = ["left", "right"]'


def _catches_sigterm(running: Any) -> bool:
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _has_loaded(running: Any, library: str) -> bool:
    return library in Path(f"/proc/{running.process.pid}/maps").read_text()


MOMENTS: dict[str, Callable[[Any, Any], object]] = {
    "the signal is taken": lambda running, _: _catches_sigterm(running),
    "the daemon's code is loaded": lambda running, _: _has_loaded(running, "cv2"),
    "the engine's library is loaded": lambda running, _: _has_loaded(running, "openvino"),
    "the journal is made": lambda _, site: site.journal.exists(),
    "a camera process is started": lambda running, _: running.cameras(),
}


def same_on_wire_and_in_journal(site: Any, wire: Any, boot_id: str | None = None) -> None:
    if boot_id is None:  # from a second boot a subscriber that finds its way back late misses the first events
        assert wire.lost == 0
    boot_id = boot_id or wire.beats[-1].boot_id
    with site.read() as journal:
        logged = {part.part_no: (part.seq, part.outcome, part.reason, part.part_id) for part in journal.parts() if part.boot_id == boot_id}
    sent = {one.part_no: (one.seq, one.outcome, one.reason, one.part_id) for one in wire.verdicts if one.boot_id == boot_id}
    assert sent == logged


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_while_it_starts(site: Any, moment: str) -> None:
    site.write()
    running = site.run()
    deadline = time.monotonic() + 60
    while not MOMENTS[moment](running, site):
        assert time.monotonic() < deadline, moment
        assert running.process.poll() is None, running.said
        time.sleep(0.001)
    children = running.cameras()
    # While the engine is being loaded nothing can interrupt: that takes as long as it takes on a busy machine.
    assert running.end(within_s=20) == ExitCode.OK, running.said
    assert "Traceback" not in running.said
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_and_a_second_one(site: Any, number: int) -> None:
    site.write(site.camera(rate=200))
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) > 150, "verdicts")
    children = running.cameras()
    assert children
    begun = time.monotonic()
    running.process.send_signal(number)
    while running.process.poll() is None and time.monotonic() < begun + 5:
        running.process.send_signal(number)
        wire.listen(0.01)
    assert running.wait(0.1) == ExitCode.OK, running.said
    wire.rest()
    assert "Traceback" not in running.said
    assert "did not stop in time" not in running.said
    assert not [child for child in children if child.is_running()]
    same_on_wire_and_in_journal(site, wire)
    assert sorted(one.part_no for one in wire.verdicts) == list(range(1, len(wire.verdicts) + 1))
    for verdict in wire.verdicts:
        inspected = verdict.outcome is not Outcome.UNINSPECTED
        # Picture n - 1 is shown at trigger n, and the odd ones have the defect.
        assert not inspected or (verdict.outcome is Outcome.REJECT) == (int(verdict.part_id) % 2 == 0)


def test_what_is_open_closes_as_shutdown(site: Any) -> None:
    """A group whose second camera never triggers: every part waits for its deadline."""
    right = site.camera("right", "SIM1", settings=", SimLineAutoStart = false")
    site.write(site.camera("left", parts=40), right, head=GROUP, deadline_ms=100_000)
    running, wire = site.run(), site.wire()
    wire.until(lambda: wire.beats and wire.beats[-1].pending == 40, "40 open parts")
    assert not wire.verdicts
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    # What the left camera saw is known and stands: a defect rejects whatever the other view would have shown.
    assert Counter((one.outcome, one.reason) for one in wire.verdicts) == {(Outcome.UNINSPECTED, Reason.SHUTDOWN): 20, (Outcome.REJECT, None): 20}
    same_on_wire_and_in_journal(site, wire)


def test_kill_9_under_load_and_the_next_start(site: Any) -> None:
    """The camera's driver hangs at that moment, so that its process cannot even see that its daemon is gone."""
    site.write(site.camera(rate=200, faults="hang_at=200"))
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) > 100, "verdicts")
    children = running.cameras()
    assert children
    wire.until(lambda: len(read_trigger_log(site.folder / "line-top")) >= 200, "the hang")
    running.process.kill()
    running.process.wait()
    _, alive = psutil.wait_procs(children, 5)
    assert not alive, "a camera process outlived its daemon"
    first = wire.beats[-1].boot_id
    wire.rest()

    second = site.run()
    wire.until(lambda: sum(one.boot_id != first for one in wire.verdicts) > 50, "verdicts of the new boot")
    beats = [beat for beat in wire.beats if beat.boot_id != first]
    assert beats[0].blind, "it seemed to see before its camera was open"
    boot_id = beats[0].boot_id
    blinds = [one for one in wire.blinds if one.boot_id == boot_id]
    assert [one.to_utc is not None for one in blinds][-1], "it never said that it sees again"
    assert second.end() == ExitCode.OK, second.said
    wire.rest()
    same_on_wire_and_in_journal(site, wire, boot_id)
    with site.read() as journal:
        assert journal.boots() == [first, boot_id]
        begun = next(one for one in journal.blinds() if one.boot_id == boot_id)
        assert begun.to_utc_ns is not None
        assert not [part for part in journal.parts() if part.boot_id == boot_id and part.exposure_utc_ns < begun.from_utc_ns]
        logged = {part.part_no: part.outcome for part in journal.parts() if part.boot_id == first}
    sent = {one.part_no: one.outcome for one in wire.verdicts if one.boot_id == first}
    assert logged
    assert all(sent[part_no] == outcome for part_no, outcome in logged.items() if part_no in sent)
    assert sent.keys() - logged.keys() <= set(range(max(logged) + 1, max(sent) + 1)), "a hole in the journal before its end"
