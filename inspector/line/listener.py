"""A bound ZeroMQ socket that can be opened anew at the same address: ZeroMQ has no other way to end a connection.

The system's listening socket underneath stays: nobody can take the address meanwhile, and whoever connects waits in its queue.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from inspector.contract.errors import AddressError
from inspector.line.access import curve_server
from inspector.line.doorbell import Doorbell, KnockCounts
from inspector.line.warden import Warden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inspector.config.keys import KeyPair

_MENDS = {
    errno.EADDRINUSE: "another program uses it: stop that one or change {key} in the station file",
    errno.EACCES: "this user may not use it: choose another port or folder for {key} in the station file",
    errno.EADDRNOTAVAIL: "this machine has no such address: change {key} in the station file",
    errno.ENODEV: "this machine has no such address: change {key} in the station file",
    errno.ENOENT: "its folder does not exist: make it or change {key} in the station file",
}
_EVENT = struct.Struct("=HI")
_COMMON: dict[int, int] = {
    zmq.LINGER: 0,
    zmq.HANDSHAKE_IVL: 2000,  # who says nothing is put out: each holds a file descriptor
    # A peer that was cut off is put out and its queue freed.
    zmq.HEARTBEAT_IVL: 1000,
    zmq.HEARTBEAT_TIMEOUT: 3000,
}


class Listener:
    """One bound socket. Made in any thread, used in one.

    Args:
        kind: ``zmq.PUB``, ``zmq.ROUTER``.
        endpoint: ``tcp://host:port`` (port ``*``: any free one) or ``ipc://path``.
        name: what it is, for errors (``publisher``).
        options: of the socket, beside LINGER 0, a limit to handshakes and ZMTP heartbeats.
        context: shared with the gatekeeper; None: one of its own, without keys.
        keys: the station's key pair; None: everybody who reaches the address may come in.
        guarded: a warden watches what each connection sends; else ``listen`` counts them.
    """

    def __init__(
        self,
        kind: int,
        endpoint: str,
        name: str,
        options: Mapping[int, int],
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: KeyPair | None = None,
        *,
        guarded: bool = False,
    ) -> None:
        if keys is not None and context is None:
            raise ValueError("keys need the context of the gatekeeper")
        self._kind, self._asked, self._name, self._keys = kind, endpoint, name, keys
        self._options: dict[int, int] = {**_COMMON, **options}
        self._shared = context
        self._own: zmq.Context[zmq.Socket[bytes]] | None = None
        self._guarded = guarded
        self._watch: Doorbell | Warden | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._listening = -1
        """The system's listening socket; ZeroMQ closes the descriptors that it uses, this one is ours."""
        self.knocks = KnockCounts()
        """Who never got as far as the gatekeeper."""
        self.endpoint = endpoint
        """Where it is bound; after ``bind`` with the port that was found."""
        self.reopened = 0

    def current(self) -> zmq.Socket[bytes] | None:
        """The socket; None: it is not bound. Ask each time: ``reopen`` puts another one in its place."""
        return self._socket

    def bind(self) -> None:
        """Open and bind. Idempotent.

        Raises:
            AddressError: the endpoint cannot be bound.
        """
        if self._socket is not None:
            return
        if self._asked.startswith("ipc://") and self._is_live():
            raise self._error(errno.EADDRINUSE, "")
        context = self._shared
        if context is None:
            context = self._own = zmq.Context()
        self._watch = (Warden if self._guarded else Doorbell)(context, self.knocks)
        opened = self._open(context)
        try:
            self._listening = _bind(context, opened, self._asked)
        except zmq.ZMQError as error:
            opened.close()
            self.close()
            raise self._error(error.errno or 0, error.strerror or "") from error
        self.endpoint = opened.getsockopt_string(zmq.LAST_ENDPOINT)
        self._watch.attach(opened, self.endpoint)
        self._socket = opened

    def reopen(self) -> None:
        """End every connection. What was not yet on the wire is gone; who connects again is served. Takes well under a millisecond.

        Raises:
            RuntimeError: it is not bound.
        """
        context = self._shared or self._own
        if context is None or self._watch is None or self._socket is None:
            raise RuntimeError(f"the {self._name} is not bound")
        self._watch.detach()
        self._socket.close(linger=0)
        self._socket = opened = self._open(context)
        opened.setsockopt(zmq.USE_FD, os.dup(self._listening))
        self._watch.attach(opened, self.endpoint)
        opened.bind(self.endpoint)
        self.reopened += 1

    def listen(self, limit: int = 16) -> None:
        """Count who came and went, at most ``limit`` events; to be called often. Never blocks, takes about 5 us for each."""
        if isinstance(self._watch, Doorbell):
            self._watch.take(limit)

    def close(self, linger_ms: int = 0) -> None:
        """Close; what was sent still goes out for at most ``linger_ms``. Idempotent."""
        if self._watch is not None:
            self._watch.detach()
        if self._socket is not None:
            self._socket.close(linger=linger_ms)
        if self._listening >= 0:
            os.close(self._listening)
            self._listening = -1
        if isinstance(self._watch, Warden):
            self._watch.stop()
        if self._own is not None:
            self._own.term()
        self._socket = self._own = self._watch = None

    def _open(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        opened = context.socket(self._kind)
        for option, value in self._options.items():
            opened.setsockopt(option, value)
        if self._keys is not None:
            curve_server(opened, self._keys)
        return opened

    def _error(self, number: int, told: str) -> AddressError:
        mend = _MENDS.get(number, f"{told}: change {{key}} in the station file").format(key=f"{self._name}.endpoint")
        return AddressError(f"the {self._name} cannot use {self._asked}: {mend}")

    def _is_live(self) -> bool:
        """ZeroMQ unlinks an ipc file that is there, even when another program listens on it: ask first."""
        path = self._asked.removeprefix("ipc://")
        if not Path(path).exists():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.settimeout(0.5)
            probe.connect(path)
            return True
        return False


def _bind(context: zmq.Context[zmq.Socket[bytes]], opened: zmq.Socket[bytes], endpoint: str) -> int:
    """Bind; the system's listening socket, as a descriptor of our own. ZeroMQ tells its own only to those who watch it listen."""
    watch = f"inproc://listening-{id(opened)}"
    with context.socket(zmq.PAIR) as pair:
        pair.setsockopt(zmq.LINGER, 0)
        pair.connect(watch)
        opened.monitor(watch, zmq.Event.LISTENING)
        try:
            opened.bind(endpoint)
            _, descriptor = _EVENT.unpack(pair.recv_multipart(zmq.DONTWAIT)[0][: _EVENT.size])
        finally:
            opened.disable_monitor()
    kept = os.dup(descriptor)
    # While a socket is closed and the next one opened, both may see the same caller: who comes second must not wait for another.
    os.set_blocking(kept, False)
    return kept
