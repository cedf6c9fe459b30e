"""The house's own rules: module size, import directions, lint, types, no foreign words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "inspector").rglob("*.py"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_no_module_is_longer_than_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 300}
    assert not long


def test_imports_point_one_way() -> None:
    result = run(tool("lint-imports"), "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_has_nothing_to_say() -> None:
    checked = run(tool("ruff"), "check", "--no-cache", ".")
    assert checked.returncode == 0, checked.stdout
    formatted = run(tool("ruff"), "format", "--no-cache", "--check", ".")
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_types_hold(tmp_path: Path) -> None:
    result = run(tool("mypy"), "--cache-dir", str(tmp_path))
    assert result.returncode == 0, result.stdout


def test_the_daemon_starts_without_torch() -> None:
    code = (
        "import sys, inspector.daemon.station, inspector.cli.main; "
        "bad = [m for m in sys.modules if m.split('.')[0] in {'torch', 'matplotlib', 'onnx', 'harvesters', 'genicam'}"
        " or m.startswith(('inspector.models', 'inspector.training'))]; print(bad); sys.exit(bool(bad))"
    )
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_ignore_in_the_lint_settings_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.pydocstyle]")]
    bare = [line for line in block.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*",\s*$', line)]
    assert not bare


def test_type_ignores_name_their_error() -> None:
    bare = [
        f"{path}:{n}"
        for path in MODULES
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# type: ignore(?!\[)|# noqa(?!:)", line)
    ]
    assert not bare
