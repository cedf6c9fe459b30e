"""The demo's station: a folder with a real station file, a real product recipe, a feed of images and what is planted on them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2

from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.feed import image_files, write_feed
from inspector.engine.manifest import read_manifest
from inspector.surfaces.scene import PlantedDefect, SurfaceGenerator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX = 640, 480
SEED = 2026
"""Of the demo's surfaces: the demo engine was trained on others."""
DEFECT_RATE = 0.3
DEADLINE_MS = 1000
CLASSIFIER_THRESHOLD = 0.5
"""Of the demo's classifier: docs/surfaces.md has what it misses and what it calls defective in error at other ones."""
CAMERA = "top"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the person at the terminal chose."""

    folder: Path
    parts: int
    rate_hz: float
    engine: Path
    classifier: Path | None
    """None: the detector alone decides."""
    images: Path | None
    threshold: float | None
    faults: str
    seed: int
    endpoint: str
    metrics_port: int


@dataclass(frozen=True, slots=True)
class DemoStation:
    """What was laid out."""

    station_file: Path
    line_folder: Path
    """The simulated line's trigger log."""
    images: int
    truth: tuple[tuple[PlantedDefect, ...], ...] | None
    """Planted defects by image; None: the images are the user's own, nothing is known of them."""
    networks: tuple[str, ...]
    """Names of the networks that look at the parts, the detector first."""
    simulated: bool
    """False: no simulator was built, a folder camera shows the images."""


def lay_out(options: DemoOptions, progress: Callable[[int, int], None]) -> DemoStation:
    """Write the demo's folder; ``progress`` is told (images made, images wanted).

    Raises:
        DataError: the images cannot be used.
    """
    folder = options.folder
    for part in ("line", "feed"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    simulated = simulator_path() is not None
    truth: list[tuple[PlantedDefect, ...]] | None = None
    if options.images is not None:
        feed = options.images
        images = len(image_files(feed))
    else:
        truth = []
        images = options.parts
        feed = folder / "feed"
        if simulated:
            feed /= "surfaces.feed"
            write_feed(feed, _surfaces(options.parts, truth, progress))
        else:
            for number, image in enumerate(_surfaces(options.parts, truth, progress)):
                cv2.imwrite(str(feed / f"{number:06d}.png"), image)
    (folder / "product.toml").write_text(_product(options))
    station_file = folder / "station.toml"
    station_file.write_text(_station(options, feed, simulated=simulated))
    engines = (options.engine,) if options.classifier is None else (options.engine, options.classifier)
    networks = tuple(read_manifest(engine).recipe.name for engine in engines)
    return DemoStation(station_file, folder / "line", images, None if truth is None else tuple(truth), networks, simulated)


def _surfaces(count: int, truth: list[tuple[PlantedDefect, ...]], progress: Callable[[int, int], None]) -> Iterator[NDArray[np.uint8]]:
    generator = SurfaceGenerator(WIDTH_PX, HEIGHT_PX, SEED, DEFECT_RATE)
    for index in range(count):
        surface = generator.render(index)
        truth.append(surface.defects)
        progress(index + 1, count)
        yield surface.image


def _product(options: DemoOptions) -> str:
    threshold = "" if options.threshold is None else f"threshold = {options.threshold}\n"
    return f"""# What counts as a defect, how fast it must be known, and what the line does then.
name = "demo"
version = "1"
deadline_ms = {DEADLINE_MS}
uninspected = "reject"

[detector]
engine = {_quoted(options.engine.absolute())}
{threshold}
{_classifier(options)}[validity]
frozen = {"false" if options.images else "true"}
"""


def _classifier(options: DemoOptions) -> str:
    if options.classifier is None:
        return ""
    return f"""[classifier]
engine = {_quoted(options.classifier.absolute())}
on = "image"
verdict = "either"           # either network rejects
threshold = {CLASSIFIER_THRESHOLD}

"""


def _station(options: DemoOptions, feed: Path, *, simulated: bool) -> str:
    kind = "simulator" if simulated else "folder"
    extra = f"settings = {{ limit = {options.parts} }}\n"
    if simulated:
        environment = {"INSPECTOR_SIM_STATE": str((options.folder / "line").absolute()), "INSPECTOR_SIM_SEED": str(options.seed)}
        if options.faults:
            environment["INSPECTOR_SIM_FAULTS"] = options.faults
        extra = f"""settings = {{ SimTriggerLimit = {options.parts} }}
environment = {{ {", ".join(f"{key} = {_quoted(value)}" for key, value in environment.items())} }}
"""
    return f"""# A station with one {kind} camera; a real one differs in [[cameras]] alone.
name = "demo"
product = "product.toml"
state_dir = "state"

[publisher]
endpoint = {_quoted(options.endpoint)}

[channel]
endpoint = "tcp://127.0.0.1:*"

[metrics]
port = {options.metrics_port}

[[cameras]]
name = "{CAMERA}"
kind = "{kind}"
images = {_quoted(feed.absolute())}
trigger = "line"
rate_hz = {options.rate_hz}
max_image_bytes = 8_000_000
{extra}
[cameras.identity]
part_id = "trigger_counter"
"""


def _quoted(value: object) -> str:
    """A TOML basic string."""
    return json.dumps(str(value))
