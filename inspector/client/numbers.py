"""The numbers of one stream's messages: what is missing, what was told twice, what is repaired."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST_GAPS = 1024
"""Open gaps of one stream; the oldest is given up beyond it."""


@dataclass(slots=True, eq=False)
class Gap:
    """Numbers ``first..last`` did not come."""

    first: int
    last: int
    found_ns: int
    before_ms: float
    """What is missing was sent before this age of the boot."""
    wanted: bool = True
    """False: sent before the controller came; taken if it comes, never waited for."""
    got: set[int] = field(default_factory=set)
    replay: bool = True
    """To be asked for."""
    gone: int = 0
    """So many of them do not come any more."""
    asked_ns: int | None = None
    """When it was asked for, or last answered."""

    @property
    def missing(self) -> int:
        """How many may still come."""
        return self.last - self.first + 1 - len(self.got)

    def first_missing(self) -> int:
        """The first number that did not come."""
        return next(seq for seq in range(self.first, self.last + 1) if seq not in self.got)

    def forget_to(self, last_gone: int) -> None:
        """Numbers up to ``last_gone`` do not come any more."""
        cut = min(last_gone, self.last)
        if cut < self.first:
            return
        kept = {seq for seq in self.got if seq > cut}
        self.gone += cut - self.first + 1 - (len(self.got) - len(kept))
        self.got = kept
        self.first = cut + 1


class Numbers:
    """The books of one stream and boot. ``base``: the last number that was given before."""

    def __init__(self, base: int) -> None:
        self.highest = base
        self._base = base
        self.gaps: list[Gap] = []
        """Oldest first."""

    def take(self, seq: int, now_ns: int, boot_age_ms: float) -> tuple[bool, Gap | None]:
        """A message with number ``seq``, sent at ``boot_age_ms``.

        Returns:
            Whether it is new; and the gap that it shows, or that it helps to fill.
        """
        if seq > self.highest:
            gap = self.reach(seq - 1, now_ns, boot_age_ms)
            self.highest = seq
            return True, gap
        for gap in self.gaps:
            if gap.first <= seq <= gap.last and seq not in gap.got:
                gap.got.add(seq)
                return True, gap
        return False, None

    def reach(self, last_seq: int, now_ns: int, boot_age_ms: float, *, wanted: bool = True) -> Gap | None:
        """Numbers up to ``last_seq`` were given: the gap that shows, if any."""
        if last_seq <= self.highest:
            return None
        gap = Gap(self.highest + 1, last_seq, now_ns, boot_age_ms, wanted, replay=wanted)
        self.gaps.append(gap)
        self.highest = last_seq
        return gap

    def before(self, count: int, now_ns: int) -> None:
        """Take up to ``count`` messages from before the first that was counted, if they come."""
        if count and self._base:
            self.gaps.insert(0, Gap(max(1, self._base - count + 1), self._base, now_ns, 0.0, wanted=False, replay=True))

    def complete_before(self, seq: int) -> bool:
        """Whether nothing that is waited for was sent before number ``seq``."""
        return not any(gap.wanted and gap.first < seq for gap in self.gaps)

    def close(self, gap: Gap) -> None:
        """Nothing of ``gap`` is waited for any more."""
        self.gaps.remove(gap)

    def overdue(self, now_ns: int, limit_ns: int) -> list[Gap]:
        """Gaps that were not filled in time, and the oldest of too many."""
        late = [gap for gap in self.gaps if now_ns - gap.found_ns >= limit_ns]
        spare = len(self.gaps) - _MOST_GAPS
        return late if len(late) >= spare else self.gaps[:spare]
