"""When a controller lets a part pass, on nothing but what the publisher says: only on a positive, fresh, in-time PASS of a living station.

Everything else is "do not pass": no verdict, a gap, a late message, a dead station, a new boot, a controller that was itself held up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from inspector.client.subscriber import DEAD_AFTER_MS, Notice, NoticeKind, Update
from inspector.contract.wire import BlindMessage, HeartbeatMessage, VerdictMessage

HELD_UP_NS = int(DEAD_AFTER_MS * 1e6)
"""A controller that did not look for so long takes nothing of what has gathered meanwhile."""
DELAY_NS = 100_000_000
"""A message may be so much longer on its way than the fastest of this boot."""


def utc_ns(text: str) -> int:
    """ISO 8601 with microseconds as ns since 1970."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000


@dataclass
class Rule:
    """``take`` says what is decided about a verdict; empty: the part passes."""

    boot: str = ""
    dead: bool = True
    blind: set[str] = field(default_factory=set)
    least_ns: int | None = None
    looked_ns: int = 0
    stale: bool = False

    def look(self, now_ns: int) -> None:
        """Called before each batch of messages is judged; what follows a long pause is stale until the socket was empty once."""
        if self.looked_ns and now_ns - self.looked_ns > HELD_UP_NS:
            self.stale = True
        self.looked_ns = now_ns

    def emptied(self, now_ns: int) -> None:
        """Nothing more waits."""
        self.stale = False
        self.looked_ns = now_ns

    def take(self, update: Update, now_ns: int) -> str | None:
        """None: it is no verdict."""
        if isinstance(update, Notice):
            if update.kind is NoticeKind.DEAD:
                self.dead = True
            elif update.kind is NoticeKind.BOOT:
                self.boot, self.least_ns = "", None
                self.blind.clear()
            return None
        if isinstance(update, HeartbeatMessage):
            self.boot = self.boot or update.boot_id
            if not self.stale:
                self.dead = False
            (self.blind.add if update.blind else self.blind.discard)(update.stream)
            return None
        if isinstance(update, BlindMessage):
            if update.to_ms_ago is None:
                self.blind.add(update.stream)
            return None
        return self._verdict(update, now_ns) if isinstance(update, VerdictMessage) else None

    def _verdict(self, verdict: VerdictMessage, now_ns: int) -> str:
        way_ns = now_ns - utc_ns(verdict.exposure_utc) - int(verdict.age_ms * 1e6)
        self.least_ns = way_ns if self.least_ns is None else min(way_ns, self.least_ns)
        delay_ms = (way_ns - self.least_ns) / 1e6
        if verdict.action != "pass" or verdict.outcome != "PASS":
            return f"{verdict.outcome} {verdict.reason or ''}".strip()
        if verdict.part_id is None:
            return "nobody knows which part it is"
        if self.stale:
            return "the controller was held up"
        if self.dead or verdict.boot_id != self.boot:
            return "the station is dead, or not known yet"
        if delay_ms * 1e6 > DELAY_NS:
            return f"the message was {delay_ms:.0f} ms on its way"
        if verdict.remaining_ms - delay_ms <= 0:
            return "it came after its deadline"
        return ""
