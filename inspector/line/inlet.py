"""The request socket itself, with the gatekeeper behind it: receiving, sending, and waiting for either."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import zmq

from inspector.contract.requests import MAX_REQUEST_BYTES, encode
from inspector.line.listener import Listener

if TYPE_CHECKING:
    from inspector.config.keys import KeyPair
    from inspector.contract.requests import Reply
    from inspector.line.access import Gatekeeper

_NATIVE_THREAD = 0b10
"""The second of the context's: a flood of requests does not queue before verdicts."""
_OPTIONS: dict[int, int] = {
    zmq.ROUTER_MANDATORY: 0,  # who has gone, or does not read, is not waited for
    # Longer than a request may be, so that it is refused and counted; a frame beyond it ends the connection.
    zmq.MAXMSGSIZE: 4 * MAX_REQUEST_BYTES,
    zmq.RCVHWM: 64,
    zmq.SNDHWM: 1024,  # two replays
}


@dataclass(frozen=True, slots=True)
class Received:
    """One message, or a further frame of something that has too many to be one."""

    identity: bytes = b""
    body: bytes = b""
    frames: int = 0
    """0: nothing but the connection's identity; 2: there are more, they are thrown away as they come."""
    user_id: str = ""
    rest: bool = False


class Inlet:
    """Bound in one thread, then used in one other; ``wake`` may be called from any."""

    def __init__(self, endpoint: str, context: zmq.Context[zmq.Socket[bytes]] | None, keys: KeyPair | None, gatekeeper: Gatekeeper | None) -> None:
        options = _OPTIONS if context is None else {**_OPTIONS, zmq.AFFINITY: _NATIVE_THREAD}
        self._listener = Listener(zmq.ROUTER, endpoint, "channel", options, context, keys)
        self._gatekeeper = gatekeeper
        self._wake = -1
        self._wake_lock = threading.Lock()  # guards _wake: a closed descriptor may be another's at once

    @property
    def endpoint(self) -> str:
        """Where it is bound; after ``bind`` with the port that was found."""
        return self._listener.endpoint

    def bind(self) -> None:
        """Open and bind.

        Raises:
            AddressError: the endpoint cannot be bound.
        """
        self._listener.bind()
        if self._wake < 0:
            self._wake = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self, linger_ms: int) -> None:
        """Close, the gatekeeper too; what was sent still goes out for at most ``linger_ms``. Idempotent."""
        self._listener.close(linger_ms)
        if self._gatekeeper is not None:
            self._gatekeeper.close()
        with self._wake_lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def wake(self) -> None:
        """End a ``wait``, this one or the next."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def wait(self, timeout_ms: int, *, reading: bool) -> None:
        """Until something comes, or the time is over. Not ``reading``: the socket is left alone, and ZeroMQ pushes back on those who send."""
        sockets: list[Any] = [(self._wake, zmq.POLLIN)]
        if reading:
            wire = self._listener.current()
            if wire is None:
                timeout_ms = min(timeout_ms, 1)
            else:
                sockets.append((wire, zmq.POLLIN))
            if self._gatekeeper is not None and not self._gatekeeper.wait_ms():
                sockets.append((self._gatekeeper.socket, zmq.POLLIN))
        ready: list[Any] = zmq.zmq_poll(sockets, timeout_ms)
        if ready and any(one == self._wake for one, _ in ready):
            os.eventfd_read(self._wake)

    def greet(self) -> None:
        """Answer those who want to be let in."""
        if self._gatekeeper is not None and not self._gatekeeper.wait_ms():
            self._gatekeeper.handle()

    def receive(self) -> Received | None:
        """What is there; None: nothing."""
        wire = self._listener.current()
        if wire is None:
            return None
        try:
            if wire.getsockopt(zmq.RCVMORE):
                wire.recv(zmq.DONTWAIT)
                return Received(rest=True)
            identity = wire.recv(zmq.DONTWAIT)
            if not wire.getsockopt(zmq.RCVMORE):
                return Received(identity)
            user_id = ""
            if self._gatekeeper is None:
                body = wire.recv(zmq.DONTWAIT)
            else:
                frame = wire.recv(zmq.DONTWAIT, copy=False)
                user_id, body = str(frame.get("User-Id")), frame.bytes
        except zmq.Again:
            return None
        return Received(identity, body, 2 if wire.getsockopt(zmq.RCVMORE) else 1, user_id)

    def send(self, asker: bytes, reply: Reply) -> None:
        """A ROUTER never waits: what an asker has no room for, or one that has gone, is dropped."""
        wire = self._listener.current()
        if wire is not None:
            wire.send(asker, zmq.SNDMORE | zmq.DONTWAIT)
            wire.send(encode(reply), zmq.DONTWAIT)

    def refresh(self) -> frozenset[str]:
        """Look for revoked keys, some times a second; every connection is ended if there is one. The names of the revoked."""
        self._listener.listen(512)
        revoked = self._gatekeeper.refresh() if self._gatekeeper is not None else frozenset()
        if revoked:
            self._listener.reopen()
        return revoked

    @property
    def problem(self) -> str:
        """Why the list of persons cannot be read; empty: it can."""
        return "" if self._gatekeeper is None else self._gatekeeper.problem

    def knocks(self) -> dict[str, int]:
        """Connections that were let in or refused, by what became of them."""
        gate = {} if self._gatekeeper is None else asdict(self._gatekeeper.counts)
        return {**asdict(self._listener.knocks), **gate}
