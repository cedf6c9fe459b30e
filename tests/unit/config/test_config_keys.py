"""The key ring's files, and what a station without keys may listen on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from inspector.config.keys import ClientKey, KeyPair, KeyRing, read_client_key, write_client_key
from inspector.config.station import _is_local, read_station
from inspector.contract.errors import ConfigError
from inspector.contract.requests import Role

PAIR = KeyPair("a" * 40, "S" * 40)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    ring = KeyRing(tmp_path / "keys")
    ring.make(PAIR)
    return ring


def test_the_station_key_is_never_made_twice(ring: KeyRing) -> None:
    with pytest.raises(ConfigError, match="would shut out everybody"):
        ring.make(KeyPair("b" * 40, "c" * 40))
    assert ring.station() == PAIR


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666])
def test_a_secret_that_others_may_read_or_change_is_refused(ring: KeyRing, tmp_path: Path, mode: int) -> None:
    (ring.folder / "station.key").chmod(mode)
    with pytest.raises(ConfigError, match=r"others may read or change it .*: chmod 6[04]0 "):
        ring.station()
    write_client_key(tmp_path / "me", ClientKey("s", "me", Role.OBSERVER, PAIR, "d" * 40))
    (tmp_path / "me").chmod(mode)
    with pytest.raises(ConfigError, match="others may"):
        read_client_key(tmp_path / "me")


def test_a_list_that_others_may_change_is_refused(ring: KeyRing) -> None:
    (ring.folder / "persons.json").chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 644"):
        ring.persons()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"public_key": "short", "secret_key": "S"}', b'{"v": 1, "public_key": 3}'])
def test_a_damaged_key_is_told_without_showing_it(ring: KeyRing, content: bytes) -> None:
    (ring.folder / "station.key").write_bytes(content)
    with pytest.raises(ConfigError, match="is damaged") as told:
        ring.station()
    assert told.value.__cause__ is None
    assert "short" not in str(told.value)


def test_another_format_is_told(ring: KeyRing) -> None:
    (ring.folder / "persons.json").write_text('{"persons": [], "v": 2}')
    with pytest.raises(ConfigError, match="another version of the program"):
        ring.persons()


def test_many_who_change_the_list_at_once_lose_nothing(ring: KeyRing) -> None:
    threads = [threading.Thread(target=ring.add, args=(f"p{n}", Role.OBSERVER, f"{n:040d}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(person.name for person in ring.persons()) == sorted(f"p{n}" for n in range(16))
    assert sorted(path.name for path in ring.folder.iterdir()) == ["persons.json", "station.key"]


def test_every_write_changes_the_stamp(ring: KeyRing) -> None:
    stamps = [ring.stamp()]
    ring.add("a", Role.OBSERVER, "a" * 40)
    stamps.append(ring.stamp())
    ring.revoke("a")
    stamps.append(ring.stamp())
    assert len(set(stamps)) == 3
    (ring.folder / "persons.json").unlink()
    assert ring.stamp() is None


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5570", True),
        ("tcp://127.9.9.9:*", True),
        ("tcp://[::1]:5570", True),
        ("tcp://localhost:5570", True),
        ("tcp://lo:5570", True),
        ("ipc:///run/inspector/line", True),
        ("tcp://*:5570", False),
        ("tcp://0.0.0.0:5570", False),
        ("tcp://[::]:5570", False),
        ("tcp://eth0:5570", False),
        ("tcp://10.0.0.7:5570", False),
        ("tcp://localhost.example.org:5570", False),
        ("tcp://127.0.0.1.example.org:5570", False),
        ("tcp://::ffff:10.0.0.7:5570", False),
    ],
)
def test_what_other_machines_reach(endpoint: str, local: bool) -> None:
    assert _is_local(endpoint) is local


def station_file(folder: Path, extra: str) -> Path:
    (folder / "station.toml").write_text(f"""
name = "line-1"
product = "product.toml"
[[cameras]]
name = "top"
kind = "folder"
images = "."
{extra}
""")
    return folder / "station.toml"


@pytest.mark.parametrize("section", ["publisher", "channel"])
def test_an_open_address_needs_keys(section: str, tmp_path: Path) -> None:
    path = station_file(tmp_path, f'[{section}]\nendpoint = "tcp://*:5599"')
    with pytest.raises(
        ConfigError, match=rf"{section}\.endpoint: tcp://\*:5599 can be reached from other machines.*access\.keys.*`inspector keys new`"
    ):
        read_station(path)


def test_keys_that_are_not_there_are_named(tmp_path: Path) -> None:
    path = station_file(tmp_path, '[access]\nkeys = "secrets"')
    with pytest.raises(ConfigError, match=r"access\.keys: .*/secrets/station\.key: no such file: make it with `inspector keys new`"):
        read_station(path)
    KeyRing(tmp_path / "secrets").make(PAIR)
    with pytest.raises(ConfigError) as told:
        read_station(path)
    assert "access" not in str(told.value)  # the product alone is missing now
