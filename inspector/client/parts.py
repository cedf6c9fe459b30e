"""The parts of one stream and boot: each gets one decision, kept for as long as it may be asked for."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING

import msgspec

from inspector.client.decisions import Cause, Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REMEMBERED = 65_536
"""Parts of one stream that are remembered, waiting or decided; what is forgotten does not pass."""


@dataclass(slots=True)
class Announced:
    """A part that was announced and is not decided."""

    deadline_ns: int
    part_no: int | None = None
    """As the station numbered it."""


@dataclass(slots=True)
class _Known:
    part_no: int | None
    passes: bool
    at_ns: int
    exposure_ms: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    decision: Decision
    since_ns: int


class Parts:
    """Decisions of one stream.

    Args:
        make: a decision of this stream with the fields that are given.
        in_order: release decisions by part number.
        hold_ns: how long a missing number may hold back those after it.
        valid_ns: how long a pass holds.
        opened: parts that the station had opened before; nothing is told of those that are lost. None: not known before ``begin``.
    """

    def __init__(self, make: Callable[..., Decision], *, in_order: bool, hold_ns: int, valid_ns: int, opened: int | None) -> None:
        self._make, self._in_order, self._hold_ns, self._valid_ns = make, in_order, hold_ns, valid_ns
        self._counting = opened is not None
        opened = opened or 0
        self._base = opened
        self._next = opened + 1
        """All numbers from ``_base`` to below are decided, and told."""
        self._decided: set[int] = set()
        """From ``_next`` on."""
        self._waiting: dict[int, _Waiting] = {}
        """The same, not told; the oldest first."""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._deadlines: list[tuple[int, str]] = []
        self.announced: dict[str, Announced] = {}
        self.opened = opened
        """Highest number that is known to exist."""
        self.before = 0
        """Verdicts on parts that were opened before the controller came."""

    def begin(self, opened: int, hold_ns: int) -> None:
        """From now on a number above ``opened`` that is missing is a part that is lost."""
        self._counting, self._hold_ns = True, hold_ns
        self._base, self._next = opened, opened + 1
        self._decided = {no for no in self._decided if no > opened}
        self.opened = max([opened, *self._decided])
        self._release()

    @property
    def undecided(self) -> int:
        """How many numbers that exist have no decision."""
        return self.opened + 1 - self._next - len(self._decided) - len(self._waiting)

    def announce(self, part_id: str, deadline_ns: int) -> None:
        """A part with this id is on its way: what was known of the id holds no more.

        Raises:
            ValueError: it was announced before, and is not decided; or too many are.
        """
        if part_id in self.announced:
            raise ValueError(f"part {part_id!r} was announced before and is still on its way")
        if len(self.announced) >= REMEMBERED:
            raise ValueError(f"more than {REMEMBERED} parts are announced and not decided")
        self._known.pop(part_id, None)
        self.announced[part_id] = Announced(deadline_ns)
        heapq.heappush(self._deadlines, (deadline_ns, part_id))

    def numbered(self, part_id: str, part_no: int) -> None:
        """The station gave the announced part this number."""
        if part_id in self.announced:
            self.announced[part_id].part_no = part_no
            self.opened = max(self.opened, part_no)

    def refused(self, part_id: str, detail: str, now_ns: int) -> list[Decision]:
        """The station does not take the announcement: the part does not pass."""
        if part_id not in self.announced:
            return []
        refused = self._make(part_id=part_id, part_no=None, passes=False, cause=Cause.REFUSED, detail=detail)
        return self.decide(refused, now_ns, 0.0)

    def conflict(self, part_id: str | None, part_no: int, now_ns: int) -> Cause | None:
        """Why a part with this id and number cannot be told from another; None: it can."""
        if part_id is None:
            return None
        announced = self.announced.get(part_id)
        if announced is not None:
            return Cause.MISMATCH if announced.part_no not in {None, part_no} else None
        known = self._known.get(part_id)
        return Cause.DOUBLE if known is not None and known.part_no != part_no and now_ns - known.at_ns <= self._valid_ns else None

    def is_decided(self, part_no: int) -> bool:
        """Whether a decision was made on the part with this number."""
        return self._base < part_no < self._next or part_no in self._decided or part_no in self._waiting

    def decide(self, decision: Decision, now_ns: int, exposure_ms: float) -> list[Decision]:
        """Book ``decision``.

        Returns:
            What may be told now; nothing if it waits for its turn, or the part was decided before.
        """
        part_no, part_id = decision.part_no, decision.part_id
        awaited = part_id is not None and self.announced.pop(part_id, None) is not None
        known = None if part_id is None else self._known.get(part_id)
        again = part_no is not None and self.is_decided(part_no)
        by_id = known is not None and known.part_no is None and part_no is not None and now_ns - known.at_ns <= self._valid_ns
        if again and decision.passes:
            decision = msgspec.structs.replace(decision, passes=False, cause=Cause.NO_VERDICT, detail="its number was given up before")
        self._remember(decision, now_ns, exposure_ms)
        if part_no is None:
            return [decision]
        self.opened = max(self.opened, part_no)
        if again:
            return [decision] if awaited else []
        if not self._counting:
            self._decided.add(part_no)
            if len(self._decided) > 2 * REMEMBERED:
                self._decided = set(sorted(self._decided)[-REMEMBERED:])
            return [decision]
        if part_no <= self._base:
            self.before += 1
            return [] if by_id else [decision]
        if self._in_order and not by_id:
            self._waiting[part_no] = _Waiting(decision, now_ns)
            return [*self._release(), *self._shrink()]
        self._decided.add(part_no)
        return [*([] if by_id else [decision]), *self._release(), *self._shrink()]

    def give_up(self, cause: Cause, detail: str, below: int | None = None, *, announced: bool = True) -> list[Decision]:
        """Numbers below ``below`` (None: all that exist) that were not decided do not pass; what waits for them is told.

        ``announced`` False: those that were announced may still come.
        """
        if not self._counting:
            return []
        until = self.opened + 1 if below is None else below
        awaited = {one.part_no: part_id for part_id, one in self.announced.items() if one.part_no is not None}
        told: list[Decision] = []
        kept = set[int]()
        for first, last in self._holes(until):
            start = first
            for no in sorted(no for no in awaited if first <= no <= last):
                told += self._lost(start, no - 1, cause, detail)
                start = no + 1
                if announced:
                    told.append(self._make(part_id=awaited[no], part_no=no, passes=False, cause=cause, detail=detail))
                    del self.announced[awaited[no]]
                    self._remember(told[-1], 0, 0.0)
                else:
                    kept.add(no)
            told += self._lost(start, last, cause, detail)
        first_kept = min(kept, default=until)
        ready = [no for no in self._waiting if no < first_kept]
        told += [self._waiting.pop(no).decision for no in ready]
        if ready:
            told.sort(key=lambda one: one.part_no or 0)
        self._decided = {no for no in self._decided if no >= first_kept}
        if kept:
            self._decided.update(no for no in range(first_kept, until) if no not in kept and no not in self._waiting)
        self._next = max(self._next, first_kept)
        return told + self._release()

    def _lost(self, first: int, last: int, cause: Cause, detail: str) -> list[Decision]:
        if first > last:
            return []
        return [self._make(part_id=None, part_no=first, to_part_no=None if first == last else last, passes=False, cause=cause, detail=detail)]

    def withdraw(self, part_id: str | None) -> None:
        """The part with this id passes no more."""
        if part_id is not None and part_id in self._known:
            self._known[part_id].passes = False

    def fail(self, cause: Cause, detail: str, now_ns: int) -> list[Decision]:
        """Everything under way does not pass: what was announced, what waits, what was opened."""
        for part_no, waiting in list(self._waiting.items()):
            if waiting.decision.passes:
                failed = msgspec.structs.replace(waiting.decision, passes=False, cause=cause, detail=detail)
                self._remember(failed, now_ns, 0.0)
                self._waiting[part_no] = _Waiting(failed, waiting.since_ns)
        told = []
        for part_id, announced in list(self.announced.items()):
            decision = self._make(part_id=part_id, part_no=announced.part_no, passes=False, cause=cause, detail=detail)
            told += self.decide(decision, now_ns, 0.0)
        return told + self.give_up(cause, detail)

    def tick(self, now_ns: int) -> list[Decision]:
        """Announced parts whose time is over, and numbers that have held back others for too long."""
        told = []
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            deadline_ns, part_id = heapq.heappop(self._deadlines)
            announced = self.announced.get(part_id)
            if announced is None or announced.deadline_ns != deadline_ns:
                continue  # decided
            detail = "no verdict came in the controller's time"
            decision = self._make(part_id=part_id, part_no=announced.part_no, passes=False, cause=Cause.NO_VERDICT, detail=detail)
            told += self.decide(decision, now_ns, 0.0)
        overdue = [no for no, _ in takewhile(lambda one: now_ns - one[1].since_ns >= self._hold_ns, self._waiting.items())]
        if overdue:
            told += self.give_up(Cause.NO_VERDICT, "numbers after it were decided and it was not", max(overdue) + 1)
        return told

    def next_ns(self) -> int | None:
        """When ``tick`` has something to do, at the latest."""
        due = [self._deadlines[0][0]] if self._deadlines else []
        due += [one.since_ns + self._hold_ns for one in islice(self._waiting.values(), 1)]
        return min(due, default=None)

    def passed(self, part_id: str, now_ns: int) -> float | None:
        """The exposure (age of the boot, ms) of the part with this id, if it passes; None: it does not."""
        known = self._known.get(part_id)
        if known is None or not known.passes or now_ns - known.at_ns > self._valid_ns:
            return None
        if known.part_no in self._waiting:
            return None  # its turn has not come
        return known.exposure_ms

    def _remember(self, decision: Decision, now_ns: int, exposure_ms: float) -> None:
        if decision.part_id is None:
            return
        known = self._known.pop(decision.part_id, None)
        passes = decision.passes
        if known is not None and now_ns - known.at_ns <= self._valid_ns and known.part_no != decision.part_no:
            passes = False  # two parts with one id: neither passes
        self._known[decision.part_id] = _Known(decision.part_no, passes, now_ns, exposure_ms)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _release(self) -> list[Decision]:
        told = []
        while self._next in self._waiting or self._next in self._decided:
            waiting = self._waiting.pop(self._next, None)
            self._decided.discard(self._next)
            if waiting is not None:
                told.append(waiting.decision)
            self._next += 1
        return told

    def _shrink(self) -> list[Decision]:
        """The oldest number without a decision is given up when too many after it have one."""
        if len(self._decided) + len(self._waiting) <= REMEMBERED:
            return []
        return self.give_up(Cause.NO_VERDICT, "numbers after it were decided and it was not", min(chain(self._decided, self._waiting)) + 1)

    def _holes(self, until: int) -> Iterator[tuple[int, int]]:
        """Runs of numbers from ``_next`` to below ``until`` without a decision."""
        first = self._next
        for no in sorted(no for no in (*self._decided, *self._waiting) if no < until):
            if no > first:
                yield first, no - 1
            first = no + 1
        if first < until:
            yield first, until - 1
