"""docs/schema/wire-v1.json is what the code says. Write it anew: python tests/unit/line/test_line_schema.py."""

from __future__ import annotations

import json
from pathlib import Path

from inspector.contract.wire import VERSION, schema

PUBLISHED = Path(__file__).resolve().parents[3] / "docs" / "schema" / f"wire-v{VERSION}.json"


def text() -> str:
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def test_the_published_schema_is_the_codes() -> None:
    assert PUBLISHED.read_text() == text(), "the messages have changed: raise VERSION if old clients cannot read them, then write the schema anew"


def test_every_reference_is_there() -> None:
    published = json.loads(PUBLISHED.read_text())
    names = set(published["$defs"])
    assert {"VerdictMessage", "BlindMessage", "EventMessage", "HeartbeatMessage"} <= names
    references = {part.split('"')[0] for part in PUBLISHED.read_text().split('"#/$defs/')[1:]}
    assert references <= names


if __name__ == "__main__":
    PUBLISHED.write_text(text())
