"""A camera that shows the pictures of a folder: the same port without any driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from inspector.camera.clock import Reading
from inspector.camera.port import CameraInfo, Frame, Value
from inspector.camera.simulator.feed import image_files, read_image
from inspector.contract.errors import CameraError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.station import CameraConfig

_POLL_S = 0.01
_DEFAULT_RATE_HZ = 10.0
_KEEP_BYTES = 256 * 1024 * 1024


class FolderCamera:
    """Pictures in name order, at ``rate_hz`` or by software trigger. The trigger counter and the frame id are the picture's number.

    Its only free settings: ``loop`` (default true: begin again after the last picture) and ``limit`` (pictures in all; 0: no limit).
    """

    def __init__(self, config: CameraConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._name = f"camera {config.name}"
        self._files: list[Path] = []
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._kept_bytes = 0
        self._grey = False
        self._limit: int | None = None
        self._count = 0
        self._asked = 0

    @property
    def incomplete(self) -> int:
        """Always 0."""
        return 0

    @property
    def underruns(self) -> int:
        """Always 0: a picture that is fetched late is shown late."""
        return 0

    def open(self) -> CameraInfo:
        """See ``Camera.open``."""
        config = self._config
        free: dict[str, Value] = {"loop": True, "limit": 0}
        problems = [f"{node}: a folder has no such node" for node in config.settings if node not in free]
        free |= {node: value for node, value in config.settings.items() if node in free}
        try:
            self._files = image_files(self._folder)
            first = read_image(self._files[0])
        except DataError as error:
            raise CameraError(f"{self._name}: {error}") from error
        pixel_format = config.pixel_format or ("Mono8" if first.ndim == 2 else "RGB8")
        if pixel_format == "BayerRG8":
            problems.append("PixelFormat: pictures are Mono8 or RGB8")
        height, width = first.shape[:2]
        for node, wanted, got in (("Width", config.width_px, width), ("Height", config.height_px, height)):
            if wanted is not None and wanted != got:
                problems.append(f"{node}: {wanted} is wanted, the first picture has {got}")
        if problems:
            raise CameraError(f"{self._name} does not take its settings: {'; '.join(problems)}")
        self._grey = pixel_format == "Mono8"
        limits = [int(free["limit"])] if free["limit"] else []
        limits += [] if free["loop"] else [len(self._files)]
        self._limit = min(limits) if limits else None
        settings = {node: str(value) for node, value in free.items()} | {"PixelFormat": pixel_format}
        return CameraInfo(
            "Folder", str(self._folder), "", simulated=True, width_px=width, height_px=height, pixel_format=pixel_format, settings=settings
        )

    def frames(self) -> Iterator[Frame | None]:
        """See ``Camera.frames``. A picture is exposed at its due time, even if the reader is behind."""
        period_s = 1.0 / (self._config.rate_hz or _DEFAULT_RATE_HZ)
        yield None
        due_s = time.monotonic()
        while True:
            now = time.monotonic()
            if self._limit is not None and self._count >= self._limit:
                waiting = _POLL_S
            elif self._config.trigger == "software":
                waiting = 0.0 if self._asked else _POLL_S
                due_s = now
            else:
                waiting = due_s - now
            if waiting > 0:
                time.sleep(min(waiting, _POLL_S))
                yield None
                continue
            self._asked = max(0, self._asked - 1)
            yield self._frame(int(due_s * 1e9))
            due_s += period_s

    def _frame(self, exposure_ns: int) -> Frame:
        image = self._image(self._count % len(self._files))
        self._count += 1
        height, width = image.shape[:2]
        return Frame(
            pixels=image.reshape(-1),
            frame_id=self._count,
            camera_ns=exposure_ns,
            received_ns=time.monotonic_ns(),
            width_px=width,
            height_px=height,
            stride_bytes=image.strides[0],
            pixel_format="Mono8" if self._grey else "RGB8",
            trigger_counter=self._count,
        )

    def _image(self, index: int) -> NDArray[np.uint8]:
        image = self._kept.get(index)
        if image is None:
            try:
                image = np.ascontiguousarray(read_image(self._files[index], grey=self._grey))
            except DataError as error:
                raise CameraError(f"{self._name} is lost: {error}") from error
            if self._kept_bytes + image.nbytes <= _KEEP_BYTES:
                self._kept[index] = image
                self._kept_bytes += image.nbytes
        return image

    def check(self) -> int | None:
        """See ``Camera.check``."""
        if not self._folder.is_dir():
            raise CameraError(f"{self._name} is lost: the folder {self._folder} is gone")
        return self._count

    def clock(self) -> Reading | None:
        """See ``Camera.clock``: pictures are stamped with the host's."""
        now_ns = time.monotonic_ns()
        return Reading(now_ns, now_ns, now_ns)

    def trigger(self) -> None:
        """See ``Camera.trigger``."""
        if self._config.trigger != "software":
            raise CameraError(f"{self._name}: a software trigger needs trigger = 'software'")
        self._asked += 1

    def write(self, node: str, value: Value | None) -> None:
        """See ``Camera.write``."""
        raise CameraError(f"{self._name}: {node}: a folder has no nodes to write {value!r} to")

    def close(self) -> None:
        """See ``Camera.close``."""
        self._kept = {}
        self._kept_bytes = 0
