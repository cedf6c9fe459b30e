"""``inspector demo`` from end to end: the JSON contract, with and without faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def demo(folder: Path, engine: Path, images: Path, *more: object) -> tuple[int, dict[str, Any], str]:
    options = ("--parts", 12, "--rate", 20, "--json", "--folder", folder, "--engine", engine, "--images", images, "--threshold", 0.9, *more)
    command = [sys.executable, "-m", "inspector.cli.main", "demo", *(str(option) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


@pytest.fixture
def pictures(tmp_path: Path, site: Any, write_pictures: Any) -> Path:
    write_pictures(tmp_path / "shown", 6)
    return tmp_path / "shown"


def test_the_demos_account(tmp_path: Path, tiny_engine: Path, pictures: Path) -> None:
    code, account, said = demo(tmp_path / "run", tiny_engine, pictures)
    assert code == 0, said
    assert account["triggers"] == 12
    assert account["outcomes"] == {"PASS": 6, "REJECT": 6, "UNINSPECTED": 0}
    assert account["published"] == account["logged"] == 12
    assert account["consistent"] is True
    latency = account["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert account["precision"] is account["recall"] is None, "nothing is known of one's own pictures"
    assert account["found_by"] == {"tiny": {"parts": 6, "alone": 6, "clean": None, "defective": None}}
    assert Path(account["journal"]).is_file()
    assert len(list(Path(account["pictures"]).rglob("*.jpg"))) == 6
    # The folder may be used again: the account is the new run's alone.
    code, again, said = demo(tmp_path / "run", tiny_engine, pictures.absolute(), "--faults", "drop_at=3,black_at=5,incomplete_at=9")
    assert code == 0, said
    assert again["triggers"] == sum(again["outcomes"].values()) == again["published"] == again["logged"] == 12
    assert again["reasons"] == {"no_frame": 1, "image_invalid": 1, "incomplete": 1}
    assert again["outcomes"]["UNINSPECTED"] == 3


def test_what_is_not_there_is_told(tmp_path: Path, tiny_engine: Path, pictures: Path) -> None:
    code, _, said = demo(tmp_path / "run", tmp_path, pictures)
    assert code == 78
    assert "names no compiled engine" in said
    code, _, said = demo(tmp_path / "run", tiny_engine, tmp_path / "absent")
    assert code == 78
    assert "--images: no such folder" in said
    (tmp_path / "empty").mkdir()
    code, _, said = demo(tmp_path / "run", tiny_engine, tmp_path / "empty")
    assert code == 65
    assert "no images there" in said
    assert "Traceback" not in said
