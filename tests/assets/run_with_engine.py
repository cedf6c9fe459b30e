"""``inspector run`` with an engine that misbehaves: python run_with_engine.py slow|hung|loading STATION."""

from __future__ import annotations

import functools
import sys
import threading
import time
from pathlib import Path
from typing import Any

import inspector.daemon.station as room
from inspector.cli.main import main
from inspector.config.recipe import InputRecipe, Recipe
from inspector.engine.base import Array
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine

RECIPE = Recipe(name="slow", classes=("bright",), input=InputRecipe(height_px=64, width_px=64))


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


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    room.Daemon = functools.partial(room.Daemon, open_detector=functools.partial(open_slow, kind))  # type: ignore[misc]
    sys.argv.insert(1, "run")
    main()
