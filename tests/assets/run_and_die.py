"""``inspector run`` that is killed at one certain step: python run_and_die.py POINT NUMBER STATION.

POINT is one of ``POINTS``: ``after_record`` is before it is sent, ``after_fold`` is after all of it and before the recorder's file is made anew.
NUMBER: at the first, second, ... time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

from inspector.cli.main import main
from inspector.journal.store import Store
from inspector.line.publisher import Publisher
from inspector.line.record_file import CLOSED, PAGE_BYTES, RECORD_BYTES
from inspector.line.recorder import FlightRecorder

POINTS = {
    "before_record": (FlightRecorder, "closed"),
    "after_record": (FlightRecorder, "closed"),
    "half_a_record": (FlightRecorder, "_store"),
    "after_send": (Publisher, "send"),
    "before_commit": (Store, "write"),
    "after_commit": (Store, "write"),
    "after_fold": (FlightRecorder, "start"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(recorder: Any, data: Any, position: int, kind: int, number: int, length: int, body: bytes) -> None:
    """As ``_store`` does it, up to the middle of the body."""
    start = PAGE_BYTES + position % recorder._capacity + RECORD_BYTES
    data[start : start + len(body) // 2] = body[: len(body) // 2]


def arm(point: str, last: int) -> None:
    room, name = POINTS[point]
    real, count = getattr(room, name), [0]

    def armed(self: Any, *arguments: Any) -> Any:
        if point == "half_a_record" and arguments[2] != CLOSED:
            return real(self, *arguments)
        count[0] += 1
        if count[0] < last:
            return real(self, *arguments)
        if point == "half_a_record":
            half(self, *arguments)
        elif point.startswith("after_") and point != "after_fold":
            real(self, *arguments)
        return die()

    setattr(room, name, armed)


if __name__ == "__main__":
    parent = int(os.environ.get("INSPECTOR_TEST_PARENT", "0"))
    if parent:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    arm(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:3] = ["run"]
    main()
