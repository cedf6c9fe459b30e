"""Makes tiny.onnx: a graph with a detector's names, dtypes and shapes, small enough to be computed by hand.

A 64x64 picture has 16 cells of 16x16 px. A cell's region is its square, moved by its own brightness, which also gives its class and score.
Run from the repository's root: python tests/assets/make_tiny_onnx.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inspector.config.recipe import DetectorRecipe

CELLS, CHANNELS, SLOTS = 16, 4, 5
RECIPE = DetectorRecipe.model_validate({
    "name": "tiny",
    "classes": ["dark", "bright"],
    "input": {"height_px": 64, "width_px": 64, "channels": 1},
    "network": {"detections": SLOTS, "levels": [4], "anchor_sizes_px": [16.0], "pooling_levels": [4], "proposals": CELLS},
    "compile": {"threads": 1, "budget_ms": 500.0},
})  # fmt: skip


def constants() -> list[onnx.TensorProto]:
    rows, columns = np.divmod(np.arange(CELLS), 4)
    anchors = np.stack((columns, rows, columns + 1, rows + 1), axis=1).astype(np.float32) * 16
    mean = np.full((CHANNELS, 1, 16, 16), 1 / 256, np.float32) * np.array([1, 0.5, 0.25, 0.125], np.float32)[:, None, None, None]
    values = {
        "mean": mean,
        "logit_weight": np.eye(1, CHANNELS, dtype=np.float32)[:, :, None, None],
        "delta_weight": np.full((4, CHANNELS, 1, 1), 0.25, np.float32),
        "anchors": anchors[None],
        "class_weight": np.array([[0, -1, 1]] + [[0, 0, 0]] * (CHANNELS - 1), np.float32) * 16,
        "class_bias": np.array([0, 8, -8], np.float32),
        "box_weight": np.full((CHANNELS, 8), 0.125, np.float32),
        "byte": np.array(1 / 255, np.float32),
        "shape_logits": np.array([-1, CELLS], np.int64),
        "shape_deltas": np.array([-1, CELLS, 4], np.int64),
        "shape_pooled": np.array([-1, CHANNELS, 1, 1], np.int64),
        "shape_flat": np.array([-1, CHANNELS], np.int64),
        "shape_boxes": np.array([-1, CELLS, 2, 4], np.int64),
        "shape_scores": np.array([-1, CELLS, 3], np.int64),
        "shape_codes": np.array([-1, 2, 4], np.int64),
        "first": np.array([1], np.int64),
        "last": np.array([3], np.int64),
        "axis": np.array([2], np.int64),
        "slots": np.array([SLOTS], np.int64),
        "four": np.array([1, 1, 4], np.int64),
        "zero": np.array(0, np.float32),
    }
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def nodes() -> list[onnx.NodeProto]:
    make = helper.make_node
    return [
        make("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        make("Mul", ["levels", "byte"], ["shares"]),
        make("Conv", ["shares", "mean"], ["map_4"], strides=[16, 16]),
        make("Conv", ["map_4", "logit_weight"], ["logit_map"]),
        make("Reshape", ["logit_map", "shape_logits"], ["rpn_logits_4"]),
        make("Conv", ["map_4", "delta_weight"], ["delta_map"]),
        make("Transpose", ["delta_map"], ["delta_last"], perm=[0, 2, 3, 1]),
        make("Reshape", ["delta_last", "shape_deltas"], ["rpn_deltas_4"]),
        make("Add", ["anchors", "rpn_deltas_4"], ["regions"]),
        make("GreaterOrEqual", ["rpn_logits_4", "zero"], ["bright_enough"]),
        make("Cast", ["bright_enough"], ["enough"], to=TensorProto.FLOAT),
        make("ReduceMin", ["enough"], ["regions_converged"], axes=[1], keepdims=0),
        make("Transpose", ["map_4"], ["map_last"], perm=[0, 2, 3, 1]),
        make("Reshape", ["map_last", "shape_pooled"], ["pooled"]),
        make("Reshape", ["pooled", "shape_flat"], ["flat"]),
        make("Gemm", ["flat", "class_weight", "class_bias"], ["class_logits"]),
        make("MatMul", ["flat", "box_weight"], ["codes"]),
        make("Reshape", ["codes", "shape_codes"], ["box_deltas"]),
        make("Softmax", ["class_logits"], ["probabilities"], axis=-1),
        make("Reshape", ["probabilities", "shape_scores"], ["by_cell"]),
        make("Slice", ["by_cell", "first", "last", "axis"], ["defects"]),
        make("ReduceMax", ["defects"], ["best"], axes=[2], keepdims=0),
        make("ArgMax", ["defects"], ["kind"], axis=2, keepdims=0),
        make("TopK", ["best", "slots"], ["scores", "chosen"], axis=1),
        make("GatherElements", ["kind", "chosen"], ["kinds"], axis=1),
        make("Cast", ["kinds"], ["classes"], to=TensorProto.INT32),
        make("Reshape", ["box_deltas", "shape_boxes"], ["codes_by_cell"]),
        make("ReduceMax", ["codes_by_cell"], ["moves"], axes=[2], keepdims=0),
        make("Add", ["regions", "moves"], ["moved"]),
        make("Unsqueeze", ["chosen", "axis"], ["chosen_column"]),
        make("Expand", ["chosen_column", "four"], ["chosen_four"]),
        make("GatherElements", ["moved", "chosen_four"], ["boxes"], axis=1),
        make("Cast", ["regions_converged"], ["converged"], to=TensorProto.INT32),
    ]


def main() -> None:
    outputs = {
        "boxes": (TensorProto.FLOAT, ["batch", SLOTS, 4]),
        "scores": (TensorProto.FLOAT, ["batch", SLOTS]),
        "classes": (TensorProto.INT32, ["batch", SLOTS]),
        "converged": (TensorProto.INT32, ["batch"]),
    }
    parts = [
        {"name": "trunk", "inputs": ["image"], "outputs": ["map_4", "rpn_logits_4", "rpn_deltas_4"], "float32": False},
        {"name": "proposals", "inputs": ["rpn_logits_4", "rpn_deltas_4"], "outputs": ["regions", "regions_converged"], "float32": True},
        {"name": "pooling", "inputs": ["map_4", "regions"], "outputs": ["pooled"], "float32": True},
        {"name": "head", "inputs": ["pooled"], "outputs": ["class_logits", "box_deltas"], "float32": False},
        {"name": "boxes", "inputs": ["regions", "regions_converged", "class_logits", "box_deltas"], "outputs": list(outputs), "float32": True},
    ]
    graph = helper.make_graph(
        nodes(),
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 1, 64, 64])],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        constants(),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    about = {"name": RECIPE.name, "recipe": RECIPE.model_dump_json(), "weights_sha256": "0" * 64, "parts": json.dumps(parts)}
    helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    onnx.save(model, Path(__file__).with_name("tiny.onnx"))


if __name__ == "__main__":
    main()
