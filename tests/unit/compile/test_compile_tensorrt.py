"""Every recipe's real graph is parsed and built, with random weights; TensorRT-RTX needs no GPU for that."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from inspector.compile.export import export_onnx
from inspector.compile.graph import graph_of
from inspector.compile.tensorrt_build import load_tensorrt, parse_and_build
from inspector.compile.torch_reference import build_model
from inspector.config.recipe import Recipe, read_recipe
from inspector.contract.errors import EngineError
from inspector.engine.null import engine_contract

ENGINES = Path(__file__).parents[3] / "engines"


def compiled_recipes() -> list[Recipe]:
    """All recipes that are compiled (RoI max pooling runs in torch only)."""
    recipes = [read_recipe(path) for path in sorted(ENGINES.glob("*.toml"))]
    return [recipe for recipe in recipes if recipe.network.pooling != "max"]


@pytest.fixture(autouse=True)
def _library() -> None:
    try:
        load_tensorrt()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.mark.timeout(400)  # the largest takes 25 s of a processor, minutes where it is shared
@pytest.mark.parametrize("recipe", compiled_recipes(), ids=lambda recipe: recipe.name)
def test_every_recipe_is_parsed_and_built(recipe: Recipe, tmp_path: Path) -> None:
    model = build_model(recipe, None)
    export_onnx(model, recipe, tmp_path / "net.onnx")
    report = parse_and_build(tmp_path / "net.onnx", precision="fp32")
    (image,) = report.inputs
    assert (image.name, image.dtype) == ("image", "uint8")
    assert image.shape == (-1, recipe.input.channels, recipe.input.height_px, recipe.input.width_px)
    assert [port.name for port in report.outputs] == list(graph_of(model).outputs)
    assert [port.dtype for port in report.outputs] == [spec.dtype.replace("float32", "float") for spec in engine_contract(recipe)[1]]
    assert report.plan_bytes > 0
    assert report.layers > 50


def small_graph(path: Path, operator: str) -> Path:
    """A graph of one node."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], name="only")], "small", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_plan_is_written_when_asked(tmp_path: Path) -> None:
    report = parse_and_build(small_graph(tmp_path / "relu.onnx", "Relu"), precision="bf16", plan_path=tmp_path / "relu.plan")
    assert (tmp_path / "relu.plan").stat().st_size == report.plan_bytes
    assert report.inputs[0].shape == (-1, 4)


def test_parser_errors_name_the_node(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot parse the graph: .*\(node 0, only\)"):
        parse_and_build(small_graph(tmp_path / "odd.onnx", "NoSuchThing"), precision="fp32")


def test_files_that_are_no_graphs_are_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        parse_and_build(tmp_path / "none.onnx", precision="fp32")
    (tmp_path / "text.onnx").write_bytes(b"this is no graph at all")
    with pytest.raises(EngineError, match="cannot parse"):
        parse_and_build(tmp_path / "text.onnx", precision="fp32")
