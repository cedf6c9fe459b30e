"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STAGES = ("transfer_ms", "queue_ms", "validity_ms", "preprocess_ms", "engine_ms", "rules_ms", "total_ms")


def _text(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]


def _integers(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), nullable=nullable) for name in names]


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float(), nullable=True) for name in names]


def _key(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), primary_key=True, autoincrement=False, nullable=False) for name in names]


def _of_boot(table: str) -> list[sa.ForeignKeyConstraint]:
    return [sa.ForeignKeyConstraint(["boot"], ["boot.id"], name=f"fk_{table}_boot")]


def _of_verdict(table: str) -> list[sa.ForeignKeyConstraint]:
    return [sa.ForeignKeyConstraint(["verdict_id"], ["verdict.id"], name=f"fk_{table}_verdict_id")]


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "boot",
        sa.Column("id", sa.Integer(), primary_key=True, nullable=False),
        *_text("boot_id", "station", "program"),
        *_integers("started_utc_ns"),
        *_integers("stopped_utc_ns", nullable=True),
        sa.UniqueConstraint("boot_id", name="uq_boot_boot_id"),
    )
    op.create_table(
        "verdict",
        *_key("id"),
        *_integers("boot"),
        *_text("stream"),
        *_integers("part_no", "seq"),
        *_text("part_id", nullable=True),
        *_text("outcome"),
        *_text("reason", nullable=True),
        *_text("detail", "action", "product", "product_version", "engines"),
        *_integers("exposure_utc_ns", "opened_utc_ns", "deadline_utc_ns", "closed_utc_ns"),
        *_floats(*_STAGES),
        sa.UniqueConstraint("boot", "stream", "part_no", name="uq_verdict_boot_stream_part_no"),
        *_of_boot("verdict"),
    )
    op.create_index("ix_verdict_closed_utc_ns", "verdict", ["closed_utc_ns"])
    op.create_index("ix_verdict_part_id", "verdict", ["part_id"])
    op.create_index("ix_verdict_outcome_reason", "verdict", ["outcome", "reason"])
    op.create_table(
        "view",
        *_key("verdict_id", "view_no"),
        *_text("camera", "outcome"),
        *_text("reason", nullable=True),
        *_text("detail"),
        *_integers("frame_id", "frame_no", "encoder", "trigger_counter", nullable=True),
        *_integers("exposure_utc_ns", "opened_utc_ns"),
        *_floats(*_STAGES),
        *_text("picture", nullable=True),
        *_of_verdict("view"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "defect",
        *_key("verdict_id", "defect_no"),
        *_text("name"),
        *_floats("score"),
        *_integers("counted"),
        *_text("source", "camera"),
        *_floats("x1_px", "y1_px", "x2_px", "y2_px", "x1_mm", "y1_mm", "x2_mm", "y2_mm", "area_mm2"),
        *_of_verdict("defect"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_defect_name", "defect", ["name"])
    op.create_table(
        "late_result",
        *_key("id"),
        *_integers("boot"),
        *_text("stream"),
        *_integers("part_no", "at_utc_ns"),
        *_text("outcome"),
        *_text("reason", nullable=True),
        *_text("detail"),
        *_floats(*_STAGES),
        *_text("defects"),
        *_of_boot("late_result"),
    )
    op.create_index("ix_late_result_boot_stream_part_no", "late_result", ["boot", "stream", "part_no"])
    op.create_table(
        "blind",
        *_key("id"),
        *_integers("boot"),
        *_text("stream"),
        *_integers("from_ns", "from_utc_ns"),
        *_integers("to_utc_ns", nullable=True),
        *_text("cause"),
        sa.UniqueConstraint("boot", "stream", "from_ns", name="uq_blind_boot_stream_from_ns"),
        *_of_boot("blind"),
    )
    op.create_table(
        "event",
        *_key("id"),
        *_integers("boot"),
        *_text("stream", "name", "level", "detail"),
        *_integers("at_utc_ns"),
        *_of_boot("event"),
    )
    op.create_index("ix_event_at_utc_ns", "event", ["at_utc_ns"])
