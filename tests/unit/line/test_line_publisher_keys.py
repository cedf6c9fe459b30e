"""The publisher behind a gatekeeper: who hears it, what is counted, and what opening anew does to those who listen."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from inspector.contract.requests import Role
from inspector.line.access import new_pair
from inspector.line.doorbell import Doorbell
from inspector.line.listener import Listener
from inspector.line.publisher import Publisher

ASSETS = SimpleNamespace(**run_path(str(Path(__file__).parents[2] / "assets" / "gates.py")))
wait_until = ASSETS.wait_until


class Line:
    """A publisher that sends numbers, and those who listen."""

    def __init__(self, gate: Any, endpoint: str = "tcp://127.0.0.1:*", *, guarded: bool = True) -> None:
        self.gate = gate
        self.publisher = Publisher(endpoint, context=gate.context, keys=gate.pair if guarded else None)
        self.publisher.bind()
        self.sent = 0
        self.heard: dict[zmq.Socket[bytes], list[int]] = {}

    def listen(self, key: Any) -> zmq.Socket[bytes]:
        client = self.gate.client(self.publisher.endpoint, key)
        self.heard[client] = []
        return client  # type: ignore[no-any-return]

    def turn(self) -> None:
        self.publisher.send(b"line-1/top", b"%d" % self.sent)
        self.sent += 1
        for client, numbers in self.heard.items():
            while client.poll(0):
                numbers.append(int(client.recv_multipart()[1]))


@pytest.fixture(params=["tcp://127.0.0.1:*", "ipc"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    with ASSETS.Gate(tmp_path) as gate:
        line = Line(gate, f"ipc://{tmp_path}/line" if request.param == "ipc" else request.param)
        yield line
        line.publisher.close()


def test_only_a_known_key_hears_anything_and_the_others_are_counted(line: Line) -> None:
    gate = line.gate
    good = line.listen(gate.key("wall", Role.OBSERVER))
    nobody, unknown = line.listen(None), line.listen(gate.key("x", known=False))
    stranger_key = gate.key("y")
    stranger = line.listen(type(stranger_key)("line-1", "y", Role.OBSERVER, stranger_key.pair, new_pair().public))
    knocks, counts = line.publisher.knocks, gate.keeper.counts
    # Without a key ZeroMQ's own client hangs up as soon as the station asks for one: then only that it was refused is seen.
    wait_until(lambda: line.heard[good] and knocks.refused >= 3 and knocks.other_station and counts.unknown_key, line.turn)
    for client in (nobody, unknown, stranger):
        assert line.heard[client] == []


def test_revoking_ends_a_live_connection_and_the_others_come_back(line: Line) -> None:
    gate = line.gate
    wall, plc = line.listen(gate.key("wall", Role.OBSERVER)), line.listen(gate.key("plc"))
    wait_until(lambda: line.heard[wall] and line.heard[plc], line.turn)
    gate.ring.revoke("plc")
    assert gate.keeper.refresh() == {"plc"}
    line.publisher.reopen()
    first_after = line.sent
    wait_until(lambda: line.heard[wall][-1] > first_after and gate.keeper.counts.revoked_key, line.turn)
    for _ in range(50):
        line.turn()
    assert line.heard[plc][-1] < first_after
    assert line.heard[wall] == sorted(set(line.heard[wall]))


def test_opening_anew_many_times_leaves_the_address_as_it_was(line: Line) -> None:
    endpoint = line.publisher.endpoint
    wall = line.listen(line.gate.key("wall"))
    for _ in range(20):
        line.publisher.reopen()
        line.turn()
    mark = line.sent
    wait_until(lambda: line.heard[wall] and line.heard[wall][-1] > mark, line.turn)
    assert line.publisher.endpoint == endpoint


def test_without_a_gatekeeper_nobody_comes_in(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        key = gate.key("wall")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        publisher = Publisher("tcp://127.0.0.1:*", context=context, keys=gate.pair)
        publisher.bind()
        client = gate.client(publisher.endpoint, key)
        wait_until(lambda: publisher.knocks.refused >= 3, lambda: publisher.send(b"a", b"b"))
        assert not client.poll(0)
        publisher.close()
        context.term()


def test_a_key_needs_the_context_of_a_gatekeeper() -> None:
    with pytest.raises(ValueError, match="gatekeeper"):
        Publisher("tcp://127.0.0.1:*", keys=new_pair())


def connect(endpoint: str) -> socket.socket:
    """A client that is no ZeroMQ yet."""
    if endpoint.startswith("ipc://"):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(endpoint.removeprefix("ipc://"))
        return raw
    host, port = endpoint.removeprefix("tcp://").split(":")
    return socket.create_connection((host, int(port)))


def test_whoever_speaks_without_a_key_is_counted(line: Line) -> None:
    raw = connect(line.publisher.endpoint)
    raw.sendall(greeting(b"NULL"))
    wait_until(lambda: line.publisher.knocks.no_key, line.turn)
    raw.close()


def test_no_zeromq_at_all_is_counted_and_does_no_harm(line: Line) -> None:
    good = line.listen(line.gate.key("wall"))
    strangers = [connect(line.publisher.endpoint) for _ in range(8)]
    for number, stranger in enumerate(strangers):
        stranger.sendall(bytes([number * 31]) * 200)
    wait_until(lambda: line.publisher.knocks.refused >= 8 and line.heard[good], line.turn)
    for stranger in strangers:
        stranger.close()


def greeting(mechanism: bytes) -> bytes:
    """ZMTP 3.0 of a client."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + bytes(32)


