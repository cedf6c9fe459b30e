"""The request channel's account of itself, for scrapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.line.alarms import Alarm
    from inspector.line.controllers import ControllerState


@dataclass(frozen=True, slots=True)
class ChannelCounts:
    """All of one instant."""

    requests: Mapping[str, int] = field(default_factory=dict)
    """Readable requests by type."""
    bad: Mapping[str, int] = field(default_factory=dict)
    """Requests that were not done, by kind."""
    unanswered: int = 0
    """Of these: not even answered."""
    askers: int = 0
    replayed: int = 0
    """Messages sent again."""
    busy_s: float = 0.0
    """CPU time of the channel's thread."""
    controllers: Mapping[str, ControllerState] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()
    knocks: Mapping[str, int] = field(default_factory=dict)
    """Connections that were let in or refused, by what became of them."""


@dataclass(slots=True)
class Tally:
    """What is counted. One thread owns it."""

    requests: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    replayed: int = 0
