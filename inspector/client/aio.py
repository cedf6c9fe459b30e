"""A line controller for asyncio."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import zmq
import zmq.asyncio

from inspector.client.link import Link

if TYPE_CHECKING:
    from types import TracebackType

    from inspector.client.decisions import Update


class AsyncController(Link):
    """``Controller`` for asyncio: ``receive`` is awaited, all else returns at once. Made, used and closed in one event loop, by one task."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._close()

    async def receive(self, timeout_s: float) -> list[Update]:
        """Decisions, messages and notices that have come, waiting up to ``timeout_s`` seconds for them; empty: nothing."""
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        poller = zmq.asyncio.Poller()
        poller.register(self._sub, zmq.POLLIN)
        if self._dealer is not None:
            poller.register(self._dealer, zmq.POLLIN)
        while True:
            told = self._step()
            if told or time.monotonic_ns() >= until_ns:
                return told
            await poller.poll(self._wait_ms(until_ns))
