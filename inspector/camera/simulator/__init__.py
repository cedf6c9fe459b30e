"""A GenTL producer with simulated cameras, for the demo and the tests; the real harvesters opens it like any vendor's."""

from __future__ import annotations

from pathlib import Path


def simulator_path() -> Path | None:
    """The producer that the package's build made; None: it was built without a C++ compiler, use the folder camera."""
    path = Path(__file__).with_name("inspector_simulator.cti")
    return path if path.is_file() else None
