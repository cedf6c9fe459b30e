"""The flight recorder's file: a header page, then a ring of records; how both are laid out, and how they are read after a crash.

A record is a header of 32 bytes (checksum, length, position, number, kind) and a body of msgpack. Positions count bytes since the beginning
and never wrap: a record lies at ``position % capacity``, and as its position is under its checksum, what an earlier lap has left can never be
taken for it. A record does not cross the ring's end. Words that change are 64 bits, aligned, little-endian, each written by one thread.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from inspector.contract.errors import InspectorError
from inspector.contract.records import Action, ClosedPart, ClosedView, Defect, Outcome, Picture, Reason, StageTimes, View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspector.line.parts import Opened

VERSION = 1
"""Changes with every change of what is recorded: a test holds the recorded types to it."""
MAGIC = b"INSPFLTR"
PAGE_BYTES = 4096
"""The header page; the ring begins after it."""
RECORD_BYTES = 32
"""A record's header."""
OPENED, CLOSED, SKIPPED = 1, 2, 3
"""Kinds of records; ``SKIPPED`` is the ring's end, where the next record did not fit."""
WORDS_AT, WORDS = 64, 8
ALIVE, OFFSET, TAIL, HEAD, COMMITTED, OVERWRITTEN, CLEAN = range(7)
"""The changing words: last sign of life (monotonic, ns), UTC minus monotonic (ns, two's complement), positions of the oldest record and behind
the newest one, highest record number that needs no folding, parts that were overwritten, 1 after a stop that left nothing to fold."""

FIXED = struct.Struct("<8sIIQI")  # magic, version, length of the description, bytes of the ring, checksum
ABOUT_AT = WORDS_AT + 8 * WORDS
RECORD_HEAD = struct.Struct("<IIQQII")  # checksum, length, position, number, kind, 0
RECORD_REST = struct.Struct("<IQQII")

_PLAIN = tuple(name for name in ClosedPart.__struct_fields__ if name not in {"views", "defects", "times"})
_plain = attrgetter(*_PLAIN)
_encode = msgspec.msgpack.Encoder().encode
_fields = msgspec.structs.astuple


class UnreadableRecordingError(InspectorError):
    """The file is no recording of this version, or its header is damaged."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Whose recording it is; fixed when the file is made."""

    station: str
    boot_id: str
    program: str
    machine_boot: str = ""
    """Boot id of the machine: monotonic stamps mean nothing in another one."""
    started_utc_ns: int
    product: str
    product_version: str
    engines: tuple[str, ...]
    uninspected: Action
    """What a part acts as that is not inspected."""
    seen_ns: dict[str, int] = msgspec.field(default_factory=dict)
    """Newest exposure of each stream before the first record, where the machine has not been booted since."""


class OpenRecord(msgspec.Struct, frozen=True, array_like=True):
    """A part that was opened."""

    stream: str
    part_no: int
    part_id: str | None
    exposure_ns: int
    opened_ns: int
    deadline_ns: int
    product_version: str
    uninspected: Action
    """What it acts as if it is never closed."""


@dataclass(frozen=True, slots=True)
class RecorderState:
    """Counts since the start."""

    recorded: int
    """Closed parts; the number of the last record."""
    committed: int
    """Up to this record nothing must be folded."""
    open: int
    overwritten: int
    """Parts that were overwritten before they were closed or in the journal: a crash would lose them."""
    unrecorded: int
    """Parts that could not be recorded."""
    used_bytes: int
    size_bytes: int
    in_memory: bool
    """False: the file lies on a disk, and its stores may wait for that disk."""
    locked_in_memory: bool
    """False: the pages may be swapped out."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a process that is no more has left."""

    about: About
    alive_ns: int
    """Its last sign of life, monotonic; 0: none."""
    utc_offset_ns: int
    """UTC minus monotonic at that instant."""
    clean: bool
    """True: it was stopped, and the journal has everything."""
    overwritten: int
    damaged_bytes: int
    """What lies behind a record that cannot be read; 0: nothing does. A record that was being written at the end is no damage."""
    open: tuple[OpenRecord, ...] = ()
    """Opened and never closed, in the order of opening."""
    closed: tuple[ClosedPart, ...] = ()
    """Not known to be in the journal, in the order of closing."""
    seen_ns: dict[str, int] = field(default_factory=dict)
    """Newest exposure of a part of each stream."""


