"""Which part a frame shows: the identity rules of one camera (docs/decisions/0003-identity-of-parts.md).

Pure: records in; views, events and blind intervals out. Where the camera latches its trigger counter with each frame, that number is the
truth and the frame id only a cross-check; otherwise the frame id, unwrapped, and the exposure time identify a frame. Every trigger and frame that
the camera tells of ends in exactly one view, or lies in a blind interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.records import Blind, Event, EventLevel, Reason
from inspector.inspection.counters import FrameIds, Lost, Memory, Owed
from inspector.inspection.views import Seen, ViewMaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.config.station import IdentityRules
    from inspector.contract.channel import FrameRecord, StatusRecord


class FrameTracker:
    """Turns one camera's records into views. Used by one thread."""

    def __init__(self, camera: str, rules: IdentityRules, deadline_ns: int, tickets: Iterator[int]) -> None:
        """``deadline_ns``: the product's; a counted trigger without a frame is given up after it. ``tickets`` are unique in this boot."""
        self._camera, self._rules, self._patience_ns = camera, rules, deadline_ns
        self._views = ViewMaker(camera, rules.part_id, deadline_ns, tickets)
        self._ids = FrameIds(rules.frame_id_bits, rules.frame_id_first_after_wrap)
        self._memory, self._owed, self._started_ns = Memory(), Owed(), 0
        self._latches = False  # in this incarnation or an earlier one
        self._forget()

    def _forget(self) -> None:
        self._memory.clear()
        self._owed.clear()
        self._latched = False
        self._number: int | None = None
        """Highest number accounted for: trigger counter, or frame id unwrapped."""
        self._count: int | None = None
        """Triggers accounted for, in the camera's count; None: it tells none."""
        self._base: int | None = None
        """The camera's count when it first told it, and when: what came before is blind."""
        self._base_ns = 0
        self._counted: int | None = None
        self._counted_ns: int | None = None
        self._frame_id: int | None = None
        self._frame_no = 0
        self._camera_ns = 0
        self._exposure_ns: int | None = None
        self._ahead = 0
        """Frames given up whose numbers are not known; the next gap takes them."""
        self._ahead_until_ns = 0

    def restart(self, at_ns: int) -> None:
        """A new incarnation of the camera process: numbers and camera clock may begin anew; what was not seen is blind."""
        self._memory, self._started_ns = Memory(), at_ns
        self._forget()

    @property
    def seen_until_ns(self) -> int | None:
        """Up to when everything that the camera saw is accounted for (after ``end``); None: it saw nothing yet."""
        known = [at_ns for at_ns in (self._exposure_ns, self._counted_ns) if at_ns is not None]
        return max(known) if known else None

    def due_ns(self) -> int | None:
        """When ``expire`` has something to give up; None: nothing is owed."""
        if self._count is not None:
            self._owed.reached(self._count)
        return self._owed.due_ns(self._patience_ns)

    def unsent(self, frames: int, at_ns: int) -> None:
        """The camera process could not send that many records (it counted them in the ring)."""
        self._owed.add(overrun=frames, at_ns=at_ns)

    def frame(self, record: FrameRecord, now_ns: int, reason: Reason | None = None) -> Seen:
        """Identify a frame; ``reason``: why its image cannot be inspected."""
        seen = Seen()
        exposure_ns = record.exposure_ns
        self._owed.add(incomplete=record.incomplete_before, at_ns=record.received_ns)
        if self._memory.delivered(record.frame_id, record.camera_ns):
            self._tell(seen, "duplicate_frame", EventLevel.WARNING, f"frame {record.frame_id} was delivered twice", now_ns)
            return seen
        latched = record.trigger_counter is not None
        if latched and (not self._latched or self._number is None):
            self._latched = self._latches = True
            self._number = self._count  # from the count in the status records on, if there was one
        elif self._latches and not latched:
            # Its frame id tells only how many frames there were: it is damaged, and the next gap in the counter says whose it was.
            self._owed.add(incomplete=1, at_ns=record.received_ns)
            self._tell(seen, "no_trigger_counter", EventLevel.WARNING, f"frame {record.frame_id} came without its trigger counter", now_ns)
            return seen
        id_step = None if self._frame_id is None else self._ids.step(self._frame_id, record.frame_id)
        step = self._step(record, id_step)
        if step is None or self._number is None:
            number = record.frame_id if record.trigger_counter is None else record.trigger_counter
        else:
            number = self._number + step
        again = step == 0 and self._memory.camera_ns(number) is not None
        own = True
        if step is None:
            self._begin(seen, record, number, exposure_ns, now_ns)
        elif step > 0:
            own = self._forward(seen, record, number, exposure_ns, now_ns)
            if latched and id_step is not None and id_step != step:
                detail = f"frame id {self._frame_id} -> {record.frame_id}, but trigger {number - step} -> {number}"
                self._tell(seen, "frame_id_mismatch", EventLevel.WARNING, detail, now_ns)
        else:
            own = self._not_forward(seen, record, number, exposure_ns, now_ns)
        if own:
            overtaken = id_step is not None and id_step < 0 and number != self._number
            frame_no = self._frame_no + (id_step or 0) if overtaken else self._next_frame_no(record, id_step)
            self._views.own(seen, record, frame_no, exposure_ns, now_ns, reason, repeated=again)
        return seen

    def status(self, record: StatusRecord) -> Seen:
        """Note the camera's own account of triggers and damaged frames."""
        seen = Seen()
        self._owed.add(incomplete=record.incomplete_before, at_ns=record.at_ns)
        if record.triggers is None:
            return seen
        if self._counted is not None and record.triggers < self._counted:
            detail = f"the camera's count of triggers went back from {self._counted} to {record.triggers}"
            self._reset(seen, "trigger_counter_reset", detail, record.at_ns, record.at_ns)
        if self._count is None:
            self._count = record.triggers
            self._base, self._base_ns = record.triggers, record.at_ns
        since_ns = record.at_ns if self._counted_ns is None else self._counted_ns
        self._counted, self._counted_ns = record.triggers, record.at_ns
        if not self._latched and record.triggers < self._count and (self._exposure_ns or 0) <= record.at_ns:
            self._count = record.triggers  # more parts were opened than triggers came (ids began anew): that must hide no later loss
        if record.triggers > self._count:
            self._owed.mark(record.triggers, record.at_ns, since_ns)
        return seen

    def expire(self, now_ns: int) -> Seen:
        """Give up what was counted and has given no frame within the deadline."""
        seen = Seen()
        lost, *when_ns = self._owed.take_due(now_ns, self._patience_ns, self._count)
        if lost > 0:
            self._lose_tail(seen, lost, (when_ns[0], when_ns[1]), now_ns, Reason.NO_FRAME)
        return seen

    def end(self, now_ns: int) -> Seen:
        """The camera is gone: what was counted and has given no frame is lost with it."""
        seen = Seen()
        far_ns = now_ns + (1 << 62)
        lost, *when_ns = self._owed.take_due(far_ns, self._patience_ns, self._count)
        if lost > 0:
            self._lose_tail(seen, lost, (when_ns[0], when_ns[1]), now_ns, Reason.CAMERA_LOST)
        self._owed.clear()
        return seen

    # Inside.

    def _step(self, record: FrameRecord, id_step: int | None) -> int | None:
        if self._number is None:
            return None
        return id_step if record.trigger_counter is None else record.trigger_counter - self._number

    def _begin(self, seen: Seen, record: FrameRecord, number: int, exposure_ns: int, now_ns: int) -> None:
        """The first frame: nothing is known of what came before it but the damaged frames."""
        damaged = self._owed.incomplete
        if damaged > self._rules.max_gap:
            self._go_blind(seen, f"{damaged} damaged frames before the first, more than max_gap", exposure_ns, exposure_ns, now_ns)
            self._owed.settle(damaged)
        elif damaged:
            self._open_lost(seen, [number - damaged + i for i in range(damaged)], exposure_ns, now_ns)
        if self._count is not None and not self._latched and exposure_ns > self._base_ns:
            self._count += damaged
        self._advance(record, number, exposure_ns)

    def _forward(self, seen: Seen, record: FrameRecord, number: int, exposure_ns: int, now_ns: int) -> bool:
        assert self._number is not None
        gap = number - self._number - 1
        known = 0 if self._latched else min(self._ahead, gap)
        late = not self._latched and self._ahead > gap and exposure_ns <= self._ahead_until_ns
        numbers = list(range(self._number + 1 + known, number)) if gap - known <= self._rules.max_gap else []
        if late:
            self._tell(seen, "late_frame", EventLevel.WARNING, f"frame {record.frame_id} came after its part was given up", now_ns)
            self._ahead -= gap + 1
            self._memory.saw(number, record.camera_ns)
            self._number, self._frame_id = number, record.frame_id
            return False
        self._ahead = 0
        if gap - known > self._rules.max_gap:
            # The last exposure as the clocks compare by now: their map may have been worse when it came.
            elapsed_ns = max(0, record.camera_ns - self._camera_ns) if record.camera_ns and self._camera_ns else 0
            cause = f"{gap - known} frames are missing before frame {record.frame_id}, more than max_gap"
            self._go_blind(seen, cause, exposure_ns - elapsed_ns, exposure_ns, now_ns)
            self._owed.settle(gap - known)
        elif numbers:
            self._open_lost(seen, numbers, exposure_ns, now_ns)
        if gap:
            self._memory.lose(Lost(self._number + 1, number - 1, self._camera_ns, record.camera_ns, exposure_ns))
        dropped = self._owed.forgive_incomplete()
        if dropped:
            detail = f"{dropped} damaged frames before frame {record.frame_id}, but the numbers show no gap for them"
            self._tell(seen, "incomplete_unplaced", EventLevel.WARNING, detail, now_ns)
        if self._count is not None and not self._latched:
            self._count += gap - known
        self._advance(record, number, exposure_ns)
        return True

    def _not_forward(self, seen: Seen, record: FrameRecord, number: int, exposure_ns: int, now_ns: int) -> bool:
        """A number that was there before: a duplicate, a late frame, a repeated number, or a reset. True: it is a part of its own."""
        camera_ns = record.camera_ns
        if self._latched and camera_ns == 0 and record.frame_id == self._frame_id:
            self._tell(seen, "duplicate_frame", EventLevel.WARNING, f"frame {record.frame_id} was delivered twice", now_ns)
            return False
        if self._memory.was_lost(number, camera_ns, exposure_ns):
            self._tell(seen, "late_frame", EventLevel.WARNING, f"frame {record.frame_id} came after its part was given up", now_ns)
            self._memory.saw(number, camera_ns)
            return False
        before_base = self._latched and self._base is not None and number <= self._base
        if before_base and exposure_ns <= self._base_ns + self._patience_ns and self._memory.camera_ns(number) is None:
            self._memory.saw(number, camera_ns)  # triggered before the first status, delivered after it
            self._camera_ns, self._exposure_ns = camera_ns, exposure_ns
            return True
        # Taken shortly before the last frame, but nothing accounts for it: the first frames were overtaken, or the numbers began anew since.
        overtaken = camera_ns > 0 and 0 < self._camera_ns - camera_ns <= self._patience_ns
        if overtaken and self._memory.camera_ns(number) is None:
            self._memory.saw(number, camera_ns)
            if self._count is not None and not self._latched and exposure_ns > self._base_ns:
                self._count += 1
            return True
        if number == self._number and self._memory.camera_ns(number) is not None and camera_ns >= self._camera_ns:
            self._tell(seen, "repeated_number", EventLevel.WARNING, f"a new exposure came with the old number {number}", now_ns)
            if not self._latched and self._count is not None:
                self._ahead, self._ahead_until_ns = 1, 0  # it most likely stands in the place of the next id: the count will tell
            self._advance(record, number, exposure_ns)
            return True
        detail = f"numbers began anew: {self._number} was followed by {number}"
        self._reset(seen, "frame_number_reset", detail, exposure_ns, now_ns)
        self._advance(record, number, exposure_ns)
        return True

    def _reset(self, seen: Seen, name: str, detail: str, until_ns: int, now_ns: int) -> None:
        self._tell(seen, name, EventLevel.WARNING, detail, now_ns)
        self._go_blind(seen, detail, until_ns, until_ns, now_ns)
        kept = {each: getattr(self, each) for each in ("_latched", "_exposure_ns", "_frame_id", "_frame_no", "_camera_ns")}
        self._forget()
        for each, value in kept.items():
            setattr(self, each, value)

    def _advance(self, record: FrameRecord, number: int, exposure_ns: int) -> None:
        if self._latched:
            self._count = number if self._count is None else max(self._count, number)
            self._number = self._count
        else:
            self._number = number
            if self._count is not None and exposure_ns > self._base_ns:
                self._count += 1
        self._camera_ns, self._exposure_ns = record.camera_ns, exposure_ns
        self._memory.saw(number, record.camera_ns)

    def _lose_tail(self, seen: Seen, lost: int, when_ns: tuple[int, int], now_ns: int, rest: Reason) -> None:
        """Give up ``lost`` frames after the last one, taken between two times."""
        since_ns, known_ns = when_ns
        start = None
        if self._latched or self._frame_id is None:
            start = self._number if self._latched and self._number is not None else self._count
        if lost > self._rules.max_gap:
            self._go_blind(seen, f"{lost} triggers gave no frame, more than max_gap", since_ns, known_ns, now_ns)
            self._owed.settle(lost)
        else:
            numbers: list[int | None] = [None if start is None else start + 1 + i for i in range(lost)]
            self._open_lost(seen, numbers, known_ns, now_ns, rest, counted=start is not None)
        if start is not None:
            self._memory.lose(Lost(start + 1, start + lost, self._camera_ns, 0, known_ns + self._patience_ns))
        if self._latched:
            self._number = None if start is None else start + lost
        else:
            self._ahead += lost
            self._ahead_until_ns = known_ns + self._patience_ns // 2
        if self._count is not None:
            self._count += lost

    def _open_lost(
        self, seen: Seen, numbers: Sequence[int | None], until_ns: int, now_ns: int, rest: Reason = Reason.NO_FRAME, *, counted: bool = False
    ) -> None:
        """Open views without an image; numbers are the camera's count of triggers if it is ``counted`` or latched."""
        triggers = numbers if counted or self._latched else [None] * len(numbers)
        since_ns = self._exposure_ns if self._exposure_ns is not None else until_ns
        seen.lost += self._views.lost(triggers, self._owed.reasons(len(triggers), rest), (since_ns, until_ns), now_ns)

    def _next_frame_no(self, record: FrameRecord, id_step: int | None) -> int:
        self._frame_no = record.frame_id if id_step is None else self._frame_no + (id_step if id_step > 0 else 1)
        self._frame_id = record.frame_id
        return self._frame_no

    def _go_blind(self, seen: Seen, cause: str, since_ns: int, until_ns: int, now_ns: int) -> None:
        """Blind from the last exposure, or ``since_ns`` if that is earlier."""
        last_ns = self._exposure_ns if self._exposure_ns is not None else self._base_ns or self._started_ns or until_ns
        seen.blinds.append(Blind(self._camera, min(last_ns, since_ns, until_ns), until_ns, cause))
        self._tell(seen, "gap", EventLevel.ERROR, cause, now_ns)

    def _tell(self, seen: Seen, name: str, level: EventLevel, detail: str, now_ns: int) -> None:
        seen.events.append(Event(name, level, detail, now_ns, self._camera))
