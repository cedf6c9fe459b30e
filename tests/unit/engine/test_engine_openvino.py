from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from inspector.compile.network import Network
from inspector.contract.errors import EngineError
from inspector.engine.base import Array
from inspector.engine.lane import Lane
from inspector.engine.manifest import SUFFIX, Backend, Manifest, Stage, TensorSpec, encode_manifest
from inspector.engine.opening import engine_detect, open_detector, open_engine
from inspector.engine.openvino import OpenVinoEngine, computes_bf16

needs_bf16 = pytest.mark.skipif(not computes_bf16(), reason="this CPU has no bf16 arithmetic")


def stairs(step: int = 16) -> Array:
    """uint8 [1, 64, 64]: cell n of 16 has the brightness n * step."""
    return (np.arange(16).reshape(4, 4).repeat(16, 0).repeat(16, 1) * step).astype(np.uint8)[None]


def by_hand(image: Array) -> dict[str, Array]:
    """What tests/assets/make_tiny_onnx.py says the graph computes."""
    brightness = image[0].reshape(4, 16, 4, 16).mean(axis=(1, 3)).ravel().astype(np.float64) / 255
    features = brightness[:, None] * np.array([1, 0.5, 0.25, 0.125])
    logits = np.stack((0 * brightness, 8 - 16 * brightness, 16 * brightness - 8), axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best, kind = shares[:, 1:].max(axis=1), shares[:, 1:].argmax(axis=1)
    order = np.argsort(-best, kind="stable")[:5]
    rows, columns = np.divmod(np.arange(16), 4)
    anchors = np.stack((columns, rows, columns + 1, rows + 1), axis=1) * 16
    boxes = anchors + features.sum(axis=1, keepdims=True) * 0.25 + features.sum(axis=1, keepdims=True) * 0.125
    return {"boxes": boxes[order][None], "scores": best[order][None], "classes": kind[order][None]}


def test_fp32_computes_the_graph(manifest: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest, tiny_onnx) as engine:
        outputs = engine.collect(engine.submit(stairs()))
    expected = by_hand(stairs())
    np.testing.assert_allclose(outputs["boxes"], expected["boxes"], atol=1e-4)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_array_equal(outputs["classes"], expected["classes"])
    assert outputs["converged"].tolist() == [1]


@needs_bf16
def test_bf16_moves_boxes_by_far_less_than_a_pixel(manifest_bf16: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest_bf16, tiny_onnx) as engine:
        outputs = engine.collect(engine.submit(stairs()))
    expected = by_hand(stairs())
    np.testing.assert_array_equal(outputs["classes"], expected["classes"])
    np.testing.assert_allclose(outputs["boxes"], expected["boxes"], atol=0.02)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=0.02)
    assert np.abs(outputs["scores"] - expected["scores"]).max() > 1e-6  # or it was not bf16


@needs_bf16
def test_trunk_and_head_run_in_bf16_and_all_that_touches_boxes_in_float32(manifest_bf16: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest_bf16, tiny_onnx) as engine:
        layers = engine.layer_precisions()
    heavy = [layer for layer in layers if layer.kind in {"Convolution", "FullyConnected", "MatMul"}]
    assert {layer.stage for layer in layers} == {"trunk", "proposals+pooling", "head", "boxes"}
    assert {layer.stage for layer in heavy} == {"trunk", "head"}
    assert {layer.precision for layer in heavy} == {"bf16"}
    boxes = [layer for layer in layers if layer.stage in {"proposals+pooling", "boxes"}]
    assert boxes
    assert not [layer for layer in boxes if layer.precision in {"bf16", "f16"}]


def test_fp32_has_nothing_in_another_float(manifest: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest, tiny_onnx) as engine:
        precisions = {layer.precision for layer in engine.layer_precisions()}
    assert "f32" in precisions
    assert not precisions & {"bf16", "f16"}


