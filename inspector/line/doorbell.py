"""Counting those who knock at a socket and never get as far as the gatekeeper: no key, the key of another station, no ZeroMQ at all."""

from __future__ import annotations

import functools
import operator
import struct
import time
from dataclasses import dataclass
from typing import Final

import zmq

_KINDS: Final = {
    zmq.Event.ACCEPTED: "connections",
    zmq.Event.HANDSHAKE_SUCCEEDED: "admitted",
    zmq.Event.DISCONNECTED: "ended",
    zmq.Event.ACCEPT_FAILED: "not_accepted",
}
_FAILED: Final = zmq.Event.HANDSHAKE_FAILED_PROTOCOL
_EVENTS: Final = functools.reduce(operator.or_, _KINDS) | _FAILED
_MOST_PER_S = 2000
_EVENT = struct.Struct("=HI")
_NO_KEY, _OTHER_STATION = 0x11000002, 0x11000001
"""ZeroMQ's ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH and ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC."""


@dataclass(slots=True)
class KnockCounts:
    """What became of connections. At least so many: of more than 2,000 events in one second the rest is not listened to."""

    connections: int = 0
    admitted: int = 0
    """Came through their handshake."""
    ended: int = 0
    """By either side: refused, gone, cut off, oversized or broken messages."""
    no_key: int = 0
    """Spoke without encryption."""
    other_station: int = 0
    """Encrypted, but for another public key than the station's."""
    not_accepted: int = 0
    """The process has no file descriptor left for a connection."""

    @property
    def refused(self) -> int:
        """Connections that did not come through: no ZeroMQ, no key, a wrong one; those just in their handshake are among them."""
        return max(0, self.connections - self.admitted)


class Doorbell:
    """Belongs to one socket, and to the thread that has it. ``counts`` may be read by any thread.

    Args:
        context: the socket's.
        counts: where to count.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], counts: KnockCounts) -> None:
        self._context = context
        self._socket: zmq.Socket[bytes] | None = None
        self._pair: zmq.Socket[bytes] | None = None
        self._second = self._heard = self._listened = 0
        self.counts = counts

    def attach(self, socket: zmq.Socket[bytes]) -> None:
        """Listen at ``socket``, which takes the place of the one before."""
        self.detach()
        self._socket = socket
        self._listen()

    def detach(self) -> None:
        """Listen no more; before the context is terminated."""
        if self._pair is not None:
            self._pair.close()
        self._socket = self._pair = None

    def take(self, limit: int = 16) -> None:
        """Count what has happened, at most ``limit`` events. Never blocks."""
        if self._pair is None:
            if self._socket is not None and int(time.monotonic()) != self._second:
                self._listen()
            return
        for _ in range(limit):
            try:
                frames = self._pair.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._count(frames[0])

    def _listen(self) -> None:
        if self._socket is None:
            return
        self._listened += 1
        address = f"inproc://doorbell-{id(self)}-{self._listened}"
        self._socket.monitor(address, _EVENTS)
        self._pair = self._context.socket(zmq.PAIR)
        self._pair.setsockopt(zmq.LINGER, 0)
        # Without a limit: ZeroMQ's native thread would wait for a place, and verdicts with it. Too many events end the listening instead.
        self._pair.setsockopt(zmq.RCVHWM, 0)
        self._pair.connect(address)

    def _count(self, frame: bytes) -> None:
        event, value = _EVENT.unpack(frame[: _EVENT.size])
        name = _KINDS.get(zmq.Event(event))
        if event == _FAILED:
            name = {_NO_KEY: "no_key", _OTHER_STATION: "other_station"}.get(value)
        if name is not None:
            setattr(self.counts, name, getattr(self.counts, name) + 1)
        second = int(time.monotonic())
        self._heard = self._heard + 1 if second == self._second else 1
        self._second = second
        if self._heard >= _MOST_PER_S and self._pair is not None and self._socket is not None:
            self._socket.disable_monitor()
            self._pair.close()
            self._pair = None
