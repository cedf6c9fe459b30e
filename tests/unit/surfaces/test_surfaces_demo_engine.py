from __future__ import annotations

from pathlib import Path

from inspector.config.recipe import read_detector_recipe
from inspector.surfaces.defects import DEFECT_KINDS

ENGINES = Path(__file__).resolve().parents[3] / "engines"


def test_the_demo_recipe_knows_the_kinds_that_are_drawn() -> None:
    assert read_detector_recipe(ENGINES / "demo.toml").classes == DEFECT_KINDS


def test_the_demo_networks_stay_small() -> None:
    sizes = {entry.name: entry.stat().st_size for entry in (ENGINES / "demo").iterdir()}
    assert any(name.endswith(".onnx") for name in sizes)
    assert sum(sizes.values()) <= 10 * 2**20, sizes
