"""What the line thread needs of the flight recorder and of those who listen and ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from inspector.contract.records import Action, ClosedPart
    from inspector.contract.requests import Reply
    from inspector.line.parts import Opened


class Recorder(Protocol):
    """The flight recorder. The line thread alone calls it; no call may block or fail."""

    def opened(self, part: Opened) -> None:
        """A part was opened."""

    def closed(self, part: ClosedPart) -> int:
        """A part was closed, and is about to go to the wire. The record's number, 1, 2, 3, ...; 0: it was not recorded."""

    def beat(self, now_ns: int) -> None:
        """The line thread lives."""

    def use(self, product_version: str, uninspected: Action) -> None:
        """What parts that are opened from now on are inspected by, and act as if they are not."""


class Audience(Protocol):
    """Those who listen and ask: replay, acknowledgements, answers. No call may block or fail."""

    def sent(self, stream: str, seq: int, payload: bytes, part: ClosedPart | None) -> None:
        """A numbered message went to the wire; ``part`` if it is a verdict."""

    def answer(self, asker: bytes, reply: Reply) -> None:
        """Answer a request."""


class NoRecorder:
    """Records nothing."""

    def opened(self, part: Opened) -> None:
        """Nothing."""

    def closed(self, part: ClosedPart) -> int:  # noqa: ARG002
        """Nothing."""
        return 0

    def beat(self, now_ns: int) -> None:
        """Nothing."""

    def use(self, product_version: str, uninspected: Action) -> None:
        """Nothing."""


class NoAudience:
    """Nobody asks."""

    def sent(self, stream: str, seq: int, payload: bytes, part: ClosedPart | None) -> None:
        """Nothing."""

    def answer(self, asker: bytes, reply: Reply) -> None:
        """Nothing."""
