"""SIGTERM while the engine is slow, hangs, or is still loading: exit 0 within 5 s, every open part closed as shutdown, nothing left behind."""

from __future__ import annotations

from collections import Counter
from typing import Any

from inspector.contract.errors import ExitCode
from inspector.contract.records import Outcome, Reason
from inspector.journal.reader import JournalReader


def same_on_wire_and_in_journal(site: Any, wire: Any) -> None:
    with JournalReader(site.journal) as journal:
        logged = {part.part_no: (part.outcome, part.reason) for part in journal.parts()}
    assert {one.part_no: (one.outcome, one.reason) for one in wire.verdicts} == logged
    assert wire.lost == 0


def test_a_slow_engine_is_stopped_in_the_middle_of_an_image(site: Any) -> None:
    site.write(site.camera(rate=40), deadline_ms=20_000)
    running, wire = site.run("slow"), site.wire()
    wire.until(lambda: len(wire.verdicts) > 3 and wire.beats and wire.beats[-1].pending > 20, "a queue")
    children = running.cameras()
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    assert "Traceback" not in running.said
    assert "did not stop in time" not in running.said
    assert not [child for child in children if child.is_running()]
    same_on_wire_and_in_journal(site, wire)
    assert Counter(one.reason for one in wire.verdicts)[Reason.SHUTDOWN] > 10


def test_a_hung_engine_does_not_keep_the_process(site: Any) -> None:
    site.write(site.camera(rate=40), deadline_ms=20_000)
    running, wire = site.run("hung"), site.wire()
    wire.until(lambda: "the engine hangs" in running.said and wire.beats and wire.beats[-1].pending > 10, "the hang")
    passed = sum(one.outcome is Outcome.PASS for one in wire.verdicts)
    children = running.cameras()
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    assert "Traceback" not in running.said
    assert not [child for child in children if child.is_running()]
    same_on_wire_and_in_journal(site, wire)
    assert sum(one.outcome is Outcome.PASS for one in wire.verdicts) == passed
    assert Counter(one.reason for one in wire.verdicts)[Reason.SHUTDOWN] > 10


def test_heartbeats_stop_while_the_engine_hangs(site: Any) -> None:
    """The recipe's budget is a second: after it the line must not hear that the inspection lives."""
    site.write(site.camera(rate=40), deadline_ms=20_000)
    running, wire = site.run("hung"), site.wire()
    wire.until(lambda: "the engine hangs" in running.said and any(notice.kind == "dead" for notice in wire.notices), "the silence")
    assert wire.beats[-1].inspection_age_ms < 1000
    assert running.process.poll() is None
    assert running.end() == ExitCode.OK, running.said


def test_an_engine_that_is_loading_does_not_keep_the_process(site: Any) -> None:
    site.write()
    running, wire = site.run("loading"), site.wire()
    wire.until(lambda: "the engine is loading" in running.said, "the loading")
    assert running.end() == ExitCode.OK, running.said
    assert "Traceback" not in running.said
    assert not site.journal.exists()
    wire.rest()
    assert not wire.verdicts
