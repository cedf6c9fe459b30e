"""A guarded context for tests: a key ring on disk, its gatekeeper in a thread that polls, and clients with good, wrong and no keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from inspector.client.keys import apply
from inspector.config.keys import ClientKey, KeyRing
from inspector.contract.requests import Role
from inspector.line.access import Gatekeeper, new_context, new_pair

PATIENCE_S = 30.0


def wait_until(condition: Callable[[], object], turn: Callable[[], object] = lambda: None) -> None:
    """Take turns until ``condition`` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        turn()
        time.sleep(0.001)


class Gate:
    """Ring, context and gatekeeper; ``clients`` is another context, as another program's would be."""

    def __init__(self, folder: Path) -> None:
        self.ring = KeyRing(folder / "keys")
        self.ring.make(new_pair())
        self.pair = self.ring.station()
        self.context = new_context()
        self.keeper = Gatekeeper(self.context, self.ring)
        self.clients: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop = True
        self._thread.join()
        self.keeper.close()
        self.clients.destroy(0)
        self.context.term()

    def _run(self) -> None:
        while not self._stop:
            wait_ms = self.keeper.wait_ms()
            if wait_ms:
                time.sleep(wait_ms / 1000)
            elif self.keeper.socket.poll(2):
                self.keeper.handle()

    def key(self, name: str, role: Role = Role.CONTROLLER, *, known: bool = True) -> ClientKey:
        """A key; ``known``: the station knows it."""
        pair = new_pair()
        if known:
            self.ring.add(name, role, pair.public)
            self.keeper.refresh()
        return ClientKey("line-1", name, role, pair, self.pair.public)

    def client(self, endpoint: str, key: ClientKey | None, kind: int = zmq.SUB) -> zmq.Socket[bytes]:
        """A client that connects; None: without a key."""
        socket = self.clients.socket(kind)
        socket.setsockopt(zmq.RECONNECT_IVL, 10)
        socket.setsockopt(zmq.LINGER, 0)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        if key is not None:
            apply(socket, key)
        socket.connect(endpoint)
        return socket
