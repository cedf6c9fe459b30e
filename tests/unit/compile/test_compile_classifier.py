"""A classifier's way to an engine: the exported graph says what torch says, heat maps included, and the parity gate holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch

from inspector.compile.build import BuildOptions, build_engine
from inspector.compile.export import FORBIDDEN_OPERATORS, export_onnx
from inspector.compile.graph import graph_of, named_tensors
from inspector.compile.network import read_network
from inspector.compile.reference import Reference, load_reference
from inspector.compile.torch_reference import build_model, torch_reference
from inspector.config.recipe import ClassifierRecipe
from inspector.contract.errors import EngineError
from inspector.engine.manifest import load_manifest
from inspector.engine.openvino import OpenVinoEngine, computes_bf16, open_openvino

FORMS: dict[str, dict[str, Any]] = {
    "four trunks": {},
    "shared, root and norm": {"trunks": "shared", "activation": "relu", "normalise": "sqrt_l2", "positions": "mean"},
    "true gradient": {"trunks": "shared", "normalise": "sqrt_l2", "gradient": "true", "positions": "mean"},
    "plain BCNN, one trunk": {"trunks": "shared", "streams": 1, "channels": 0},
    "average, lite": {"backbone": "efficientnet_lite0", "pooling": "average", "streams": 1, "trunks": "shared"},
    "without its border": {"trunks": "shared", "level": 3, "border_cells": 1, "normalise": "sqrt_l2", "descriptor_scale": 10.0},
    "residual": {"backbone": "resnet18", "streams": 1, "level": 3},
}


def tiny(**network: Any) -> ClassifierRecipe:
    return ClassifierRecipe.model_validate(
        {
            "name": "tiny",
            "classes": ["good", "dent", "scratch"],
            "good": "good",
            "input": {"height_px": 64, "width_px": 96, "stride_px": 16},
            "network": {"architecture": "bilinear", "backbone_width": 0.25, "channels": 8} | network,
        }
    )


def canvases(recipe: ClassifierRecipe, count: int) -> np.ndarray:
    shape = (count, recipe.input.channels, recipe.input.height_px, recipe.input.width_px)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class Exported:
    recipe: ClassifierRecipe
    path: Path
    reference: Reference


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    recipe = tiny()
    path = tmp_path_factory.mktemp("classifier") / "tiny.onnx"
    model = build_model(recipe, None)
    export_onnx(model, recipe, path)
    return Exported(recipe, path, torch_reference(model, recipe, canvases(recipe, 3)))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_openvino_says_what_torch_says_of_any_batch(form: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny(**form)
    model = build_model(recipe, None)
    report = export_onnx(model, recipe, tmp_path / "net.onnx")
    assert not set(report.operators) & FORBIDDEN_OPERATORS
    images = canvases(recipe, 3)
    with torch.inference_mode():
        wanted = {name: value.numpy() for name, value in named_tensors(model, torch.from_numpy(images)).items()}
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    found = openvino.Core().compile_model(str(report.path), "CPU", settings)([images])
    for name in graph_of(model).outputs:
        given, told = found[name], wanted[name]
        assert (given.dtype, given.shape) == (told.dtype, told.shape), name
        largest = np.abs(told.reshape(len(told), -1)).max(axis=1).reshape(-1, *([1] * (told.ndim - 1)))
        assert float((np.abs(given - told) / np.maximum(largest, 1e-12)).max()) <= 1e-3, name


def test_an_engine_is_built_proven_and_opened_again(exported: Exported, tmp_path: Path) -> None:
    path = build_engine(exported.path, exported.reference, tmp_path)
    manifest = load_manifest(path)
    assert isinstance(manifest.recipe, ClassifierRecipe)
    parity = manifest.parity
    assert parity is not None
    assert (parity.proven_by, parity.images, parity.matched, parity.max_box_difference_px) == ("classes", 3, 1.0, None)
    assert parity.max_map_difference is not None
    assert 0 < parity.max_map_difference < 1e-3
    stored = load_reference(tmp_path / "tiny.reference.npz")
    assert set(stored.outputs) == {"scores", "label", "logits", "grad_cam", "contribution"}
    with open_openvino(path) as engine:
        outputs = engine.collect(engine.submit(exported.reference.canvases[0]))
    np.testing.assert_allclose(outputs["contribution"][0], exported.reference.outputs["contribution"][0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("label", 1, "predicted classes agree"),
        ("scores", 0.2, "scores differ by up to 0.2"),
        ("grad_cam", 5.0, "heat maps differ"),
        ("contribution", 5.0, "heat maps differ"),
    ],
)
def test_an_engine_that_does_not_repeat_its_reference_is_not_written(exported: Exported, tmp_path: Path, name: str, change: float, told: str) -> None:
    outputs = exported.reference.outputs
    wrong = outputs[name] + np.asarray(change, outputs[name].dtype)
    if name == "label":
        wrong %= 3
    reference = dataclasses.replace(exported.reference, outputs=outputs | {name: wrong})
    with pytest.raises(EngineError, match=told):
        build_engine(exported.path, reference, tmp_path)
    assert not list(tmp_path.iterdir())


def test_in_bf16_the_features_are_bf16_and_all_that_follows_is_fp32(exported: Exported, tmp_path: Path) -> None:
    network = read_network(exported.path)
    assert [(stage.name, stage.precision) for stage in network.stages("bf16")] == [("features", "bf16"), ("classes", "fp32")]
    if not computes_bf16():
        pytest.skip("this CPU has no bf16 arithmetic")
    recipe = exported.recipe
    loose = recipe.model_copy(update={"compile": recipe.compile.model_copy(update={"parity_map_tolerance": 0.1, "parity_score_tolerance": 0.1})})
    model = build_model(loose, None)
    export_onnx(model, loose, tmp_path / "net.onnx")
    path = build_engine(tmp_path / "net.onnx", torch_reference(model, loose, canvases(loose, 3)), tmp_path, BuildOptions(precision="bf16"))
    with OpenVinoEngine(load_manifest(path), tmp_path / "tiny.onnx") as engine:
        layers = engine.layer_precisions()
    assert {layer.precision for layer in layers if layer.stage == "classes" and layer.kind in {"MatMul", "SoftMax", "FullyConnected"}} == {"f32"}
    assert "bf16" in {layer.precision for layer in layers if layer.stage == "features" and layer.kind == "Convolution"}


def test_the_graph_is_cut_at_the_features(exported: Exported) -> None:
    made = {name for node in onnx.load(exported.path).graph.node for name in node.output}
    assert {"features_a", "features_b"} <= made
