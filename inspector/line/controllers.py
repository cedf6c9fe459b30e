"""The controllers that the station names: whether they are there, what they still have to acknowledge, and the alarms of it. Pure.

One thread owns it; times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.records import EventLevel
from inspector.line.acks import Acks, Taken
from inspector.line.alarms import Alarms
from inspector.line.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inspector.contract.records import Event
    from inspector.contract.requests import Ack
    from inspector.line.alarms import Alarm

_FIRST_MS = 2000.0
"""A controller has so long to come after the station's start before it is absent."""
OTHERS = "other"
"""Stands in alarms for every controller that the station does not name."""


@dataclass(frozen=True, slots=True)
class ControllerState:
    """One controller at one instant."""

    present: bool
    outstanding: int
    overdue: int
    overdue_in_all: int
    failed: int


@dataclass(slots=True)
class _Controller:
    acks: Acks
    absent_ns: int
    """From then on it is absent."""
    present: bool = False
    told: bool = False
    """Its absence was told."""
    failed: int = 0


class Controllers:
    """All of them, and the station's alarms."""

    def __init__(self, names: Sequence[str], present_ms: float, ack_ms: float, now_ns: int) -> None:
        self._present_ns = int(present_ms * 1e6)
        first_ns = now_ns + int(max(present_ms, _FIRST_MS) * 1e6)
        self._controllers = {name: _Controller(Acks(ack_ms), first_ns) for name in names}
        self._present_ms, self._ack_ms = present_ms, ack_ms
        self._alarms = Alarms()
        self._digest = Digest()
        self._others_failed = 0
        self._losses: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Who is named."""
        return tuple(self._controllers)

    def said(self, name: str, now_ns: int) -> list[Event]:
        """A controller said something. The event, if it was absent."""
        one = self._controllers.get(name)
        if one is None:
            return []
        one.absent_ns = now_ns + self._present_ns
        if one.present:
            return []
        one.present, one.told = True, False
        self._alarms.end(f"controller_absent:{name}")
        return self._digest.tell("controller_present", name, EventLevel.INFO, f"controller {name} is connected", now_ns)

    def sent(self, stream: str, seq: int, sent_ns: int) -> None:
        """A verdict that does not pass was sent: every controller is to acknowledge it."""
        for one in self._controllers.values():
            one.acks.sent(stream, seq, sent_ns)

    def acknowledged(self, name: str, ack: Ack, now_ns: int, *, early: bool) -> list[Event]:
        """``name`` said what became of a verdict. ``early``: nobody knows yet that it was sent."""
        one = self._controllers.get(name)
        if one is not None:
            if one.acks.take(ack.stream, ack.seq, ack.state, early=early) is not Taken.FAILED:
                return []
            one.failed += 1
        elif ack.state.value != "failed":
            return []
        else:
            self._others_failed += 1
        self._alarms.happened(f"actuation_failed:{name if one is not None else OTHERS}", now_ns)
        detail = f"controller {name} could not do what verdict {ack.seq} of {ack.stream} said: {_plain(ack.detail) or 'it does not say why'}"
        return self._digest.tell("actuation_failed", name if one is not None else OTHERS, EventLevel.ERROR, detail, now_ns)

    def look(self, now_ns: int) -> list[Event]:
        """Who has fallen silent, and what has become overdue. Call it every few ten milliseconds."""
        events: list[Event] = []
        for name, one in self._controllers.items():
            if now_ns >= one.absent_ns and not one.told:
                came = "has said nothing for" if one.present else "has not come, or said nothing for"
                one.present, one.told = False, True
                self._alarms.begin(f"controller_absent:{name}", now_ns)
                detail = f"controller {name} {came} {self._present_ms:g} ms: it is not connected"
                events += self._digest.tell("controller_absent", name, EventLevel.ERROR, detail, now_ns)
            late = one.acks.expire(now_ns)
            if late:
                self._alarms.begin(f"ack_overdue:{name}", now_ns)
                detail = f"controller {name} did not acknowledge within {self._ack_ms:g} ms a verdict that does not pass"
                events += self._digest.tell("ack_overdue", name, EventLevel.ERROR, detail, now_ns, late)
            elif not one.acks.overdue:
                self._alarms.end(f"ack_overdue:{name}")
        return events + self._digest.due(now_ns)

    def station(self, checks: Mapping[str, str], losses: Mapping[str, int], now_ns: int) -> list[Event]:
        """How the station itself stands.

        Args:
            checks: by name of the alarm a sentence that says what is wrong now; empty: nothing.
            losses: by name of the alarm how often something was lost since the start.
            now_ns: CLOCK_MONOTONIC.
        """
        events: list[Event] = []
        for name, wrong in checks.items():
            if not wrong:
                self._alarms.end(name)
            elif self._alarms.begin(name, now_ns):
                events += self._digest.tell("alarm", name, EventLevel.ERROR, f"{name}: {wrong}", now_ns)
        for name, count in losses.items():
            if count > self._losses.get(name, 0):
                self._alarms.happened(name, now_ns)
                events += self._digest.tell("alarm", name, EventLevel.ERROR, f"{name}: {count} since the start", now_ns)
            self._losses[name] = count
        return events

    def acknowledge_alarms(self, who: str) -> tuple[str, ...]:
        """Somebody knows of every alarm; what is overdue is not awaited any more. The alarms that nobody had acknowledged."""
        for one in self._controllers.values():
            one.acks.write_off()
        for name in self._controllers:
            self._alarms.end(f"ack_overdue:{name}")
        return self._alarms.acknowledge(who)

    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm."""
        return self._alarms.all()

    def states(self) -> dict[str, ControllerState]:
        """By name."""
        return {
            name: ControllerState(one.present, one.acks.outstanding, one.acks.overdue, one.acks.overdue_in_all, one.failed)
            for name, one in self._controllers.items()
        }


def _plain(text: str) -> str:
    """Somebody else's words, in one line."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
