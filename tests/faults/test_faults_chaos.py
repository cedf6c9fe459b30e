"""A part of `make chaos`: one kind of fault per group, each as a run of real processes. All kinds: docs/chaos.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.camera.simulator import simulator_path

CHAOS = Path(__file__).with_name("chaos")
SUBSET = (
    "late_beyond_deadline",
    "lost",
    "camera_sigkill",
    "view_missing",
    "engine_throws",
    "ring_full",
    "subscriber_at_high_water_mark",
    "announced_never_come",
    "paused_and_resumed",
    "daemon_sigkill",
    "daemon_sigterm",
    "controller_sigstop",
    "clock_forward",
    "port_taken",
)
NEED_ROOT = ("network_cut", "disk_full")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def chaos(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHAOS), *options], capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.parametrize("kind", [*SUBSET, *(pytest.param(one, marks=pytest.mark.needs_root) for one in NEED_ROOT)])
def test_no_part_is_lost_and_none_passes_wrongly(kind: str, tmp_path: Path) -> None:
    if simulator_path() is None:
        pytest.skip("the simulator was not built: no C++ compiler")
    table = tmp_path / "table.json"
    done = chaos("--only", kind, "--json", str(table))
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(table.read_text())["rows"]
    assert row["injected"] > 0
    assert row["parts"] > 0
    assert not row["unaccounted"]
    assert not row["false_pass"]


def test_the_subset_is_what_the_runner_calls_so() -> None:
    listed = chaos("--list", "--subset").stdout.splitlines()
    assert sorted(line.split()[0] for line in listed) == sorted((*SUBSET, *NEED_ROOT))


def test_there_are_enough_kinds_and_each_says_what_it_does() -> None:
    listed = chaos("--list").stdout.splitlines()
    assert len(listed) >= 40
    assert all(line.endswith(".") for line in listed)


def test_a_kind_that_does_not_exist_is_named() -> None:
    done = chaos("--only", "no_such_kind")
    assert done.returncode == 2
    assert "no_such_kind" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="as root nothing is skipped")
def test_without_root_what_needs_it_is_skipped() -> None:
    done = chaos("--only", "disk_full")
    assert done.returncode == 0
    assert "skipped: needs root" in done.stdout
