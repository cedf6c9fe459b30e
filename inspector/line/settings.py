"""What the line thread is told at its making, and the account it gives of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from inspector.contract.records import Action, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inspector.line.parts import StreamCount
    from inspector.line.streams import Streams


@dataclass(frozen=True, slots=True)
class Announcing:
    """How announced parts are known. Without a word on its camera no part can be announced."""

    part_ids: Mapping[str, str] = field(default_factory=dict)
    """By camera: ``announced``, what the camera latches (``trigger_counter``, ``encoder``), or ``frame``."""
    by: Literal["time_and_encoder", "time", "encoder"] = "time_and_encoder"
    """What each announcement must give; one alone does not see what the other does."""
    deadline_ns: int = 0
    """Exposure to verdict, the product's."""
    window_ns: int = 20_000_000
    """How far an exposure may be off the announced time, where the announcement does not say."""
    encoder_window: int = 50
    """The same in encoder steps."""
    timeout_ns: int = 10_000_000_000
    """How long a part without an expected time is waited for."""
    max_expected: int = 1_000
    """Parts under way in a stream whose cameras match frames with announcements."""
    max_open: int = 10_000
    """Parts under way in a stream whose cameras latch the part id."""

    def part_id(self, camera: str) -> str:
        """What ``camera`` knows its parts by."""
        return self.part_ids.get(camera, "frame")


@dataclass(frozen=True, slots=True)
class LineSettings:
    """What stands on every message, and what decides the line's action."""

    station: str
    boot_id: str
    streams: Streams
    product: str
    product_version: str
    uninspected: Action
    """What UNINSPECTED acts as; never pass."""
    engines: tuple[str, ...] = ()
    heartbeat_ms: float = 40.0
    announcing: Announcing = Announcing()
    linger_ms: int = 500
    """How long what was sent may still go out after stopping."""

    def action(self, outcome: Outcome) -> Action:
        """What the line is to do."""
        if outcome is Outcome.PASS:
            return Action.PASS
        return Action.REJECT if outcome is Outcome.REJECT else self.uninspected


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether the inspection lives: heartbeats go out only while it does."""

    age_ms: Callable[[], float]
    """Age of the inspection stage's stamp."""
    budget_ms: float
    """Age from which heartbeats stop."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream, at the snapshot's instant."""

    books: StreamCount
    last_seq: int
    blind: bool


@dataclass(frozen=True, slots=True)
class LineSnapshot:
    """The line thread's account of itself, all of one instant."""

    at_ns: int
    streams: dict[str, StreamState]
    messages: int
    heartbeats: int
    heartbeats_withheld: int
    late_results: int
    waiting: int
    """Inputs not yet taken."""
