"""Who may speak: the server's side of CURVE, and the gatekeeper that ZeroMQ asks about every key (ZAP, ZeroMQ RFC 27)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from inspector.config.keys import KeyPair
from inspector.contract.errors import ConfigError
from inspector.line.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.config.keys import KeyRing, Person

ZAP_DOMAIN: Final = b"inspector"
"""The one domain of all sockets: a request for another one is refused."""
_ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_OK, _REFUSED, _LATER = (b"200", b"OK"), (b"400", b"not known here"), (b"300", b"too often: later")
_AT_ONCE = 32
_PER_S = 1000.0
"""Handshakes answered per second; more of them wait. One takes about 30 us of the interpreter, and native code checks its cryptography first."""
_BURST = 200.0
_KEY_PER_S, _KEY_BURST = 1.0, 20.0
"""Of one key: who is put out again and again, or lets its connections break, must not keep the station busy with it. A client has two sockets."""


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A ZeroMQ context for publisher, request socket and gatekeeper, which must share one.

    It has two native threads: one for the publisher, the other for requests, so that a flood of those does not queue before verdicts.
    Terminate it last, when all three are closed.
    """
    return zmq.Context(io_threads=2)


def new_pair() -> KeyPair:
    """A new CURVE key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode("ascii"), secret.decode("ascii"))


def curve_server(socket: zmq.Socket[bytes], pair: KeyPair) -> None:
    """Make ``socket`` a CURVE server; before it is bound. A gatekeeper must be there, in the same context: without one nobody gets in."""
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode("ascii"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    # Otherwise ZeroMQ lets every key in while no gatekeeper is bound.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(slots=True)
class GateCounts:
    """What became of the handshakes that brought a key; those without a key, or for another station's key, end before they come here."""

    accepted: int = 0
    unknown_key: int = 0
    revoked_key: int = 0
    too_often: int = 0
    """A good key, but more than 20 connections at once and one per second; it may come again."""
    malformed: int = 0


class Gatekeeper:
    """Answers ZeroMQ's question whether a key may come in, and knows whose key it is. Owned by one thread; ``counts`` may be read by any.

    That thread polls ``socket`` unless ``wait_ms`` says to leave it, calls ``handle`` when it is readable, and ``refresh`` some times a second.

    Args:
        context: that of the sockets which it guards.
        ring: the station's keys, read at once and again by ``refresh``.

    Raises:
        ConfigError: the keys cannot be read.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], ring: KeyRing) -> None:
        self._ring = ring
        self._stamp = ring.stamp()
        self._by_id: dict[str, Person] = _by_id(ring.persons())
        self.problem = ""
        """Why the list of persons could not be read again: the last one that could be counts on. Empty: it could."""
        self.counts = GateCounts()
        self._tokens, self._filled_ns = _BURST, time.monotonic_ns()
        self._each: dict[str, Allowance] = {}
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ZAP_ENDPOINT)

    def close(self) -> None:
        """Close; nobody gets in any more."""
        self.socket.close()

    def person(self, user_id: str) -> Person | None:
        """Whose connection it is; ``user_id`` is a message's ``User-Id``. None: nobody's, or the key is good no more."""
        person = self._by_id.get(user_id)
        return None if person is None or person.revoked is not None else person

    def wait_ms(self) -> int:
        """0: poll ``socket``. Else: for so long do not; too many have knocked, and they wait."""
        now_ns = time.monotonic_ns()
        self._tokens = min(_BURST, self._tokens + (now_ns - self._filled_ns) * 1e-9 * _PER_S)
        self._filled_ns = now_ns
        return 0 if self._tokens >= 1 else 10

    def handle(self) -> int:
        """Answer those who wait, at most 32. Never blocks, never raises on what they send.

        Returns:
            how many.
        """
        for answered in range(_AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return answered
            self._tokens -= 1
            self._answer(frames)
        return _AT_ONCE

    def refresh(self) -> frozenset[str]:
        """Read the list of persons again if it was written; cheap if not.

        Returns:
            the names of those whose key was good and is no more: their connections are to be ended.
        """
        stamp = self._ring.stamp()
        if stamp == self._stamp:
            return frozenset()
        self._stamp = stamp
        try:
            now = _by_id(self._ring.persons())
        except ConfigError as error:
            self.problem = str(error)
            return frozenset()
        self.problem = ""
        before, self._by_id = self._by_id, now
        self._each = {key: allowance for key, allowance in self._each.items() if key in now}
        return frozenset(person.name for user_id, person in before.items() if person.revoked is None and self.person(user_id) is None)

    def _answer(self, frames: Sequence[bytes]) -> None:
        # Routing id, empty, version, request id, domain, address, routing id of the socket, mechanism, and for CURVE the client's public key.
        if len(frames) < 4 or frames[1]:
            self.counts.malformed += 1
            return
        status, user_id = _REFUSED, b""
        if len(frames) == 9 and frames[2] == _VERSION and frames[4] == ZAP_DOMAIN and frames[7] == b"CURVE" and len(frames[8]) == 32:
            key = z85.encode(frames[8]).decode("ascii")
            person = self._by_id.get(key)
            if person is None:
                self.counts.unknown_key += 1
            elif person.revoked is not None:
                self.counts.revoked_key += 1
            elif not self._is_timely(key):
                self.counts.too_often += 1
                status = _LATER
            else:
                self.counts.accepted += 1
                status, user_id = _OK, key.encode("ascii")
        else:
            self.counts.malformed += 1
        try:
            self.socket.send_multipart([frames[0], b"", _VERSION, frames[3], *status, user_id, b""], zmq.DONTWAIT)
        except zmq.ZMQError:
            self.counts.malformed += 1  # it has gone meanwhile

    def _is_timely(self, key: str) -> bool:
        now_ns = time.monotonic_ns()
        if key not in self._each:
            self._each[key] = Allowance(_KEY_PER_S, _KEY_BURST, now_ns)  # of keys in the list alone: as many as persons
        return self._each[key].take(now_ns)


def _by_id(persons: Sequence[Person]) -> dict[str, Person]:
    return {person.public_key: person for person in persons}
