from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto

from inspector.compile.export import FORBIDDEN_OPERATORS, HALF_MIN_ELEMENTS, ExportReport, export_onnx, weights_sha256
from inspector.compile.graph import graph_of
from inspector.config.recipe import DetectorRecipe, read_detector_recipe, read_recipe
from inspector.contract.errors import EngineError
from inspector.models.boxes import iou
from inspector.models.multiscale import MultiscaleDetector

ENGINES = Path(__file__).parents[3] / "engines"
OUTPUTS = ("boxes", "scores", "classes", "converged")


def compiles(path: Path) -> bool:
    """Detectors but for those with RoI max pooling, which runs in torch only."""
    recipe = read_recipe(path)
    return isinstance(recipe, DetectorRecipe) and recipe.network.pooling == "align"


RECIPES = sorted(path.name for path in ENGINES.glob("*.toml") if compiles(path))


def shrunken(name: str) -> DetectorRecipe:
    """The recipe with its structure kept and its sizes made small."""
    values = read_detector_recipe(ENGINES / name).model_dump(mode="json")
    values["input"] |= {"height_px": 128, "width_px": 192}
    network = {"backbone_width": 0.125, "channels": 16, "hidden": 32, "pre_nms": 40, "proposals": 20, "detections": 10, "score_floor": 0.01}
    values["network"] |= network | {"pooling": "align"}
    if values["network"]["backbone"] == "resnet101":
        values["network"]["backbone"] = "resnet50"  # the same blocks, fewer of them
    return DetectorRecipe.model_validate(values)


def build(recipe: DetectorRecipe) -> MultiscaleDetector:
    torch.manual_seed(1)
    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes)).eval()
    for layer in (model.proposals.objectness, model.proposals.deltas, model.detection.classes, model.detection.boxes):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model


def pictures(recipe: DetectorRecipe, count: int) -> torch.Tensor:
    size = (count, recipe.input.channels, recipe.input.height_px, recipe.input.width_px)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@functools.cache
def compiled(path: Path) -> openvino.CompiledModel:
    return openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})


def infer(path: Path, images: torch.Tensor) -> dict[str, np.ndarray]:
    result = compiled(path)([images.numpy()])
    return {name: result[name] for name in OUTPUTS}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport]:
    recipe = shrunken("multiscale-r101.toml")
    model = build(recipe)
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    model.train()
    report = export_onnx(model, recipe, path)
    assert model.training, "the export changed the model's mode"
    return recipe, model.eval(), path, report


@pytest.mark.parametrize("name", RECIPES)
def test_openvino_repeats_torch_for_every_recipe(name: str, tmp_path: Path) -> None:
    recipe = shrunken(name)
    model = build(recipe)
    export_onnx(model, recipe, tmp_path / "net.onnx")
    images = pictures(recipe, 2)
    found = infer(tmp_path / "net.onnx", images)
    with torch.no_grad():
        boxes, scores, classes, converged = model(images)
    assert found["classes"].dtype == found["converged"].dtype == np.int32
    assert found["converged"].tolist() == converged.tolist() == [1, 1]
    compared = 0
    for image in range(2):
        # Matched, not in order: scores that all but tie may change places.
        overlap = iou(boxes[image], torch.from_numpy(found["boxes"][image]))
        overlap[classes[image][:, None] != torch.from_numpy(found["classes"][image])[None]] = 0
        for slot in torch.nonzero(scores[image] > scores[image].min() + 1e-4)[:, 0].tolist():  # the last place may go to another box
            best = int(overlap[slot].argmax())
            assert overlap[slot, best] > 0.999
            assert found["scores"][image, best] == pytest.approx(float(scores[image, slot]), abs=1e-4)
            compared += 1
    assert compared >= 10


def test_any_batch_gives_each_image_its_own_result(exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport]) -> None:
    recipe, _, path, _ = exported
    images = pictures(recipe, 3)
    together = infer(path, images)
    alone = infer(path, images[1:2])
    np.testing.assert_allclose(together["scores"][1], alone["scores"][0], atol=1e-5)
    np.testing.assert_allclose(together["boxes"][1], alone["boxes"][0], atol=1e-2)


