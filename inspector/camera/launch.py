"""Starting the camera process, and naming the signal that ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.config.station import CameraConfig


def launch(config: CameraConfig, ring_fd: int, channel_fd: int, pulse_fd: int) -> subprocess.Popen[bytes]:
    """Start the camera process; it inherits the three descriptors and nothing else.

    Raises:
        OSError: no process can be started.
        ValueError: the camera's environment holds what none can (a NUL character).
    """
    descriptors = (ring_fd, channel_fd, pulse_fd)
    options = [f"--{name}-fd={fd}" for name, fd in zip(("ring", "channel", "pulse"), descriptors, strict=True)]
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "inspector.camera.process", *options],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=os.environ | config.environment,
    )


def signal_name(number: int) -> str:
    """SIGKILL; or "signal 40": most real-time signals have no name."""
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")
