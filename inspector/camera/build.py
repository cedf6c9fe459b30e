"""From a camera's section of the station file to the camera itself; called in the camera process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.camera.folder import FolderCamera
from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.feed import read_folder, write_feed
from inspector.contract.errors import CameraError, DataError

if TYPE_CHECKING:
    from inspector.camera.port import Camera
    from inspector.config.station import CameraConfig

_MAX_SIMULATED = 8


def simulator_index(config: CameraConfig) -> int:
    """Which of the simulator's cameras is meant: serial SIM0 to SIM7, none being SIM0.

    Raises:
        CameraError: another serial.
    """
    match = re.fullmatch(r"SIM([0-7])", config.serial or "SIM0")
    if match is None:
        raise CameraError(f"camera {config.name}: simulated cameras have the serials SIM0 to SIM{_MAX_SIMULATED - 1}, not {config.serial}")
    return int(match[1])


def build_camera(config: CameraConfig) -> Camera:
    """The camera, not opened. For a simulated one the producer's environment is set, and a folder of pictures becomes its feed.

    Raises:
        CameraError: it cannot be made here.
    """
    if config.kind == "folder" and config.images is not None:
        return FolderCamera(config, config.images)
    # harvesters is loaded only where it is needed: it takes half a second.
    from inspector.camera.genicam import GenicamCamera  # noqa: PLC0415

    if config.kind == "genicam" and config.producer is not None:
        return GenicamCamera(config, config.producer)
    producer = simulator_path()
    if producer is None:
        raise CameraError(f"camera {config.name}: the simulator was not built (no C++ compiler); use kind = 'folder', or install g++ and reinstall")
    _prepare_simulator(config)
    serial = f"SIM{simulator_index(config)}"
    return GenicamCamera(config.model_copy(update={"serial": serial}), producer)


def _prepare_simulator(config: CameraConfig) -> None:
    index = simulator_index(config)
    os.environ["INSPECTOR_SIM_CAMERAS"] = str(max(index + 1, int(os.environ.get("INSPECTOR_SIM_CAMERAS", "1"))))
    if config.images is None:
        return
    feed = config.images
    if feed.is_dir():
        # In anonymous memory that lives as long as this process: nothing to clean up after a kill.
        descriptor = os.memfd_create("inspector-feed")
        feed = Path(f"/proc/self/fd/{descriptor}")
        try:
            write_feed(feed, read_folder(config.images))
        except DataError as error:
            raise CameraError(f"camera {config.name}: {error}") from error
    os.environ[f"INSPECTOR_SIM_FEED_{index}"] = str(feed)
