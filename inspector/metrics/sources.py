"""Where a scrape asks for what is a state and not a count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inspector.metrics.channel import ChannelAccount


class LedgerCount(Protocol):
    """One stream's books at one instant: ``opened == closed + pending``."""

    @property
    def opened(self) -> int:
        """Parts opened in this boot."""

    @property
    def closed(self) -> int:
        """Parts closed in this boot."""

    @property
    def pending(self) -> int:
        """Parts open now."""


def _no_age() -> float | None:
    return None


def _no_channel() -> ChannelAccount | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a scrape asks. Each is called from a request thread, returns at once and never waits for the line."""

    ledger: Callable[[], Mapping[str, LedgerCount]] = dict
    """By stream, all of one instant."""
    queue_depths: Callable[[], Mapping[str, int]] = dict
    """Items that wait, by queue."""
    stage_ages_s: Callable[[], Mapping[str, float]] = dict
    """Seconds since each stage's last sign of life."""
    camera_states: Callable[[], Mapping[str, str]] = dict
    """By camera, a word of ``CameraState``."""
    camera_starts: Callable[[], Mapping[str, int]] = dict
    """Camera processes started, by camera."""
    heartbeat_age_s: Callable[[], float | None] = _no_age
    """Seconds since the last heartbeat was sent; None: none was sent yet."""
    channel: Callable[[], ChannelAccount | None] = _no_channel
    """The request channel; None: there is none."""
    subscribers: Callable[[], Mapping[str, int]] = dict
    """Connections to the publisher, by what became of them."""
    refused: Callable[[], Mapping[str, int]] = dict
    """Items that an output refused or lost, by output."""
    writable: Callable[[], Mapping[str, bool]] = dict
    """By output: False while its disk refuses."""