def test_taps_show_inner_tensors(manifest: Manifest, tiny: Network, tiny_onnx: Path) -> None:
    assert tiny.trunk_logits() == ("rpn_logits_4",)
    with OpenVinoEngine(manifest, tiny_onnx, ("rpn_logits_4", "regions")) as engine:
        outputs = engine.collect(engine.submit(stairs()))
    np.testing.assert_allclose(outputs["rpn_logits_4"][0], np.arange(16) * 16 / 255, atol=1e-5)
    assert outputs["regions"].shape == (1, 16, 4)


def test_results_are_the_callers_and_never_an_earlier_images(manifest: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest, tiny_onnx) as engine:
        first = engine.collect(engine.submit(stairs(16)))
        kept = {name: value.copy() for name, value in first.items()}
        second = engine.collect(engine.submit(stairs(4)))
    assert not np.array_equal(first["scores"], second["scores"])
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)


def test_a_failure_in_a_stage_is_raised_and_the_next_image_works(manifest: Manifest, tiny_onnx: Path) -> None:
    with OpenVinoEngine(manifest, tiny_onnx) as engine:
        wrong = engine._start(np.zeros((1, 8, 8), np.uint8))  # past the check, to make the runtime itself refuse
        with pytest.raises(EngineError, match="failed on an image"):
            wrong.result()
        np.testing.assert_allclose(engine.collect(engine.submit(stairs()))["scores"], by_hand(stairs())["scores"], atol=1e-6)


def test_a_closed_engine_says_so(manifest: Manifest, tiny_onnx: Path) -> None:
    engine = OpenVinoEngine(manifest, tiny_onnx)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(stairs())


def test_a_manifest_for_another_library_or_graph_is_refused(manifest: Manifest, tiny_onnx: Path, tmp_path: Path) -> None:
    old = msgspec.structs.replace(manifest, backend=Backend("openvino", "2000.1"))
    with pytest.raises(EngineError, match=r"openvino 2000\.1"):
        OpenVinoEngine(old, tiny_onnx)
    wide = msgspec.structs.replace(manifest, outputs=(*manifest.outputs[:1], TensorSpec("scores", "float32", (1, 9)), *manifest.outputs[2:]))
    with pytest.raises(EngineError, match="output 'scores'"):
        OpenVinoEngine(wide, tiny_onnx)
    nameless = msgspec.structs.replace(manifest, stages=(Stage("trunk", "fp32", ("no_such_tensor",)), *manifest.stages))
    with pytest.raises(EngineError, match="no tensor 'no_such_tensor'"):
        OpenVinoEngine(nameless, tiny_onnx)
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(b"\x08\x08" + bytes(200))
    with pytest.raises(EngineError, match=r"noise\.onnx: OpenVINO .* refuses"):
        OpenVinoEngine(manifest, noise)


def test_an_input_that_the_network_does_not_take_is_refused(manifest: Manifest, tiny_onnx: Path) -> None:
    floats = msgspec.structs.replace(manifest, input=msgspec.structs.replace(manifest.input, dtype="float32"))
    with pytest.raises(EngineError, match="the network takes"):
        OpenVinoEngine(floats, tiny_onnx)


def test_opening_goes_by_the_manifest(engine_file: Path, manifest: Manifest) -> None:
    with open_engine(engine_file) as engine, open_detector(engine_file) as detector, engine_detect(engine_file) as detect:
        assert engine.hash == detector.hash
        assert detect.classes == ("dark", "bright")
        boxes, scores, classes = detect(stairs()[0])
        found = detector.detect(stairs()[0])
        np.testing.assert_array_equal(boxes, found.boxes_px)
        assert len(scores) == len(classes) == 5
    computes_nothing = msgspec.structs.replace(manifest, backend=Backend("null", "1"))
    engine_file.with_name(f"null{SUFFIX}").write_bytes(encode_manifest(computes_nothing))
    with pytest.raises(EngineError, match="computes nothing"):
        open_engine(engine_file.with_name(f"null{SUFFIX}"))


def test_a_lane_hands_failures_to_the_one_who_waits_and_lives_on() -> None:
    lane: Lane[int, float] = Lane("lane-test", lambda number: 1 / number)
    bad, good = lane.submit(0), lane.submit(4)
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert good.result() == 0.25
    assert lane.close(5.0)
    with pytest.raises(EngineError, match="closed"):
        lane.submit(1)
