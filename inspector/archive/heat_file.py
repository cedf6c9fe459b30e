"""A picture's heat maps as numbers, in one file beside it.

It is a grey 16-bit PNG: every viewer, image library and measuring program opens it, without this one. The maps lie below each other, from the
left; a pixel is 65535 where its map is hottest. What each map is of stands in the file's ``Description`` text, JSON in ASCII::

    {"value": "pixel * scale",
     "maps": [{"class": "scratch", "score": 0.97, "network": "...", "box_px": [x1, y1, x2, y2], "rows": [0, 14], "columns": 14, "scale": 1.2e-05}]}

``box_px`` says where the map's outer edges lie on the camera's image. A value is kept to half a step of 1/65535 of its map's largest: a
hundredth of what an engine's maps may differ from the network's that was trained (``parity_map_tolerance``).
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np

from inspector.contract.errors import DataError
from inspector.contract.records import Box, HeatMap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_STEPS = 65535
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"Description\x00"
_BEHIND_HEADER = len(_SIGNATURE) + 25
"""Where the first chunk after IHDR begins (PNG specification, 11.2.1)."""


class _Entry(msgspec.Struct, frozen=True, rename={"name": "class", "source": "network"}):
    name: str
    score: float
    source: str
    box_px: Box
    rows: tuple[int, int]
    columns: int
    scale: float


class _Description(msgspec.Struct, frozen=True):
    maps: tuple[_Entry, ...]
    value: str = "pixel * scale"


def encode_heat(maps: Sequence[HeatMap]) -> bytes:
    """The file's content.

    Args:
        maps: at least one, of at least one cell each. What is negative or no number counts as zero.
    """
    sheet = np.zeros((sum(one.values.shape[0] for one in maps), max(one.values.shape[1] for one in maps)), np.uint16)
    entries, top = [], 0
    for one in maps:
        values = np.nan_to_num(np.maximum(one.values.astype(np.float64), 0), posinf=float(np.finfo(np.float32).max))
        rows, columns = values.shape
        scale = float(values.max(initial=0)) / _STEPS
        if scale > 0:
            sheet[top : top + rows, :columns] = np.rint(values / scale)
        entries.append(_Entry(one.name, one.score, one.source, one.box_px, (top, top + rows), columns, scale))
        top += rows
    body = b"tEXt" + _KEYWORD + json.dumps(msgspec.to_builtins(_Description(tuple(entries)))).encode("ascii")
    _, encoded = cv2.imencode(".png", sheet)
    png = encoded.tobytes()
    return png[:_BEHIND_HEADER] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[_BEHIND_HEADER:]


def read_heat(path: Path) -> tuple[HeatMap, ...]:
    """The heat maps in a file of the archive.

    Raises:
        DataError: it cannot be read, or is no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        described = msgspec.json.decode(_text(content), type=_Description)
        sheet = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
        return tuple(_heat_map(one, sheet) for one in described.maps)
    except (ValueError, struct.error, cv2.error):
        raise DataError(f"{path}: holds no heat maps: name a file NAME.heat.png that the archive wrote") from None


def _heat_map(one: _Entry, sheet: NDArray[np.generic]) -> HeatMap:
    top, bottom = one.rows
    if sheet.dtype != np.uint16 or sheet.ndim != 2 or not (0 <= top < bottom <= sheet.shape[0] and 0 < one.columns <= sheet.shape[1]):
        raise ValueError("the picture is not the one described")
    values = (sheet[top:bottom, : one.columns].astype(np.float64) * one.scale).astype(np.float32)
    values.flags.writeable = False
    return HeatMap(one.name, one.score, one.source, values, one.box_px)


def _text(content: bytes) -> bytes:
    """The ``Description`` of a PNG; ValueError where it has none."""
    at = len(_SIGNATURE)
    while content.startswith(_SIGNATURE) and at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        body = content[at + 8 : at + 8 + size]
        if content[at + 4 : at + 8] == b"tEXt" and body.startswith(_KEYWORD):
            return body.removeprefix(_KEYWORD)
        at += 12 + size
    raise ValueError("no description")
