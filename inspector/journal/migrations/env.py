"""Run by Alembic; the connection is handed over by ``inspector.journal.database``."""

from __future__ import annotations

from alembic import context

from inspector.journal.schema import METADATA


def _run() -> None:
    # render_as_batch: SQLite cannot alter most of a table in place, so a change rebuilds it.
    context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


_run()
