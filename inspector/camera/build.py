"""From a camera's section of the station file to the camera itself; called in the camera process."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.camera.simulator import simulator_path
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
    # Each camera loads only what it needs: the station is blind while this process starts again.
    if config.kind == "folder" and config.images is not None:
        from inspector.camera.folder import FolderCamera  # noqa: PLC0415

        return FolderCamera(config, config.images)
    from inspector.camera.genicam import GenicamCamera  # noqa: PLC0415

    if config.kind == "genicam" and config.producer is not None:
        return GenicamCamera(config, config.producer)
    producer = simulator_path()
    if producer is None:
        raise CameraError(f"camera {config.name}: the simulator was not built (no C++ compiler); use kind = 'folder', or install g++ and reinstall")
    index = simulator_index(config)
    os.environ["INSPECTOR_SIM_CAMERAS"] = str(max(index + 1, int(os.environ.get("INSPECTOR_SIM_CAMERAS") or 1)))
    resources = contextlib.ExitStack()
    if config.images is not None:
        os.environ[f"INSPECTOR_SIM_FEED_{index}"] = str(_feed(config, config.images, resources))
    return GenicamCamera(config.model_copy(update={"serial": f"SIM{index}"}), producer, resources)


def _feed(config: CameraConfig, images: Path, resources: contextlib.ExitStack) -> Path:
    """A feed file of ``images``; of a folder in anonymous memory that ``resources`` own: nothing to clean up after a kill."""
    if not images.is_dir():
        return images
    from inspector.camera.simulator.feed import read_folder, write_feed  # noqa: PLC0415

    descriptor = os.memfd_create("inspector-feed")
    resources.callback(os.close, descriptor)
    feed = Path(f"/proc/self/fd/{descriptor}")
    try:
        write_feed(feed, read_folder(images))
    except DataError as error:
        resources.close()
        raise CameraError(f"camera {config.name}: {error}") from error
    return feed
