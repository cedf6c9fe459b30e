"""What the ledger keeps of a part: while it is open, when it ends, and afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.records import ClosedView, Defect, Event, LateResult, Outcome, Proposal, Reason, StageTimes, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
    opened_ns: int
    announced_ns: int | None = None
    """When the line said that it is on its way; None: a view opened it."""
    views: list[View] = field(default_factory=list)
    said: dict[int, Proposal] = field(default_factory=dict)
    over_ns: dict[int, int] = field(default_factory=dict)
    """By ticket: when the window of an announced part is over, and with it the time in which a second frame may fit."""
    held: dict[int, Proposal] = field(default_factory=dict)
    """A PASS that waits for that; it is not said yet."""
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
    """What is remembered of a closed part with an id of the line."""

    part_no: int
    cameras: frozenset[str]
    deadline_ns: int
    announced: bool


Item = Opened | Closing | LateResult | Event
"""What a step of the ledger has brought about, in this order: opened, closed, evidence, events."""


def closed_view(view: View, said: Proposal | None, unsaid: Reason, now_ns: int) -> ClosedView:
    """A view as it ends: as was ``said`` of it, or UNINSPECTED for ``unsaid``."""
    times = said.times if said is not None else StageTimes()
    transfer = times.transfer_ms if times.transfer_ms is not None else view.transfer_ms
    times = msgspec.structs.replace(times, transfer_ms=transfer, total_ms=(now_ns - view.exposure_ns) / 1e6)
    if said is None:
        return ClosedView(view, Outcome.UNINSPECTED, unsaid, REASON_TEXT.get(unsaid, ""), times, None)
    return ClosedView(view, said.outcome, said.reason, said.detail, times, said.picture)


def closed(part: OpenPart, cameras: Sequence[str], doubts: Mapping[str, str], unsaid: Reason, missing: Reason, now_ns: int) -> Closing:
    """``part`` as it ends: views without a proposal get ``unsaid``, those of ``cameras`` without a view ``missing``, and why (``doubts``)."""
    for ticket, held in part.held.items():
        part.said[ticket] = msgspec.structs.replace(held, outcome=Outcome.UNINSPECTED, reason=unsaid, detail=REASON_TEXT.get(unsaid, ""))
    views = part.views if len(part.views) <= 1 else sorted(part.views, key=lambda view: cameras.index(view.camera))
    ended = tuple(closed_view(view, part.said.get(view.ticket), unsaid, now_ns) for view in views)
    absent = {name: doubts.get(name) or REASON_TEXT.get(missing, "") for name in cameras if not part.has(name)}
    said: list[tuple[Outcome, Reason | None, str]] = [(one.outcome, one.reason, one.detail) for one in ended]
    said += [(Outcome.UNINSPECTED, missing, f"camera {name}: {why}") for name, why in absent.items()]
    outcome, reason, detail = worst(said)
    return Closing(
        stream=part.stream,
        part_no=part.part_no,
        part_id=part.part_id,
        outcome=outcome,
        reason=reason,
        detail=detail,
        defects=tuple(defect for view in views if view.ticket in part.said for defect in part.said[view.ticket].defects),
        views=ended,
        exposure_ns=min((view.exposure_ns for view in views), default=part.opened_ns if part.announced_ns is None else part.announced_ns),
        opened_ns=part.opened_ns,
        deadline_ns=part.deadline_ns,
        closed_ns=now_ns,
    )


def worst(said: Iterable[tuple[Outcome, Reason | None, str]]) -> tuple[Outcome, Reason | None, str]:
    """REJECT before UNINSPECTED before PASS; among equals the first."""
    rank = {Outcome.REJECT: 0, Outcome.UNINSPECTED: 1, Outcome.PASS: 2}
    return min(said, key=lambda one: rank[one[0]])
