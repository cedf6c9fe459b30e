"""The one ONNX of a network: static shapes but for the batch, named tensors at which a backend can cut it, and what it is in its metadata.

torch's older exporter (tracing) is used: it takes 2 s where the newer takes 23, and the result has the same operators. Operators are those of ONNX
opset 17, which OpenVINO and TensorRT-RTX both take; the uint8 input with a Cast behind it too.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from inspector.compile.graph import INPUT, graph_of, named_tensors
from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.compile.graph import Model, Part
    from inspector.config.recipe import Recipe

OPSET = 17
MAX_BATCH = 8
FORBIDDEN_OPERATORS = frozenset({"NonMaxSuppression", "RoiAlign", "MaxRoiPool", "NonZero", "Loop", "If", "Scan"})
"""Operators with data-dependent shapes or control flow, or that TensorRT builds only by plugins."""
HALF_MIN_ELEMENTS = 1024
HALF_SUFFIX = "_half"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    path: Path
    bytes: int
    nodes: int
    operators: tuple[str, ...]
    """Kinds of nodes, sorted."""
    weights_sha256: str
    parts: tuple[Part, ...]


class _Named(nn.Module):
    """Gives out every named tensor, in the order of the graph's names."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(named_tensors(self.model, image).values())


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the state dict's names, types, shapes and values, hex."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def export_onnx(model: Model, recipe: Recipe, path: Path, *, half_weights: bool = False) -> ExportReport:
    """Writes a network as ONNX: ``image`` uint8 [batch, C, H, W] in, the outputs of its :class:`~inspector.compile.graph.Graph` out; batch 1 to 8.

    Inner tensors have the graph's names, and each of its parts depends on nothing but its inputs. The metadata holds
    ``name``, ``classes`` (JSON), ``recipe`` (the whole recipe as JSON), ``weights_sha256`` and ``parts`` (JSON).

    Args:
        model: the network; it is put into evaluation mode while it is written.
        recipe: what it was built from.
        path: the file, overwritten.
        half_weights: store the weights of convolutions and matrix products as float16, with a Cast to float32 behind each: half the size, for
            small engines that are committed. Box arithmetic is untouched.

    Raises:
        EngineError: the recipe asks for RoI max pooling, or the graph cannot be written as promised.
    """
    if isinstance(recipe, DetectorRecipe) and recipe.network.pooling != "align":
        raise EngineError(f'recipe {recipe.name}: pooling = "{recipe.network.pooling}" runs in torch only; set pooling = "align" to compile it')
    graph = graph_of(model)
    _trace(model, recipe, path, graph.names)
    written = onnx.load(path)
    del written.graph.output[len(graph.outputs) :]
    _join_aliases(written.graph, frozenset(graph.names))
    _check(written.graph, graph.parts)
    if half_weights:
        _halve_weights(written.graph)
    digest = weights_sha256(model)
    properties = {
        "name": recipe.name,
        "classes": json.dumps(recipe.classes),
        "recipe": recipe.model_dump_json(),
        "weights_sha256": digest,
        "parts": json.dumps([{"name": part.name, "inputs": part.inputs, "outputs": part.outputs, "float32": part.float32} for part in graph.parts]),
    }
    helper.set_model_props(written, properties)
    onnx.save(written, path)
    operators = tuple(sorted({node.op_type for node in written.graph.node}))
    return ExportReport(path, path.stat().st_size, len(written.graph.node), operators, digest, graph.parts)


def _trace(model: Model, recipe: Recipe, path: Path, names: tuple[str, ...]) -> None:
    """Records the graph, with all named tensors as outputs."""
    size = recipe.input
    # Recording computes the whole network once, hence a single image; no operation of the model takes the batch's size as a number.
    example = torch.zeros(1, size.channels, size.height_px, size.width_px, dtype=torch.uint8, device=model.mean.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Sizes become constants on purpose; the exporter's age is known.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Named(model),
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
            )
    finally:
        model.train(was_training)


def _join_aliases(graph: onnx.GraphProto, names: frozenset[str]) -> None:
    """Removes Identity nodes that only give a tensor its public name: later nodes are to read the named tensor, or cutting there cuts nothing."""
    aliases = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Identity" and node.output[0] in names}
    nodes = [node for node in graph.node if not (node.op_type == "Identity" and node.output[0] in names)]
    for node in nodes:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = aliases.get(name, name)
    del graph.node[:]
    graph.node.extend(nodes)


def _check(graph: onnx.GraphProto, parts: tuple[Part, ...]) -> None:
    """Whether the graph holds no forbidden operator and falls apart at its named tensors.

    Raises:
        EngineError: it does not.
    """
    forbidden = sorted({node.op_type for node in graph.node} & FORBIDDEN_OPERATORS)
    if forbidden:
        raise EngineError(f"the exported graph has operators that not every backend builds: {', '.join(forbidden)}")
    producers = {name: node for node in graph.node for name in node.output}
    for part in parts:
        stack, seen = list(part.outputs), set(part.inputs)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            if name == INPUT:
                raise EngineError(f"the exported graph cannot be cut: part {part.name} reaches past its inputs {', '.join(part.inputs)}")
            if name in producers:
                stack.extend(producers[name].input)
            elif name in part.outputs:
                raise EngineError(f"the exported graph has no tensor {name}")


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Stores large weights as float16 with a Cast behind each."""
    weights = {node.input[1] for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}}
    casts = []
    for tensor in graph.initializer:
        if tensor.name not in weights or tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_MIN_ELEMENTS:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor)
        if float(np.abs(values).max()) > float(np.finfo(np.float16).max):
            raise EngineError(f"weight {name} has values that float16 cannot hold; export without half_weights")
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + HALF_SUFFIX))
        casts.append(helper.make_node("Cast", [name + HALF_SUFFIX], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
