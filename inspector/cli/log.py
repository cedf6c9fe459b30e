"""``inspector log``: what the journal knows."""

from __future__ import annotations

import re
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspector.config.base import read_toml
from inspector.config.station import JournalConfig, Station
from inspector.contract.errors import DataError
from inspector.contract.records import Outcome, Reason
from inspector.journal.export import utc_text, write_csv, write_json
from inspector.journal.reader import JournalReader, LoggedPart, PartQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHOWN = 50
_FOLLOW_S = 0.5
_PIPE_WIDTH = 200
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_STYLES = {Outcome.PASS.value: "green", Outcome.REJECT.value: "bold red", Outcome.UNINSPECTED.value: "bold magenta"}
_COLUMNS = ("closed (UTC)", "stream", "part", "id", "outcome", "action", "defects", "ms", "picture")


def journal_path(target: Path) -> Path:
    """The journal that ``target`` means: a station file's, the one in a state directory, or itself.

    Raises:
        ConfigError: the station file is wrong.
    """
    if target.suffix == ".toml":
        station = read_toml(target, Station)
        return target.parent / station.state_dir / station.journal.path
    return target / JournalConfig().path if target.is_dir() else target


def parse_time(text: str) -> int:
    """UTC ns since 1970 of an ISO 8601 time (UTC unless it says otherwise), or of so long ago: 90s, 15m, 2h, 7d.

    Raises:
        typer.BadParameter: it is neither.
    """
    if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
        when = datetime.now(tz=UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no time: write 2026-11-21T08:00 (UTC), or how long ago: 90s, 15m, 2h, 7d") from None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(when.timestamp()) * 1_000_000_000 + when.microsecond * 1000


@contextmanager
def _output(name: str) -> Iterator[IO[str]]:
    """A text file, or standard output for ``-``."""
    if name == "-":
        yield sys.stdout
        return
    try:
        with Path(name).open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise DataError(f"{name}: cannot be written ({error.strerror}); name another file, or - for standard output") from None


def _cells(part: LoggedPart) -> list[Text]:
    said = part.outcome + (f"({part.reason})" if part.reason else "")
    found = ", ".join(f"{defect.name} {defect.score or 0:.2f}" for defect in part.defects if defect.counted)
    total_ms = part.times["total_ms"]
    pictures = " ".join(view.picture for view in part.views if view.picture)
    texts = (utc_text(part.closed_utc_ns)[:-4], part.stream, str(part.part_no), part.part_id or "", said, part.action, found)
    cells = [Text(text) for text in (*texts, "" if total_ms is None else f"{total_ms:.1f}", pictures)]
    cells[4].stylize(_STYLES.get(part.outcome, ""))
    return cells


def _show(reader: JournalReader, parts: Iterable[LoggedPart], console: Console) -> None:
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for part in parts:
        table.add_row(*_cells(part))
    if table.row_count:
        console.print(table)
    counts = ", ".join(f"{outcome} {of}" for outcome, of in reader.counts().items())
    console.print(f"{table.row_count} parts shown; the journal has {counts}", style="dim")


def _follow(reader: JournalReader, query: PartQuery, console: Console, last_id: int) -> None:
    while True:
        for part in reader.parts(msgspec.structs.replace(query, after_id=last_id)):
            console.print(Text("  ").join(cell for cell in _cells(part) if cell.plain))
            last_id = part.id
        time.sleep(_FOLLOW_S)


def log(
    target: Annotated[Path, typer.Argument(help="State directory, journal file, or station file.", metavar="STATE|JOURNAL|STATION.toml")],
    *,
    outcome: Annotated[Outcome | None, typer.Option(case_sensitive=False, help="Parts that ended so.")] = None,
    reason: Annotated[Reason | None, typer.Option(case_sensitive=False, help="UNINSPECTED parts with this reason.")] = None,
    defect: Annotated[str | None, typer.Option("--class", help="Parts with a counted defect of this class.")] = None,
    since: Annotated[str | None, typer.Option(help="Closed at or after: ISO 8601 (UTC), or so long ago: 90s, 15m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Closed before; written as --since.")] = None,
    stream: Annotated[str | None, typer.Option(help="Parts of this camera or group.")] = None,
    part_id: Annotated[str | None, typer.Option(help="Parts with this id of the line.")] = None,
    boot: Annotated[str | None, typer.Option(help="Parts of this start of the daemon.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help=f"The newest so many; the table shows {_SHOWN} unless told, an export all.")] = None,
    csv_file: Annotated[str | None, typer.Option("--csv", metavar="FILE|-", help="Write CSV, one line per part.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE|-", help="Write JSON lines with everything that is kept.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
) -> None:
    """Query the journal; also while the daemon writes it."""
    if follow and (csv_file or json_file):
        raise typer.BadParameter("--follow goes with the table only")
    query = PartQuery(
        outcome=outcome.value if outcome else None,
        reason=reason.value if reason else None,
        defect=defect,
        since_utc_ns=parse_time(since) if since else None,
        until_utc_ns=parse_time(until) if until else None,
        stream=stream,
        part_id=part_id,
        boot_id=boot,
    )
    with JournalReader(journal_path(target)) as reader:
        if csv_file:
            with _output(csv_file) as file:
                number = write_csv(reader.parts(query, limit=limit), file)
            print(f"{number} parts written to {csv_file}", file=sys.stderr)
        if json_file:
            with _output(json_file) as file:
                number = write_json(reader.parts(query, limit=limit), file)
            print(f"{number} parts written to {json_file}", file=sys.stderr)
        if not csv_file and not json_file:
            console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
            shown = list(reader.parts(query, limit=limit or _SHOWN))
            _show(reader, shown, console)
            if follow:
                with suppress(KeyboardInterrupt):  # the usual way to end it
                    _follow(reader, query, console, max((part.id for part in shown), default=0))