READY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 3) + b"SUB"


def raw_subscriber(endpoint: str) -> socket.socket:
    """A client without a library, through its handshake."""
    raw = connect(endpoint)
    raw.settimeout(ASSETS.PATIENCE_S)
    raw.sendall(greeting(b"NULL") + b"\x04" + bytes([len(READY)]) + READY)
    answer = b""
    while b"Identity" not in answer[64:] and b"Socket-Type" not in answer[64:]:
        answer += raw.recv(4096)
    return raw


def test_an_oversized_subscription_ends_its_connection_alone(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        line = Line(gate, guarded=False)
        good = line.listen(None)
        raw = raw_subscriber(line.publisher.endpoint)
        wait_until(lambda: line.publisher.knocks.admitted == 2, line.turn)
        raw.sendall(b"\x02" + struct.pack(">Q", 5000) + b"\x01" + bytes(4999))
        wait_until(lambda: line.heard[good], line.turn)
        wait_until(lambda: line.publisher.knocks.ended == 1, line.turn)
        raw.close()
        before = len(line.heard[good])
        wait_until(lambda: len(line.heard[good]) > before, line.turn)
        line.publisher.close()


def test_whoever_says_what_a_subscriber_has_to_say_stays(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        line = Line(gate)
        good = line.listen(gate.key("wall"))
        for number in range(40):
            good.setsockopt(zmq.SUBSCRIBE, b"line-1/camera-%d" % number)
        wait_until(lambda: len(line.heard[good]) > 100, line.turn)
        assert (line.publisher.knocks.put_out, line.publisher.knocks.ended) == (0, 0)
        line.publisher.close()


def test_a_flood_of_subscriptions_loses_nobody_a_message(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        line = Line(gate, guarded=False)
        good = line.listen(None)
        wait_until(lambda: line.heard[good], line.turn)
        flooder = gate.client(line.publisher.endpoint, None, zmq.XSUB)
        for number in range(20_000):
            flooder.send(b"\x01" + b"%0200d" % number)
            if number % 100 == 0:
                line.turn()
        mark = line.sent
        wait_until(lambda: line.heard[good][-1] >= mark and line.publisher.knocks.put_out, line.turn)
        numbers = line.heard[good]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        line.publisher.close()


def test_the_address_is_never_free_while_it_is_opened_anew(line: Line) -> None:
    key = line.gate.key("wall")
    line.listen(key)
    strangers = []
    for _ in range(20):
        line.publisher.reopen()
        strangers.append(connect(line.publisher.endpoint))  # refused, if nobody listened
    line.turn()
    for stranger in strangers:
        stranger.close()


def test_opening_anew_what_is_not_bound_is_told(tmp_path: Path) -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    with pytest.raises(RuntimeError, match="not bound"):
        publisher.reopen()
    publisher.bind()
    publisher.close()
    with pytest.raises(RuntimeError, match="not bound"):
        publisher.reopen()


class Knocked:
    """A bound socket with a doorbell, as the request socket has one."""

    def __init__(self, gate: Any) -> None:
        self.listener = Listener(zmq.ROUTER, "tcp://127.0.0.1:*", "channel", {}, gate.context, gate.pair)
        self.listener.bind()
        self.doorbell = self.listener._watch
        assert isinstance(self.doorbell, Doorbell)


def test_too_many_knocks_are_not_listened_for_until_the_next_second(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        socket_ = Knocked(gate)
        doorbell, counts = socket_.doorbell, socket_.listener.knocks
        event = struct.pack("=HI", zmq.Event.HANDSHAKE_FAILED_PROTOCOL, 0x11000002)
        while doorbell._count(event):
            pass
        assert counts.no_key >= 2000
        doorbell._rest()
        assert doorbell._pair is None
        doorbell._second = 0
        socket_.listener.listen()
        strangers = [connect(socket_.listener.endpoint) for _ in range(3)]
        for stranger in strangers:
            stranger.sendall(bytes(200))
        wait_until(lambda: counts.refused == 3, socket_.listener.listen)
        for stranger in strangers:
            stranger.close()
        for _ in range(3000):  # three events each, far more than ZeroMQ's own limit of a queue
            connect(socket_.listener.endpoint).close()
        client = gate.client(socket_.listener.endpoint, gate.key("plc"), zmq.DEALER)
        client.send(b"here")
        current = socket_.listener.current()
        assert current is not None
        wait_until(lambda: current.poll(0))
        socket_.listener.close()


def test_knocks_that_nobody_counts_hold_nothing_up(tmp_path: Path) -> None:
    with ASSETS.Gate(tmp_path) as gate:
        line = Line(gate)
        good = line.listen(gate.key("wall"))
        wait_until(lambda: line.heard[good], line.turn)
        for _ in range(3000):  # three events each, far more than ZeroMQ's own limit of a queue
            connect(line.publisher.endpoint).close()
        mark = line.sent
        late = line.listen(gate.key("late"))
        wait_until(lambda: line.heard[good][-1] > mark and line.heard[late], line.turn)
        assert line.heard[good] == list(range(line.heard[good][0], line.heard[good][-1] + 1))
        line.publisher.close()