class _Closed(msgspec.Struct, array_like=True):
    stream: str
    part_no: int
    exposed_ns: int
    body: msgspec.Raw


class _Body(msgspec.Struct, array_like=True):
    plain: list[Any]
    times: list[float | None]
    defects: list[list[Any]]
    views: list[tuple[list[Any], Outcome, Reason | None, str, list[float | None], bool]]


def page(about: About, capacity: int, words: bytes = b"") -> bytes:
    """The header page of a file; the changing words are 0 where none are given.

    Raises:
        ValueError: the description does not fit.
    """
    text = _encode(about)
    if ABOUT_AT + len(text) > PAGE_BYTES:
        raise ValueError(f"the recording's description has {len(text)} bytes, {PAGE_BYTES - ABOUT_AT} at most")
    fixed = FIXED.pack(MAGIC, VERSION, len(text), capacity, 0)[:-4]
    fixed += zlib.crc32(text, zlib.crc32(fixed)).to_bytes(4, "little")
    return ((fixed.ljust(WORDS_AT, b"\0") + words).ljust(ABOUT_AT, b"\0") + text).ljust(PAGE_BYTES, b"\0")


def encode_opened(part: Opened, product_version: str, uninspected: Action) -> bytes:
    """A record's body."""
    known = (part.stream, part.part_no, part.part_id, part.exposure_ns, part.opened_ns, part.deadline_ns)
    return _encode(OpenRecord(*known, product_version, uninspected))


def exposed_ns(part: ClosedPart) -> int:
    """The newest exposure of a part's views."""
    views = part.views
    return views[0].view.exposure_ns if len(views) == 1 else max([one.view.exposure_ns for one in views], default=part.exposure_ns)


def encode_closed(part: ClosedPart) -> bytes:
    """A record's body: everything but pictures, of which it says only that they were taken."""
    views = [(_fields(one.view), one.outcome, one.reason, one.detail, _fields(one.times), one.picture is not None) for one in part.views]
    body = (_plain(part), _fields(part.times), [_fields(one) for one in part.defects], views)
    return _encode((part.stream, part.part_no, exposed_ns(part), body))


def decode_closed(body: bytes | msgspec.Raw) -> ClosedPart:
    """The part of a record; a picture that was taken is an empty one."""
    kept = msgspec.msgpack.decode(body, type=_Body)
    plain = dict(zip(_PLAIN, kept.plain, strict=True))
    plain["outcome"], plain["action"] = Outcome(plain["outcome"]), Action(plain["action"])
    plain["reason"] = None if plain["reason"] is None else Reason(plain["reason"])
    plain["engines"] = tuple(plain["engines"])
    defects = tuple(msgspec.convert(dict(zip(Defect.__struct_fields__, one, strict=True)), Defect) for one in kept.defects)
    return ClosedPart(**plain, times=StageTimes(*kept.times), defects=defects, views=tuple(_view(*one) for one in kept.views))


def _view(seen: list[Any], outcome: Outcome, reason: Reason | None, detail: str, times: list[float | None], pictured: bool) -> ClosedView:
    view = msgspec.convert(dict(zip(View.__struct_fields__, seen, strict=True)), View)
    picture = Picture(view.camera, np.empty((0, 0), np.uint8), -1) if pictured else None
    return ClosedView(view, outcome, reason, detail, StageTimes(*times), picture)