def test_the_graph_has_portable_operators_static_shapes_and_names(exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport]) -> None:
    recipe, model, path, report = exported
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & FORBIDDEN_OPERATORS
    assert {"TopK", "GridSample", "Conv"} <= kinds
    assert all(not node.domain for node in graph.node), "an operator from outside ONNX"
    assert [value.name for value in graph.input] == ["image"]
    (image,) = graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    sizes = [axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert sizes == [0, recipe.input.channels, 128, 192]
    assert [value.name for value in graph.output] == list(OUTPUTS)
    made = {name for node in graph.node for name in node.output}
    assert set(graph_of(model).names) <= made
    assert report.nodes == len(graph.node)
    assert report.bytes == path.stat().st_size


def test_the_parts_run_one_after_another_like_the_whole(
    exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport], tmp_path: Path
) -> None:
    recipe, _, path, report = exported
    images = pictures(recipe, 2)
    known: dict[str, np.ndarray] = {"image": images.numpy()}
    for part in report.parts:
        piece = tmp_path / f"{part.name}.onnx"
        onnx.utils.extract_model(path, piece, list(part.inputs), list(part.outputs), check_model=False)
        result = compiled(piece)({name: known[name] for name in part.inputs})
        known |= {name: result[name] for name in part.outputs}
    whole = infer(path, images)
    for name in OUTPUTS:
        np.testing.assert_allclose(known[name], whole[name], atol=1e-3)
    assert [part.name for part in report.parts if not part.float32] == ["trunk", "head"]


def test_the_metadata_say_what_it_is(exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport]) -> None:
    recipe, model, path, report = exported
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["name"] == recipe.name
    assert tuple(json.loads(properties["classes"])) == recipe.classes
    assert DetectorRecipe.model_validate_json(properties["recipe"]) == recipe
    assert properties["weights_sha256"] == report.weights_sha256 == weights_sha256(model)
    parts = json.loads(properties["parts"])
    assert [tuple(part["outputs"]) for part in parts] == [part.outputs for part in report.parts]


def test_the_hash_tells_weights_apart(exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport]) -> None:
    recipe, model, _, _ = exported
    other = build(recipe)
    assert weights_sha256(other) == weights_sha256(model)
    with torch.no_grad():
        next(iter(other.parameters())).view(-1)[0] += 1e-3
    assert weights_sha256(other) != weights_sha256(model)


def test_half_weights_halve_the_file_and_leave_the_box_arithmetic(tmp_path: Path) -> None:
    recipe = shrunken("demo.toml")
    model = build(recipe)
    with torch.no_grad():  # weights that float16 holds exactly: any difference is then the graph's
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    full = export_onnx(model, recipe, tmp_path / "full.onnx")
    half = export_onnx(model, recipe, tmp_path / "half.onnx", half_weights=True)
    assert half.bytes < full.bytes
    assert half.weights_sha256 == full.weights_sha256
    graph = onnx.load(tmp_path / "half.onnx").graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    consumers = {name: node for node in graph.node for name in node.input}
    assert weights
    assert all(consumers[name].op_type == "Cast" for name in weights)
    users = {consumers[consumers[name].output[0]].op_type for name in weights}
    assert users <= {"Conv", "Gemm", "MatMul"}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    assert min(sizes[name] for name in weights) >= HALF_MIN_ELEMENTS
    # Batch normalisation is folded before the rounding, so scores agree to float16's precision.
    images = pictures(recipe, 1)
    first, second = (infer(tmp_path / f"{name}.onnx", images) for name in ("full", "half"))
    np.testing.assert_allclose(np.sort(first["scores"]), np.sort(second["scores"]), atol=0.02)


def test_max_pooling_is_refused(exported: tuple[DetectorRecipe, MultiscaleDetector, Path, ExportReport], tmp_path: Path) -> None:
    recipe, model, _, _ = exported
    paper = recipe.model_copy(update={"network": recipe.network.model_copy(update={"pooling": "max"})})
    with pytest.raises(EngineError, match="torch only"):
        export_onnx(model, paper, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    recipe = shrunken("demo.toml")
    model = build(recipe)
    with torch.no_grad():
        model.detection.hidden1.weight[0, 0] = 1e6
    with pytest.raises(EngineError, match="float16"):
        export_onnx(model, recipe, tmp_path / "net.onnx", half_weights=True)
