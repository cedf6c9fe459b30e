from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner

from inspector.cli.compile import compile_engine
from inspector.compile import build
from inspector.compile.build import BuildOptions, build_engine, measure_latency, new_manifest, run_all
from inspector.compile.network import read_metadata, read_network
from inspector.compile.reference import SUFFIX, folder_canvases, load_reference, save_reference
from inspector.contract.errors import ConfigError, DataError, EngineError
from inspector.engine.manifest import load_manifest
from inspector.engine.null import NullEngine
from inspector.engine.opening import open_engine
from inspector.engine.openvino import OpenVinoEngine, computes_bf16

if TYPE_CHECKING:
    from conftest import Exported

needs_bf16 = pytest.mark.skipif(not computes_bf16(), reason="this CPU has no bf16 arithmetic")


@pytest.fixture(autouse=True)
def few_latency_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LATENCY_IMAGES", 6)


def test_metadata_is_read_as_onnx_reads_it(trained: Exported) -> None:
    model = onnx.load(trained.onnx)
    assert read_metadata(trained.onnx) == {entry.key: entry.value for entry in model.metadata_props}
    network = read_network(trained.onnx)
    assert network.recipe == trained.recipe
    assert network.weights_sha256 == trained.reference.weights_sha256
    assert [stage.precision for stage in network.stages("bf16")] == ["bf16", "fp32", "bf16", "fp32"]
    assert [stage.precision for stage in network.stages("fp32")] == ["fp32"]


@pytest.mark.parametrize("content", [b"", b"noise that is no protobuf at all", b"\x3a\xff\xff\xff\x7f"], ids=["empty", "noise", "short"])
def test_what_inspector_did_not_export_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is no network that inspector exported"):
        read_network(path)
    with pytest.raises(EngineError, match="cannot be read"):
        read_network(tmp_path / "absent.onnx")


def test_an_engine_is_built_measured_and_opened_again(trained: Exported, tmp_path: Path) -> None:
    told: list[str] = []
    path = build_engine(trained.onnx, trained.reference, tmp_path / "out", progress=told.append)
    assert sorted(file.name for file in path.parent.iterdir()) == ["small.engine.json", "small.onnx", "small.reference.npz"]
    manifest = load_manifest(path)
    assert manifest.parity is not None
    assert manifest.latency is not None
    assert manifest.parity.proven_by == "detections"
    assert manifest.parity.detections > 5
    assert manifest.parity.matched == 1.0
    assert manifest.parity.max_box_difference_px < 0.05
    assert 0 < manifest.latency.p50_ms <= manifest.latency.p99_ms <= manifest.latency.max_ms
    assert told[0] == "compiling for this machine"
    with open_engine(path) as engine:
        for canvas, scores in zip(trained.reference.canvases, trained.reference.outputs["scores"], strict=True):
            np.testing.assert_allclose(engine.collect(engine.submit(canvas))["scores"][0], scores, atol=1e-4)


def test_a_station_rebuilds_from_onnx_and_reference_in_place(trained: Exported, tmp_path: Path) -> None:
    first = build_engine(trained.onnx, trained.reference, tmp_path)
    stored = load_reference(tmp_path / f"small{SUFFIX}")
    again = build_engine(tmp_path / "small.onnx", stored, tmp_path)
    assert again == first
    assert load_manifest(again).parity == load_manifest(again).parity
    np.testing.assert_array_equal(stored.outputs["boxes"], trained.reference.outputs["boxes"])


