"""From closed parts, blind intervals and events to messages on the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inspector.contract.records import Outcome, Reason
from inspector.contract.wire import BlindMessage, EventMessage, HeartbeatMessage, ResultState, VerdictMessage, ViewMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.contract.records import Blind, ClosedPart, Event
    from inspector.line.parts import StreamCount

_ABORTED = frozenset({Reason.LATE, Reason.PAUSED, Reason.SHUTDOWN, Reason.CRASHED})
"""Reasons for which the processing was stopped; for all others it failed."""


@dataclass(frozen=True, slots=True)
class Now:
    """One instant on both clocks, so that monotonic stamps can be shown as UTC."""

    monotonic_ns: int
    utc_ns: int

    @classmethod
    def read(cls) -> Now:
        """Both clocks, read one right after the other."""
        return cls(time.monotonic_ns(), time.time_ns())

    def ms_since(self, stamp_ns: int) -> float:
        """Age of a monotonic stamp, milliseconds; negative: it lies ahead."""
        return (self.monotonic_ns - stamp_ns) / 1e6

    def utc(self, stamp_ns: int) -> str:
        """A monotonic stamp as UTC, ISO 8601 with microseconds, for display."""
        micros = (self.utc_ns - self.monotonic_ns + stamp_ns) // 1000
        return datetime.fromtimestamp(micros / 1e6, tz=UTC).isoformat(timespec="microseconds")


def result_state(outcome: Outcome, reason: Reason | None) -> ResultState:
    """ResultState of OPC 40100-1: a verdict was reached, the processing was stopped, or it failed."""
    if outcome is not Outcome.UNINSPECTED:
        return ResultState.COMPLETED
    return ResultState.ABORTED if reason in _ABORTED else ResultState.FAILED


class MessageBuilder:
    """Builds the messages of one station and boot."""

    def __init__(self, station: str, boot_id: str, clock: Callable[[], Now] = Now.read) -> None:
        """The boot's age counts from now. ``clock`` reads both clocks; every message reads it once."""
        self._station, self._boot_id, self._clock = station, boot_id, clock
        self._began_ns = clock().monotonic_ns

    def verdict(self, part: ClosedPart, *, simulated: bool) -> VerdictMessage:
        """The verdict on ``part``, aged at this instant."""
        now = self._clock()
        return VerdictMessage(
            station=self._station,
            boot_id=self._boot_id,
            boot_age_ms=now.ms_since(self._began_ns),
            stream=part.stream,
            seq=part.seq,
            part_no=part.part_no,
            part_id=part.part_id,
            result_id=f"{self._boot_id}:{part.stream}:{part.part_no}",
            job_id=f"{part.product}:{part.product_version}",
            is_simulated=simulated,
            result_state=result_state(part.outcome, part.reason),
            outcome=part.outcome,
            reason=part.reason,
            detail=part.detail,
            action=part.action,
            age_ms=now.ms_since(part.exposure_ns),
            remaining_ms=-now.ms_since(part.deadline_ns),
            exposure_utc=now.utc(part.exposure_ns),
            views=tuple(
                ViewMessage(
                    one.view.camera,
                    one.outcome,
                    one.reason,
                    one.view.frame_id,
                    one.view.encoder,
                    one.view.trigger_counter,
                    now.utc(one.view.exposure_ns),
                )
                for one in part.views
            ),
            defects=part.defects,
            product=part.product,
            product_version=part.product_version,
            engines=part.engines,
            times=part.times,
        )

    def blind(self, blind: Blind, seq: int) -> BlindMessage:
        """A blind interval, aged at this instant."""
        now = self._clock()
        return BlindMessage(
            station=self._station,
            boot_id=self._boot_id,
            boot_age_ms=now.ms_since(self._began_ns),
            stream=blind.stream,
            seq=seq,
            from_ms_ago=now.ms_since(blind.from_ns),
            to_ms_ago=None if blind.to_ns is None else now.ms_since(blind.to_ns),
            from_utc=now.utc(blind.from_ns),
            to_utc=None if blind.to_ns is None else now.utc(blind.to_ns),
            cause=blind.cause,
        )

    def event(self, event: Event, seq: int) -> EventMessage:
        """An event."""
        now = self._clock()
        return EventMessage(
            station=self._station,
            boot_id=self._boot_id,
            boot_age_ms=now.ms_since(self._began_ns),
            stream=event.stream,
            seq=seq,
            name=event.name,
            level=event.level,
            detail=event.detail,
            utc=now.utc(event.at_ns),
        )

    def heartbeat(self, stream: str, last_seq: int, books: StreamCount, *, inspection_age_ms: float, blind: bool) -> HeartbeatMessage:
        """A sign of life with the stream's books."""
        return HeartbeatMessage(
            station=self._station,
            boot_id=self._boot_id,
            boot_age_ms=self._clock().ms_since(self._began_ns),
            stream=stream,
            last_seq=last_seq,
            inspection_age_ms=inspection_age_ms,
            opened=books.opened,
            closed=books.closed,
            pending=books.pending,
            blind=blind,
        )
