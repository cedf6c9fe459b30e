"""One life of a camera process, as who reads its records sees it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from inspector.contract.channel import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    import socket


class Incarnation:
    """One life of the camera process, as the intake sees it: a socket to read until it ends, then ``drained``."""

    def __init__(self, generation: int, channel: socket.socket) -> None:
        self.generation = generation
        self.channel = channel
        """SOCK_SEQPACKET, messages of ``inspector.contract.channel``; the intake's to close. Read it by ``receive``."""
        self._drained = threading.Event()
        self._held: set[int] = set()
        self.condemned = ""
        """Why the process is to be killed, as its reader found; empty: it is not."""

    def receive(self) -> bytes:
        """The next message; empty: the process is gone and all it said was read.

        A process that died with commands unread resets the connection: that is reported once, before what it still has to say.

        Raises:
            BlockingIOError: nothing is there, and the channel was made non-blocking.
        """
        try:
            return self.channel.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return self.channel.recv(MAX_MESSAGE_BYTES)

    def condemn(self, cause: str) -> None:
        """What it says makes no sense: its supervisor kills it."""
        self.condemned = cause

    def drained(self, held: set[int]) -> None:
        """The intake has read the socket to its end and closed it; of the ring's filled slots it and the inspection hold ``held``."""
        self._held = set(held)
        self._drained.set()

    def wait_drained(self, timeout_s: float) -> set[int] | None:
        """The slots that are held, or None if the intake is not there yet."""
        return self._held if self._drained.wait(timeout_s) else None
