"""Closed parts for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """``make_part``, ``make_defect`` and ``make_proposal``."""
    return SimpleNamespace(**run_path(str(Path(__file__).parents[1] / "assets" / "closed_parts.py")))
