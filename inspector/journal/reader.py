"""Reading the journal: read-only, page by page, so that a long export neither holds the log back nor fills the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec
from sqlalchemy import ColumnElement, Select, exists, func, select

from inspector.contract.records import Outcome
from inspector.journal.database import open_reader
from inspector.journal.rows import unsigned
from inspector.journal.schema import BLIND, BOOT, DEFECT, EVENT, STAGES, VERDICT, VIEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

_PAGE = 500
_CORNERS = ("x1", "y1", "x2", "y2")


class LoggedDefect(msgspec.Struct, frozen=True):
    """A row of ``defect``. Boxes are x1, y1, x2, y2."""

    name: str
    score: float | None
    counted: bool
    source: str
    camera: str
    box_px: tuple[float, float, float, float] | None
    box_mm: tuple[float, float, float, float] | None
    area_mm2: float | None


class LoggedView(msgspec.Struct, frozen=True):
    """A row of ``view``."""

    camera: str
    outcome: str
    reason: str | None
    detail: str
    frame_id: int | None
    frame_no: int | None
    encoder: int | None
    trigger_counter: int | None
    exposure_utc_ns: int
    opened_utc_ns: int
    times: dict[str, float | None]
    picture: str | None
    """Its name under the archive's folder."""


class LoggedPart(msgspec.Struct, frozen=True):
    """A row of ``verdict`` with its views and defects. Times ``_utc_ns``: wall clock, ns since 1970."""

    id: int
    boot_id: str
    station: str
    stream: str
    part_no: int
    seq: int
    part_id: str | None
    outcome: str
    reason: str | None
    detail: str
    action: str
    product: str
    product_version: str
    engines: tuple[str, ...]
    exposure_utc_ns: int
    opened_utc_ns: int
    deadline_utc_ns: int
    closed_utc_ns: int
    times: dict[str, float | None]
    views: tuple[LoggedView, ...]
    defects: tuple[LoggedDefect, ...]


class LoggedBlind(msgspec.Struct, frozen=True):
    """A row of ``blind``; ``to_utc_ns`` None: it went on when it was last told."""

    boot_id: str
    stream: str
    from_utc_ns: int
    to_utc_ns: int | None
    cause: str


class LoggedEvent(msgspec.Struct, frozen=True):
    """A row of ``event``."""

    boot_id: str
    stream: str
    name: str
    level: str
    detail: str
    at_utc_ns: int


class PartQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which parts; None: any. All that is given must hold."""

    outcome: str | None = None
    reason: str | None = None
    defect: str | None = None
    """Class of at least one of its counted defects."""
    since_utc_ns: int | None = None
    """Closed at or after."""
    until_utc_ns: int | None = None
    """Closed before."""
    stream: str | None = None
    part_id: str | None = None
    boot_id: str | None = None
    after_id: int = 0
    """Only parts logged after this one."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL; every value is a bound parameter."""
        table = VERDICT.c
        wanted: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
            (self.outcome, table.outcome.__eq__),
            (self.reason, table.reason.__eq__),
            (self.since_utc_ns, table.closed_utc_ns.__ge__),
            (self.until_utc_ns, table.closed_utc_ns.__lt__),
            (self.stream, table.stream.__eq__),
            (self.part_id, table.part_id.__eq__),
            (self.boot_id, BOOT.c.boot_id.__eq__),
            (self.defect, lambda name: exists().where(DEFECT.c.verdict_id == table.id, DEFECT.c.name == name, DEFECT.c.counted == 1)),
        ]
        return [condition(value) for value, condition in wanted if value is not None]


