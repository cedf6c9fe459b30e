"""The closed form of Grad-CAM with trained weights, the demo classifier's: beside torch's backward pass in fp64 and fp32, and out of OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from inspector.compile.export import export_onnx
from inspector.compile.torch_reference import build_model
from inspector.config.recipe import ClassifierRecipe, read_recipe
from inspector.engine.preprocess import letterbox
from inspector.models.bilinear import BilinearClassifier
from inspector.surfaces.scene import SurfaceGenerator

ENGINES = Path(__file__).parents[3] / "engines"
HEADS: tuple[dict[str, Any], ...] = ({"normalise": "none"}, {"normalise": "sqrt_l2", "gradient": "true"}, {"normalise": "sqrt_l2"})
"""The trained one, and the same weights behind a normalised head."""


def trained(head: dict[str, Any]) -> tuple[ClassifierRecipe, BilinearClassifier]:
    recipe = read_recipe(ENGINES / "demo-classifier.toml")
    assert isinstance(recipe, ClassifierRecipe)
    (weights,) = (ENGINES / "demo").glob("demo-classifier*.safetensors")
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update=head)})
    model = build_model(recipe, weights)
    assert isinstance(model, BilinearClassifier)
    return recipe, model


def surfaces(recipe: ClassifierRecipe) -> np.ndarray:
    generator, size = SurfaceGenerator(640, 480, 9, 1.0), recipe.input
    return np.stack([letterbox(generator.render(index).image, size.height_px, size.width_px, size.channels)[0] for index in range(4)])


def backward(model: BilinearClassifier, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equations 4 and 5 by torch's backward pass from the largest class score to feature A, its outermost cells added again."""
    a = a.detach().requires_grad_()
    phi = model.pool(a, b)
    descriptor = model.descriptor(phi)
    if model.network.normalise == "sqrt_l2" and model.network.gradient == "norm_constant":
        root = torch.sign(phi) * torch.sqrt(phi.abs() + model.network.root_epsilon)
        norm = torch.sqrt((root * root).sum((1, 2), keepdim=True) + 1e-10).detach()
        descriptor = root / norm * model.network.descriptor_scale
    (gradient,) = torch.autograd.grad(model.head(descriptor).max(1).values.sum(), a)
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * a).sum(1)).detach()
    return torch.nn.functional.pad(cam, [model.network.border_cells] * 4)


def worst(found: torch.Tensor, wanted: torch.Tensor) -> float:
    largest = wanted.abs().amax((1, 2))
    seen = largest > 0
    assert int(seen.sum()) >= 2, "without a map nothing is compared"
    return float(((found - wanted).abs().amax((1, 2))[seen] / largest[seen]).max())


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_trained_weights_give_the_same_map_in_closed_form_and_by_a_backward_pass(head: dict[str, Any]) -> None:
    recipe, model = trained(head)
    images = torch.from_numpy(surfaces(recipe))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model = model.to(dtype)
        with torch.no_grad():
            found = model.trace(images)
        assert worst(found.grad_cam, backward(model, found.features_a, found.features_b)) <= tolerance, dtype


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_trained_weights_give_the_same_maps_in_openvino(head: dict[str, Any], tmp_path: Path) -> None:
    recipe, model = trained(head)
    images = surfaces(recipe)
    export_onnx(model, recipe, tmp_path / "net.onnx")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    given = openvino.Core().compile_model(str(tmp_path / "net.onnx"), "CPU", settings)([images])
    with torch.no_grad():
        wanted = model.trace(torch.from_numpy(images))
    np.testing.assert_array_equal(given["label"], wanted.label.numpy())
    for name in ("grad_cam", "contribution"):
        assert worst(torch.from_numpy(given[name]), getattr(wanted, name)) <= 1e-3, name
