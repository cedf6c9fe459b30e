"""Running the demo's station: the real daemon as a process of its own, followed over its publisher as a line controller would."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from inspector.camera.simulator.log import read_trigger_log
from inspector.cli.scoring import FoundBy, Score, found_by, score_parts
from inspector.client.subscriber import Notice, NoticeKind, Subscriber
from inspector.contract.errors import ExitCode, InspectorError
from inspector.contract.records import Outcome
from inspector.contract.wire import BlindMessage, HeartbeatMessage, VerdictMessage
from inspector.journal.reader import JournalReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inspector.cli.demo_station import DemoStation

START_TIMEOUT_S = 120.0
"""Loading and warming up an engine takes seconds, a busy machine more."""
QUIET_S = 3.0
"""After the last trigger: silence of the ledger after which nothing more is expected."""
STALL_S = 60.0
STOP_TIMEOUT_S = 10.0


class DemoError(InspectorError):
    """The demo's station did not run to its end."""


@dataclass(slots=True)
class Followed:
    """What came over the wire."""

    verdicts: dict[tuple[str, int], VerdictMessage] = field(default_factory=dict)
    """By boot and part number."""
    boot_id: str = ""
    pending: int = 0
    blind_now: bool = True
    blind: list[BlindMessage] = field(default_factory=list)
    gaps: int = 0
    """Messages lost on the way."""
    last_ns: int = 0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The demo's account, each number from its own source."""

    triggers: int
    """The simulated line's own log."""
    outcomes: dict[str, int]
    """Of the verdicts on the wire."""
    reasons: dict[str, int]
    published: int
    """Verdicts that came over the wire."""
    logged: int
    """Verdicts in the journal, read after the daemon's end."""
    latency_ms: dict[str, float] | None
    """p50, p99, max of inspected parts, exposure to sending; None: no part was inspected."""
    score: Score | None
    """Of the detector's boxes; None: nothing is known of the images."""
    detector: str
    """Its name."""
    found_by: tuple[FoundBy, ...]
    """What each network found, the detector first."""
    defective: int | None
    """Inspected parts with a planted defect; None: nothing is known of the images."""
    unmatched: int
    """Verdicts whose id is no trigger's."""
    blind_intervals: int
    exit_code: int

    @property
    def consistent(self) -> bool:
        """One verdict for every trigger, published and logged, none lost on any way."""
        return self.triggers == sum(self.outcomes.values()) == self.published == self.logged and not self.unmatched


def run_station(station: DemoStation, folder: Path, endpoint: str, parts: int, on_verdict: Callable[[VerdictMessage], None]) -> DemoResult:
    """Start the daemon, follow it until every trigger is accounted for, stop it, and draw up the account.

    Raises:
        DemoError: the daemon ended by itself, did not start, or stopped giving verdicts.
    """
    log = folder / "daemon.log"
    with log.open("wb") as sink, Subscriber(endpoint) as line:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "inspector.cli.main", "run", str(station.station_file)], stdin=subprocess.DEVNULL, stderr=sink, stdout=sink
        )
        try:
            followed = _follow(line, daemon, station, parts, on_verdict, log)
        finally:
            daemon.terminate()
            try:
                exit_code = daemon.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                exit_code = daemon.wait()
        for update in line.receive(0.1):
            if isinstance(update, VerdictMessage):
                followed.verdicts[update.boot_id, update.part_no] = update
    return _account(followed, station, folder, parts, exit_code)


