"""The publisher's warden: a thread that counts who comes and goes, and puts out whoever sends more than a subscriber has to say.

ZeroMQ takes subscriptions in the thread that sends, all that have come, tens of microseconds each: a subscriber that sends them without end would
keep the line thread inside of ``send``. Nothing in ZeroMQ bounds that. So the system is asked how much each connection has sent, whenever it sends,
and one that sends too much is shut down: the thread that sends finds nothing more of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from inspector.line.doorbell import EVENT, EVENTS

if TYPE_CHECKING:
    from inspector.line.doorbell import KnockCounts

_FIRST_BYTES, _BYTES_PER_S = 8192, 512
"""What a connection may send: its handshake (about 1,000 bytes), some subscriptions, then a sign of life every second (about 50)."""
_NEW_NS = 1_000_000
"""A connection that lives so long is watched: most that are refused do not, and none is through its handshake."""
_RECEIVED, _RECEIVED_AT, _TOLD_BYTES = struct.Struct("=Q"), 128, 136
"""``tcpi_bytes_received`` in Linux' ``struct tcp_info``."""
_WATCHED: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


@dataclass(frozen=True, slots=True)
class _Connection:
    number: int
    """ZeroMQ's descriptor of it."""
    wire: socket.socket
    """A descriptor of our own: its number cannot become another's."""
    since_ns: int


def _socket_of(number: int) -> socket.socket | None:
    """A descriptor of our own for the same socket; None: it has gone, or the number is another thing's by now."""
    try:
        kept = os.dup(number)
    except OSError:
        return None
    try:
        return socket.socket(fileno=kept)
    except OSError:
        os.close(kept)
        return None


class Warden:
    """``attach``, ``detach`` and ``stop`` belong to the thread that has the socket; ``counts`` may be read by any.

    Args:
        context: the socket's.
        counts: where to count.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], counts: KnockCounts) -> None:
        self._context, self._counts = context, counts
        self._socket: zmq.Socket[bytes] | None = None
        self._attached = 0
        self._orders: deque[tuple[zmq.Socket[bytes], int] | None] = deque()
        """What to listen to from now on, and the port; None: end."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Of its thread.
        self._pair: zmq.Socket[bytes] | None = None
        self._port = 0
        self._epoll = select.epoll()
        self._new: dict[int, int] = {}
        """By ZeroMQ's descriptor: since when, monotonic ns."""
        self._connections: dict[int, _Connection] = {}
        """By our descriptor."""
        self._thread = threading.Thread(target=self._run, name="warden", daemon=True)
        self._thread.start()

    def attach(self, watched: zmq.Socket[bytes], endpoint: str) -> None:
        """Watch ``watched``, which is bound to ``endpoint``. Connections that are not TCP are counted alone."""
        self._attached += 1
        name = f"inproc://warden-{id(self)}-{self._attached}"
        # ZeroMQ's native thread waits for a place for its event, and every verdict with it: the other end comes first, goes last and has no limit.
        pair = self._context.socket(zmq.PAIR)
        pair.setsockopt(zmq.LINGER, 0)
        pair.setsockopt(zmq.RCVHWM, 0)
        pair.connect(name)
        watched.monitor(name, EVENTS)
        self._socket = watched
        self._order((pair, int(endpoint.rpartition(":")[2]) if endpoint.startswith("tcp://") else 0))

    def detach(self) -> None:
        """Watch no more; before the socket is closed."""
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket = None

    def stop(self) -> None:
        """End the thread; before the context is terminated."""
        self.detach()
        self._order(None)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _order(self, order: tuple[zmq.Socket[bytes], int] | None) -> None:
        self._orders.append(order)
        os.eventfd_write(self._wake, 1)

    # The warden's thread.

    def _run(self) -> None:
        self._epoll.register(self._wake, select.EPOLLIN)
        while self._obey():
            self._read()
            self._adopt()
            for number, events in self._epoll.poll(0.001 if self._new else None):
                if number == self._wake:
                    os.eventfd_read(self._wake)
                elif number in self._connections:
                    self._weigh(self._connections[number], ended=bool(events & ~select.EPOLLIN))

    def _obey(self) -> bool:
        """False: it is over."""
        while self._orders:
            self._read()
            order = self._orders.popleft()
            for connection in list(self._connections.values()):
                # Of the socket before: nobody serves them any more. At the end what was sent still goes out.
                self._release(connection, end=order is not None)
            self._new.clear()
            if self._pair is not None:
                self._epoll.unregister(self._pair.fileno())
                self._pair.close()
                self._pair = None
            if order is None:
                return False
            self._pair, self._port = order
            self._epoll.register(self._pair.fileno(), select.EPOLLIN)
        return True

    def _read(self) -> None:
        """Count what has happened."""
        while self._pair is not None:
            try:
                frames = self._pair.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            event, value = EVENT.unpack(frames[0][: EVENT.size])
            self._counts.note(event, value)
            if event == zmq.Event.ACCEPTED and self._port:
                self._new[value] = time.monotonic_ns()
            elif event == zmq.Event.DISCONNECTED:
                self._new.pop(value, None)
                for connection in [one for one in self._connections.values() if one.number == value]:
                    self._release(connection, end=True)

    def _adopt(self) -> None:
        """Watch those who have come and are still there."""
        now_ns = time.monotonic_ns()
        for number in [one for one, since_ns in self._new.items() if now_ns - since_ns >= _NEW_NS]:
            since_ns = self._new.pop(number)
            wire = _socket_of(number)
            if wire is None:
                continue
            connection = _Connection(number, wire, since_ns)
            self._connections[wire.fileno()] = connection
            if not self._is_ours(wire):
                self._release(connection, end=False)
                continue
            self._epoll.register(wire.fileno(), _WATCHED)
            self._weigh(connection, ended=False)

    def _is_ours(self, wire: socket.socket) -> bool:
        """Whether the number is still that of a connection of the publisher, and not another thing's by now."""
        if wire.family not in {socket.AF_INET, socket.AF_INET6} or wire.type != socket.SOCK_STREAM:
            return False
        try:
            wire.getpeername()
            return bool(wire.getsockname()[1] == self._port)
        except OSError:
            return False

    def _weigh(self, connection: _Connection, *, ended: bool) -> None:
        """Put it out if it has sent too much."""
        try:
            told = connection.wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOLD_BYTES)
        except OSError:
            ended, told = True, b""
        if len(told) >= _TOLD_BYTES:
            (received,) = _RECEIVED.unpack_from(told, _RECEIVED_AT)
            age_s = (time.monotonic_ns() - connection.since_ns) / 1e9
            if received > _FIRST_BYTES + age_s * _BYTES_PER_S:
                self._counts.put_out += 1
                ended = True
        if ended:
            self._release(connection, end=True)

    def _release(self, connection: _Connection, *, end: bool) -> None:
        """Close our descriptor; ``end``: the connection too, whoever else has one."""
        with contextlib.suppress(OSError, KeyError):
            self._epoll.unregister(connection.wire.fileno())
        self._connections.pop(connection.wire.fileno(), None)
        if end:
            with contextlib.suppress(OSError):
                connection.wire.shutdown(socket.SHUT_RDWR)
        connection.wire.close()
