"""The key ring of a station: its own key pair, who may speak, and the file that a person takes along.

A folder with two files. ``station.key`` is the station's own pair, secret; ``persons.json`` says who may speak: names, roles and public keys, no
secret. Keys are CURVE keys (Curve25519) in ZeroMQ's text form Z85, 40 characters. Nothing here makes keys: that takes ZeroMQ.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from inspector.contract.errors import ConfigError
from inspector.contract.requests import Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATION_FILE, PERSONS_FILE = "station.key", "persons.json"
_VERSION = 1
_MAX_BYTES = 4 * 1024 * 1024
_OTHERS = 0o027
"""Permissions that a secret file may not have: any of others, writing of the group."""

Key = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A public key and its secret, each 40 characters; the secret is never shown."""

    public: str
    secret: str = field(repr=False)


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody with a key: a controller, a display, an engineer."""

    name: Name
    role: Role
    public_key: Key
    since: str
    """UTC, ISO 8601."""
    revoked: str | None = None
    """When; None: the key is good."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What a person takes along."""

    station: str
    name: str
    role: Role
    pair: KeyPair
    server_key: str
    """The station's public key: by it the client knows the station."""


class _Persons(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    persons: tuple[Person, ...]
    v: int = _VERSION


class _StationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    public_key: Key
    secret_key: Key
    v: int = _VERSION


class _ClientFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    station: str
    name: Name
    role: Role
    public_key: Key
    secret_key: Key
    server_key: Key
    v: int = _VERSION


_Content = TypeVar("_Content", _Persons, _StationFile, _ClientFile)
Stamp = tuple[int, int, int]


class KeyRing:
    """The folder of a station's keys; nothing is kept in memory, every call reads or writes.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def made(self) -> bool:
        """Whether the station has its key pair."""
        return (self.folder / STATION_FILE).exists()

    def station(self) -> KeyPair:
        """The station's own key pair.

        Raises:
            ConfigError: there is none, or its file is damaged or open to others.
        """
        content = _read(self.folder / STATION_FILE, _StationFile, _OTHERS, "make it with `inspector keys new`")
        return KeyPair(content.public_key, content.secret_key)

    def persons(self) -> tuple[Person, ...]:
        """Everybody who has or had a key, in the order of making. Of one name at most one key is good.

        Raises:
            ConfigError: the file is missing, damaged, or others may change it.
        """
        return _read(self.folder / PERSONS_FILE, _Persons, 0o022, "make it with `inspector keys new`").persons

    def stamp(self) -> Stamp | None:
        """Changes whenever the list of persons is written (inode, size, time in ns); None: it cannot be looked at. One system call."""
        try:
            status = (self.folder / PERSONS_FILE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def make(self, pair: KeyPair) -> None:
        """Make the folder, if there is none, with ``pair`` as the station's own and nobody in the list.

        Raises:
            ConfigError: it has a pair already, or cannot be written.
        """
        if self.made:
            raise ConfigError([f"{self.folder / STATION_FILE}: the station has its key already; a new one would shut out everybody: remove it first"])
        with _told(self.folder):
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not (self.folder / PERSONS_FILE).exists():
            _write(self.folder / PERSONS_FILE, _Persons(()), 0o644)
        _write(self.folder / STATION_FILE, _StationFile(pair.public, pair.secret), 0o600)

    def add(self, name: str, role: Role, public_key: str) -> Person:
        """Let somebody speak.

        Raises:
            ConfigError: the name has a good key already or is none, or the list cannot be read or written.
        """
        with self._changing() as persons:
            if any(person.name == name and person.revoked is None for person in persons):
                raise ConfigError([f"{self.folder / PERSONS_FILE}: {name} has a key already: revoke it first, or choose another name"])
            person = Person(name=name, role=role, public_key=public_key, since=_now())
            persons.append(person)
        return person

    def revoke(self, name: str) -> Person:
        """Let somebody speak no more; a running station ends their connections within about a second.

        Raises:
            ConfigError: nobody of this name has a good key, or the list cannot be read or written.
        """
        with self._changing() as persons:
            for index, person in enumerate(persons):
                if person.name == name and person.revoked is None:
                    persons[index] = msgspec.structs.replace(person, revoked=_now())
                    return persons[index]
        known = ", ".join(sorted(person.name for person in persons if person.revoked is None)) or "nobody"
        raise ConfigError([f"{self.folder / PERSONS_FILE}: {name} has no key that could be revoked; those who have one: {known}"])

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Person]]:
        """The list, to be changed; written if it was. Two who change it wait for each other."""
        with _told(self.folder):
            lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.persons()
            persons = list(before)
            yield persons
            if tuple(persons) != before:
                _write(self.folder / PERSONS_FILE, _Persons(tuple(persons)), 0o644)
        finally:
            os.close(lock)


def read_client_key(path: Path) -> ClientKey:
    """The file that a person takes along.

    Raises:
        ConfigError: it is missing, damaged or open to others.
    """
    content = _read(path, _ClientFile, _OTHERS, "make one at the station with `inspector keys new`")
    return ClientKey(content.station, content.name, content.role, KeyPair(content.public_key, content.secret_key), content.server_key)


def write_client_key(path: Path, key: ClientKey) -> None:
    """Write the file that a person takes along, readable for its owner alone.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    if path.exists():
        raise ConfigError([f"{path}: is there already: choose another place for the key"])
    _write(path, _ClientFile(key.station, key.name, key.role, key.pair.public, key.pair.secret, key.server_key), 0o600)


def is_name(text: str) -> bool:
    """Whether ``text`` can be a person's name: letters, digits, ``. _ -``, at most 64, the first a letter or digit."""
    try:
        msgspec.convert(text, Name)
    except msgspec.ValidationError:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such folder: make it with `inspector keys new`"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: run `inspector keys` and the station as the user who owns it"]) from None


def _read(path: Path, kind: type[_Content], forbidden: int, mend: str) -> _Content:
    """The file's content; an error never shows any of it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & forbidden:
                raise ConfigError([f"{path}: others may read or change it (mode {mode:03o}): chmod {mode & ~forbidden:o} {path}"])
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file: {mend}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}: run as the user who owns it"]) from None
    try:
        content = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: is damaged: {error}; bring it back from a copy, or {mend}"]) from None
    if content.v != _VERSION:
        raise ConfigError([f"{path}: was written by another version of the program (format {content.v}, this one reads {_VERSION})"])
    return content


def _write(path: Path, content: _Persons | _StationFile | _ClientFile, mode: int) -> None:
    """Whole or not at all: written beside, then put in place."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}"]) from None
    finally:
        unfinished.unlink(missing_ok=True)