def read_recording(path: Path) -> Recording:
    """What the file at ``path`` holds, up to the first record that cannot be read.

    Raises:
        UnreadableRecordingError: it is no recording of this version, its header is damaged, or it cannot be read at all.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, data)
    except (OSError, ValueError, msgspec.MsgspecError) as error:  # ValueError: an empty file cannot be mapped
        raise UnreadableRecordingError(f"{path}: the flight recorder's file cannot be read ({error})") from None


def _read(path: Path, data: mmap.mmap) -> Recording:
    about, capacity = _header(path, data)
    words = struct.unpack_from(f"<{WORDS}Q", data, WORDS_AT)
    utc_offset_ns = words[OFFSET] - (1 << 64 if words[OFFSET] >> 63 else 0)
    clean = words[CLEAN] == 1
    open_parts: dict[tuple[str, int], OpenRecord] = {}
    closed: list[ClosedPart] = []
    seen_ns = dict(about.seen_ns)
    at = words[TAIL]
    try:
        for kind, number, body, end in () if clean else _records(data, capacity, at):
            at = end
            if kind == OPENED:
                opened = msgspec.msgpack.decode(body, type=OpenRecord)
                open_parts[opened.stream, opened.part_no] = opened
            elif kind == CLOSED:
                one = msgspec.msgpack.decode(body, type=_Closed)
                open_parts.pop((one.stream, one.part_no), None)
                seen_ns[one.stream] = max(seen_ns.get(one.stream, 0), one.exposed_ns)
                if number > words[COMMITTED]:
                    closed.append(decode_closed(one.body))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise UnreadableRecordingError(f"{path}: the flight recorder's file has a record of another form ({error})") from None
    for opened in open_parts.values():
        seen_ns[opened.stream] = max(seen_ns.get(opened.stream, 0), opened.exposure_ns)
    damaged = 0 if clean else max(0, words[HEAD] - at)
    parts = (tuple(open_parts.values()), tuple(closed), seen_ns)
    return Recording(about, words[ALIVE], utc_offset_ns, clean, words[OVERWRITTEN], damaged, *parts)


def _header(path: Path, data: mmap.mmap) -> tuple[About, int]:
    if len(data) < PAGE_BYTES:
        raise UnreadableRecordingError(f"{path}: the flight recorder's file is shorter than its header")
    magic, version, length, capacity, checksum = FIXED.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        what = f"of version {version}, this program reads version {VERSION}" if magic == MAGIC else "none of this program"
        raise UnreadableRecordingError(f"{path}: the flight recorder's file is {what}")
    text = data[ABOUT_AT : ABOUT_AT + min(length, PAGE_BYTES)]
    if zlib.crc32(text, zlib.crc32(data[: FIXED.size - 4])) != checksum:
        raise UnreadableRecordingError(f"{path}: the header of the flight recorder's file is damaged")
    return msgspec.msgpack.decode(text, type=About), capacity


def _records(data: mmap.mmap, capacity: int, begin: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Kind, number, body and end of every record from position ``begin`` on, as long as they are whole."""
    at = begin
    while at - begin <= capacity:
        offset = at % capacity
        start = PAGE_BYTES + offset
        if capacity - offset < RECORD_BYTES:  # not even a header fits
            at += capacity - offset
            continue
        if start + RECORD_BYTES > len(data):
            return
        checksum, length, position, number, kind, _ = RECORD_HEAD.unpack_from(data, start)
        body_bytes = 0 if kind == SKIPPED else length
        body = data[start + RECORD_BYTES : start + RECORD_BYTES + body_bytes]
        if position != at or offset + RECORD_BYTES + length > capacity or len(body) != body_bytes:
            return
        if zlib.crc32(body, zlib.crc32(data[start + 4 : start + RECORD_BYTES])) != checksum:
            return
        at += aligned(RECORD_BYTES + length)
        yield kind, number, body, at


def aligned(size: int) -> int:
    """``size`` rounded up to the records' alignment of 8 bytes."""
    return (size + 7) & ~7
