"""The gatekeeper: whom it lets in, what it counts, and that nothing sent to it can upset it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from inspector.config.keys import KeyRing
from inspector.contract.errors import ConfigError
from inspector.contract.requests import Role
from inspector.line.access import ZAP_DOMAIN, Gatekeeper, new_context, new_pair

ZAP = "inproc://zeromq.zap.01"


class Desk:
    """A gatekeeper without sockets to guard, asked by hand as ZeroMQ does."""

    def __init__(self, folder: Path) -> None:
        self.ring = KeyRing(folder / "keys")
        self.ring.make(new_pair())
        self.context = new_context()
        self.keeper = Gatekeeper(self.context, self.ring)
        self.asker = self.context.socket(zmq.DEALER)
        self.asker.setsockopt(zmq.LINGER, 0)
        self.asker.connect(ZAP)

    def ask(self, *frames: bytes) -> list[bytes] | None:
        self.asker.send_multipart(frames)
        assert self.keeper.handle() == 1
        return self.asker.recv_multipart() if self.asker.poll(0) else None

    def knock(self, public: str, **other: bytes) -> bytes:
        """The status of a well-formed request."""
        fields = {"version": b"1.0", "domain": ZAP_DOMAIN, "mechanism": b"CURVE", "key": z85.decode(public)} | other
        reply = self.ask(b"", fields["version"], b"7", fields["domain"], b"127.0.0.1", b"", fields["mechanism"], fields["key"])
        assert reply is not None
        assert reply[:3] == [b"", b"1.0", b"7"]
        assert (reply[5] == public.encode()) is (reply[3] == b"200")
        return reply[3]

    def close(self) -> None:
        self.asker.close()
        self.keeper.close()
        self.context.term()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_a_known_key_comes_in_and_has_a_name(desk: Desk) -> None:
    pair = new_pair()
    desk.ring.add("plc", Role.CONTROLLER, pair.public)
    assert desk.knock(pair.public) == b"400"
    assert desk.keeper.refresh() == frozenset()
    assert desk.knock(pair.public) == b"200"
    person = desk.keeper.person(pair.public)
    assert person is not None
    assert (person.name, person.role) == ("plc", Role.CONTROLLER)
    assert desk.keeper.person("") is None
    assert (desk.keeper.counts.accepted, desk.keeper.counts.unknown_key) == (1, 1)


def test_a_revoked_key_is_told_once_and_comes_in_no_more(desk: Desk) -> None:
    pair, other = new_pair(), new_pair()
    desk.ring.add("plc", Role.CONTROLLER, pair.public)
    desk.ring.add("wall", Role.OBSERVER, other.public)
    desk.keeper.refresh()
    desk.ring.revoke("plc")
    assert desk.keeper.person(pair.public) is not None  # not read yet
    assert desk.keeper.refresh() == {"plc"}
    assert desk.keeper.refresh() == frozenset()
    assert desk.keeper.person(pair.public) is None
    assert desk.knock(pair.public) == b"400"
    assert desk.knock(other.public) == b"200"
    assert desk.keeper.counts.revoked_key == 1


def test_whoever_vanishes_from_the_list_is_revoked(desk: Desk) -> None:
    pair = new_pair()
    before = (desk.ring.folder / "persons.json").read_bytes()
    desk.ring.add("plc", Role.CONTROLLER, pair.public)
    desk.keeper.refresh()
    (desk.ring.folder / "persons.json").write_bytes(before)
    assert desk.keeper.refresh() == {"plc"}
    assert desk.knock(pair.public) == b"400"


def test_a_role_that_was_changed_counts_at_once(desk: Desk) -> None:
    pair = new_pair()
    desk.ring.add("plc", Role.ENGINEER, pair.public)
    desk.keeper.refresh()
    path = desk.ring.folder / "persons.json"
    path.write_text(path.read_text().replace("engineer", "observer"))
    assert desk.keeper.refresh() == frozenset()
    person = desk.keeper.person(pair.public)
    assert person is not None
    assert person.role is Role.OBSERVER


@pytest.mark.parametrize("damage", ["remove", "cut", "open"])
def test_a_list_that_is_damaged_while_running_changes_nothing_and_is_told(desk: Desk, damage: str) -> None:
    pair = new_pair()
    desk.ring.add("plc", Role.CONTROLLER, pair.public)
    desk.keeper.refresh()
    path = desk.ring.folder / "persons.json"
    whole = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[:20] if damage == "cut" else whole + b" ")
        path.chmod(0o666 if damage == "open" else 0o644)
    assert desk.keeper.refresh() == frozenset()
    assert str(path) in desk.keeper.problem
    assert desk.knock(pair.public) == b"200"
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    assert desk.keeper.refresh() == frozenset()
    assert desk.keeper.problem == ""


@pytest.mark.parametrize(
    "other", [{"version": b"2.0"}, {"domain": b"*"}, {"domain": b""}, {"mechanism": b"NULL"}, {"mechanism": b"PLAIN"}, {"key": b"k" * 31}]
)
def test_a_good_key_in_a_wrong_request_is_refused(desk: Desk, other: dict[str, bytes]) -> None:
    pair = new_pair()
    desk.ring.add("plc", Role.CONTROLLER, pair.public)
    desk.keeper.refresh()
    assert desk.knock(pair.public, **other) == b"400"
    assert desk.keeper.counts.malformed == 1
    assert desk.knock(pair.public) == b"200"


@settings(max_examples=300)
@given(frames=st.lists(st.binary(max_size=64) | st.sampled_from([b"", b"1.0", b"CURVE", ZAP_DOMAIN, b"k" * 32]), min_size=1, max_size=12))
def test_no_request_upsets_it_and_none_comes_in(desk: Desk, frames: list[bytes]) -> None:
    reply = desk.ask(*frames)
    assert reply is None or reply[3] == b"400"
    assert desk.keeper.counts.accepted == 0


def test_too_many_who_knock_are_left_waiting(desk: Desk) -> None:
    for _ in range(300):
        desk.asker.send_multipart([b"", b"1.0"])
    answered = 0
    while desk.keeper.wait_ms() == 0 and answered < 300:
        answered += desk.keeper.handle()
    assert desk.keeper.counts.malformed == answered
    assert desk.keeper.handle() <= 32


def test_one_key_cannot_come_again_and_again(desk: Desk) -> None:
    busy, other = new_pair(), new_pair()
    desk.ring.add("busy", Role.OBSERVER, busy.public)
    desk.ring.add("other", Role.OBSERVER, other.public)
    desk.keeper.refresh()
    answers = [desk.knock(busy.public) for _ in range(60)]
    assert answers[:20] == [b"200"] * 20
    assert answers.count(b"300") == desk.keeper.counts.too_often >= 30
    assert desk.knock(other.public) == b"200"


def test_keys_that_cannot_be_read_are_told_at_start(tmp_path: Path) -> None:
    context: zmq.Context[Any] = new_context()
    with pytest.raises(ConfigError, match="no such file"):
        Gatekeeper(context, KeyRing(tmp_path))
    context.term()


def test_keys_are_what_the_ring_takes(tmp_path: Path) -> None:
    assets = run_path(str(Path(__file__).parents[2] / "assets" / "gates.py"))
    with assets["Gate"](tmp_path) as gate:
        for number in range(50):  # every character of Z85 may occur
            gate.key(f"n{number}")
        assert len(gate.ring.persons()) == 50
