"""The daemon's account of itself: what a scrape is told, and what is healthy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from inspector.metrics import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inspector.archive.writer import Archive
    from inspector.camera.supervisor import CameraSupervisor
    from inspector.contract.ring import Ring
    from inspector.inspection.pipeline import Inspection
    from inspector.journal.writer import Journal
    from inspector.line.channel import Channel
    from inspector.line.publisher import Publisher
    from inspector.line.recorder import FlightRecorder
    from inspector.line.thread import LineThread
    from inspector.watchdog import StageStamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Asked from request threads; every answer is a snapshot and waits for nothing."""

    line: LineThread
    journal: Journal
    archive: Archive
    inspection: Inspection
    stamp: StageStamp
    budget_ms: float
    supervisors: Mapping[str, CameraSupervisor]
    rings: Mapping[str, Ring]
    channel: Channel
    recorder: FlightRecorder
    publisher: Publisher

    def sources(self) -> Sources:
        """What the metrics ask at a scrape."""
        return Sources(
            ledger=lambda: {name: state.books for name, state in self.line.snapshot().streams.items()},
            queue_depths=self._queue_depths,
            stage_ages_s=lambda: {self.stamp.name: self.stamp.age_ms() / 1e3},
            camera_states=lambda: {name: supervisor.state.value for name, supervisor in self.supervisors.items()},
            camera_starts=lambda: {name: ring.generation for name, ring in self.rings.items()},
            heartbeat_age_s=self._heartbeat_age_s,
            refused=self._refused,
            channel=self.channel.counts,
            subscribers=lambda: asdict(self.publisher.knocks),
            writable=lambda: {"journal": self.journal.state().writable, "archive": self.archive.state().writable},
        )

    def health(self) -> dict[str, Callable[[], str]]:
        """Checks by name; each returns an empty string, or a sentence that says what is wrong."""
        return {"inspection": self._inspection, "ledger": self._ledger, "journal": self._journal, "cameras": self._cameras, "alarms": self._alarms}

    def alarms(self) -> tuple[dict[str, Callable[[], str]], dict[str, Callable[[], int]]]:
        """What is an alarm: what is wrong now by name, and what was lost since the start. A camera that cannot see is told as blind."""
        state = self.recorder.state
        losses = {"recorder_overwritten": lambda: state().overwritten, "recorder_unrecorded": lambda: state().unrecorded}
        return {"ledger": self._ledger, "journal": self._journal}, losses

    def _queue_depths(self) -> dict[str, int]:
        depths = {f"ring_{name}": ring.filled for name, ring in self.rings.items()}
        return depths | {"inspection": self.inspection.waiting(), "line": self.line.snapshot().waiting, "journal": self.journal.state().queued}

    def _refused(self) -> dict[str, int]:
        journal, archive = self.journal.state(), self.archive.state()
        recorder = self.recorder.state()
        return {
            "journal": journal.refused + journal.dropped,
            "archive": archive.refused + archive.failed,
            "recorder": recorder.overwritten + recorder.unrecorded,
        }

    def _heartbeat_age_s(self) -> float | None:
        # Heartbeats go out while the stamp is young: its age is what the line would see.
        return self.stamp.age_ms() / 1e3 if self.line.snapshot().heartbeats else None

    def _inspection(self) -> str:
        age_ms = self.stamp.age_ms()
        return "" if age_ms < self.budget_ms else f"the inspection has made no progress for {age_ms:.0f} ms (its budget is {self.budget_ms:.0f} ms)"

    def _ledger(self) -> str:
        books = {name: state.books for name, state in self.line.snapshot().streams.items()}
        wrong = [name for name, one in books.items() if one.opened != one.closed + one.pending]
        return f"opened is not closed + pending in {', '.join(wrong)}" if wrong else ""

    def _journal(self) -> str:
        state = self.journal.state()
        return "" if state.writable else f"rows wait in memory: {state.last_error}"

    def _alarms(self) -> str:
        # What is over and waits for somebody to acknowledge it is an alarm, and no bad health.
        lasting = [one for one in self.channel.counts().alarms if one.lasts]
        return ", ".join(f"{one.name}{'' if one.acknowledged_by is None else ' (acknowledged)'}" for one in lasting)

    def _cameras(self) -> str:
        blind = [name for name, state in self.line.snapshot().streams.items() if state.blind]
        states = ", ".join(f"camera {name} {supervisor.state.value}" for name, supervisor in self.supervisors.items())
        return f"cannot see: {', '.join(blind)} ({states})" if blind else ""
