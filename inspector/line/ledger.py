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

import msgspec

from inspector.contract.records import Event, EventLevel, LateResult, Outcome, Proposal, Reason
from inspector.line.announced import Announcements
from inspector.line.expectations import plan
from inspector.line.parts import REASON_TEXT, Books, Closing, Opened, OpenPart, PastPart, StreamCount, closed
from inspector.line.settings import Announcing

if TYPE_CHECKING:
    from inspector.contract.records import View
    from inspector.contract.requests import Announce
    from inspector.line.announced import Doubled
    from inspector.line.parts import Item
    from inspector.line.streams import Streams

_REMEMBERED = 4096
"""Closed views and parts that are remembered, so that what comes late finds its part."""


class Ledger:
    """Opens parts, closes each exactly once, and accounts for all of them.

    Not thread-safe: one thread owns it. ``now_ns`` is the caller's monotonic clock and must not go back.
    """

    def __init__(self, streams: Streams, announcing: Announcing | None = None) -> None:
        """Books for every stream of ``streams``, empty; without ``announcing`` no part can be announced."""
        self._streams = streams
        self._rules = announcing or Announcing()
        self._books = {name: Books() for name in streams.names}
        self._open: dict[OpenPart, None] = {}
        self._by_ticket: dict[int, OpenPart] = {}
        self._by_id: dict[tuple[str, str], list[OpenPart]] = {}
        """Open parts by stream and part id."""
        self._heap: list[tuple[int, int, OpenPart]] = []
        self._holds: list[tuple[int, int, OpenPart]] = []
        """Proposals that wait: until when, ticket, part."""
        self._order = count()
        self._past_views: OrderedDict[int, tuple[str, int]] = OrderedDict()
        self._past_parts: OrderedDict[tuple[str, str], PastPart] = OrderedDict()
        known = [camera for name in streams.names for camera in streams.cameras(name) if self._rules.part_id(camera) == "announced"]
        self._announcements = Announcements(known, self._rules.deadline_ns, self._rules.timeout_ns)

    def open(self, view: View, now_ns: int) -> list[Item]:
        """Book ``view``: a new part, or a view of the announced part or of the group's open part that it shows.

        A view that has a reason from the start closes its part as soon as nothing else is awaited. A view whose part is
        already closed without it opens nothing: it is late evidence.

        Returns:
            The part that this opened, the parts that it closed, or late evidence; what it tells of announcements.

        Raises:
            ValueError: the ticket is already open, or the camera is not of this station.
        """
        stream = self._streams.of(view.camera)
        if stream not in self._books:
            raise ValueError(f"view {view.ticket}: the station has no camera {view.camera!r}")
        if view.ticket in self._by_ticket or view.ticket in self._past_views:
            raise ValueError(f"view {view.ticket} of camera {view.camera} was already opened: tickets are given once")
        past = None if view.part_id is None else self._past_parts.get((stream, view.part_id))
        if past is not None and view.camera not in past.cameras and view.exposure_ns <= past.deadline_ns:
            return self._open_past(view, stream, past, now_ns)
        matched = self._announcements.identifies(view.camera)
        part, items = self._match(view, now_ns) if matched else self._find(view, stream, past, now_ns)
        if part is None:
            part = self._open_for(view, stream, None if items else view.part_id)  # what is told of a frame without a part is why it has no id
            items.insert(0, Opened(stream, part.part_no, part.part_id, view.exposure_ns, view.opened_ns, view.deadline_ns))
        elif matched:
            view = msgspec.structs.replace(view, part_id=part.part_id)
        part.views.append(view)
        self._by_ticket[view.ticket] = part
        if view.deadline_ns < part.deadline_ns:
            part.deadline_ns = view.deadline_ns
            heapq.heappush(self._heap, (part.deadline_ns, next(self._order), part))
        if view.reason is not None:
            part.said[view.ticket] = Proposal(view.ticket, Outcome.UNINSPECTED, view.reason, REASON_TEXT.get(view.reason, ""))
            if len(part.said) == part.awaits:
                items += self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns)
        return items

    def announce(self, request: Announce, asked_ns: int, now_ns: int) -> list[Item]:
        """Open a part that is on its way; it was announced at ``asked_ns``.

        Raises:
            ValueError: the stream is unknown, the part cannot be told from another, its id was used before, its frame came already,
                or too many parts are under way. One sentence; nothing was opened.
        """
        wanted = plan(request, asked_ns, self._streams, self._rules)
        key = (request.stream, request.part_id)
        if key in self._by_id:
            raise ValueError(f"part {request.part_id!r}: it is open already")
        if key in self._past_parts:
            raise ValueError(f"part {request.part_id!r}: it was there before; a part id is used once")
        limit = self._rules.max_expected if wanted.keys else self._rules.max_open
        if self._books[request.stream].pending >= limit:
            raise ValueError(f"part {request.part_id!r}: {limit} parts of stream {request.stream!r} are open, which is the limit")
        for keys in wanted.keys:
            frame = self._announcements.seen(keys, now_ns)
            if frame is not None:
                raise ValueError(
                    f"part {request.part_id!r}: frame {frame.frame_id} of camera {keys.camera} may be it and came before it was announced"
                )
        part = self._new_part(request.stream, request.part_id, len(self._streams.cameras(request.stream)), wanted.deadline_ns, now_ns)
        part.announced_ns = asked_ns
        self._announcements.expect(part, wanted.keys)
        return [Opened(part.stream, part.part_no, part.part_id, asked_ns, now_ns, part.deadline_ns)]

    def propose(self, proposal: Proposal, now_ns: int) -> list[Item]:
        """Weigh ``proposal``. It counts once, and only before its part's deadline.

        A PASS of an announced part is held until no second frame can fit the announcement any more; ``released`` gives it back.

        Returns:
            The part, if this closed it; the proposal as late evidence, if it came after closing, after the deadline, or twice.
            Evidence for a ticket that is not remembered has an empty stream and part number 0.
        """
        part = self._by_ticket.get(proposal.ticket)
        if part is None:
            stream, part_no = self._past_views.get(proposal.ticket, ("", 0))
            return [LateResult(stream, part_no, proposal, now_ns)]
        if now_ns >= part.deadline_ns:
            return [*self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns), LateResult(part.stream, part.part_no, proposal, now_ns)]
        if proposal.ticket in part.said or proposal.ticket in part.held:
            return [LateResult(part.stream, part.part_no, proposal, now_ns)]
        over_ns = part.over_ns.get(proposal.ticket, 0)
        if proposal.outcome is Outcome.PASS and now_ns < over_ns:
            part.held[proposal.ticket] = proposal
            heapq.heappush(self._holds, (over_ns, proposal.ticket, part))
            return []
        part.said[proposal.ticket] = proposal
        return self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns) if len(part.said) == part.awaits else []

    def released(self, now_ns: int) -> list[Proposal]:
        """Proposals that were held and need not wait any more, to be proposed again."""
        ready = []
        while self._holds and self._holds[0][0] <= now_ns:
            _, ticket, part = heapq.heappop(self._holds)
            if ticket in part.held:
                ready.append(part.held.pop(ticket))
        return ready

    def view(self, ticket: int) -> View | None:
        """An open part's view; None: no open part has it."""
        part = self._by_ticket.get(ticket)
        return None if part is None else next(view for view in part.views if view.ticket == ticket)

    def next_deadline_ns(self) -> int | None:
        """When ``expire`` or ``released`` has something to do; None: nothing is open."""
        for heap in (self._heap, self._holds):
            while heap and heap[0][2].closed:
                heapq.heappop(heap)
        return min((heap[0][0] for heap in (self._heap, self._holds) if heap), default=None)

    def expire(self, now_ns: int) -> list[Item]:
        """Close every part whose deadline is not after ``now_ns``."""
        items: list[Item] = []
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            part = heapq.heappop(heap)[2]
            if not part.closed:
                items += self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns)
        return items

    def close_all(self, reason: Reason, now_ns: int) -> list[Closing]:
        """Close everything that is open; what has not spoken is UNINSPECTED for ``reason``."""
        items = [item for part in list(self._open) for item in self._close(part, reason, reason, now_ns)]
        return [item for item in items if isinstance(item, Closing)]

    def snapshot(self) -> dict[str, StreamCount]:
        """The books of every stream at this instant."""
        return {name: self.count(name) for name in self._books}

    def count(self, stream: str) -> StreamCount:
        """The books of one stream; all zero for a stream without parts of its own."""
        books = self._books.get(stream) or Books()
        return StreamCount(books.opened, sum(books.outcomes.values()), books.pending, dict(books.outcomes))

    def _match(self, view: View, now_ns: int) -> tuple[OpenPart | None, list[Item]]:
        """The announced part that a frame shows, if that is certain."""
        sighting = self._announcements.see(view, now_ns)
        items: list[Item] = [item for doubled in sighting.doubled for item in self._spoil(doubled, now_ns)]
        if sighting.part is not None:
            sighting.part.over_ns[view.ticket] = sighting.over_ns
        return sighting.part, [*items, *sighting.events]

    def _find(self, view: View, stream: str, past: PastPart | None, now_ns: int) -> tuple[OpenPart | None, list[Item]]:
        """The open part with the view's id that awaits its camera. An announced id is never a second part's."""
        same = () if view.part_id is None else self._by_id.get((stream, view.part_id), ())
        part = next((one for one in same if not one.has(view.camera)), None)
        used = (past is not None and past.announced) or any(one.announced_ns is not None for one in same)
        if part is not None or not used:
            return part, []
        detail = f"frame {view.frame_id} came with the id of part {view.part_id}, which was announced once and has its view: it gets no part id"
        return None, [Event("repeated_part_id", EventLevel.WARNING, detail, now_ns, view.camera)]

    def _open_for(self, view: View, stream: str, part_id: str | None) -> OpenPart:
        """A part that nobody announced."""
        awaits = len(self._streams.cameras(stream))
        # Without an id no other camera's view can be matched: such a part never passes. It waits for its deadline, or ends at once
        # when its one view has a reason from the start.
        if part_id is None and view.reason is not None:
            awaits = 1
        return self._new_part(stream, part_id, awaits, view.deadline_ns, view.opened_ns)

    def _new_part(self, stream: str, part_id: str | None, awaits: int, deadline_ns: int, opened_ns: int) -> OpenPart:
        books = self._books[stream]
        books.opened += 1
        books.pending += 1
        part = OpenPart(stream, books.opened, part_id, awaits, deadline_ns, opened_ns)
        self._open[part] = None
        heapq.heappush(self._heap, (deadline_ns, next(self._order), part))
        if part_id is not None:
            self._by_id.setdefault((stream, part_id), []).append(part)
        return part

    def _spoil(self, doubled: Doubled, now_ns: int) -> list[Item]:
        """Two frames fit one announcement: what was or will be found on the first may be another part's."""
        part, ticket = doubled.part, doubled.ticket
        if part.closed:
            return []
        said = part.said.get(ticket) or part.held.pop(ticket, None) or Proposal(ticket, Outcome.PASS)
        if said.outcome is not Outcome.UNINSPECTED:
            part.said[ticket] = msgspec.structs.replace(said, outcome=Outcome.UNINSPECTED, reason=Reason.NO_FRAME, detail=doubled.cause)
        return self._close(part, Reason.LATE, Reason.NO_FRAME, now_ns) if len(part.said) == part.awaits else []

    def _open_past(self, view: View, stream: str, past: PastPart, now_ns: int) -> list[Item]:
        self._remember_view(view.ticket, stream, past.part_no)
        if view.reason is None:
            return []
        return [LateResult(stream, past.part_no, Proposal(view.ticket, Outcome.UNINSPECTED, view.reason), now_ns)]

    def _close(self, part: OpenPart, unsaid: Reason, missing: Reason, now_ns: int) -> list[Item]:
        """End ``part``: views without a proposal get ``unsaid``, cameras without a view ``missing``."""
        cameras = self._streams.cameras(part.stream) if part.awaits > 1 or not part.views else ()
        closing = closed(part, cameras, self._announcements.doubts(part), unsaid, missing, now_ns)
        part.closed = True
        del self._open[part]
        books = self._books[part.stream]
        books.pending -= 1
        kind = (closing.outcome, closing.reason)
        books.outcomes[kind] = books.outcomes.get(kind, 0) + 1
        for view in part.views:
            del self._by_ticket[view.ticket]
            self._remember_view(view.ticket, part.stream, part.part_no)
        if part.part_id is not None:
            self._forget_open((part.stream, part.part_id), part)
        return [closing, *self._announcements.end(part, now_ns)]

    def _forget_open(self, key: tuple[str, str], part: OpenPart) -> None:
        parts = self._by_id[key]
        parts.remove(part)
        if not parts:
            del self._by_id[key]
        cameras = frozenset(view.camera for view in part.views)
        self._past_parts[key] = PastPart(part.part_no, cameras, part.deadline_ns, part.announced_ns is not None)
        self._past_parts.move_to_end(key)
        if len(self._past_parts) > _REMEMBERED:
            self._past_parts.popitem(last=False)

    def _remember_view(self, ticket: int, stream: str, part_no: int) -> None:
        self._past_views[ticket] = (stream, part_no)
        if len(self._past_views) > _REMEMBERED:
            self._past_views.popitem(last=False)
