"""The station's alarms: raised by a condition, kept until somebody has acknowledged them and the condition is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm."""

    name: str
    since_ns: int
    """CLOCK_MONOTONIC."""
    lasts: bool
    """The condition holds now."""
    acknowledged_by: str | None = None


class Alarms:
    """A set of alarms by name. One thread owns it; the names come from a bounded set."""

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}

    def begin(self, name: str, now_ns: int) -> bool:
        """The condition holds. True: this is a new alarm, or one that was over and comes again."""
        known = self._alarms.get(name)
        if known is not None and known.lasts:
            return False
        self._alarms[name] = Alarm(name, now_ns, lasts=True) if known is None else replace(known, lasts=True)
        return True

    def end(self, name: str) -> bool:
        """The condition is over: an alarm that nobody has acknowledged stays. True: it held until now."""
        known = self._alarms.get(name)
        if known is None or not known.lasts:
            return False
        if known.acknowledged_by is None:
            self._alarms[name] = replace(known, lasts=False)
        else:
            del self._alarms[name]
        return True

    def happened(self, name: str, now_ns: int) -> None:
        """Something that does not last, and must be acknowledged each time."""
        known = self._alarms.get(name)
        if known is None or known.acknowledged_by is not None:
            self._alarms[name] = Alarm(name, now_ns, lasts=False)

    def acknowledge(self, who: str) -> tuple[str, ...]:
        """Acknowledge every alarm; those whose condition is over go. The names of those that nobody had acknowledged."""
        fresh = tuple(alarm.name for alarm in self._alarms.values() if alarm.acknowledged_by is None)
        self._alarms = {
            name: alarm if alarm.acknowledged_by is not None else replace(alarm, acknowledged_by=who)
            for name, alarm in self._alarms.items()
            if alarm.lasts
        }
        return fresh

    def all(self) -> tuple[Alarm, ...]:
        """Every alarm, the oldest first."""
        return tuple(self._alarms.values())
