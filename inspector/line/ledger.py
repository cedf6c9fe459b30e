"""The ledger: every part that was opened ends in exactly one outcome.

Pure: no input or output, no thread, no clock of its own. The line thread alone owns it. At every instant, per stream,
``opened == closed + pending``.

A part is one view, or the views of a group of cameras that share a part id. The worst view decides: REJECT before UNINSPECTED
before PASS. A group's part waits for all its views until the deadline even when one of them already says REJECT, so that the
verdict names the defects of every view that spoke in time; nothing that is still to come could make it pass.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING

from inspector.contract.records import LateResult, Outcome, Proposal, Reason
from inspector.line.parts import REASON_TEXT, Books, Closing, Opened, OpenPart, PastPart, StreamCount, closed_view, worst

if TYPE_CHECKING:
    from inspector.contract.records import View
    from inspector.contract.requests import Announce
    from inspector.line.parts import Item
    from inspector.line.streams import Streams

_REMEMBERED = 4096
"""Closed views and parts that are remembered, so that what comes late finds its part."""


class Ledger:
    """Opens parts, closes each exactly once, and accounts for all of them.

    Not thread-safe: one thread owns it. ``now_ns`` is the caller's monotonic clock and must not go back.
    """

    def __init__(self, streams: Streams) -> None:
        """Books for every stream of ``streams``, empty."""
        self._streams = streams
        self._books = {name: Books() for name in streams.names}
        self._by_ticket: dict[int, OpenPart] = {}
        self._by_id: dict[str, list[OpenPart]] = {}
        """Open parts of the group by part id."""
        self._heap: list[tuple[int, int, OpenPart]] = []
        self._order = count()
        self._past_views: OrderedDict[int, tuple[str, int]] = OrderedDict()
        self._past_parts: OrderedDict[str, PastPart] = OrderedDict()

    def open(self, view: View, now_ns: int) -> list[Item]:
        """Book ``view``: a new part, or a further view of the group's open part with the same id.

        A view that has a reason from the start closes its part as soon as nothing else is awaited. A group's view whose part is
        already closed without it opens nothing: it is late evidence.

        Returns:
            The part that this opened, the part that it closed, or late evidence.

        Raises:
            ValueError: the ticket is already open, or the camera is not of this station.
        """
        stream = self._streams.of(view.camera)
        if stream not in self._books:
            raise ValueError(f"view {view.ticket}: the station has no camera {view.camera!r}")
        if view.ticket in self._by_ticket or view.ticket in self._past_views:
            raise ValueError(f"view {view.ticket} of camera {view.camera} was already opened: tickets are given once")
        grouped = stream == self._streams.group_stream and bool(self._streams.group)
        part: OpenPart | None = None
        if grouped and view.part_id is not None:
            past = self._past_parts.get(view.part_id)
            if past is not None and view.camera not in past.cameras and view.exposure_ns <= past.deadline_ns:
                return self._open_past(view, stream, past, now_ns)
            part = next((one for one in self._by_id.get(view.part_id, ()) if not one.has(view.camera)), None)
        items: list[Item] = []
        if part is None:
            part = self._new_part(view, stream, grouped=grouped)
            items.append(Opened(stream, part.part_no, part.part_id, view.exposure_ns, view.opened_ns, view.deadline_ns))
        part.views.append(view)
        self._by_ticket[view.ticket] = part
        if len(part.views) == 1 or view.deadline_ns < part.deadline_ns:
            part.deadline_ns = view.deadline_ns
            heapq.heappush(self._heap, (part.deadline_ns, next(self._order), part))
        if view.reason is not None:
            part.said[view.ticket] = Proposal(view.ticket, Outcome.UNINSPECTED, view.reason, REASON_TEXT.get(view.reason, ""))
            if len(part.said) == part.awaits:
                items.append(self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns))
        return items

    def announce(self, request: Announce, asked_ns: int, now_ns: int) -> list[Item]:  # noqa: ARG002 - announcements come next
        """Open a part that is on its way.

        Raises:
            ValueError: the stream is unknown, or the part cannot be told from another.
        """
        raise ValueError(f"stream {request.stream!r}: announcements are not taken yet")

    def propose(self, proposal: Proposal, now_ns: int) -> list[Item]:
        """Weigh ``proposal``. It counts once, and only before its part's deadline.

        Returns:
            The part, if this closed it; the proposal as late evidence, if it came after closing, after the deadline, or twice.
            Evidence for a ticket that is not remembered has an empty stream and part number 0.
        """
        part = self._by_ticket.get(proposal.ticket)
        if part is None:
            stream, part_no = self._past_views.get(proposal.ticket, ("", 0))
            return [LateResult(stream, part_no, proposal, now_ns)]
        if now_ns >= part.deadline_ns:
            return [self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns), LateResult(part.stream, part.part_no, proposal, now_ns)]
        if proposal.ticket in part.said:
            return [LateResult(part.stream, part.part_no, proposal, now_ns)]
        part.said[proposal.ticket] = proposal
        return [self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns)] if len(part.said) == part.awaits else []

    def view(self, ticket: int) -> View | None:
        """An open part's view; None: no open part has it."""
        part = self._by_ticket.get(ticket)
        return None if part is None else next(view for view in part.views if view.ticket == ticket)

    def next_deadline_ns(self) -> int | None:
        """The earliest deadline of an open part; None: nothing is open."""
        heap = self._heap
        while heap and heap[0][2].closed:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expire(self, now_ns: int) -> list[Closing]:
        """Close every part whose deadline is not after ``now_ns``."""
        closed = []
        while (deadline := self.next_deadline_ns()) is not None and deadline <= now_ns:
            closed.append(self._close(self._heap[0][2], Reason.LATE, Reason.NO_FRAME, now_ns))
        return closed

    def close_all(self, reason: Reason, now_ns: int) -> list[Closing]:
        """Close everything that is open; what has not spoken is UNINSPECTED for ``reason``."""
        parts = dict.fromkeys(self._by_ticket.values())
        return [self._close(part, reason, reason, now_ns) for part in parts]

    def snapshot(self) -> dict[str, StreamCount]:
        """The books of every stream at this instant."""
        return {name: self.count(name) for name in self._books}

    def count(self, stream: str) -> StreamCount:
        """The books of one stream; all zero for a stream without parts of its own."""
        books = self._books.get(stream) or Books()
        return StreamCount(books.opened, sum(books.outcomes.values()), books.pending, dict(books.outcomes))

    def _new_part(self, view: View, stream: str, *, grouped: bool) -> OpenPart:
        books = self._books[stream]
        books.opened += 1
        books.pending += 1
        # Without an id no other camera's view can be matched: such a part never passes. It waits for its deadline, or ends at once
        # when its one view has a reason from the start.
        part = OpenPart(stream, books.opened, view.part_id, len(self._streams.group) if grouped else 1, view.deadline_ns)
        if grouped and view.part_id is not None:
            self._by_id.setdefault(view.part_id, []).append(part)
        elif grouped and view.reason is not None:
            part.awaits = 1
        return part

    def _open_past(self, view: View, stream: str, past: PastPart, now_ns: int) -> list[Item]:
        self._remember_view(view.ticket, stream, past.part_no)
        if view.reason is None:
            return []
        return [LateResult(stream, past.part_no, Proposal(view.ticket, Outcome.UNINSPECTED, view.reason), now_ns)]

    def _close(self, part: OpenPart, unsaid: Reason, missing: Reason, now_ns: int) -> Closing:
        """End ``part``: views without a proposal get ``unsaid``, cameras without a view ``missing``."""
        cameras = self._streams.cameras(part.stream) if part.awaits > 1 else ()
        views = part.views if len(part.views) == 1 else sorted(part.views, key=lambda view: cameras.index(view.camera))
        closed = tuple(closed_view(view, part.said.get(view.ticket), unsaid, now_ns) for view in views)
        said = [(one.outcome, one.reason, one.detail) for one in closed]
        said += [(Outcome.UNINSPECTED, missing, f"camera {name}: {REASON_TEXT.get(missing, '')}") for name in cameras if not part.has(name)]
        outcome, reason, detail = worst(said)
        defects = tuple(defect for view in views if view.ticket in part.said for defect in part.said[view.ticket].defects)
        part.closed = True
        books = self._books[part.stream]
        books.pending -= 1
        books.outcomes[(outcome, reason)] = books.outcomes.get((outcome, reason), 0) + 1
        for view in views:
            del self._by_ticket[view.ticket]
            self._remember_view(view.ticket, part.stream, part.part_no)
        if part.part_id is not None and part.part_id in self._by_id:
            self._forget_open(part.part_id, part)
        return Closing(
            stream=part.stream,
            part_no=part.part_no,
            part_id=part.part_id,
            outcome=outcome,
            reason=reason,
            detail=detail,
            defects=defects,
            views=closed,
            exposure_ns=min(view.exposure_ns for view in views),
            opened_ns=views[0].opened_ns,
            deadline_ns=part.deadline_ns,
            closed_ns=now_ns,
        )

    def _forget_open(self, part_id: str, part: OpenPart) -> None:
        parts = self._by_id[part_id]
        if part in parts:
            parts.remove(part)
            self._past_parts[part_id] = PastPart(part.part_no, frozenset(view.camera for view in part.views), part.deadline_ns)
            self._past_parts.move_to_end(part_id)
            if len(self._past_parts) > _REMEMBERED:
                self._past_parts.popitem(last=False)
        if not parts:
            del self._by_id[part_id]

    def _remember_view(self, ticket: int, stream: str, part_no: int) -> None:
        self._past_views[ticket] = (stream, part_no)
        if len(self._past_views) > _REMEMBERED:
            self._past_views.popitem(last=False)
