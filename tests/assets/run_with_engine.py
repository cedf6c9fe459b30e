"""``inspector run`` with an engine that misbehaves: python run_with_engine.py ENGINE STATION.

ENGINE is ``slow`` (0.3 s per image), ``hung`` (from the tenth image on it does not come back), ``loading`` (it is never ready), or ``stamp``: it
reads the number on each image (``stamps.py``), and does what follows behind commas: ``stamp,throw_at=50x3,slow_every=7:30ms``. ``pair`` is a
detector with a classifier (``pairs.py``) that does what follows.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pairs import Finder, Looker, looker_calls
from stamps import Calls, StampEngine, read_mischief

import inspector.daemon.station as room
from inspector.cli.main import main
from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.engine.base import Array
from inspector.engine.classifier import Classifier
from inspector.engine.detector import Detector
from inspector.engine.guard import GuardedEngine
from inspector.engine.null import NullEngine

RECIPE = DetectorRecipe(name="slow", classes=("bright",), input=InputRecipe(height_px=64, width_px=64))


class SlowEngine(NullEngine):
    """Takes 0.3 s per image; ``hung``: from the tenth image on it does not come back."""

    def __init__(self, kind: str) -> None:
        super().__init__(RECIPE)
        self._kind = kind
        self._images = 0

    def _finish(self, job: Any) -> dict[str, Array]:
        self._images += 1
        if self._kind == "hung" and self._images > 10:
            print("the engine hangs", file=sys.stderr, flush=True)
            threading.Event().wait()
        time.sleep(0.3 if self._kind == "slow" else 0.0)
        return super()._finish(job)


def open_slow(kind: str, _: Path) -> Detector:
    if kind == "loading":
        print("the engine is loading", file=sys.stderr, flush=True)
        threading.Event().wait()
    return Detector(SlowEngine(kind))


def open_stamp(mischiefs: list[str], _: Path) -> Detector:
    # The guard as in front of a real engine: three failures in a row open it anew, once.
    calls = Calls(tuple(read_mischief(one) for one in mischiefs))
    return Detector(GuardedEngine(lambda: StampEngine(calls)))


def open_pair(mischiefs: list[str]) -> dict[str, Any]:
    calls = looker_calls(tuple(read_mischief(one) for one in mischiefs))
    return {
        "open_detector": lambda _: Detector(GuardedEngine(Finder)),
        "open_classifier": lambda _, map_kind: Classifier(GuardedEngine(lambda: Looker(calls)), map_kind),
    }


def die_with_parent() -> None:
    """However a test ends, no daemon outlives it."""
    parent = int(os.environ.get("INSPECTOR_TEST_PARENT", "0"))
    if parent:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the test is gone")


if __name__ == "__main__":
    die_with_parent()
    kind, *mischiefs = sys.argv.pop(1).split(",")
    opener = functools.partial(open_stamp, mischiefs) if kind == "stamp" else functools.partial(open_slow, kind)
    openers = open_pair(mischiefs) if kind == "pair" else {"open_detector": opener}
    room.Daemon = functools.partial(room.Daemon, **openers)  # type: ignore[misc]
    sys.argv.insert(1, "run")
    main()
