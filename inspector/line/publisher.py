"""The ZeroMQ publisher: two frames per message, topic and JSON. It never blocks the line thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from inspector.line.listener import Listener

if TYPE_CHECKING:
    from inspector.config.keys import KeyPair
    from inspector.line.doorbell import KnockCounts

_MAX_SUBSCRIPTION_BYTES = 1024
"""A longer message ends its connection; the longest of a client is its handshake."""
_SUBSCRIPTIONS_AT_ONCE = 8
"""ZeroMQ takes subscriptions in the thread that sends, all that wait: few may wait here, and in the system's buffer, when the warden ends a flood."""
_RECEIVE_BYTES = 2304
_NATIVE_THREAD = 0b01
"""The first of the context's; requests have the other one."""


class Publisher:
    """One PUB socket. Made and bound in one thread, then handed to the line thread, which alone uses and closes it."""

    def __init__(
        self,
        endpoint: str,
        high_water_mark: int = 100_000,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: KeyPair | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            endpoint: ``tcp://host:port`` (port ``*``: any free one) or ``ipc://path``.
            high_water_mark: messages that wait for one slow subscriber; beyond it, that one loses them and sees a gap in ``seq``.
            context: ``access.new_context()``, shared with the gatekeeper and terminated by who made it; None: one of its own.
            keys: the station's key pair; None: everybody who reaches the address may subscribe.
        """
        options: dict[int, int] = {
            zmq.SNDHWM: high_water_mark,
            zmq.RCVHWM: _SUBSCRIPTIONS_AT_ONCE,
            zmq.RCVBUF: _RECEIVE_BYTES,
            zmq.MAXMSGSIZE: _MAX_SUBSCRIPTION_BYTES,
            zmq.AFFINITY: _NATIVE_THREAD,
        }
        self._listener = Listener(zmq.PUB, endpoint, "publisher", options, context, keys, guarded=True)

    @property
    def endpoint(self) -> str:
        """Where it is bound; after ``bind`` with the port that was found."""
        return self._listener.endpoint

    @property
    def knocks(self) -> KnockCounts:
        """Who failed to come in."""
        return self._listener.knocks

    def bind(self) -> None:
        """Open and bind the socket.

        Raises:
            AddressError: the endpoint cannot be bound.
        """
        self._listener.bind()

    def send(self, topic: bytes, payload: bytes) -> None:
        """Hand one message to every subscriber of ``topic``. A PUB socket never waits: what a slow subscriber cannot take, it alone loses.

        Raises:
            RuntimeError: it is not bound.
        """
        wire = self._listener.current()
        if wire is None:
            raise RuntimeError("the publisher is not bound")
        wire.send(topic, zmq.SNDMORE | zmq.DONTWAIT)
        wire.send(payload, zmq.DONTWAIT)

    def reopen(self) -> None:
        """End every connection; whoever may comes back by himself, and repairs by replay what he lost. Takes well under a millisecond.

        Raises:
            RuntimeError: it is not bound.
        """
        self._listener.reopen()

    def close(self, linger_ms: int = 500) -> None:
        """Close; what was sent still goes out for at most ``linger_ms``. Idempotent."""
        self._listener.close(linger_ms)
