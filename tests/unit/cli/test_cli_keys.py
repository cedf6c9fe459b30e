"""``inspector keys``: what it makes, what it refuses, and that a secret is never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from inspector.cli.main import build_app
from inspector.config.keys import KeyRing, read_client_key
from inspector.contract.errors import ConfigError
from inspector.contract.requests import Role

STATION = """
name = "line-1"
product = "product.toml"
[[cameras]]
name = "top"
kind = "folder"
images = "pictures"
"""


@pytest.fixture
def station(tmp_path: Path) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(STATION + '[access]\nkeys = "keys"\n')
    return path


def keys(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), ["keys", *map(str, arguments)])


def new(name: str, station: Path, to: Path, role: str = "controller") -> Result:
    return keys("new", name, station, "--role", role, "--to", to)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_list_revoke(station: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "plc.json", tmp_path / "wall.json"
    said = new("plc", station, first).output + new("wall", station, second, "observer").output
    ring = KeyRing(tmp_path / "keys")
    plc = read_client_key(first)
    assert (plc.station, plc.name, plc.role) == ("line-1", "plc", Role.CONTROLLER)
    assert plc.server_key == ring.station().public == read_client_key(second).server_key
    assert [(person.name, person.role, person.public_key) for person in ring.persons()] == [
        ("plc", Role.CONTROLLER, plc.pair.public),
        ("wall", Role.OBSERVER, read_client_key(second).pair.public),
    ]
    assert (mode(first), mode(tmp_path / "keys/station.key"), mode(tmp_path / "keys/persons.json")) == (0o600, 0o600, 0o644)
    assert keys("revoke", "plc", station).exit_code == 0
    listed = keys("list", station).output
    assert [line.split()[:2] for line in listed.splitlines()] == [["name", "role"], ["plc", "controller"], ["wall", "observer"]]
    assert "revoked 20" in listed.splitlines()[1]
    assert "good" in listed.splitlines()[2]
    for secret in (plc.pair.secret, ring.station().secret, read_client_key(second).pair.secret):
        assert secret not in said + listed
        assert secret not in repr(plc) + repr(ring.station()) + (tmp_path / "keys/persons.json").read_text()


def test_a_revoked_name_may_have_a_new_key(station: Path, tmp_path: Path) -> None:
    new("plc", station, tmp_path / "a")
    keys("revoke", "plc", station)
    assert new("plc", station, tmp_path / "b").exit_code == 0
    persons = KeyRing(tmp_path / "keys").persons()
    assert [person.revoked is None for person in persons] == [False, True]
    assert persons[0].public_key != persons[1].public_key


def test_a_name_has_one_key_and_its_file_is_not_left_behind(station: Path, tmp_path: Path) -> None:
    new("plc", station, tmp_path / "a")
    refused = new("plc", station, tmp_path / "b")
    assert "plc has a key already" in str(refused.exception)
    assert not (tmp_path / "b").exists()


def test_no_file_is_written_over(station: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    assert "is there already" in str(new("plc", station, tmp_path / "a").exception)
    assert (tmp_path / "a").read_text() == "precious"
    assert KeyRing(tmp_path / "keys").persons() == ()


@pytest.mark.parametrize(("name", "told"), [("a b", "is no name"), ("", "is no name"), ("../x", "is no name")])
def test_names_that_are_none(name: str, told: str, station: Path, tmp_path: Path) -> None:
    assert told in str(new(name, station, tmp_path / "a").exception)


def test_a_station_without_a_key_folder_is_told_what_to_add(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(STATION)
    refused = new("plc", path, tmp_path / "a")
    assert isinstance(refused.exception, ConfigError)
    assert "access.keys: is missing: add a section [access]" in str(refused.exception)


def test_revoking_nobody_names_those_who_have_a_key(station: Path, tmp_path: Path) -> None:
    new("plc", station, tmp_path / "a")
    assert "those who have one: plc" in str(keys("revoke", "plx", station).exception)
