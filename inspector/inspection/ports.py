"""What the intake needs of others: the lives of camera processes, and the line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket

    from inspector.contract.records import Blind, Event, View


class Incarnation(Protocol):
    """One life of a camera process, as its supervisor hands it over."""

    @property
    def generation(self) -> int:
        """1, 2, 3, ... per camera."""

    @property
    def channel(self) -> socket.socket:
        """SOCK_SEQPACKET; the intake reads and closes it."""

    def receive(self) -> bytes:
        """The next message; empty: the process is gone and all it said was read. BlockingIOError: nothing is there."""

    def condemn(self, cause: str) -> None:
        """What it says makes no sense: it is to be killed."""

    def drained(self, held: set[int]) -> None:
        """Everything was read; the daemon holds these slots of the ring."""


class Line(Protocol):
    """What the intake needs of the line thread."""

    def open(self, view: View) -> None:
        """Open a view."""

    def blind(self, blind: Blind) -> None:
        """Publish a blind interval."""

    def event(self, event: Event) -> None:
        """Publish an event."""

    def simulated(self, camera: str, *, simulated: bool) -> None:
        """Say whether a camera is no real one."""
