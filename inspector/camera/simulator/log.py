"""The simulated device's own logs, of triggers and of calls that failed: what tests and the demo hold the station's outcomes against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RECORD = np.dtype([("counter", "<u8"), ("host_ns", "<i8"), ("faults", "<u8"), ("encoder", "<i8"), ("image", "<u4"), ("camera_count", "<u4")])
"""counter: 1, 2, 3, ...; host_ns: CLOCK_MONOTONIC of the trigger; faults: ``nodes.Fault`` bits; encoder: at the trigger; image: index in the
feed that was shown; camera_count: the trigger's number as the camera counts, which misses some (lowest 32 bits)."""


class CallFault(NamedTuple):
    """A fault that hit a call: when (CLOCK_MONOTONIC, ns), which (a name of ``nodes.Fault`` in lower case), and the call's number."""

    at_ns: int
    kind: str
    number: int


def read_trigger_log(folder: Path, camera: int = 0) -> NDArray[np.void]:
    """Every trigger that camera number ``camera`` logged in the state folder (INSPECTOR_SIM_STATE), in order.

    Returns:
        A structured array [N] of ``RECORD``; empty when the camera was never made. A record that is being written is left out.
    """
    path = folder / f"camera{camera}.v2.log"
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) - len(data) % RECORD.itemsize], RECORD)


def read_call_log(folder: Path, camera: int = 0) -> list[CallFault]:
    """Every call to camera number ``camera`` that a planned fault hit, in order; empty when there was none."""
    path = folder / f"camera{camera}.calls"
    lines = path.read_text(encoding="ascii").splitlines(keepends=True) if path.exists() else []
    return [CallFault(int(at_ns), kind, int(number)) for at_ns, kind, number in (line.split() for line in lines if line.endswith("\n"))]
