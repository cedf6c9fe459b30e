"""Cameras that are absent, lost, or in a group, under a running daemon."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inspector.camera.simulator.log import read_trigger_log
from inspector.config.station import read_station
from inspector.contract.channel import CameraState, WriteCommand
from inspector.contract.errors import ExitCode
from inspector.contract.records import Outcome, Reason
from inspector.daemon.station import Daemon

GROUP = 'views = ["left", "right"]'
SILENT = ", SimLineAutoStart = false"


def _starts(site: Any) -> float:
    _, text = site.get("/metrics")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith("inspector_camera_process_starts_total{"))


def test_a_camera_that_is_absent_at_the_start_and_comes(site: Any, write_pictures: Any) -> None:
    """A folder without pictures, which somebody fills."""
    site.write(site.folder_camera())
    running, wire = site.run(), site.wire()
    wire.until(lambda: any(one.name == "camera_lost" for one in wire.events), "the event")
    lost = next(one for one in wire.events if one.name == "camera_lost")
    assert lost.level == "error"
    assert "no images there" in lost.detail
    running.wait_ready()
    status, text = site.get("/healthz")
    assert status == 503
    checks = json.loads(text)["checks"]
    assert "top" in checks.pop("cameras")
    assert set(checks.values()) == {"ok"}, "only the camera is to blame"
    begun = _starts(site)
    wire.until(lambda: _starts(site) >= begun + 2, "further attempts")
    assert wire.beats
    assert all(beat.blind for beat in wire.beats)
    assert sum(one.name == "camera_lost" for one in wire.events) == 1, "the same cause was told again and again"

    write_pictures(site.folder / "pictures")
    wire.until(lambda: len(wire.verdicts) > 5, "verdicts")
    assert not wire.beats[-1].blind
    wire.until(lambda: site.get("/healthz")[0] == 200, "healthy again")
    assert running.end() == ExitCode.OK, running.said
    with site.read() as journal:
        names = [event.name for event in journal.events()]
        (first,) = (one for one in journal.blinds() if one.cause == "the camera is not open yet")
        assert all(part.exposure_utc_ns >= (first.to_utc_ns or 0) for part in journal.parts())
    # Opened is told by the intake, streaming by the supervisor: threads of their own.
    assert names.index("camera_lost") < min(names.index("camera_opened"), names.index("camera_streaming"))


def test_a_camera_that_refuses_its_settings(site: Any) -> None:
    site.write(site.camera(settings=", NoSuchNode = 3"))
    running, wire = site.run(), site.wire()
    wire.until(lambda: any(one.name == "camera_lost" for one in wire.events), "the event")
    assert "NoSuchNode" in next(one.detail for one in wire.events if one.name == "camera_lost")
    running.wait_ready()
    wire.until(lambda: "lost" in site.get("/healthz")[1], "the reason on the page")
    assert site.get("/healthz")[0] == 503
    assert running.end() == ExitCode.OK, running.said
    assert not wire.verdicts


def test_a_camera_that_is_lost_and_comes_back(site: Any) -> None:
    site.write(site.camera(faults="lost_at=60:1500ms", parts=250))
    running, wire = site.run(), site.wire()
    wire.until(lambda: any(one.name == "camera_lost" for one in wire.events), "the event")
    seen = len(wire.verdicts)
    wire.until(lambda: wire.beats[-1].blind, "blind")
    assert site.get("/healthz")[0] == 503
    wire.until(lambda: len(wire.verdicts) > seen + 20, "verdicts again")
    wire.until(lambda: len(read_trigger_log(site.folder / "line-top")) == 250 and not wire.beats[-1].pending, "the line's end")
    assert running.end() == ExitCode.OK, running.said
    wire.rest()
    with site.read() as journal:
        blinds = list(journal.blinds())
        parts = {part.part_id for part in journal.parts()}
    offset_ns = time.time_ns() - time.monotonic_ns()
    for trigger in read_trigger_log(site.folder / "line-top"):
        at_ns = int(trigger["host_ns"]) + offset_ns
        blind = any(one.from_utc_ns - 1_000_000 <= at_ns <= (one.to_utc_ns or at_ns) + 1_000_000 for one in blinds)
        assert str(trigger["counter"]) in parts or blind, f"trigger {trigger['counter']} has neither a verdict nor a blind interval"


@contextmanager
def _group(site: Any, faults: str = "", parts: int = 24, deadline_ms: float = 30_000) -> Iterator[tuple[Daemon, Any]]:
    """Two cameras of one line, whose triggers start together when both stream."""
    left = site.camera("left", "SIM0", parts=parts, settings=SILENT)
    right = site.camera("right", "SIM1", parts=parts, settings=SILENT, faults=faults)
    # The same pictures in another order: the right camera's are one behind.
    site.write(left, right, head=GROUP, deadline_ms=deadline_ms)
    daemon, wire = Daemon(read_station(site.station)), site.wire()
    daemon.start()
    try:
        wire.until(lambda: all(one.state is CameraState.STREAMING for one in daemon.cameras.by_camera.values()), "both cameras stream")
        for supervisor in daemon.cameras.by_camera.values():
            assert supervisor.send(WriteCommand("SimLineStart", None))
        yield daemon, wire
    finally:
        clean = daemon.stop()
    assert clean
    assert daemon.failure is None


def test_a_group_gives_one_verdict_per_part_and_the_worst_view_wins(site: Any) -> None:
    # Black images are invalid: of the right camera 3 (whose left view has no defect) and 6 (whose left view has one).
    with _group(site, faults="black_at=3,black_at=6") as (_, wire):
        wire.until(lambda: len(wire.verdicts) == 24, "24 verdicts")
        wire.until(lambda: wire.beats[-1].closed == 24, "the books")
    assert {one.stream for one in wire.verdicts} == {"left+right"}
    verdicts = {int(one.part_id): one for one in wire.verdicts}
    assert sorted(verdicts) == list(range(1, 25))
    for number, one in verdicts.items():
        wanted: tuple[Outcome, Reason | None] = (Outcome.REJECT, None) if number % 2 == 0 else (Outcome.PASS, None)
        if number == 3:
            wanted = (Outcome.UNINSPECTED, Reason.IMAGE_INVALID)
        assert (one.outcome, one.reason) == wanted, number
        cameras = Counter(defect.camera for defect in one.defects if defect.counted)
        if number % 2 == 0:
            assert cameras == ({"left": 1} if number == 6 else {"left": 1, "right": 1})
    with site.read() as journal:
        parts = list(journal.parts())
    assert len(parts) == 24
    assert all([view.camera for view in part.views] == ["left", "right"] for part in parts)
    assert {view.trigger_counter for part in parts for view in part.views if str(view.trigger_counter) == part.part_id} == set(range(1, 25))


def test_a_view_that_is_missing_never_passes(site: Any) -> None:
    with _group(site, faults="drop_at=3,drop_at=6", deadline_ms=4000) as (daemon, wire):
        wire.until(lambda: len({one.part_id for one in wire.verdicts if one.part_id}) == 24, "a verdict for each id")
        wire.until(lambda: not daemon.line.snapshot().streams["left+right"].books.pending, "nothing is open")
    by_id = {one.part_id: (one.outcome, one.reason) for one in wire.verdicts if one.part_id}
    assert by_id["3"] == (Outcome.UNINSPECTED, Reason.NO_FRAME)
    assert by_id["6"] == (Outcome.REJECT, None), "what the other view has seen stands"
    others = {part_id: outcome for part_id, (outcome, _) in by_id.items() if part_id not in {"3", "6"}}
    assert all(outcome is (Outcome.PASS if int(part_id) % 2 else Outcome.REJECT) for part_id, outcome in others.items())
    # The lost views of the right camera may be parts of their own, without an id: they never pass.
    assert all(one.outcome is Outcome.UNINSPECTED for one in wire.verdicts if not one.part_id)
