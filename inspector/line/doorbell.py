"""Counting those who knock at a socket and never get as far as the gatekeeper: no key, the key of another station, no ZeroMQ at all."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Final

import zmq

_EVENTS: Final = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.ACCEPT_FAILED
_MOST_PER_S = 1000
_EVENT = struct.Struct("=HI")
_NO_KEY, _OTHER_STATION = 0x11000002, 0x11000001
"""ZeroMQ's ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH and ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC."""


@dataclass(slots=True)
class KnockCounts:
    """Handshakes that failed before a key was shown. At least so many: beyond 1,000 per second they are not listened for."""

    no_key: int = 0
    other_station: int = 0
    """Encrypted, but for another public key than the station's."""
    garbage: int = 0
    """No ZeroMQ, or broken off; a client that goes away in the middle of its handshake is among them."""
    not_accepted: int = 0
    """The process has no file descriptor left for a connection."""


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
        if event == zmq.Event.ACCEPT_FAILED:
            self.counts.not_accepted += 1
        elif event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL and value == _NO_KEY:
            self.counts.no_key += 1
        elif event == zmq.Event.HANDSHAKE_FAILED_PROTOCOL and value == _OTHER_STATION:
            self.counts.other_station += 1
        elif event in {zmq.Event.HANDSHAKE_FAILED_PROTOCOL, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL}:
            self.counts.garbage += 1
        second = int(time.monotonic())
        self._heard = self._heard + 1 if second == self._second else 1
        self._second = second
        if self._heard >= _MOST_PER_S and self._pair is not None and self._socket is not None:
            self._socket.disable_monitor()
            self._pair.close()
            self._pair = None
