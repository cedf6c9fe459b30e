"""``inspector keys``: who may speak with a station."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspector.contract.requests import Role

if TYPE_CHECKING:
    from inspector.config.keys import KeyRing

Station = Annotated[Path, typer.Argument(help="The station file (TOML); its [access] names the folder of the keys.", show_default=False)]
PersonName = Annotated[str, typer.Argument(help="Of a controller, a display or a person; letters, digits, . _ -", show_default=False)]


def build_keys() -> typer.Typer:
    """The commands of ``inspector keys``."""
    app = typer.Typer(help="Make, list and revoke the keys of those who may speak with a station.", no_args_is_help=True, add_completion=False)
    app.command("new")(new)
    app.command("list")(show)
    app.command("revoke")(revoke)
    return app


def new(
    name: PersonName,
    station: Station,
    role: Annotated[
        Role, typer.Option(help="observer: listens; controller: announces, acknowledges, pauses; engineer: reloads too.", show_default=False)
    ],
    to: Annotated[Path, typer.Option(help="Where to write the key file that NAME takes along; it is secret.", show_default=False)],
) -> None:
    """Make a key for NAME, and the station's own with the first one.

    The file holds the secret: bring it to the one machine that uses it and delete it here. A running station knows the key within a second.
    """
    from inspector.config.keys import ClientKey, is_name, write_client_key
    from inspector.contract.errors import ConfigError
    from inspector.line.access import new_pair

    if not is_name(name):
        raise ConfigError([f"{name!r} is no name for a key: use letters, digits, dot, dash and underscore, at most 64"])
    title, ring = _ring(station)
    if not ring.made:
        ring.make(new_pair())
        print(f"made the station's own key in {ring.folder}: keep the folder, without it every key is worthless")
    pair = new_pair()
    # The list last: if it cannot be written, the file that was taken along opens nothing.
    write_client_key(to, ClientKey(title, name, role, pair, ring.station().public))
    try:
        ring.add(name, role, pair.public)
    except ConfigError:
        to.unlink()
        raise
    print(f"{name} may speak with {title} as {role}: the key is in {to}")


def show(station: Station) -> None:
    """List who has, or had, a key."""
    title, ring = _ring(station)
    rows = [
        (person.name, str(person.role), person.since, f"revoked {person.revoked}" if person.revoked else "good", person.public_key)
        for person in ring.persons()
    ]
    if not rows:
        print(f"nobody has a key of {title}", file=sys.stderr)
        return
    heads = ("name", "role", "since", "state", "public key")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def revoke(name: PersonName, station: Station) -> None:
    """Revoke the key of NAME: its connections end within about a second, and it gets no new ones."""
    title, ring = _ring(station)
    person = ring.revoke(name)
    print(f"{name} ({person.role}) may not speak with {title} any more")


def _ring(station: Path) -> tuple[str, KeyRing]:
    from inspector.config.keys import KeyRing
    from inspector.config.station import read_key_folder

    title, folder = read_key_folder(station)
    return title, KeyRing(folder)
