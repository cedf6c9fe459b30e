"""Events that may come in floods: the first of a kind at once, what follows counted and told once a second. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inspector.contract.records import Event, EventLevel

_EVERY_NS = 1_000_000_000
_MAX_KINDS = 64
"""Kinds beyond it are told together."""


@dataclass(slots=True)
class _Kind:
    told_ns: int
    waiting: int = 0
    detail: str = ""
    level: EventLevel = EventLevel.WARNING


class Digest:
    """At most one event per kind and second. One thread owns it."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def tell(self, name: str, who: str, level: EventLevel, detail: str, now_ns: int, count: int = 1) -> list[Event]:
        """Something happened ``count`` times.

        Args:
            name: the event's name; with ``who`` it is the kind.
            who: whom it concerns.
            level: of the event.
            detail: a sentence; of what is counted together, the last one stands.
            now_ns: CLOCK_MONOTONIC.
            count: how often.

        Returns:
            The event, if it is to be told now.
        """
        key = (name, who)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MAX_KINDS:
                key = (name, "")
            kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = _Kind(now_ns)
            return [Event(name, level, _counted(detail, count), now_ns)]
        kind.waiting += count
        kind.detail, kind.level = detail, level
        return self._told(name, kind, now_ns)

    def due(self, now_ns: int) -> list[Event]:
        """What was counted and is to be told now. Kinds that were silent for a second are forgotten."""
        events = [event for (name, _), kind in self._kinds.items() for event in self._told(name, kind, now_ns)]
        if len(self._kinds) > len(events):
            self._kinds = {key: kind for key, kind in self._kinds.items() if now_ns - kind.told_ns < _EVERY_NS}
        return events

    @staticmethod
    def _told(name: str, kind: _Kind, now_ns: int) -> list[Event]:
        if not kind.waiting or now_ns - kind.told_ns < _EVERY_NS:
            return []
        event = Event(name, kind.level, _counted(kind.detail, kind.waiting), now_ns)
        kind.told_ns, kind.waiting = now_ns, 0
        return [event]


def _counted(detail: str, count: int) -> str:
    return detail if count == 1 else f"{detail} ({count} times)"
