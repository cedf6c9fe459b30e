"""What can be known of a station before it runs: the engine fits, and the product speaks of its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.errors import ConfigError
from inspector.engine.opening import open_detector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.config.station import StationFiles


def check_classes(files: StationFiles, classes: Iterable[str]) -> None:
    """Whether the product speaks of classes that the engine has.

    Raises:
        ConfigError: naming every class that it has not.
    """
    known = set(classes)
    unknown = [name for name in files.product.detector.classes if name not in known]
    if unknown:
        raise ConfigError(
            f"{files.station.product}: detector.classes.{name}: the engine has no such class; it has {', '.join(sorted(known))}" for name in unknown
        )


def check_station(files: StationFiles) -> list[str]:
    """Load the engine without starting anything; lines that tell what would run.

    Raises:
        EngineError: the engine does not fit this machine, or is damaged.
        ConfigError: the product speaks of classes that the engine has not.
    """
    with open_detector(files.product.detector.engine) as detector:
        check_classes(files, detector.classes)
        return [
            f"station {files.station.name}, product {files.product.name} version {files.product.version}",
            *(f"camera {camera.name}: {camera.kind}" for camera in files.station.cameras),
            f"engine {detector.name} ({detector.hash[:12]}), budget {detector.budget_ms:.0f} ms, classes {', '.join(detector.classes)}",
            f"deadline {files.product.deadline_ms:.0f} ms, a part that is not inspected acts as {files.product.uninspected.value}",
        ]
