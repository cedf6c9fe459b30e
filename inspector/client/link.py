"""The two sockets of a controller and its session: everything but the waiting."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from inspector.client import keys
from inspector.client.decisions import Notice, Update
from inspector.client.reading import read_message, read_reply
from inspector.client.session import Session
from inspector.client.station import Options
from inspector.contract.errors import AddressError
from inspector.contract.requests import AckState, encode

if TYPE_CHECKING:
    from inspector.client.decisions import Decision, State
    from inspector.contract.requests import Expectation, Welcome

_AT_ONCE = 500
"""Messages taken from each socket before something else is looked at."""
_HIGH_WATER_MARK = 100_000
_RECONNECT_MS = 20
_RECONNECT_MOST_MS = 100
_SILENT_NS = 2_000_000_000
"""After so long a silence a socket is connected anew: ZeroMQ gives up for good where a key was refused, and it may be known by now."""


class Link:
    """What ``Controller`` and ``AsyncController`` share. All calls from one thread.

    Args:
        publisher: the publisher's address, as ZeroMQ writes it.
        requests: the request socket's; None: messages are followed only, and no gap is repaired.
        name: the controller's; where keys are in use the key's name counts.
        key_file: what ``inspector keys new`` made for this controller; None: without a key.
        options: how the books are kept.

    Raises:
        AddressError: an address is none.
        ConfigError: the key file cannot be used.
    """

    def __init__(
        self, publisher: str, requests: str | None, *, name: str = "controller", key_file: Path | None = None, options: Options | None = None
    ) -> None:
        options = options or Options()
        key = None if key_file is None else keys.read_key(key_file)
        self._session = Session(time.monotonic_ns(), name if requests is not None else None, options)
        self._ready: list[Update] = []
        """Told by other calls than ``receive``."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sub = self._context.socket(zmq.SUB)
        self._dealer = None if requests is None else self._context.socket(zmq.DEALER)
        self._endpoints = [(self._sub, publisher)]
        if self._dealer is not None and requests is not None:
            self._endpoints.append((self._dealer, requests))
        self._heard_ns = [time.monotonic_ns()] * 2
        """When each socket last brought something, or was connected anew."""
        for socket, endpoint in self._endpoints:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
            if socket is self._sub:
                socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
                socket.setsockopt(zmq.SUBSCRIBE, options.topic.encode())
            else:
                socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a connection that is not there: it would be old when it comes
            if key is not None:
                keys.apply(socket, key)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                self._close()
                raise AddressError(f"{endpoint}: no address to connect to ({error.strerror}); it looks like tcp://host:5570") from None

    # What the controller asks and says.

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._session.state

    @property
    def welcome(self) -> Welcome | None:
        """What the station said of itself; None: hello is not answered."""
        return self._session.welcome

    def stream_state(self, stream: str) -> State:
        """Where one stream stands."""
        return self._session.stream_state(stream)

    def announce(
        self, part_id: str, within_ms: float, *, stream: str | None = None, expect: tuple[Expectation, ...] = (), timeout_ms: float | None = None
    ) -> None:
        """A part is on its way to the camera. It gets a decision: at the latest ``within_ms`` from now that it does not pass.

        Args:
            part_id: the line's identity of the part.
            within_ms: when it is where it must be decided; more than ``timeout_ms``.
            stream: where it comes; None: the only stream.
            expect: how the station knows it.
            timeout_ms: after which the station gives it up; None: as the station file says.

        Raises:
            ValueError: it was announced before and is not decided, or the stream is not said and there are several.
        """
        self._ready += self._session.announce(part_id, within_ms, time.monotonic_ns(), stream=stream, expect=expect, timeout_ms=timeout_ms)
        self._send()

    def may_pass(self, part_id: str, stream: str | None = None) -> bool:
        """Whether the part may pass now, as far as is known; what has arrived is read first. False for everything that is not known.

        ``stream`` None: every stream that has parts must say so.
        """
        told = self._step()
        self._ready = told + self._ready
        return self._session.may_pass(part_id, time.monotonic_ns(), stream)

    def actuated(self, decision: Decision) -> None:
        """The part was rejected, diverted or stopped."""
        self._session.acknowledge(decision, AckState.ACTUATED)
        self._send()

    def failed(self, decision: Decision, why: str) -> None:
        """It could not be: an alarm at the station. ``why``: a sentence, up to 256 characters."""
        self._session.acknowledge(decision, AckState.FAILED, why)
        self._send()

    # For those who wait.

    def _step(self) -> list[Update]:
        """All that has come, what the time has brought, and what is to be sent."""
        told, self._ready = self._ready, []
        behind = self._read(told)
        told += self._session.tick(time.monotonic_ns(), behind=behind)
        self._connect_again(time.monotonic_ns())
        self._send()
        told += self._ready
        self._ready = []
        return told

    def _wait_ms(self, until_ns: int) -> int:
        """How long nothing has to be done, up to ``until_ns``."""
        due_ns = self._session.next_ns()
        wake_ns = until_ns if due_ns is None else min(until_ns, due_ns)
        return max(1, -((time.monotonic_ns() - wake_ns) // 1_000_000))

    def _read(self, told: list[Update]) -> bool:
        """True: there may be more."""
        now_ns = time.monotonic_ns()
        taken = 0
        while taken < _AT_ONCE and (frames := _receive(self._sub)) is not None:
            taken += 1
            message = read_message(frames)
            told += [message] if isinstance(message, Notice) else self._session.take(message, now_ns)
        answered = 0
        while self._dealer is not None and answered < _AT_ONCE and (frames := _receive(self._dealer)) is not None:
            answered += 1
            reply = read_reply(frames)
            told += [reply] if isinstance(reply, Notice) else self._session.reply(reply, now_ns)
        for index, count in enumerate((taken, answered)):
            if count:
                self._heard_ns[index] = now_ns
        return _AT_ONCE in {taken, answered}

    def _connect_again(self, now_ns: int) -> None:
        for index, (socket, endpoint) in enumerate(self._endpoints):
            if now_ns - self._heard_ns[index] > _SILENT_NS:
                self._heard_ns[index] = now_ns
                with contextlib.suppress(zmq.ZMQError):  # it had given up this address
                    socket.disconnect(endpoint)
                socket.connect(endpoint)

    def _send(self) -> None:
        if self._dealer is None:
            return
        now_ns = time.monotonic_ns()
        for request in self._session.outgoing(now_ns):
            try:
                self._dealer.send(encode(request), zmq.NOBLOCK)
            except zmq.Again:
                self._ready += self._session.unsent(request, now_ns)

    def _close(self) -> None:
        self._sub.close()
        if self._dealer is not None:
            self._dealer.close()
        self._context.term()


def _receive(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
