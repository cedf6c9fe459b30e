"""``inspector log`` as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from inspector.cli.log import journal_path, log, parse_time
from inspector.config.station import JournalConfig
from inspector.contract.errors import DataError, JournalError
from inspector.contract.records import Outcome, Reason
from inspector.journal.writer import Journal

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, made: SimpleNamespace) -> Path:
    folder = tmp_path_factory.mktemp("state")
    journal = Journal(JournalConfig(path=folder / "journal.sqlite"), station="line-1", boot_id="boot-1")
    journal.start()
    now_ns = time.time_ns()
    parts = [
        made.make_part(1),
        made.make_part(2, Outcome.REJECT, part_id="[bold]odd"),
        made.make_part(3, Outcome.UNINSPECTED, reason=Reason.LATE, camera="side"),
    ]
    for part, hours in zip(parts, (3, 2, 0), strict=True):
        assert journal.offer(msgspec.structs.replace(part, closed_utc_ns=now_ns - hours * HOUR_NS))
    assert journal.stop(5.0)
    return folder


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(log)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_table(state: Path) -> None:
    result = run(state)
    assert result.exit_code == 0
    assert "[bold]odd" in result.output, "text of the line is no mark-up"
    assert "scratch 0.90" in result.output
    assert "UNINSPECTED(late)" in result.output
    assert "3 parts shown; the journal has PASS 1, REJECT 1, UNINSPECTED 1" in result.output


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--outcome", "reject"], [2]),
        (["--reason", "late"], [3]),
        (["--class", "scratch"], [2]),
        (["--since", "150m"], [2, 3]),
        (["--until", "1h"], [1, 2]),
        (["--stream", "side"], [3]),
        (["--part-id", "P1"], [1]),
        (["--boot", "none"], []),
        (["--limit", "2"], [2, 3]),
    ],
)
def test_filters_and_json_lines(state: Path, options: list[str], numbers: list[int]) -> None:
    result = run(state / "journal.sqlite", *options, "--json", "-")
    assert result.exit_code == 0
    assert [json.loads(line)["part_no"] for line in result.stdout.splitlines()] == numbers


def test_csv_to_a_file(state: Path, tmp_path: Path) -> None:
    result = run(state, "--csv", tmp_path / "out.csv")
    assert "3 parts written" in result.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["part_id"] for row in csv.DictReader(file)] == ["P1", "[bold]odd", "P3"]


def test_what_cannot_be_done_is_said(state: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such journal"):
        run(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        run(state, "--csv", tmp_path / "absent" / "out.csv")
    assert run(state, "--outcome", "maybe").exit_code == 2
    assert run(state, "--since", "yesterday").exit_code == 2
    assert run(state, "--follow", "--csv", "-").exit_code == 2


def test_times() -> None:
    assert parse_time("1970-01-01T00:00:01.5") == 1_500_000_000
    assert parse_time("1970-01-01T01:00:00+01:00") == 0
    assert abs(parse_time("2h") - (time.time_ns() - 2 * HOUR_NS)) < 10 * 10**9


def test_a_station_file_names_its_journal(tmp_path: Path) -> None:
    station = tmp_path / "station.toml"
    station.write_text(
        'name = "s"\nproduct = "p.toml"\nstate_dir = "st"\n[journal]\npath = "j.sqlite"\n'
        '[[cameras]]\nname = "top"\nkind = "simulator"\nimages = "i"\n'
    )
    assert journal_path(station) == tmp_path / "st" / "j.sqlite"
    assert journal_path(tmp_path) == tmp_path / "journal.sqlite"


def test_follow_shows_what_comes_and_ends_with_ctrl_c(tmp_path: Path, made: SimpleNamespace) -> None:
    journal = Journal(JournalConfig(path=tmp_path / "journal.sqlite", commit_ms=1), station="line-1", boot_id="boot-1")
    journal.start()
    journal.offer(made.make_part(1))
    while journal.state().parts < 1:
        time.sleep(0.001)
    code = "import typer; from inspector.cli.log import log; app = typer.Typer(); app.command()(log); app()"
    command = [sys.executable, "-u", "-c", code, str(tmp_path), "--follow"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline()]
        while "parts shown" not in lines[-1]:
            lines.append(process.stdout.readline())
        journal.offer(made.make_part(2, Outcome.REJECT))
        line = process.stdout.readline()
        assert "REJECT" in line
        assert "P2" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        journal.stop(5.0)
