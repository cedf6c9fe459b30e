"""What docs/line-protocol.md shows is what the program reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from inspector.contract import requests, wire

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "line-protocol.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)


def _tags(union: object) -> set[str]:
    return {str(one.__struct_config__.tag) for one in union.__args__}  # type: ignore[attr-defined]


def test_every_message_has_an_example_that_can_be_read() -> None:
    read = {
        **dict.fromkeys(_tags(wire.Message), wire.decode),
        **dict.fromkeys(_tags(requests.Request), requests.decode_request),
        **dict.fromkeys(_tags(requests.Reply), requests.decode_reply),
    }
    seen = set()
    for example in EXAMPLES:
        kind = msgspec.json.decode(example)["type"]
        message = read[kind](example)
        written = msgspec.json.decode(msgspec.json.encode(message))
        assert set(msgspec.json.decode(example)) <= set(written), f"{kind}: a field that the program does not know"
        if kind not in _tags(requests.Request):
            assert set(written) == set(msgspec.json.decode(example)), f"{kind}: the example is not whole"
        if kind == "replayed":
            wire.decode(bytes(message.message))
        seen.add(kind)
    assert seen == set(read)


def test_every_refusal_is_told() -> None:
    assert all(f"`{code.value}`" in TEXT for code in requests.Refusal)


def test_what_it_links_to_exists() -> None:
    docs = Path(__file__).resolve().parents[3] / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert not [link for link in links if not (docs / link).exists()]
