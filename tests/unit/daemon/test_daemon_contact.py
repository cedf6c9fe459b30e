"""A station with keys: what each role may do over the request channel, and what a revoked key may do at once: nothing."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from inspector.client.keys import apply
from inspector.config.keys import ClientKey, KeyPair, KeyRing
from inspector.config.station import StationFiles, read_station
from inspector.contract import requests
from inspector.contract.errors import ConfigError
from inspector.contract.records import Event, OutputItem
from inspector.contract.requests import Done, Refusal, Refused, ReplayEnd, Role, Welcome
from inspector.daemon.station import Daemon
from inspector.engine.detector import Detector
from inspector.line.access import new_pair

PATIENCE_S = 30.0
PERSONS = {"somebody-observer": Role.OBSERVER, "somebody-controller": Role.CONTROLLER, "somebody-engineer": Role.ENGINEER} | {
    "boss": Role.ENGINEER,
    "plc": Role.CONTROLLER,
    "wall": Role.OBSERVER,
    "ear": Role.OBSERVER,
}


class Guarded:
    """A running station with keys; sockets of those who have one."""

    def __init__(self, ring: KeyRing, pairs: dict[str, KeyPair], daemon: Daemon) -> None:
        self.ring, self.pairs = ring, pairs
        self.daemon = daemon
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.no = itertools.count(1)
        self.events: list[Event] = []
        offer = daemon.metrics.offer

        def listen(item: OutputItem) -> bool:
            if isinstance(item, Event):
                self.events.append(item)
            return offer(item)

        daemon.metrics.offer = listen  # type: ignore[method-assign]

    def socket(self, name: str, identity: bytes = b"", kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        """One of ``PERSONS``, or a stranger, whose key the station does not know."""
        pair = self.pairs.get(name) or new_pair()
        one = self.context.socket(kind)
        self.sockets.append(one)
        one.setsockopt(zmq.LINGER, 0)
        one.setsockopt(zmq.SNDTIMEO, 10_000)
        one.setsockopt(zmq.RECONNECT_IVL, 10)
        one.setsockopt(zmq.RECONNECT_IVL_MAX, 50)
        if kind == zmq.SUB:
            one.setsockopt(zmq.SUBSCRIBE, b"")
        if identity:
            one.setsockopt(zmq.ROUTING_ID, identity)
        apply(one, ClientKey("unit", name, PERSONS.get(name, Role.ENGINEER), pair, self.ring.station().public))
        contact = self.daemon.contact
        one.connect(contact.publisher.endpoint if kind == zmq.SUB else contact.channel.endpoint)
        return one

    def ask(self, one: zmq.Socket[bytes], kind: str, **fields: Any) -> requests.Reply:
        """Asked again until there is an answer: connections may end and come back."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            no = next(self.no)
            one.send_json({"type": kind, "no": no, **fields})
            if one.poll(500):
                reply = requests.decode_reply(one.recv())
                if reply.no == no:
                    return reply
        raise AssertionError("no answer")

    def told(self, name: str, part: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not any(one.name == name and part in one.detail for one in list(self.events)):
            assert time.monotonic() < deadline, (name, part, self.events)
            time.sleep(0.005)

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.context.term()


@pytest.fixture
def guarded(files: StationFiles, tmp_path: Path, make_daemon: Callable[..., Daemon], engine: Any) -> Iterator[Guarded]:
    ring = KeyRing(tmp_path / "keys")
    ring.make(new_pair())
    pairs = {name: new_pair() for name in PERSONS}
    for name, pair in pairs.items():
        ring.add(name, PERSONS[name], pair.public)
    path = tmp_path / "station.toml"
    path.write_text(path.read_text().replace("[metrics]", '[access]\nkeys = "keys"\n[metrics]'))
    daemon = Daemon(read_station(path), open_detector=lambda _: Detector(engine))
    daemon.start()
    one = Guarded(ring, pairs, daemon)
    try:
        yield one
    finally:
        one.close()
        assert daemon.stop()
    assert daemon.failure is None


ASKED: dict[str, tuple[str, dict[str, Any], Role]] = {
    "replay": ("replay", {"stream": "", "from_seq": 1, "to_seq": 0x7FFFFFFF}, Role.OBSERVER),
    "announce": ("announce", {"stream": "top", "part_id": "p1"}, Role.CONTROLLER),
    "acknowledge": ("acknowledge", {"acks": [{"stream": "top", "seq": 0, "state": "received"}]}, Role.CONTROLLER),
    "pause": ("command", {"name": "pause"}, Role.CONTROLLER),
    "resume": ("command", {"name": "resume"}, Role.CONTROLLER),
    "reload": ("command", {"name": "reload"}, Role.ENGINEER),
    "acknowledge alarms": ("command", {"name": "acknowledge_alarms"}, Role.ENGINEER),
}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_do_its_own_and_what_the_one_before_may(guarded: Guarded, role: Role) -> None:
    one = guarded.socket(f"somebody-{role}")
    welcome = guarded.ask(one, "hello", name="an-assumed-name")
    assert isinstance(welcome, Welcome)
    assert (welcome.name, welcome.role) == (f"somebody-{role}", role), "the key says who it is"
    order = list(Role)
    for what, (kind, fields, needs) in ASKED.items():
        replies = [guarded.ask(one, kind, **fields)]
        while not isinstance(replies[-1], ReplayEnd | Done | Refused):
            replies.append(requests.decode_reply(one.recv()))
        forbidden = isinstance(replies[-1], Refused) and replies[-1].code is Refusal.FORBIDDEN
        assert forbidden == (order.index(role) < order.index(needs)), (what, replies[-1])
        if kind == "command":
            guarded.told("command", f"{fields['name']} by somebody-{role} ({role}): {'refused (forbidden)' if forbidden else 'done'}")
    assert not guarded.daemon.inspection.paused


def test_a_key_that_is_not_known_hears_nothing_and_is_counted(guarded: Guarded) -> None:
    stranger = guarded.socket("stranger")
    stranger.send_json({"type": "hello", "no": 1, "name": "x"})
    deadline = time.monotonic() + PATIENCE_S
    while not guarded.daemon.contact.channel.counts().knocks.get("unknown_key"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert not stranger.poll(0)
    assert guarded.daemon.contact.channel.counts().askers == 0


def test_a_revoked_key_is_out_on_both_sockets_and_the_others_come_back(guarded: Guarded) -> None:
    plc, wall = guarded.socket("plc"), guarded.socket("wall")
    heard = guarded.socket("ear", kind=zmq.SUB)
    assert isinstance(guarded.ask(plc, "hello", name="x"), Welcome)
    assert isinstance(guarded.ask(wall, "hello", name="x"), Welcome)
    deadline = time.monotonic() + PATIENCE_S
    assert heard.poll(int(PATIENCE_S * 1000))
    guarded.ring.revoke("plc")
    guarded.ring.revoke("ear")
    guarded.told("key_revoked", "ear, plc")
    assert isinstance(guarded.ask(wall, "hello", name="x"), Welcome)
    while guarded.daemon.contact.channel.counts().knocks.get("revoked_key", 0) < 2:
        assert time.monotonic() < deadline, "both knock again in vain"
        time.sleep(0.005)
    while heard.poll(0):
        heard.recv_multipart()
    with contextlib.suppress(zmq.Again):  # its connection may be given up already
        plc.send_json({"type": "ping", "no": 77}, zmq.DONTWAIT)
    assert isinstance(guarded.ask(wall, "ping"), Done)
    assert not heard.poll(200), "it hears nothing more"
    replies = []
    while plc.poll(0):
        replies.append(requests.decode_reply(plc.recv()))
    assert not [one for one in replies if one.no == 77]


def test_a_connection_that_takes_another_ones_name_gets_nothing_of_its_rights(guarded: Guarded) -> None:
    engineer = guarded.socket("boss", identity=b"boss")
    assert isinstance(guarded.ask(engineer, "hello", name="x"), Welcome)
    engineer.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:  # while the station holds the first one it hears no second
        other = guarded.socket("wall", identity=b"boss")
        other.send_json({"type": "command", "no": 1, "name": "pause"})
        if other.poll(500):
            break
        assert time.monotonic() < deadline
    reply = requests.decode_reply(other.recv())
    assert isinstance(reply, Refused)
    assert reply.code is Refusal.NO_HELLO
    assert not guarded.daemon.inspection.paused


def test_keys_that_cannot_be_read_keep_the_station_from_starting(files: StationFiles, tmp_path: Path, make_daemon: Any, engine: Any) -> None:
    KeyRing(tmp_path / "keys").make(new_pair())
    path = tmp_path / "station.toml"
    path.write_text(path.read_text().replace("[metrics]", '[access]\nkeys = "keys"\n[metrics]'))
    checked = read_station(path)
    for file in (tmp_path / "keys").iterdir():
        file.write_text("no keys")
    daemon = Daemon(checked, open_detector=lambda _: Detector(engine))
    with pytest.raises(ConfigError):
        daemon.start()
    assert daemon.stop()
