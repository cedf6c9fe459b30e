"""A line controller that waits: the blocking client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import zmq

from inspector.client.link import Link

if TYPE_CHECKING:
    from types import TracebackType

    from inspector.client.decisions import Update


class Controller(Link):
    """Follows a station, asks for what was lost, and says of each part whether it may pass. A context manager, for one thread.

    ::

        with Controller("tcp://10.0.0.5:5570", "tcp://10.0.0.5:5571", name="plc-1") as line:
            while True:
                for update in line.receive(0.1):
                    if isinstance(update, Decision) and not update.passes:
                        reject(update.part_id)
                        line.actuated(update)

    ``receive`` must be called again and again: messages are read, gaps asked for and signs of life sent in it.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._close()

    def receive(self, timeout_s: float) -> list[Update]:
        """Decisions, messages and notices that have come, waiting up to ``timeout_s`` seconds for them; empty: nothing."""
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        poller = zmq.Poller()
        poller.register(self._sub, zmq.POLLIN)
        if self._dealer is not None:
            poller.register(self._dealer, zmq.POLLIN)
        while True:
            told = self._step()
            if told or time.monotonic_ns() >= until_ns:
                return told
            poller.poll(self._wait_ms(until_ns))