def test_failed_parity_writes_nothing_and_keeps_the_engine_that_is_there(trained: Exported, tmp_path: Path) -> None:
    path = build_engine(trained.onnx, trained.reference, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    outputs = trained.reference.outputs
    wrong = dataclasses.replace(trained.reference, outputs=outputs | {"boxes": outputs["boxes"] + np.float32(25)})
    with pytest.raises(EngineError, match=r"no engine was written for 'small'.*match"):
        build_engine(trained.onnx, wrong, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    load_manifest(path)
    with pytest.raises(EngineError, match="no engine was written"):
        build_engine(trained.onnx, wrong, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_reference_of_other_weights_or_size_is_refused(trained: Exported, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="belong to other weights"):
        build_engine(trained.onnx, dataclasses.replace(trained.reference, weights_sha256="x"), tmp_path)
    with pytest.raises(EngineError, match="of another size"):
        build_engine(trained.onnx, dataclasses.replace(trained.reference, canvases=trained.reference.canvases[:, :, :64]), tmp_path)


def test_an_untrained_network_has_to_be_allowed(untrained: Exported, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="proves no parity"):
        build_engine(untrained.onnx, untrained.reference, tmp_path)
    path = build_engine(untrained.onnx, untrained.reference, tmp_path, BuildOptions(allow_untrained=True))
    parity = load_manifest(path).parity
    assert parity is not None
    assert (parity.proven_by, parity.matched) == ("tensors", 1.0)
    assert parity.trunk_relative_error is not None
    assert parity.trunk_relative_error < 1e-4
    inner = {name: value + np.float32(name.startswith("rpn")) for name, value in untrained.reference.inner.items()}
    with pytest.raises(EngineError, match="trunk's logits differ"):
        build_engine(untrained.onnx, dataclasses.replace(untrained.reference, inner=inner), tmp_path / "b", BuildOptions(allow_untrained=True))


@needs_bf16
def test_bf16_of_a_real_network_cuts_where_boxes_begin(untrained: Exported, tmp_path: Path) -> None:
    path = build_engine(untrained.onnx, untrained.reference, tmp_path, BuildOptions(precision="bf16", allow_untrained=True))
    manifest = load_manifest(path)
    assert manifest.precision == manifest.recipe.compile.precision == "bf16"
    assert manifest.parity is not None
    assert manifest.parity.trunk_relative_error is not None
    assert 1e-4 < manifest.parity.trunk_relative_error < 0.06
    with OpenVinoEngine(manifest, path.with_name("small.onnx")) as engine:
        layers = engine.layer_precisions()
    convolutions = [layer for layer in layers if layer.kind in {"Convolution", "FullyConnected"}]
    assert len(convolutions) > 20
    assert {layer.precision for layer in convolutions} == {"bf16"}
    assert {layer.stage for layer in convolutions} == {"trunk", "head"}
    assert not [layer for layer in layers if layer.stage in {"proposals+pooling", "boxes"} and layer.precision in {"bf16", "f16"}]


@needs_bf16
def test_the_same_logits_give_the_same_regions_in_both_precisions(trained: Exported, tmp_path: Path) -> None:
    """Trunk in float32, head in bf16: boxes differ only by what the head says, far less than a pixel."""
    network = read_network(trained.onnx)
    (tmp_path / "small.onnx").write_bytes(trained.onnx.read_bytes())
    plain = new_manifest(network, tmp_path)
    stages = network.stages("bf16")
    mixed = msgspec.structs.replace(plain, stages=(msgspec.structs.replace(stages[0], precision="fp32"), *stages[1:]))
    taps = ("regions", "class_logits")
    with OpenVinoEngine(plain, trained.onnx, taps) as one, OpenVinoEngine(mixed, trained.onnx, taps) as other:
        expected, given = run_all(one, trained.reference.canvases), run_all(other, trained.reference.canvases)
    for a, b in zip(expected, given, strict=True):
        np.testing.assert_allclose(b["regions"], a["regions"], atol=0.01)
        assert 0 < np.abs(b["class_logits"] - a["class_logits"]).max() < 0.05 * np.abs(a["class_logits"]).max()


def test_references_survive_their_file_and_say_when_they_do_not(untrained: Exported, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_reference(untrained.reference, path)
    stored = load_reference(path)
    assert stored.inner.keys() == untrained.reference.inner.keys() == {*(f"rpn_logits_{k}" for k in (4, 5)), "regions", "class_logits"}
    assert stored.source.startswith("torch ")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(EngineError, match="damaged"):
        load_reference(path)
    with pytest.raises(EngineError, match="missing"):
        load_reference(tmp_path / "absent.npz")
    with pytest.raises(EngineError, match="cannot be written"):
        save_reference(untrained.reference, tmp_path / "no" / "such" / "folder.npz")


def test_pictures_of_a_folder_become_canvases(trained: Exported, tmp_path: Path) -> None:
    for index in range(5):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((64, 96), index * 10, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    canvases = folder_canvases(tmp_path, trained.recipe.input, 3)
    assert canvases.shape == (3, 1, 128, 192)
    assert canvases[:, 0, 0, 0].tolist() == [0, 20, 40]
    (tmp_path / "9.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"9\.png: is no picture"):
        folder_canvases(tmp_path, trained.recipe.input, 9)
    with pytest.raises(DataError, match="holds no pictures"):
        folder_canvases(tmp_path / "absent", trained.recipe.input, 1)


def test_latency_is_measured_over_several_images(trained: Exported) -> None:
    with NullEngine(trained.recipe) as engine:
        latency = measure_latency(engine, trained.reference.canvases, 1)
    assert latency.images == 6
    assert 0 <= latency.p50_ms <= latency.p99_ms <= latency.max_ms


def test_suppression_that_does_not_converge_is_no_parity(trained: Exported) -> None:
    class Endless(NullEngine):
        def _finish(self, job: None) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
            return super()._finish(job) | {"converged": np.zeros(1, np.int32)}

    with Endless(trained.recipe) as engine, pytest.raises(EngineError, match="did not converge"):
        run_all(engine, trained.reference.canvases)


def _run(*arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    app.command()(compile_engine)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    return result.exit_code, result.output, result.exception


def test_the_command_compiles_a_recipe_and_then_its_onnx(trained: Exported, tmp_path: Path) -> None:
    recipe = tmp_path / "small.toml"
    values = trained.recipe.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{key} = {json.dumps(values[key])}" for key in ("name", "classes")]
    for section in ("input", "network", "compile"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values[section].items())]
    recipe.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    code, output, error = _run(str(recipe), "--out", str(out), "--image-count", "2", "--allow-untrained")
    assert (code, error) == (0, None)
    assert "parity" in output
    assert "untrained" in output
    assert "p99" in output
    code, output, error = _run(str(out / "small.onnx"), "--out", str(tmp_path / "again"), "--allow-untrained")
    assert (code, error) == (0, None)
    assert str(tmp_path / "again" / "small.engine.json") in output
    code, _, error = _run(str(recipe), "--out", str(out))
    assert isinstance(error, ConfigError)
    assert "--allow-untrained" in str(error)
    code, _, error = _run(str(out / "small.onnx"), "--out", str(out), "--half-weights")
    assert isinstance(error, ConfigError)
    assert code != 0
