"""What the ledger keeps of a part: while it is open, when it ends, and afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.records import ClosedView, Defect, LateResult, Outcome, Proposal, Reason, StageTimes, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REASON_TEXT = {
    Reason.LATE: "no result before the deadline",
    Reason.NO_FRAME: "no image came",
    Reason.SHUTDOWN: "the station was stopped",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A part that was just opened."""

    stream: str
    part_no: int
    part_id: str | None
    exposure_ns: int
    """Of its first view; of an announced part, when it was announced."""
    opened_ns: int
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class StreamCount:
    """One stream's books at one instant: ``opened == closed + pending``."""

    opened: int
    closed: int
    pending: int
    outcomes: Mapping[tuple[Outcome, Reason | None], int]
    """Closed parts by outcome and reason; they sum to ``closed``."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A part that has just ended; it has no number on the wire yet."""

    stream: str
    part_no: int
    part_id: str | None
    outcome: Outcome
    reason: Reason | None
    detail: str
    defects: tuple[Defect, ...]
    views: tuple[ClosedView, ...]
    exposure_ns: int
    opened_ns: int
    deadline_ns: int
    closed_ns: int


@dataclass(slots=True, eq=False)
class OpenPart:
    """A part that has not ended."""

    stream: str
    part_no: int
    part_id: str | None
    awaits: int
    """How many views it must have."""
    deadline_ns: int
    views: list[View] = field(default_factory=list)
    said: dict[int, Proposal] = field(default_factory=dict)
    closed: bool = False

    def has(self, camera: str) -> bool:
        """Whether ``camera`` has a view of it."""
        return any(view.camera == camera for view in self.views)


@dataclass(slots=True)
class Books:
    """One stream's counts."""

    opened: int = 0
    pending: int = 0
    outcomes: dict[tuple[Outcome, Reason | None], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PastPart:
    """What is remembered of a closed part of a group."""

    part_no: int
    cameras: frozenset[str]
    deadline_ns: int


Item = Opened | Closing | LateResult
"""What a step of the ledger has brought about, in this order: opened, closed, evidence."""


def closed_view(view: View, said: Proposal | None, unsaid: Reason, now_ns: int) -> ClosedView:
    """A view as it ends: as was ``said`` of it, or UNINSPECTED for ``unsaid``."""
    times = said.times if said is not None else StageTimes()
    transfer = times.transfer_ms if times.transfer_ms is not None else view.transfer_ms
    times = msgspec.structs.replace(times, transfer_ms=transfer, total_ms=(now_ns - view.exposure_ns) / 1e6)
    if said is None:
        return ClosedView(view, Outcome.UNINSPECTED, unsaid, REASON_TEXT.get(unsaid, ""), times, None)
    return ClosedView(view, said.outcome, said.reason, said.detail, times, said.picture)


def worst(said: Iterable[tuple[Outcome, Reason | None, str]]) -> tuple[Outcome, Reason | None, str]:
    """REJECT before UNINSPECTED before PASS; among equals the first."""
    rank = {Outcome.REJECT: 0, Outcome.UNINSPECTED: 1, Outcome.PASS: 2}
    return min(said, key=lambda one: rank[one[0]])