def _follow(
    line: Subscriber, daemon: subprocess.Popen[bytes], station: DemoStation, parts: int, on_verdict: Callable[[VerdictMessage], None], log: Path
) -> Followed:
    followed = Followed(last_ns=time.monotonic_ns())
    while True:
        for update in line.receive(0.1):
            if isinstance(update, VerdictMessage):
                followed.boot_id = update.boot_id
                followed.verdicts[update.boot_id, update.part_no] = update
                followed.last_ns = time.monotonic_ns()
                on_verdict(update)
            elif isinstance(update, HeartbeatMessage):
                followed.pending, followed.blind_now = update.pending, update.blind
            elif isinstance(update, BlindMessage):
                followed.blind.append(update)
            elif isinstance(update, Notice) and update.kind is NoticeKind.GAP:
                followed.gaps += update.missing
        quiet_s = (time.monotonic_ns() - followed.last_ns) / 1e9
        if daemon.poll() is not None:
            raise _ended(daemon.returncode, log)
        triggers = _triggers(station, len(followed.verdicts))
        if triggers >= parts and followed.pending == 0 and (len(followed.verdicts) >= triggers or (quiet_s > QUIET_S and not followed.blind_now)):
            return followed
        if quiet_s > (STALL_S if followed.verdicts else START_TIMEOUT_S):
            raise DemoError(f"the station gives no verdicts any more (after {len(followed.verdicts)}); see {log}")


def _triggers(station: DemoStation, verdicts: int) -> int:
    """The line's own count; a folder of pictures has no line, there the verdicts count themselves."""
    return len(read_trigger_log(station.line_folder)) if station.simulated else verdicts


def _ended(code: int, log: Path) -> DemoError:
    lines = log.read_text(errors="replace").strip().splitlines()
    said = lines[-1] if lines else "it said nothing"
    error = DemoError(f"the station ended by itself with code {code}: {said} (see {log})")
    if code in set(ExitCode):
        error.exit_code = ExitCode(code)  # type: ignore[misc]  # the daemon's own reason is the demo's
    return error


def _account(followed: Followed, station: DemoStation, folder: Path, parts: int, exit_code: int) -> DemoResult:
    verdicts = list(followed.verdicts.values())
    images = {str(n): (n - 1) % station.images for n in range(1, parts + 1)}
    triggers = parts
    if station.simulated:
        record = read_trigger_log(station.line_folder)
        images = {str(int(row["counter"])): int(row["image"]) for row in record}
        triggers = len(record)
    inspected = [verdict for verdict in verdicts if verdict.outcome is not Outcome.UNINSPECTED]
    ages = np.array([verdict.age_ms for verdict in inspected])
    score = None
    if station.truth is not None:
        truth = station.truth
        known = [(verdict.defects, truth[images[verdict.part_id]]) for verdict in inspected if verdict.part_id in images]
        score = score_parts(([one for one in defects if one.source == station.networks[0]], planted) for defects, planted in known)
    with JournalReader(folder / "state" / "journal.sqlite") as journal:
        logged = journal.logged(followed.boot_id)
    return DemoResult(
        triggers=triggers,
        outcomes={outcome.value: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in Outcome},
        reasons=dict(Counter(verdict.reason.value for verdict in verdicts if verdict.reason is not None)),
        published=len(verdicts),
        logged=logged,
        latency_ms=_percentiles(ages),
        score=score,
        detector=station.networks[0],
        found_by=found_by(station.networks, [(verdict.defects, _planted(station, images, verdict)) for verdict in inspected]),
        defective=None if station.truth is None else sum(bool(_planted(station, images, verdict)) for verdict in inspected),
        unmatched=sum(verdict.part_id not in images for verdict in verdicts),
        blind_intervals=sum(message.to_ms_ago is not None for message in followed.blind),
        exit_code=exit_code,
    )


def _planted(station: DemoStation, images: dict[str, int], verdict: VerdictMessage) -> bool | None:
    """Whether the part's image has a planted defect; None: nothing is known of it."""
    if station.truth is None or verdict.part_id not in images:
        return None
    return bool(station.truth[images[verdict.part_id]])


def _percentiles(ages_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float] | None:
    if not ages_ms.size:
        return None
    return {
        "p50": round(float(np.percentile(ages_ms, 50)), 3),
        "p99": round(float(np.percentile(ages_ms, 99)), 3),
        "max": round(float(ages_ms.max()), 3),
    }
