"""The journal's tables. A change here needs a new migration; a test compares the two.

Every table that grows has a writer-given ``id``: one count over all of them, so that ids tell the order in which things reached the
journal, and a batch that is written twice after an unclear commit does not double. Columns ending in ``_utc_ns`` are wall-clock
nanoseconds since 1970; those ending in ``_ns`` alone are the host's monotonic clock and mean something within one boot only.
64-bit counters of a camera are stored in SQLite's signed 64 bits (two's complement); the reader gives them back unsigned.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
STAGES = ("transfer_ms", "queue_ms", "validity_ms", "preprocess_ms", "engine_ms", "rules_ms", "total_ms")
"""Columns of a part's and a view's times, in the order of StageTimes."""


def _times() -> list[Column[float]]:
    return [Column(name, Float) for name in STAGES]


BOOT = Table(
    "boot",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("boot_id", Text, nullable=False, unique=True),
    Column("station", Text, nullable=False),
    Column("program", Text, nullable=False),
    Column("started_utc_ns", Integer, nullable=False),
    Column("stopped_utc_ns", Integer),
)
"""One row per start of the daemon; ``stopped_utc_ns`` is null while it runs, and for ever if it was killed."""

VERDICT = Table(
    "verdict",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("boot", Integer, ForeignKey("boot.id"), nullable=False),
    Column("stream", Text, nullable=False),
    Column("part_no", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("part_id", Text),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("product_version", Text, nullable=False),
    Column("engines", Text, nullable=False),  # JSON list of hashes
    Column("exposure_utc_ns", Integer, nullable=False),
    Column("opened_utc_ns", Integer, nullable=False),
    Column("deadline_utc_ns", Integer, nullable=False),
    Column("closed_utc_ns", Integer, nullable=False),
    *_times(),
    UniqueConstraint("boot", "stream", "part_no"),
    Index(None, "closed_utc_ns"),
    Index(None, "part_id"),
    Index(None, "outcome", "reason"),
)
"""One row per part: its one verdict."""

VIEW = Table(
    "view",
    METADATA,
    Column("verdict_id", Integer, ForeignKey("verdict.id"), primary_key=True, autoincrement=False),
    Column("view_no", Integer, primary_key=True, autoincrement=False),
    Column("camera", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text, nullable=False),
    Column("frame_id", Integer),
    Column("frame_no", Integer),
    Column("encoder", Integer),
    Column("trigger_counter", Integer),
    Column("exposure_utc_ns", Integer, nullable=False),
    Column("opened_utc_ns", Integer, nullable=False),
    *_times(),
    Column("picture", Text),
    sqlite_with_rowid=False,
)
"""One row per camera's sight of a part. ``picture``: its name under the archive's folder, where one was taken."""

DEFECT = Table(
    "defect",
    METADATA,
    Column("verdict_id", Integer, ForeignKey("verdict.id"), primary_key=True, autoincrement=False),
    Column("defect_no", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("score", Float),
    Column("counted", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("camera", Text, nullable=False),
    *(Column(f"{corner}_px", Float) for corner in ("x1", "y1", "x2", "y2")),
    *(Column(f"{corner}_mm", Float) for corner in ("x1", "y1", "x2", "y2")),
    Column("area_mm2", Float),
    Index(None, "name"),
    sqlite_with_rowid=False,
)
"""One row per detection, counted or not."""

LATE_RESULT = Table(
    "late_result",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("boot", Integer, ForeignKey("boot.id"), nullable=False),
    Column("stream", Text, nullable=False),
    Column("part_no", Integer, nullable=False),
    Column("at_utc_ns", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text, nullable=False),
    *_times(),
    Column("defects", Text, nullable=False),  # JSON list, as on the wire
    Index(None, "boot", "stream", "part_no"),
)
"""What an inspection said after its part was closed: evidence, never a verdict."""

BLIND = Table(
    "blind",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("boot", Integer, ForeignKey("boot.id"), nullable=False),
    Column("stream", Text, nullable=False),
    Column("from_ns", Integer, nullable=False),
    Column("from_utc_ns", Integer, nullable=False),
    Column("to_utc_ns", Integer),
    Column("cause", Text, nullable=False),
    UniqueConstraint("boot", "stream", "from_ns"),
)
"""Intervals in which a stream could not see; ``to_utc_ns`` is null while one goes on."""

EVENT = Table(
    "event",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("boot", Integer, ForeignKey("boot.id"), nullable=False),
    Column("stream", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at_utc_ns", Integer, nullable=False),
    Index(None, "at_utc_ns"),
)
"""What the operator should be able to read later."""
