from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from inspector.watchdog import Notifier, StageStamp


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


def test_a_stamp_ages_until_it_is_touched() -> None:
    clock = Clock()
    stamp = StageStamp("inspection", clock)
    clock.now = 5_000_000
    assert stamp.age_ms() == 5
    stamp.touch()
    assert (stamp.age_ms(), stamp.at_ns, stamp.name) == (0, 5_000_000, "inspection")


@pytest.mark.parametrize("abstract", [False, True])
def test_notifications_arrive(tmp_path: Path, abstract: bool) -> None:
    name = f"@inspector-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())})
        assert notifier.watchdog_s == 2
        assert notifier.ready("200 parts")
        assert manager.recv(100) == b"READY=1\nSTATUS=200 parts"
        assert notifier.stopping()
        assert manager.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_fed_by_progress_alone(tmp_path: Path) -> None:
    clock = Clock()
    stamp = StageStamp("inspection", clock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert notifier.watchdog(stamp, 10)
        assert manager.recv(100) == b"WATCHDOG=1"
        clock.now = 10_000_000
        assert not notifier.watchdog(stamp, 10)
        stamp.touch()
        assert notifier.watchdog(stamp, 10)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "nonsense"}, {"NOTIFY_SOCKET": "/nonexistent/notify"}],
)
def test_nobody_listens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    assert notifier.watchdog_s is None
    assert not notifier.ready()
