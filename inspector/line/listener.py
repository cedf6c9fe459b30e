"""A bound ZeroMQ socket that can be opened anew at the same address: ZeroMQ has no other way to end a connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from inspector.contract.errors import AddressError
from inspector.line.access import curve_server
from inspector.line.doorbell import Doorbell, KnockCounts

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
_COMMON: dict[int, int] = {
    zmq.LINGER: 0,
    zmq.HANDSHAKE_IVL: 2000,  # who says nothing is put out: each holds a file descriptor
    # A peer that was cut off is put out and its queue freed.
    zmq.HEARTBEAT_IVL: 1000,
    zmq.HEARTBEAT_TIMEOUT: 3000,
}
_AT_ONCE_S = 0.01
"""How long ``reopen`` itself tries; it is called by threads that have more to do."""
_TURN_S = 0.0002
_GIVE_UP_S = 5.0


class Listener:
    """One bound socket. Made in any thread, used in one.

    Args:
        kind: ``zmq.PUB``, ``zmq.ROUTER``.
        endpoint: ``tcp://host:port`` (port ``*``: any free one) or ``ipc://path``.
        name: what it is, for errors (``publisher``).
        options: of the socket, beside LINGER 0, a limit to handshakes and ZMTP heartbeats.
        context: shared with the gatekeeper; None: one of its own, without keys.
        keys: the station's key pair; None: everybody who reaches the address may come in.
    """

    def __init__(
        self,
        kind: int,
        endpoint: str,
        name: str,
        options: Mapping[int, int],
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: KeyPair | None = None,
    ) -> None:
        if keys is not None and context is None:
            raise ValueError("keys need the context of the gatekeeper")
        self._kind, self._asked, self._name, self._keys = kind, endpoint, name, keys
        self._options: dict[int, int] = {**_COMMON, **options}
        self._shared = context
        self._own: zmq.Context[zmq.Socket[bytes]] | None = None
        self._doorbell: Doorbell | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._next: zmq.Socket[bytes] | None = None
        self._since = 0.0
        self.knocks = KnockCounts()
        """Who never got as far as the gatekeeper."""
        self.endpoint = endpoint
        """Where it is bound; after ``bind`` with the port that was found."""
        self.reopened = 0

    def current(self) -> zmq.Socket[bytes] | None:
        """The socket; None: it is not bound, or not yet again (then this call has tried once more). Ask each time: it changes.

        Raises:
            AddressError: the address was not free again within 5 seconds.
        """
        if self._next is not None:
            self._try_next()
        return self._socket

    @property
    def reopening(self) -> bool:
        """Whether it waits for its address to be free again."""
        return self._next is not None

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
        self._doorbell = Doorbell(context, self.knocks)
        opened = self._open(context)
        try:
            opened.bind(self._asked)
        except zmq.ZMQError as error:
            opened.close()
            self.close()
            raise self._error(error.errno or 0, error.strerror or "") from error
        self._take(opened)
        self.endpoint = opened.getsockopt_string(zmq.LAST_ENDPOINT)

    def reopen(self) -> None:
        """End every connection: close, and bind again at the same address. What was not yet on the wire is gone.

        Returns after 10 ms at the latest; where the address is not free by then, ``current`` is None for a while.

        Raises:
            RuntimeError: it is not bound.
            AddressError: the address cannot be bound again.
        """
        context = self._shared or self._own
        if context is None or self._doorbell is None or (self._socket is None and self._next is None):
            raise RuntimeError(f"the {self._name} is not bound")
        if self._socket is not None:
            self._doorbell.detach()
            self._socket.close(linger=0)
            self._socket, self._next = None, self._open(context)
        self._since = time.monotonic()
        while not self._try_next() and time.monotonic() - self._since < _AT_ONCE_S:
            time.sleep(_TURN_S)

    def listen(self) -> None:
        """Count those who knocked in vain, at most 16 of them; to be called often. Never blocks."""
        if self._doorbell is not None:
            self._doorbell.take()

    def close(self, linger_ms: int = 0) -> None:
        """Close; what was sent still goes out for at most ``linger_ms``. Idempotent."""
        if self._doorbell is not None:
            self._doorbell.detach()
        for one in (self._socket, self._next):
            if one is not None:
                one.close(linger=linger_ms)
        if self._own is not None:
            self._own.term()
        self._socket = self._next = self._own = self._doorbell = None

    def _open(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        opened = context.socket(self._kind)
        for option, value in self._options.items():
            opened.setsockopt(option, value)
        if self._keys is not None:
            curve_server(opened, self._keys)
        return opened

    def _take(self, opened: zmq.Socket[bytes]) -> None:
        self._socket, self._next = opened, None
        if self._doorbell is not None:
            self._doorbell.attach(opened)

    def _try_next(self) -> bool:
        """Bind the next socket, if the one before has given the address free by now: ZeroMQ closes in a thread of its own."""
        if self._next is None:
            return True
        try:
            self._next.bind(self.endpoint)
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE:
                raise self._error(error.errno or 0, error.strerror or "") from error
        else:
            self._take(self._next)
            self.reopened += 1
            return True
        if time.monotonic() - self._since > _GIVE_UP_S:
            raise self._error(errno.EADDRINUSE, "")
        return False

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
