"""A small station in this process: pictures in a folder, an engine double, a journal, free ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.config.station import StationFiles, read_station
from inspector.daemon.station import Daemon
from inspector.engine.base import Array, EngineLostError
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine

RECIPE = DetectorRecipe(name="double", classes=("scratch", "dent"), input=InputRecipe(height_px=64, width_px=64))
STATION = """
name = "unit"
product = "product.toml"
[publisher]
endpoint = "tcp://127.0.0.1:*"
heartbeat_ms = 5
[channel]
endpoint = "tcp://127.0.0.1:*"
[metrics]
port = 0
[[cameras]]
name = "top"
kind = "folder"
images = "pictures"
rate_hz = 50
max_image_bytes = 8192
"""
PRODUCT = """
name = "plate"
version = "1"
deadline_ms = 5000
[detector]
engine = "none.json"
[detector.classes.scratch]
threshold = 0.5
"""


class DoubleEngine(NullEngine):
    """Finds nothing; fails once ``error`` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(RECIPE)
        self.error = error
        self.closed = 0

    def _finish(self, job: object) -> dict[str, Array]:
        if self.error is not None:
            raise self.error
        return super()._finish(None)

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.fixture
def files(tmp_path: Path) -> StationFiles:
    (tmp_path / "pictures").mkdir()
    for number in range(12):  # more than the inspection remembers: none of them is stale
        image = np.random.default_rng(number).integers(80, 150, (64, 64)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), image)
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "product.toml").write_text(PRODUCT)
    (tmp_path / "station.toml").write_text(STATION)
    return read_station(tmp_path / "station.toml")


@pytest.fixture
def engine() -> DoubleEngine:
    return DoubleEngine()


@pytest.fixture
def daemon(files: StationFiles, engine: DoubleEngine) -> Iterator[Daemon]:
    one = Daemon(files, open_detector=lambda _: Detector(engine))
    yield one
    clean = one.stop()
    if one.failure is not None and not isinstance(one.failure, EngineLostError | ZeroDivisionError):
        raise AssertionError("a thread of the daemon failed") from one.failure
    assert clean, "something was left behind"
    assert engine.closed <= 1


@pytest.fixture
def make_daemon(files: StationFiles) -> Callable[..., Daemon]:
    return lambda engine: Daemon(files, open_detector=lambda _: Detector(engine))
