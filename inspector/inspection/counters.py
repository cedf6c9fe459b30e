"""Small parts of the identity rules: frame ids that wrap, numbers that are known to be lost, losses not yet placed."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from inspector.contract.records import Reason


@dataclass(frozen=True, slots=True)
class FrameIds:
    """A camera's frame counter of ``bits`` bits that goes on with ``first`` (0 or 1) after its highest value."""

    bits: int
    first: int

    def step(self, last: int, frame_id: int) -> int:
        """Signed number of frames from ``last`` to ``frame_id``, the shorter way round.

        A number that the counter cannot have (0 where it skips 0) is a step back.
        """
        if self.bits == 64 or frame_id < self.first:
            return frame_id - last
        period = (1 << self.bits) - self.first
        forward = (frame_id - last) % period
        return forward if forward <= period // 2 else forward - period


@dataclass(frozen=True, slots=True)
class Lost:
    """Numbers ``first..last`` that have no frame: opened as UNINSPECTED, or blind."""

    first: int
    last: int
    after_camera_ns: int
    """Camera time of the frame before them; 0: unknown."""
    before_camera_ns: int
    """Camera time of the frame after them; 0: unknown."""
    until_ns: int
    """Host time that their exposures did not pass."""

    def fits(self, number: int, camera_ns: int, exposure_ns: int) -> bool:
        """Whether a frame can be one of them: by its number, and by its exposure time as far as that is known."""
        if not self.first <= number <= self.last:
            return False
        if camera_ns == 0:
            return True
        if self.before_camera_ns:
            return self.after_camera_ns < camera_ns < self.before_camera_ns
        return camera_ns > self.after_camera_ns and exposure_ns <= self.until_ns


class Memory:
    """What is remembered of numbers that were accounted for; bounded."""

    def __init__(self, frames: int = 1024, losses: int = 256) -> None:
        """``frames`` numbers with their camera times, and ``losses`` runs of lost numbers."""
        self._frames: OrderedDict[int, int] = OrderedDict()
        self._exposures: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._max_frames = frames
        self._lost: deque[Lost] = deque(maxlen=losses)

    def delivered(self, frame_id: int, camera_ns: int) -> bool:
        """Note a delivery; True: the same exposure was delivered before. Numbers that begin anew do not touch this."""
        if camera_ns == 0:
            return False
        again = (frame_id, camera_ns) in self._exposures
        self._exposures[(frame_id, camera_ns)] = None
        if len(self._exposures) > self._max_frames:
            self._exposures.popitem(last=False)
        return again

    def saw(self, number: int, camera_ns: int) -> None:
        """Remember a frame."""
        self._frames[number] = camera_ns
        if len(self._frames) > self._max_frames:
            self._frames.popitem(last=False)

    def camera_ns(self, number: int) -> int | None:
        """Camera time of the frame with that number; None: no such frame is remembered."""
        return self._frames.get(number)

    def lose(self, lost: Lost) -> None:
        """Remember a run of lost numbers."""
        self._lost.append(lost)

    def was_lost(self, number: int, camera_ns: int, exposure_ns: int) -> bool:
        """Whether a frame is one of those that were given up."""
        return any(lost.fits(number, camera_ns, exposure_ns) for lost in reversed(self._lost))

    def clear(self) -> None:
        """Forget the numbers: they began anew."""
        self._frames.clear()
        self._lost.clear()


@dataclass(slots=True)
class Owed:
    """Frames that are known to be lost and have not yet been placed: the next gap takes them, or time does."""

    incomplete: int = 0
    """Damaged frames that the camera process discarded."""
    overrun: int = 0
    """Frames whose records could not be sent."""
    since_ns: int | None = None
    until_ns: int = 0
    """When the first and the last of them were told."""
    marks: deque[tuple[int, int, int]] = field(default_factory=deque)
    """The camera's count of triggers, when it said so, and when it had last said another; only those that frames have not yet reached."""

    def add(self, *, incomplete: int = 0, overrun: int = 0, at_ns: int) -> None:
        """Note losses."""
        if incomplete or overrun:
            self.incomplete += incomplete
            self.overrun += overrun
            self.since_ns = at_ns if self.since_ns is None else self.since_ns
            self.until_ns = at_ns

    def mark(self, triggers: int, at_ns: int, since_ns: int) -> None:
        """Note the camera's count of triggers at ``at_ns``; its last trigger came after ``since_ns``."""
        if not self.marks or self.marks[-1][0] < triggers:
            self.marks.append((triggers, at_ns, since_ns))

    def reached(self, count: int) -> None:
        """Everything up to ``count`` triggers is accounted for."""
        while self.marks and self.marks[0][0] <= count:
            self.marks.popleft()

    def settle(self, lost: int) -> tuple[int, int]:
        """Take from what is owed what ``lost`` frames in a row account for: how many were damaged, how many overruns. However many, at once."""
        incomplete = min(lost, self.incomplete)
        overrun = min(lost - incomplete, self.overrun)
        self.incomplete -= incomplete
        self.overrun -= overrun
        if not self.incomplete and not self.overrun:
            self.since_ns = None
        return incomplete, overrun

    def reasons(self, lost: int, rest: Reason = Reason.NO_FRAME) -> list[Reason]:
        """Reasons for ``lost`` frames in a row, at most ``max_gap``: from what is owed as far as it goes, then ``rest``."""
        incomplete, overrun = self.settle(lost)
        return [Reason.INCOMPLETE] * incomplete + [Reason.OVERRUN] * overrun + [rest] * (lost - incomplete - overrun)

    def forgive_incomplete(self) -> int:
        """Damaged frames that cannot be placed any more: the numbers show that none is missing. Returns how many."""
        dropped, self.incomplete = self.incomplete, 0
        if not self.overrun:
            self.since_ns = None
        return dropped

    def due_ns(self, patience_ns: int) -> int | None:
        """When what is owed is opened without a frame to place it; None: nothing is owed."""
        times = [at_ns for at_ns in (self.since_ns, self.marks[0][1] if self.marks else None) if at_ns is not None]
        return min(times) + patience_ns if times else None

    def take_due(self, now_ns: int, patience_ns: int, count: int | None) -> tuple[int, int, int]:
        """How many frames are to be given up at ``now_ns``, and from when to when they were taken."""
        lost, since_ns, known_ns = 0, now_ns, 0
        if self.since_ns is not None and self.since_ns + patience_ns <= now_ns:
            lost, since_ns, known_ns = self.incomplete + self.overrun, self.since_ns, self.until_ns
        while self.marks and self.marks[0][1] + patience_ns <= now_ns:
            triggers, at_ns, after_ns = self.marks.popleft()
            if count is not None and triggers - count > 0:
                lost, since_ns, known_ns = max(lost, triggers - count), min(since_ns, after_ns), max(known_ns, at_ns)
        return lost, since_ns, known_ns

    def clear(self) -> None:
        """Nothing is owed."""
        self.incomplete = self.overrun = 0
        self.since_ns = None
        self.marks.clear()
