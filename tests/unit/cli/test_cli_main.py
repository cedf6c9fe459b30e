"""The command line as a whole: what help lists, and what an expected failure looks like."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inspector.cli.main import build_app, main
from inspector.contract.errors import ExitCode

COMMANDS = {"demo", "run", "check", "watch", "log", "keys", "train", "evaluate", "explain", "compile", "surfaces"}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The command ``run`` takes the process's signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_help_lists_every_command_with_a_sentence() -> None:
    done = CliRunner().invoke(build_app(), ["--help"], terminal_width=200)
    assert done.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^│ {name}\s+[A-Z].*\w", done.output, re.MULTILINE), name
    for code in (65, 69, 70, 73, 78):
        assert str(code) in done.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_of_its_own(name: str) -> None:
    done = CliRunner().invoke(build_app(), [name, "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert f"inspector {name}" in done.output or f"{name} [OPTIONS]" in done.output


def test_help_needs_neither_torch_nor_openvino() -> None:
    script = "import sys; import inspector.cli.main; sys.exit(bool({'torch', 'openvino', 'sqlalchemy.orm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("command", ["run", "check"])
def test_an_expected_failure_is_sentences_and_a_code(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "station.toml"
    path.write_text('colour = "red"\n')
    monkeypatch.setattr(sys, "argv", ["inspector", command, str(path)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == ExitCode.CONFIG
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"inspector: {path}: ") for line in told)
    assert {line.split(": ")[2] for line in told} == {"colour", "name", "product", "cameras"}


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, ExitCode.INTERRUPTED), (BrokenPipeError, ExitCode.OK)])
def test_ctrl_c_and_a_closed_pipe_end_quietly(error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = io.StringIO()

    def read(_: Path) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["inspector", "check", str(tmp_path)])
    monkeypatch.setattr("inspector.config.station.read_station", read)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", _Kept(told))
        with pytest.raises(SystemExit) as left:
            main()
    assert left.value.code == code
    assert "Traceback" not in told.getvalue()


class _Kept(io.TextIOBase):
    """A stderr that may be closed, and is read afterwards."""

    def __init__(self, kept: io.StringIO) -> None:
        self._kept = kept

    def write(self, text: str) -> int:
        return self._kept.write(text)
