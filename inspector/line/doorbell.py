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
EVENTS: Final = functools.reduce(operator.or_, _KINDS) | _FAILED
_MOST_PER_S = 2000
_FULL_IN_A_ROW = 64
"""Looks that all found more than they took: what waits must not grow without end."""
EVENT = struct.Struct("=HI")
"""First frame of a monitor's message: event and value."""
_NO_KEY, _OTHER_STATION = 0x11000002, 0x11000001
"""ZeroMQ's ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH and ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC."""


@dataclass(slots=True)
class KnockCounts:
    """What became of connections. At least so many: of a flood (2,000 events in a second) the rest of the second is not listened to."""

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
    put_out: int = 0
    """Sent more than a subscriber has to say."""

    @property
    def refused(self) -> int:
        """Connections that did not come through: no ZeroMQ, no key, a wrong one; those just in their handshake are among them."""
        return max(0, self.connections - self.admitted)

    def note(self, event: int, value: int) -> None:
        """Count one event of a ZeroMQ monitor."""
        name = _KINDS.get(zmq.Event(event))
        if event == _FAILED:
            name = {_NO_KEY: "no_key", _OTHER_STATION: "other_station"}.get(value)
        if name is not None:
            setattr(self, name, getattr(self, name) + 1)


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
        self._second = self._heard = self._listened = self._full = 0
        self.counts = counts

    def attach(self, socket: zmq.Socket[bytes], _endpoint: str) -> None:
        """Listen at ``socket``, which takes the place of the one before."""
        self.detach()
        self._socket = socket
        self._listen()

    def detach(self) -> None:
        """Listen no more; before the socket is closed."""
        self._rest()
        self._socket = None

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
                self._full = 0
                return
            if not self._count(frames[0]):
                self._rest()
                return
        self._full += 1
        if self._full >= _FULL_IN_A_ROW:
            self._rest()

    def _listen(self) -> None:
        if self._socket is None:
            return
        self._listened += 1
        address = f"inproc://doorbell-{id(self)}-{self._listened}"
        # ZeroMQ's native thread waits for a place for its event, and every verdict with it. So there is always one: the other end comes first, goes
        # last and has no limit; too many events end the listening instead.
        self._pair = self._context.socket(zmq.PAIR)
        self._pair.setsockopt(zmq.LINGER, 0)
        self._pair.setsockopt(zmq.RCVHWM, 0)
        self._pair.connect(address)
        self._socket.monitor(address, EVENTS)

    def _count(self, frame: bytes) -> bool:
        """False: more than enough in this second."""
        self.counts.note(*EVENT.unpack(frame[: EVENT.size]))
        second = int(time.monotonic())
        self._heard = self._heard + 1 if second == self._second else 1
        self._second = second
        return self._heard < _MOST_PER_S

    def _rest(self) -> None:
        """Too much is going on: not until the next second."""
        self._full = 0
        if self._pair is not None and self._socket is not None:
            self._socket.disable_monitor()
            self._pair.close()
            self._pair = None
