"""The warden, told of connections by a monitor that says what it is told to say."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from runpy import run_path

import pytest
import zmq

from inspector.line.doorbell import KnockCounts
from inspector.line.warden import Warden

wait_until = run_path(str(Path(__file__).parents[2] / "assets" / "gates.py"))["wait_until"]


class Told:
    """Stands for a socket of ZeroMQ: its monitor reports the descriptors that it is given as connections."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._pair = context.socket(zmq.PAIR)

    def monitor(self, name: str, _events: int) -> None:
        self._pair.bind(name)

    def disable_monitor(self) -> None:
        self._pair.close(linger=0)

    def accepted(self, number: int) -> None:
        self._pair.send_multipart([struct.pack("=HI", zmq.Event.ACCEPTED, number), b""])


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["eventfd", "pipe", "udp", "another port", "closed"])
def test_a_number_that_is_another_thing_by_now_is_left_alone(context: zmq.Context[zmq.Socket[bytes]], kind: str) -> None:
    with ExitStack() as stack:
        server, other = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        client, elsewhere = (stack.enter_context(socket.create_connection(one.getsockname())) for one in (server, other))
        ours, theirs = (stack.enter_context(one.accept()[0]) for one in (server, other))
        numbers = {"udp": stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).fileno(), "another port": theirs.fileno()}
        (numbers["pipe"], writing), numbers["eventfd"], numbers["closed"] = os.pipe(), os.eventfd(0), os.dup(server.fileno())
        for number in (numbers["pipe"], writing, numbers["eventfd"]):
            stack.callback(os.close, number)
        os.close(numbers["closed"])
        counts, told = KnockCounts(), Told(context)
        warden = Warden(context, counts)
        stack.callback(warden.stop)
        warden.attach(told, f"tcp://127.0.0.1:{server.getsockname()[1]}")  # type: ignore[arg-type]
        before = descriptors()
        for _ in range(5):
            told.accepted(numbers[kind])
        told.accepted(ours.fileno())
        client.sendall(bytes(20_000))
        wait_until(lambda: counts.put_out)  # ours is told last: the others have been looked at
        wait_until(lambda: descriptors() == before)
        assert counts.put_out == 1
        elsewhere.sendall(b"lives")
        assert theirs.recv(5) == b"lives"
