"""A disk that refuses while the station runs: verdicts go on, it is told, and the rows come later."""

from __future__ import annotations

import json
import resource
import sqlite3
from typing import Any

from inspector.contract.errors import ExitCode


def _gauge(site: Any, start: str) -> float:
    _, text = site.get("/metrics")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(start))


def _verdicts_go_on(wire: Any) -> None:
    seen = len(wire.verdicts)
    wire.until(lambda: len(wire.verdicts) > seen + 30, "verdicts while the disk refuses")


def _told_and_recovered(site: Any, running: Any, wire: Any) -> None:
    """After the disk takes rows again."""
    wire.until(lambda: any(one.name == "journal_recovered" for one in wire.events), "the recovery")
    wire.until(lambda: site.get("/healthz")[0] == 200, "healthy again")
    assert _gauge(site, 'inspector_output_writable{output="journal"}') == 1
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    with site.read() as journal:
        logged = {part.part_no: part.outcome for part in journal.parts()}
        names = [event.name for event in journal.events()]
    assert logged == {one.part_no: one.outcome for one in wire.verdicts}
    assert names.index("journal_unwritable") < names.index("journal_recovered")


def test_a_full_disk(site: Any) -> None:
    """No file of the daemon may grow: to SQLite the same as a disk without space."""
    site.write(site.camera(rate=100))
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) > 30, "verdicts")
    soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    wire.until(lambda: any(one.name == "journal_unwritable" for one in wire.events), "the event")
    _verdicts_go_on(wire)
    assert _gauge(site, 'inspector_output_writable{output="journal"}') == 0
    assert _gauge(site, 'inspector_queue_depth{queue="journal"}') > 0
    status, text = site.get("/healthz")
    assert status == 503
    assert "rows wait in memory" in json.loads(text)["checks"]["journal"]
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    _told_and_recovered(site, running, wire)


def test_a_journal_that_somebody_holds_locked(site: Any) -> None:
    site.write(site.camera(rate=100))
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) > 30, "verdicts")
    holder = sqlite3.connect(site.journal, isolation_level=None, timeout=60)
    try:
        holder.execute("BEGIN IMMEDIATE")
        wire.until(lambda: any(one.name == "journal_unwritable" for one in wire.events), "the event")
        _verdicts_go_on(wire)
        holder.execute("ROLLBACK")
    finally:
        holder.close()
    _told_and_recovered(site, running, wire)


def test_what_the_memory_cannot_hold_is_counted_and_a_stop_is_in_time(site: Any) -> None:
    site.write(site.camera(rate=200), extra="[journal]\nmax_queued = 100")
    running, wire = site.run(), site.wire()
    wire.until(lambda: len(wire.verdicts) > 30, "verdicts")
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    wire.until(lambda: _gauge(site, 'inspector_output_refused_total{output="journal"}') > 20, "refused rows")
    _verdicts_go_on(wire)
    assert running.end() == ExitCode.OK, running.said
    assert "journal did not stop in time, or left something behind" in running.said, "rows that were lost at the stop are told"
