"""The camera port: what the camera process needs of a camera, whatever is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from inspector.camera.clock import Reading

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """An open camera, its settings written and read back."""

    model: str
    serial: str
    firmware: str
    simulated: bool
    width_px: int
    height_px: int
    pixel_format: str
    """PFNC name."""
    settings: dict[str, str]
    """Every setting that was asked for, as read back."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image. ``pixels`` lie in the driver's memory: they are valid until the iteration goes on."""

    pixels: NDArray[np.uint8]
    """uint8 [height_px * stride_bytes]."""
    frame_id: int
    camera_ns: int
    """Exposure on the camera's clock; 0: it tells none."""
    received_ns: int
    width_px: int
    height_px: int
    stride_bytes: int
    pixel_format: str
    encoder: int | None = None
    trigger_counter: int | None = None
    line_status: int | None = None


class Camera(Protocol):
    """Made, opened, iterated and closed by one thread. Whatever a camera does not do is a CameraError."""

    @property
    def incomplete(self) -> int:
        """Frames that arrived damaged and were discarded, since opening."""

    @property
    def underruns(self) -> int:
        """Frames that the driver lost for want of a buffer, since opening."""

    def open(self) -> CameraInfo:
        """Open, write every setting, read it back.

        Raises:
            CameraError: absent, or settings that it does not take, all of them listed.
        """

    def frames(self) -> Iterator[Frame | None]:
        """Start and yield: a frame, or None when there was none for a few milliseconds (the caller's turn to do other things).

        The first is None, as soon as the acquisition runs: from then on the camera sees.

        Raises:
            CameraError: the camera is lost.
        """

    def check(self) -> int | None:
        """Prove that the camera answers; its own count of triggers, None if it has none.

        Raises:
            CameraError: the camera is lost.
        """

    def clock(self) -> Reading | None:
        """The camera's clock now, the same that stamps the frames; None: it cannot be read.

        Raises:
            CameraError: the camera is lost.
        """

    def trigger(self) -> None:
        """One software trigger."""

    def write(self, node: str, value: Value | None) -> None:
        """Write one node while it runs; None executes a command."""

    def close(self) -> None:
        """Stop and close, whatever state it is in. Never raises; may be called twice."""
