"""The ZeroMQ publisher: two frames per message, topic and JSON. It never blocks the line thread."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

import zmq

from inspector.contract.errors import AddressError

_MENDS = {
    errno.EADDRINUSE: "another program uses it: stop that one or change publisher.endpoint in the station file",
    errno.EACCES: "this user may not use it: choose another port or folder for publisher.endpoint in the station file",
    errno.EADDRNOTAVAIL: "this machine has no such address: change publisher.endpoint in the station file",
    errno.ENODEV: "this machine has no such address: change publisher.endpoint in the station file",
    errno.ENOENT: "its folder does not exist: make it or change publisher.endpoint in the station file",
}


class Publisher:
    """One PUB socket. Made and bound in one thread, then handed to the line thread, which alone uses and closes it."""

    def __init__(self, endpoint: str, high_water_mark: int = 100_000) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: ``tcp://host:port`` (port ``*``: any free one) or ``ipc://path``.
            high_water_mark: messages that wait for one slow subscriber; beyond it, that one loses them and sees a gap in ``seq``.
        """
        self._asked = endpoint
        self._high_water_mark = high_water_mark
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self.endpoint = endpoint
        """Where it is bound; after ``bind`` with the port that was found."""

    def bind(self) -> None:
        """Open and bind the socket.

        Raises:
            AddressError: the endpoint cannot be bound.
        """
        if self._socket is not None:
            return
        if self._asked.startswith("ipc://"):
            _refuse_live(self._asked)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        wire = context.socket(zmq.PUB)
        wire.setsockopt(zmq.SNDHWM, self._high_water_mark)
        wire.setsockopt(zmq.LINGER, 0)
        try:
            wire.bind(self._asked)
        except zmq.ZMQError as error:
            wire.close()
            context.term()
            mend = _MENDS.get(error.errno or 0, f"{error.strerror}: change publisher.endpoint in the station file")
            raise AddressError(f"the publisher cannot use {self._asked}: {mend}") from error
        self._context, self._socket = context, wire
        self.endpoint = wire.getsockopt_string(zmq.LAST_ENDPOINT)

    def send(self, topic: bytes, payload: bytes) -> None:
        """Hand one message to every subscriber of ``topic``. A PUB socket never waits: what a slow subscriber cannot take, it alone loses.

        Raises:
            RuntimeError: it is not bound.
        """
        if self._socket is None:
            raise RuntimeError("the publisher is not bound")
        self._socket.send(topic, zmq.SNDMORE | zmq.DONTWAIT)
        self._socket.send(payload, zmq.DONTWAIT)

    def close(self, linger_ms: int = 500) -> None:
        """Close; what was sent still goes out for at most ``linger_ms``. Idempotent."""
        wire, context = self._socket, self._context
        self._socket = self._context = None
        if wire is not None and context is not None:
            wire.close(linger=linger_ms)
            context.term()


def _refuse_live(endpoint: str) -> None:
    """ZeroMQ unlinks an ipc file that is there, even when another program listens on it: ask first."""
    path = endpoint.removeprefix("ipc://")
    if not Path(path).exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.settimeout(0.5)
        probe.connect(path)
        raise AddressError(f"the publisher cannot use {endpoint}: {_MENDS[errno.EADDRINUSE]}")
