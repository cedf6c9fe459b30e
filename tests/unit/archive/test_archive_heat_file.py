"""Heat maps as a 16-bit PNG: nothing important is lost, and it is read without this program."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inspector.archive.heat_file import encode_heat, read_heat
from inspector.contract.errors import DataError
from inspector.contract.records import Box, HeatMap

VALUES = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 2.0**100, width=32).map(lambda value: 0.0 if value < 1e-30 else value))
)
BOXES = st.tuples(*[st.floats(-1e4, 1e4)] * 4).map(lambda corners: Box(*corners))
HEAT = st.tuples(st.text(max_size=8), st.floats(0, 1), st.text(max_size=8), VALUES, BOXES).map(lambda fields: HeatMap(*fields))


def _made(values: Any, name: str = "scratch") -> HeatMap:
    return HeatMap(name, 0.97, "bilinear", np.asarray(values, np.float32), Box(10.5, 20, 74.5, 148))


@given(st.lists(HEAT, min_size=1, max_size=4))
def test_maps_come_back_to_a_step_of_their_largest_value(tmp_path: Path, maps: list[HeatMap]) -> None:
    path = tmp_path / "a.heat.png"
    path.write_bytes(encode_heat(maps))
    read = read_heat(path)
    assert [(one.name, one.score, one.source, one.box_px) for one in read] == [(one.name, one.score, one.source, one.box_px) for one in maps]
    for one, wanted in zip(read, maps, strict=True):
        assert one.values.dtype == np.float32
        np.testing.assert_allclose(one.values, wanted.values, rtol=1e-6, atol=float(wanted.values.max()) / 65535 * 0.5001)
        assert one.values.argmax() == wanted.values.argmax() or wanted.values.max() == one.values.flat[wanted.values.argmax()]


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a PNG's chunks, by the specification; their checksums hold."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", png, at + 8 + size) == (zlib.crc32(kind + body),)
        found.append((kind, body))
        at += 12 + size
    return found


def test_the_file_is_plain_png_with_its_description_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.heat.png"
    path.write_bytes(encode_heat([_made([[0, 1, 2], [3, 4, 5]], "Kratzer ä"), _made([[7]])]))
    chunks = _chunks(path.read_bytes())
    assert [kind for kind, _ in chunks][:2] == [b"IHDR", b"tEXt"]
    assert chunks[-1] == (b"IEND", b"")
    keyword, text = chunks[1][1].split(b"\0")
    assert keyword == b"Description"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.shape == (3, 3)
    assert pixels.dtype == np.uint16
    described = json.loads(text.decode("ascii"))
    first, second = described["maps"]
    assert set(first) == {"class", "score", "network", "box_px", "rows", "columns", "scale"}
    assert (first["class"], first["score"], first["network"], first["box_px"]) == ("Kratzer ä", 0.97, "bilinear", [10.5, 20, 74.5, 148])
    assert (first["rows"], first["columns"], second["rows"], second["columns"]) == ([0, 2], 3, [2, 3], 1)
    top, bottom = first["rows"]
    np.testing.assert_allclose(pixels[top:bottom, : first["columns"]] * first["scale"], [[0, 1, 2], [3, 4, 5]], atol=1e-4)
    assert pixels[2].tolist() == [65535, 0, 0]
    assert second["scale"] == pytest.approx(7 / 65535)


def test_what_is_no_heat_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.heat.png"
    path.write_bytes(encode_heat([_made([[-1, np.nan], [2, 0]]), _made([[0, 0]])]))
    first, second = read_heat(path)
    np.testing.assert_allclose(first.values, [[0, 0], [2, 0]])
    assert not second.values.any()
    with pytest.raises(ValueError, match="read-only"):
        first.values[0] = 1


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _described(**changes: Any) -> bytes:
    """A file whose one map is described otherwise than it is."""
    content = encode_heat([_made([[1, 2], [3, 4]])])
    (size,) = struct.unpack_from(">I", content, 33)
    entry = {"class": "a", "score": 1, "network": "b", "box_px": [0, 0, 1, 1], "rows": [0, 2], "columns": 2, "scale": 1} | changes
    text = json.dumps({"maps": [entry], "value": "pixel * scale"}).encode()
    return content[:33] + _chunk(b"tEXt", b"Description\0" + text) + content[33 + 12 + size :]


def test_the_doctored_file_is_read_where_it_is_not_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.heat.png"
    path.write_bytes(_described())
    assert read_heat(path)[0].values.shape == (2, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no png",
        encode_heat([_made([[1]])])[:50],
        encode_heat([_made([[1]])])[:33],
        encode_heat([_made([[1]])]).replace(b"tEXtDescription", b"tEXtDescribed.."),
        cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes(),
        _described(rows=[0, 3]),
        _described(rows=[1, 1]),
        _described(rows=[-1, 1]),
        _described(columns=0),
        _described(columns=3),
        _described(box_px=[0, 0]),
        _described(scale="large"),
    ],
)
def test_what_is_no_such_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.heat.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.heat\.png: holds no heat maps: name a file"):
        read_heat(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_heat(tmp_path / "none.heat.png")
