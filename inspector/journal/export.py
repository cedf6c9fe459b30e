"""Parts as CSV and as JSON lines, written while they are read."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.journal.reader import LoggedPart

CSV_COLUMNS = (
    "closed_utc",
    "exposure_utc",
    "station",
    "boot_id",
    "stream",
    "part_no",
    "seq",
    "part_id",
    "outcome",
    "reason",
    "detail",
    "action",
    "product",
    "product_version",
    "engines",
    "defects",
    "defect_classes",
    "highest_score",
    "total_ms",
    "engine_ms",
    "pictures",
)
"""``defects`` to ``highest_score`` speak of the counted ones; everything else that is kept is in the JSON lines."""


def utc_text(utc_ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond (the nanoseconds are cut off)."""
    seconds, nanoseconds = divmod(utc_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1000:06d}Z"


def write_csv(parts: Iterable[LoggedPart], file: IO[str]) -> int:
    """One line per part under a line of names (RFC 4180, but for the line ends of Unix); returns how many parts."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    number = 0
    for part in parts:
        counted = [defect for defect in part.defects if defect.counted]
        scores = [defect.score for defect in counted if defect.score is not None]
        writer.writerow(
            (
                utc_text(part.closed_utc_ns),
                utc_text(part.exposure_utc_ns),
                part.station,
                part.boot_id,
                part.stream,
                part.part_no,
                part.seq,
                part.part_id,
                part.outcome,
                part.reason,
                part.detail,
                part.action,
                part.product,
                part.product_version,
                " ".join(part.engines),
                len(counted),
                " ".join(sorted({defect.name for defect in counted})),
                max(scores) if scores else None,
                part.times["total_ms"],
                part.times["engine_ms"],
                " ".join(view.picture for view in part.views if view.picture),
            )
        )
        number += 1
    return number


def write_json(parts: Iterable[LoggedPart], file: IO[str]) -> int:
    """One JSON object per line with everything that is kept of a part, plus ``closed_utc`` as text; returns how many parts."""
    number = 0
    for part in parts:
        values = {"closed_utc": utc_text(part.closed_utc_ns)} | msgspec.structs.asdict(part)
        file.write(msgspec.json.encode(values).decode())
        file.write("\n")
        number += 1
    return number
