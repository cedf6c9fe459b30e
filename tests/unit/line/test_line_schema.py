"""docs/schema/ is what the code says. Write it anew: python tests/unit/line/test_line_schema.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from inspector.contract import requests, wire

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "schema"
PUBLISHED: dict[str, Callable[[], dict[str, Any]]] = {
    f"wire-v{wire.VERSION}.json": wire.schema,
    f"channel-v{requests.VERSION}.json": requests.schema,
}
NAMES = {
    f"wire-v{wire.VERSION}.json": {"VerdictMessage", "BlindMessage", "EventMessage", "HeartbeatMessage"},
    f"channel-v{requests.VERSION}.json": {one.__name__ for union in (requests.Request, requests.Reply) for one in get_args(union)},
}


def text(schema: Callable[[], dict[str, Any]]) -> str:
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_schema_is_the_codes(name: str) -> None:
    told = "the messages have changed: raise VERSION if old clients cannot read them, then write the schema anew"
    assert (FOLDER / name).read_text() == text(PUBLISHED[name]), told


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_reference_is_there(name: str) -> None:
    published = (FOLDER / name).read_text()
    names = set(json.loads(published)["$defs"])
    assert NAMES[name] <= names
    references = {part.split('"')[0] for part in published.split('"#/$defs/')[1:]}
    assert references <= names


if __name__ == "__main__":
    for name, schema in PUBLISHED.items():
        (FOLDER / name).write_text(text(schema))
