"""Following a station's publisher without asking for anything: every message, and every silence, gap or restart, told as such.

Whoever decides what passes uses ``controller.Controller``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import zmq

from inspector.client.decisions import Notice, NoticeKind
from inspector.client.reading import read_message
from inspector.client.station import DEAD_AFTER_MS
from inspector.contract import wire
from inspector.contract.errors import AddressError

__all__ = ["DEAD_AFTER_MS", "Follower", "Notice", "NoticeKind", "Subscriber", "Update"]

if TYPE_CHECKING:
    from types import TracebackType

_AT_ONCE = 1000
"""Messages taken in one call at most."""
_HIGH_WATER_MARK = 100_000

Update = wire.Message | Notice


@dataclass(slots=True)
class _Stream:
    boot_id: str
    last_seq: int
    heartbeat_ns: int | None = None
    dead: bool = False


class Follower:
    """The books of a subscriber: sequence numbers, boots and heartbeats. Pure: the caller brings messages and its monotonic clock.

    Args:
        now_ns: the clock now.
        dead_after_ms: silence after which a stream is dead.
    """

    def __init__(self, now_ns: int, dead_after_ms: float = DEAD_AFTER_MS) -> None:
        self._limit_ns = int(dead_after_ms * 1e6)
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._begun_ns = now_ns
        self._heard = self._silence_told = False

    def take(self, message: wire.Message, now_ns: int) -> list[Update]:
        """What ``message`` tells: notices first, then the message itself (not twice the same)."""
        self._heard = True
        heartbeat = isinstance(message, wire.HeartbeatMessage)
        seq = message.last_seq if isinstance(message, wire.HeartbeatMessage) else message.seq
        key = (message.station, message.stream)
        stream = self._streams.get(key)
        updates: list[Update] = []
        if stream is None:
            # What was sent before we came is no gap. A first message has its own number; a heartbeat names the last one given.
            stream = self._streams[key] = _Stream(message.boot_id, seq if heartbeat else seq - 1)
        elif stream.boot_id != message.boot_id:
            detail = f"the station was started anew ({stream.boot_id} -> {message.boot_id}): parts under way have no verdict"
            updates.append(Notice(NoticeKind.BOOT, *key, detail))
            stream.boot_id, stream.last_seq = message.boot_id, 0
        if not heartbeat and seq <= stream.last_seq:
            return updates  # told before
        missing = seq - stream.last_seq - (0 if heartbeat else 1)
        if missing > 0:
            updates.append(Notice(NoticeKind.GAP, *key, f"{missing} messages lost after number {stream.last_seq}", missing))
        stream.last_seq = max(stream.last_seq, seq)
        if heartbeat:
            if stream.dead:
                silence_ms = (now_ns - (stream.heartbeat_ns or now_ns)) / 1e6
                updates.append(Notice(NoticeKind.ALIVE, *key, f"heartbeats are back after {silence_ms:.0f} ms"))
            stream.heartbeat_ns, stream.dead = now_ns, False
        updates.append(message)
        return updates

    def tick(self, now_ns: int) -> list[Update]:
        """Streams that have fallen silent. Call it after everything that has arrived was taken."""
        updates: list[Update] = []
        if not self._heard and not self._silence_told and now_ns - self._begun_ns > self._limit_ns:
            self._silence_told = True
            updates.append(Notice(NoticeKind.DEAD, "", "", "nothing heard from the station yet"))
        for key, stream in self._streams.items():
            if stream.heartbeat_ns is not None and not stream.dead and now_ns - stream.heartbeat_ns > self._limit_ns:
                stream.dead = True
                updates.append(Notice(NoticeKind.DEAD, *key, f"no heartbeat for {(now_ns - stream.heartbeat_ns) / 1e6:.0f} ms: nothing may pass"))
        return updates

    def next_ns(self) -> int | None:
        """When the next silence would be told; None: nothing is being waited for."""
        waits = [stream.heartbeat_ns for stream in self._streams.values() if stream.heartbeat_ns is not None and not stream.dead]
        if not self._heard and not self._silence_told:
            waits.append(self._begun_ns)
        return min(waits) + self._limit_ns if waits else None


class Subscriber:
    """A SUB socket and its books; use it as a context manager, in one thread.

    Args:
        endpoint: the publisher's address, as ZeroMQ writes it.
        topic: prefix of ``station/stream``; empty: everything.
        dead_after_ms: silence after which a stream is dead.

    Raises:
        AddressError: the endpoint is no address.
    """

    def __init__(self, endpoint: str, topic: bytes = b"", *, dead_after_ms: float = DEAD_AFTER_MS) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise AddressError(f"{endpoint}: no address to connect to ({error.strerror}); it looks like tcp://host:5570") from None
        self._follower = Follower(time.monotonic_ns(), dead_after_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()

    def receive(self, timeout_s: float) -> list[Update]:
        """What has come, waiting up to ``timeout_s`` seconds for it; empty: nothing."""
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            updates = self._drain()
            # Silence is judged only after all that has arrived was read: a slow reader must not take its own delay for the station's.
            updates += self._follower.tick(time.monotonic_ns())
            now_ns = time.monotonic_ns()
            if updates or now_ns >= until_ns:
                return updates
            wake_ns = min(until_ns, self._follower.next_ns() or until_ns)
            self._socket.poll(max(1, (wake_ns - now_ns) // 1_000_000 + 1))

    def _drain(self) -> list[Update]:
        updates: list[Update] = []
        for _ in range(_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            updates += self._read(frames)
        return updates

    def _read(self, frames: list[bytes]) -> list[Update]:
        message = read_message(frames)
        return [message] if isinstance(message, Notice) else self._follower.take(message, time.monotonic_ns())