class JournalReader:
    """A read-only connection; use it as a context manager, in one thread.

    Raises:
        JournalError: there is no journal at ``path``, it cannot be read, or it is newer than the program.
    """

    def __init__(self, path: Path) -> None:
        self._connection = open_reader(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def parts(self, query: PartQuery | None = None, *, limit: int | None = None) -> Iterator[LoggedPart]:
        """Parts in the order they were logged; with ``limit`` the newest so many."""
        query = query or PartQuery()
        base = select(VERDICT, BOOT.c.boot_id, BOOT.c.station).join(BOOT, BOOT.c.id == VERDICT.c.boot).where(*query.conditions())
        after = query.after_id
        if limit is not None:
            newest = base.with_only_columns(VERDICT.c.id).order_by(VERDICT.c.id.desc()).where(VERDICT.c.id > after).limit(limit).subquery()
            first = self._scalar(select(func.min(newest.c.id)))
            if first is None:
                return
            after = first - 1
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = self._page(base.where(VERDICT.c.id > after).order_by(VERDICT.c.id).limit(size))
            yield from page
            if len(page) < size:
                return
            after = page[-1].id
            left = None if left is None else left - len(page)

    def counts(self, boot_id: str | None = None) -> dict[str, int]:
        """Parts by outcome, every outcome named."""
        return {outcome.value: 0 for outcome in Outcome} | self._counted(VERDICT.c.outcome, boot_id)

    def reasons(self, boot_id: str | None = None) -> dict[str, int]:
        """UNINSPECTED parts by reason."""
        return self._counted(VERDICT.c.reason, boot_id)

    def logged(self, boot_id: str) -> int:
        """Number of parts of a boot."""
        return sum(self._counted(VERDICT.c.outcome, boot_id).values())

    def boots(self) -> list[str]:
        """Names of all boots, oldest first."""
        return [str(row.boot_id) for row in self._rows(select(BOOT.c.boot_id).order_by(BOOT.c.id))]

    def blinds(self) -> Iterator[LoggedBlind]:
        """Blind intervals, oldest first."""
        columns = (BOOT.c.boot_id, BLIND.c.stream, BLIND.c.from_utc_ns, BLIND.c.to_utc_ns, BLIND.c.cause)
        for row in self._keyed(select(BLIND.c.id, *columns).join(BOOT, BOOT.c.id == BLIND.c.boot), BLIND.c.id):
            yield LoggedBlind(row.boot_id, row.stream, row.from_utc_ns, row.to_utc_ns, row.cause)

    def events(self) -> Iterator[LoggedEvent]:
        """Events, oldest first."""
        columns = (BOOT.c.boot_id, EVENT.c.stream, EVENT.c.name, EVENT.c.level, EVENT.c.detail, EVENT.c.at_utc_ns)
        for row in self._keyed(select(EVENT.c.id, *columns).join(BOOT, BOOT.c.id == EVENT.c.boot), EVENT.c.id):
            yield LoggedEvent(row.boot_id, row.stream, row.name, row.level, row.detail, row.at_utc_ns)

    def _rows(self, statement: Select[Any]) -> list[Any]:
        # Every read is a transaction of its own: an open one would keep the writer from resetting its log.
        try:
            return list(self._connection.execute(statement).all())
        finally:
            self._connection.rollback()

    def _scalar(self, statement: Select[Any]) -> Any:  # noqa: ANN401 - whatever the column holds
        return self._rows(statement)[0][0]

    def _keyed(self, statement: Select[Any], key: ColumnElement[int]) -> Iterator[Any]:
        after = 0
        while rows := self._rows(statement.where(key > after).order_by(key).limit(_PAGE)):
            yield from rows
            after = rows[-1].id

    def _counted(self, column: ColumnElement[Any], boot_id: str | None) -> dict[str, int]:
        statement = select(column, func.count()).group_by(column)
        if boot_id is not None:
            statement = statement.join_from(VERDICT, BOOT, BOOT.c.id == VERDICT.c.boot).where(BOOT.c.boot_id == boot_id)
        return {row[0]: row[1] for row in self._rows(statement) if row[0] is not None}

    def _page(self, statement: Select[Any]) -> list[LoggedPart]:
        verdicts = self._rows(statement)
        ids = [row.id for row in verdicts]
        views: dict[int, list[LoggedView]] = {}
        defects: dict[int, list[LoggedDefect]] = {}
        if ids:
            for row in self._rows(select(VIEW).where(VIEW.c.verdict_id.in_(ids)).order_by(VIEW.c.verdict_id, VIEW.c.view_no)):
                views.setdefault(row.verdict_id, []).append(_view(row))
            for row in self._rows(select(DEFECT).where(DEFECT.c.verdict_id.in_(ids)).order_by(DEFECT.c.verdict_id, DEFECT.c.defect_no)):
                defects.setdefault(row.verdict_id, []).append(_defect(row))
        return [_part(row, tuple(views.get(row.id, ())), tuple(defects.get(row.id, ()))) for row in verdicts]


def _times(row: Any) -> dict[str, float | None]:  # noqa: ANN401 - a row of SQLAlchemy
    return {stage: getattr(row, stage) for stage in STAGES}


def _view(row: Any) -> LoggedView:  # noqa: ANN401 - a row of SQLAlchemy
    counters = (unsigned(row.frame_id), unsigned(row.frame_no), row.encoder, unsigned(row.trigger_counter))
    head = (row.camera, row.outcome, row.reason, row.detail)
    return LoggedView(*head, *counters, row.exposure_utc_ns, row.opened_utc_ns, _times(row), row.picture)


def _box(row: Any, unit: str) -> tuple[float, float, float, float] | None:  # noqa: ANN401 - a row of SQLAlchemy
    x1, y1, x2, y2 = (getattr(row, f"{corner}_{unit}") for corner in _CORNERS)
    return None if x1 is None else (x1, y1, x2, y2)


def _defect(row: Any) -> LoggedDefect:  # noqa: ANN401 - a row of SQLAlchemy
    head = (row.name, row.score, bool(row.counted), row.source, row.camera)
    return LoggedDefect(*head, _box(row, "px"), _box(row, "mm"), row.area_mm2)


def _part(row: Any, views: tuple[LoggedView, ...], defects: tuple[LoggedDefect, ...]) -> LoggedPart:  # noqa: ANN401 - a row of SQLAlchemy
    key = (row.id, row.boot_id, row.station, row.stream, row.part_no, row.seq, row.part_id)
    said = (row.outcome, row.reason, row.detail, row.action, row.product, row.product_version)
    engines = msgspec.json.decode(row.engines, type=tuple[str, ...])
    when = (row.exposure_utc_ns, row.opened_utc_ns, row.deadline_utc_ns, row.closed_utc_ns)
    return LoggedPart(*key, *said, engines, *when, _times(row), views, defects)
