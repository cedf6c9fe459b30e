"""From what the line thread closed to rows: tuples in the order of each table's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy.dialects import sqlite

from inspector.contract.pictures import has_picture, picture_name
from inspector.contract.records import Blind, ClosedPart, Event
from inspector.journal.schema import BLIND, DEFECT, EVENT, LATE_RESULT, VERDICT, VIEW

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Table

    from inspector.contract.records import Defect, LateResult, OutputItem, StageTimes

Row = tuple[Any, ...]

_json = msgspec.json.Encoder().encode
_NO_BOX = (None, None, None, None)
_TWO_64 = 1 << 64
_TWO_63 = 1 << 63


class Entry(NamedTuple):
    """One item on its way into the journal."""

    item: OutputItem
    offset_ns: int
    """Wall clock minus monotonic clock, taken when the item was offered."""
    id: int
    """Given once, before the first attempt to write it."""


def _insert(table: Table) -> str:
    # The statement is compiled once and handed to the driver with plain tuples: SQLAlchemy's own path makes a dict and
    # a processed copy of every row, which costs several times as much of the interpreter's time per part.
    # A row that is there already (a commit that failed after it had reached the disk) is left as it is.
    statement = sqlite.insert(table)
    if table is BLIND:
        # Both ends by the same reading of the clocks, so that the length is exact.
        ended = {name: statement.excluded[name] for name in ("from_utc_ns", "to_utc_ns", "cause")}
        statement = statement.on_conflict_do_update(index_elements=["boot", "stream", "from_ns"], set_=ended)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(table.primary_key.columns))
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=[column.name for column in table.columns])
    return str(compiled)


def insert_statements() -> dict[str, str]:
    """The insert statement of every table that ``RowBuilder`` fills, by table name, parents first."""
    return {table.name: _insert(table) for table in (VERDICT, VIEW, DEFECT, LATE_RESULT, BLIND, EVENT)}


def signed(value: int | None) -> int | None:
    """A 64-bit counter as SQLite can hold it (two's complement); the reader undoes it."""
    if value is None or -_TWO_63 <= value < _TWO_63:
        return value
    value %= _TWO_64
    return value - _TWO_64 if value >= _TWO_63 else value


def unsigned(value: int | None) -> int | None:
    """What ``signed`` did, undone, for a counter that is never negative."""
    return value + _TWO_64 if value is not None and value < 0 else value


def _times(times: StageTimes) -> Row:
    return (times.transfer_ms, times.queue_ms, times.validity_ms, times.preprocess_ms, times.engine_ms, times.rules_ms, times.total_ms)


def _defect(verdict_id: int, number: int, defect: Defect) -> Row:
    box, box_mm = defect.box_px, defect.box_mm
    corners_mm = _NO_BOX if box_mm is None else (box_mm.x1, box_mm.y1, box_mm.x2, box_mm.y2)
    head = (verdict_id, number, defect.name, defect.score, int(defect.counted), defect.source, defect.camera)
    return (*head, box.x1, box.y1, box.x2, box.y2, *corners_mm, defect.area_mm2)


class RowBuilder:
    """Rows of one boot.

    Args:
        boot: the boot's row in the table ``boot``.
        boot_id: its name.
    """

    def __init__(self, boot: int, boot_id: str) -> None:
        self._boot = boot
        self._boot_id = boot_id

    def rows(self, entries: list[Entry]) -> dict[str, list[Row]]:
        """Rows of all entries by table name."""
        rows: dict[str, list[Row]] = {"verdict": [], "view": [], "defect": [], "late_result": [], "blind": [], "event": []}
        verdicts, views, defects = rows["verdict"], rows["view"], rows["defect"]
        for entry in entries:
            item = entry.item
            if isinstance(item, ClosedPart):
                offset_ns = item.closed_utc_ns - item.closed_ns if item.closed_utc_ns else entry.offset_ns
                verdicts.append(self._verdict(entry.id, item, offset_ns))
                self._views(entry.id, item, offset_ns, views.append)
                defects += [_defect(entry.id, number, defect) for number, defect in enumerate(item.defects)]
            elif isinstance(item, Blind):
                rows["blind"].append(self._blind(entry.id, item, entry.offset_ns))
            elif isinstance(item, Event):
                at_utc_ns = item.at_ns + entry.offset_ns
                rows["event"].append((entry.id, self._boot, item.stream, item.name, item.level.value, item.detail, at_utc_ns))
            else:
                rows["late_result"].append(self._late(entry.id, item, entry.offset_ns))
        return rows

    def _verdict(self, row_id: int, part: ClosedPart, offset_ns: int) -> Row:
        key = (row_id, self._boot, part.stream, part.part_no, part.seq, part.part_id)
        said = (part.outcome.value, part.reason.value if part.reason else None, part.detail, part.action.value)
        made_by = (part.product, part.product_version, _json(part.engines).decode())
        when = (part.exposure_ns + offset_ns, part.opened_ns + offset_ns, part.deadline_ns + offset_ns, part.closed_ns + offset_ns)
        return key + said + made_by + when + _times(part.times)

    def _views(self, row_id: int, part: ClosedPart, offset_ns: int, append: Callable[[Row], None]) -> None:
        for number, closed in enumerate(part.views):
            view = closed.view
            picture = picture_name(self._boot_id, part, view.camera, part.closed_ns + offset_ns) if has_picture(part, closed) else None
            said = (row_id, number, view.camera, closed.outcome.value, closed.reason.value if closed.reason else None, closed.detail)
            counters = (signed(view.frame_id), signed(view.frame_no), signed(view.encoder), signed(view.trigger_counter))
            when = (view.exposure_ns + offset_ns, view.opened_ns + offset_ns)
            append((*said, *counters, *when, *_times(closed.times), picture))

    def _late(self, row_id: int, late: LateResult, offset_ns: int) -> Row:
        said = late.proposal
        key = (row_id, self._boot, late.stream, late.part_no, late.at_ns + offset_ns)
        result = (said.outcome.value, said.reason.value if said.reason else None, said.detail)
        return (*key, *result, *_times(said.times), _json(said.defects).decode())

    def _blind(self, row_id: int, blind: Blind, offset_ns: int) -> Row:
        to_utc_ns = None if blind.to_ns is None else blind.to_ns + offset_ns
        return (row_id, self._boot, blind.stream, blind.from_ns, blind.from_ns + offset_ns, to_utc_ns, blind.cause)
