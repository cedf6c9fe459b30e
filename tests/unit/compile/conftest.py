from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from inspector.compile.export import export_onnx
from inspector.compile.reference import Reference, surface_canvases
from inspector.compile.torch_reference import build_model, torch_reference
from inspector.config.recipe import DetectorRecipe

RECIPE = {
    "name": "small",
    "classes": ["a", "b", "c"],
    "input": {"height_px": 128, "width_px": 192, "channels": 1},
    "network": {
        "backbone": "resnet18",
        "backbone_width": 0.125,
        "channels": 16,
        "hidden": 32,
        "levels": [4, 5],
        "pooling_levels": [4, 5],
        "anchor_sizes_px": [24.0, 64.0],
        "pre_nms": 40,
        "proposals": 16,
        "detections": 10,
    },
    "compile": {"threads": 1},
}


@dataclass(frozen=True, slots=True)
class Exported:
    recipe: DetectorRecipe
    onnx: Path
    reference: Reference


def _export(folder: Path, sharpness: float) -> Exported:
    """A network with random weights; ``sharpness`` makes it sure of what it says, as training would."""
    recipe = DetectorRecipe.model_validate(RECIPE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build_model(recipe, None, seed=3)
        with torch.no_grad():
            model.detection.classes.weight *= sharpness
            model.proposals.objectness.weight *= sharpness
        onnx = folder / "small.onnx"
        export_onnx(model, recipe, onnx)
        return Exported(recipe, onnx, torch_reference(model, recipe, surface_canvases(recipe.input, 2)))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(tmp_path_factory.mktemp("trained"), 40.0)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(tmp_path_factory.mktemp("untrained"), 1.0)
