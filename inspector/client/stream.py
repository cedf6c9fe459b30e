"""One stream of one boot, as a controller keeps it: its messages' numbers, its sight, its heartbeats, its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from inspector.client.decisions import Cause, Decision, Notice, NoticeKind, NumberedMessage, State, Update, decision
from inspector.client.numbers import Gap, Numbers
from inspector.client.parts import Parts
from inspector.client.sight import ClientSight
from inspector.contract import wire
from inspector.contract.records import Action, Outcome

if TYPE_CHECKING:
    from inspector.client.transit import Transit

_SENTENCES = {
    Cause.LATE: "its verdict came after its deadline",
    Cause.BLIND: "the stream could not see when it was exposed",
    Cause.GAP: "messages were lost that may have been about it",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Times, from the welcome and from the controller's options."""

    dead_after_ms: float
    repair_ms: float
    valid_ms: float
    in_order: bool


class Stream:
    """Books of one stream and boot. Pure; ``now_ns`` is the controller's monotonic clock.

    Args:
        base: the last number that was given before the controller came.
        opened: parts that were opened before; None: that is known from the welcome on.
        pending: how many of them were still open.
    """

    def __init__(
        self,
        where: tuple[str, str, str],
        limits: Limits,
        transit: Transit,
        base: int,
        opened: int | None,
        pending: int,
    ) -> None:
        self._where = where
        self.station, _, self.name = where
        self.limits, self._transit = limits, transit
        self.numbers = Numbers(base)
        self.sight = ClientSight()
        hold_ns, valid_ns = int(limits.repair_ms * 1e6), int(limits.valid_ms * 1e6)
        make = partial(decision, where)
        self.parts = Parts(make, in_order=limits.in_order, hold_ns=hold_ns, valid_ns=valid_ns, opened=opened)
        self._pending_before = pending
        self._held: list[wire.VerdictMessage] = []
        """PASS verdicts before which something is missing."""
        self._lost_something = False
        self.since_ns = 0
        """Heartbeats are awaited since."""
        self.beat_ns: int | None = None
        """When the newest heartbeat was sent."""
        self._beat_age_ms = -math.inf
        self.state = State.CONNECTING
        self.silent = False
        """Its silence was told."""

    def message(self, message: NumberedMessage, now_ns: int) -> list[Update]:
        """A numbered message, live or replayed: what it tells, and itself if it is new."""
        new, gap = self.numbers.take(message.seq, now_ns, message.boot_age_ms)
        if not new:
            return []
        told: list[Update] = []
        if gap is not None and gap.last < message.seq:
            told.append(self._gap_notice(gap))
        if isinstance(message, wire.BlindMessage):
            until_ms = None if message.to_ms_ago is None else message.boot_age_ms - message.to_ms_ago
            self.sight.told(message.boot_age_ms - message.from_ms_ago, until_ms, message.seq)
        told.append(message)
        if isinstance(message, wire.VerdictMessage):
            told += self._weigh(message, now_ns)
        if gap is not None and gap.missing == 0:
            told += self.lose(gap, now_ns) if gap.gone else self._repaired(gap, now_ns)
        return told

    def heartbeat(self, beat: wire.HeartbeatMessage, late_ms: float, now_ns: int) -> list[Update]:
        """A heartbeat that was ``late_ms`` under way."""
        told: list[Update] = []
        gap = self.numbers.reach(beat.last_seq, now_ns, beat.boot_age_ms)
        if gap is not None:
            told.append(self._gap_notice(gap))
        self.sight.beat(beat.boot_age_ms, beat.last_seq, blind=beat.blind)
        self.beat_ns = max(self.beat_ns or 0, now_ns - int(late_ms * 1e6))
        self._beat_age_ms = max(self._beat_age_ms, beat.boot_age_ms)
        self.parts.opened = max(self.parts.opened, beat.opened)
        if self._lost_something and self.numbers.complete_before(beat.last_seq + 1):
            self._lost_something = False
            pending_since = beat.pending - max(0, self._pending_before - self.parts.before)
            if self.parts.undecided > pending_since:  # else nothing that was lost was a verdict
                told += self._still(self.parts.give_up(Cause.GAP, "messages were lost that may have been about it", announced=False), now_ns)
        return told

    def welcome(self, last_seq: int, opened: int, pending: int, now_ns: int) -> list[Update]:
        """The first welcome of this boot: numbers up to ``last_seq`` were given, and ``opened`` parts opened, before it."""
        self.numbers.reach(last_seq, now_ns, 0.0, wanted=False)
        told = self.fail(Cause.UNSYNCHRONISED, "it was under way when the controller came", now_ns)
        self.parts.begin(opened, int(self.limits.repair_ms * 1e6))
        self._pending_before = pending
        return told

    def gone(self, gap: Gap, last_gone: int, now_ns: int) -> list[Update]:
        """Of ``gap``, the station does not have numbers up to ``last_gone`` any more."""
        gap.forget_to(last_gone)
        if not gap.missing:
            return self.lose(gap, now_ns)
        if gap.wanted and gap.gone:
            self._doubt_before(gap.before_ms)
        return []

    def lose(self, gap: Gap, now_ns: int) -> list[Update]:
        """What is missing of ``gap`` does not come any more."""
        self.numbers.close(gap)
        missing = gap.missing + gap.gone
        if not gap.wanted or not missing:
            return []
        self._doubt_before(gap.before_ms)
        detail = f"{missing} messages before number {gap.last + 1} do not come any more: parts that they may have been about do not pass"
        return [Notice(NoticeKind.LOST, self.station, self.name, detail, missing), *self._release(now_ns)]

    def fail(self, cause: Cause, detail: str, now_ns: int) -> list[Update]:
        """Everything under way does not pass."""
        told: list[Update] = []
        held, self._held = self._held, []
        for verdict in held:
            told += self._decide(verdict, now_ns, cause, detail)
        return [*told, *self.parts.fail(cause, detail, now_ns)]

    @property
    def retry_ns(self) -> int:
        """A replay that is not answered for so long is asked for again: a quarter of the time for repairs."""
        return int(self.limits.repair_ms * 1e6 / 4)

    def underway(self, gap: Gap, now_ns: int) -> bool:
        """Whether ``gap`` was asked for, and its answer may still come."""
        return gap.asked_ns is not None and now_ns - gap.asked_ns < self.retry_ns and gap in self.numbers.gaps

    def tick(self, now_ns: int) -> list[Decision]:
        """Parts whose time is over."""
        return self._still(self.parts.tick(now_ns), now_ns)

    def alive(self, now_ns: int) -> bool:
        """Whether the newest heartbeat is young enough."""
        return self.beat_ns is not None and now_ns - self.beat_ns <= self.limits.dead_after_ms * 1e6

    def may_pass(self, part_id: str, now_ns: int) -> bool:
        """Whether the part with this id may pass now."""
        if self.state not in {State.LIVE, State.GAP} or not self.alive(now_ns):
            return False
        exposure_ms = self.parts.passed(part_id, now_ns)
        return exposure_ms is not None and self._unseen(exposure_ms) is None

    def _doubt_before(self, boot_age_ms: float) -> None:
        self.sight.doubt_ms = max(self.sight.doubt_ms, boot_age_ms)
        self._lost_something = True

    def _gap_notice(self, gap: Gap) -> Notice:
        self.state = State.GAP if self.state is State.LIVE else self.state
        return Notice(NoticeKind.GAP, self.station, self.name, f"{gap.missing} messages lost after number {gap.first - 1}", gap.missing)

    def _repaired(self, gap: Gap, now_ns: int) -> list[Update]:
        self.numbers.close(gap)
        told = self._release(now_ns)
        if not gap.wanted:
            return told
        count = len(gap.got)
        detail = f"{count} messages up to number {gap.last} were replayed after {(now_ns - gap.found_ns) / 1e6:.0f} ms"
        return [Notice(NoticeKind.REPAIRED, self.station, self.name, detail, count), *told]

    def _release(self, now_ns: int) -> list[Update]:
        """Verdicts before which nothing is missing any more."""
        if self.state is State.GAP and not any(gap.wanted for gap in self.numbers.gaps):
            self.state = State.LIVE
        ready = sorted((one for one in self._held if self.numbers.complete_before(one.seq)), key=lambda one: one.seq)
        self._held = [verdict for verdict in self._held if not self.numbers.complete_before(verdict.seq)]
        told: list[Update] = []
        for verdict in ready:
            told += self._judge(verdict, now_ns)
        return told

    def _weigh(self, verdict: wire.VerdictMessage, now_ns: int) -> list[Decision]:
        if verdict.outcome is not Outcome.PASS or verdict.action is not Action.PASS:
            reason = f" ({verdict.reason.value})" if verdict.reason is not None else ""
            return self._decide(verdict, now_ns, Cause.VERDICT, verdict.detail or f"{verdict.outcome.value}{reason}")
        if self.state not in {State.LIVE, State.GAP}:
            cause = Cause.DEAD if self.state is State.DEAD else Cause.UNSYNCHRONISED
            return self._decide(verdict, now_ns, cause, f"the stream was {self.state.value}")
        if verdict.boot_age_ms - self._beat_age_ms > self.limits.dead_after_ms:
            return self._decide(verdict, now_ns, Cause.DEAD, "it was sent while no heartbeat was")
        if not self.numbers.complete_before(verdict.seq):
            self._held.append(verdict)
            return []
        return self._judge(verdict, now_ns)

    def _judge(self, verdict: wire.VerdictMessage, now_ns: int) -> list[Decision]:
        """A PASS before which nothing is missing."""
        conflict = self.parts.conflict(verdict.part_id, verdict.part_no, now_ns)
        if conflict is not None:
            sentence = "another part has the same id" if conflict is Cause.DOUBLE else "its number is not that of its announcement"
            return self._decide(verdict, now_ns, conflict, sentence)
        doubt = self._doubt(verdict, now_ns)
        if doubt is not None:
            return self._decide(verdict, now_ns, doubt, _SENTENCES[doubt])
        return self._decide(verdict, now_ns, Cause.VERDICT, "PASS", passes=True)

    def _doubt(self, verdict: wire.VerdictMessage, now_ns: int) -> Cause | None:
        """Why a PASS does not pass now; None: it does."""
        if self._transit.boot_age_ms(now_ns) > verdict.boot_age_ms + verdict.remaining_ms:
            return Cause.LATE
        return self._unseen(verdict.boot_age_ms - verdict.age_ms)

    def _unseen(self, exposure_ms: float) -> Cause | None:
        if exposure_ms < self.sight.doubt_ms:
            return Cause.GAP
        return Cause.BLIND if self.sight.covers(exposure_ms) else None

    def _still(self, decisions: list[Decision], now_ns: int) -> list[Decision]:
        """What has waited for its turn is looked at again when it is told."""
        told = []
        for one in decisions:
            doubt = self._doubt(one.verdict, now_ns) if one.passes and one.verdict is not None else None
            if doubt is not None:
                self.parts.withdraw(one.part_id)
                told.append(msgspec.structs.replace(one, passes=False, cause=doubt, detail=_SENTENCES[doubt]))
            else:
                told.append(one)
        return told

    def _decide(self, verdict: wire.VerdictMessage, now_ns: int, cause: Cause, detail: str, *, passes: bool = False) -> list[Decision]:
        made = decision(self._where, part_id=verdict.part_id, part_no=verdict.part_no, passes=passes, cause=cause, detail=detail, verdict=verdict)
        return self._still(self.parts.decide(made, now_ns, verdict.boot_age_ms - verdict.age_ms), now_ns)
