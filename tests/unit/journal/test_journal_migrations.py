"""The migrations make the tables that the program uses, also from where a wheel puts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from setuptools import find_packages
from sqlalchemy import text

from inspector.journal.database import check_version, migrate, open_writer
from inspector.journal.schema import METADATA

ROOT = Path(__file__).parents[3]


def test_the_migrations_lead_to_the_tables_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with open_writer(path, busy_s=1.0) as connection:
        assert not check_version(connection, path)
        connection.rollback()
        migrate(connection, path)
        assert check_version(connection, path)
        difference = compare_metadata(MigrationContext.configure(connection), METADATA)
        assert difference == []
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()
        assert [name for name, sql in rows if "WITHOUT ROWID" in sql] == ["view", "defect"]
        connection.rollback()
        migrate(connection, path)  # nothing to do


def test_a_migration_that_fails_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.sqlite"
    monkeypatch.setattr("alembic.op.create_index", lambda *_: 1 / 0)
    with open_writer(path, busy_s=1.0) as connection:
        with pytest.raises(ZeroDivisionError):
            migrate(connection, path)
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() == 0


def test_they_run_from_a_wheels_packages(tmp_path: Path) -> None:
    """The packages that go into a wheel, laid out as it lays them, are enough."""
    site = tmp_path / "site"
    for package in find_packages(str(ROOT), include=["inspector*"]):
        folder = site / Path(*package.split("."))
        folder.mkdir(parents=True)
        for module in ROOT.joinpath(*package.split(".")).glob("*.py"):
            shutil.copy(module, folder)
    code = (
        "import sys; from pathlib import Path; import inspector; from inspector.config.station import JournalConfig;"
        "from inspector.journal.writer import Journal; assert inspector.__file__.startswith(sys.argv[1]);"
        "j = Journal(JournalConfig(path=Path(sys.argv[1]) / 'j.sqlite'), station='s', boot_id='b'); j.start(); assert j.stop(5)"
    )
    command = [sys.executable, "-c", code, str(site)]
    result = subprocess.run(command, cwd=site, env={"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert (site / "j.sqlite").exists()
