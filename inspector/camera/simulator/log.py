"""The simulated device's own log of triggers: what tests and the demo hold the station's outcomes against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RECORD = np.dtype([("counter", "<u8"), ("host_ns", "<i8"), ("image", "<u4"), ("faults", "<u4")])
"""counter: 1, 2, 3, ...; host_ns: CLOCK_MONOTONIC of the trigger; image: index in the feed that was shown; faults: ``nodes.Fault`` bits."""


def read_trigger_log(folder: Path, camera: int = 0) -> NDArray[np.void]:
    """Every trigger that camera number ``camera`` logged in the state folder (INSPECTOR_SIM_STATE), in order.

    Returns:
        A structured array [N] of ``RECORD``; empty when the camera was never made. A record that is being written is left out.
    """
    path = folder / f"camera{camera}.log"
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)
