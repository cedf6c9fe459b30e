"""The CPU engine: OpenVINO, its precision always named, box arithmetic in float32 whatever it is.

OpenVINO runs a whole model in one precision. The graph is therefore cut into stages (docs/decisions/0002), each compiled on its own; the
tensors between them are allocated once and shared, so that a stage writes where the next one reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
from openvino import passes

from inspector.contract.errors import EngineError
from inspector.engine.base import check_outputs
from inspector.engine.cpu import available_threads, cpu_device
from inspector.engine.desk import TicketedEngine
from inspector.engine.lane import Lane
from inspector.engine.manifest import check_backend, check_device, load_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.engine.base import Array
    from inspector.engine.manifest import Manifest, Stage

CLOSE_S = 10.0
"""How long closing waits for images in flight."""


def library_version() -> str:
    """OpenVINO's version, without the hash of its build."""
    return str(ov.__version__).split("-", 1)[0]


def computes_bf16() -> bool:
    """Whether OpenVINO has bfloat16 arithmetic on this CPU (avx512_bf16 or amx_bf16); it is not emulated, which would be slower than float32."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") and bool(
        {"avx512_bf16", "amx_bf16", "bf16"} & set(cpu_device().instructions)
    )


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """In which precision one layer of a compiled stage runs."""

    stage: str
    kind: str
    name: str
    precision: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A compiled stage."""

    stage: Stage
    compiled: ov.CompiledModel
    request: ov.InferRequest


class OpenVinoEngine(TicketedEngine["Future[dict[str, Array]]"]):
    """An :class:`~inspector.engine.base.Engine` on the CPU.

    Args:
        manifest: what to run, and what is expected of it.
        onnx: the network.
        taps: inner tensors that ``collect`` returns beside the outputs, by name; for measuring parity.

    Raises:
        EngineError: library, device or network do not fit the manifest, or OpenVINO refuses the network.
    """

    def __init__(self, manifest: Manifest, onnx: Path, taps: Sequence[str] = ()) -> None:
        super().__init__(manifest)
        check_backend(manifest, "openvino", library_version())
        check_device(manifest, cpu_device())
        self._name = manifest.recipe.name
        if any(stage.precision == "bf16" for stage in manifest.stages) and not computes_bf16():
            raise EngineError(
                f'engine {self._name!r}: this CPU has no bf16 arithmetic: set compile.precision = "fp32" in its recipe and compile again'
            )
        try:
            self._parts, self._outputs = _compile(manifest, onnx, taps)
        except RuntimeError as error:
            raise EngineError(f"{onnx}: OpenVINO {library_version()} refuses the network: {_first_line(error)}") from error
        self._check_contract()
        self._lane = Lane(f"engine-{self._name}", self._infer)

    def layer_precisions(self) -> tuple[LayerPrecision, ...]:
        """In which precision each layer runs, as the compiled stages' execution graphs tell."""
        layers = []
        for part in self._parts:
            for operation in part.compiled.get_runtime_model().get_ordered_ops():
                info = operation.get_rt_info()
                kind, precision = (str(info[key].value) for key in ("layerType", "runtimePrecision"))
                layers.append(LayerPrecision(part.stage.name, kind, operation.get_friendly_name(), precision))
        return tuple(layers)

    def _start(self, image: NDArray[np.uint8]) -> Future[dict[str, Array]]:
        """Hand an image to the lane."""
        return self._lane.submit(image)

    def _finish(self, job: Future[dict[str, Array]]) -> dict[str, Array]:
        """Wait for the lane."""
        return job.result()

    def _free(self) -> None:
        """Wait for the lane, then drop the compiled stages."""
        if not self._lane.close(CLOSE_S):
            raise EngineError(f"engine {self._name!r} did not finish its image within {CLOSE_S:.0f} s and cannot be closed: end the process")
        self._parts.clear()
        self._outputs.clear()

    def _check_contract(self) -> None:
        """Whether the compiled stages have the manifest's input and outputs, before the first image comes."""
        expected = self._manifest.input
        port = self._parts[0].compiled.input(expected.name)
        if (tuple(port.shape), port.get_element_type().to_dtype()) != (expected.shape, np.dtype(expected.dtype)):
            raise EngineError(f"engine {self._name!r}: the network takes {port.get_element_type()} {list(port.shape)}, the manifest says otherwise")
        check_outputs({name: tensor.data for name, tensor in self._outputs.items()}, self._manifest.outputs)

    def _infer(self, image: NDArray[np.uint8]) -> dict[str, Array]:
        """All stages on one image; in the lane's thread."""
        try:
            self._parts[0].request.set_tensor(self._manifest.input.name, ov.Tensor(image[None], shared_memory=True))
            for part in self._parts:
                part.request.infer(share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineError(f"engine {self._name!r} failed on an image: {_first_line(error)}") from error
        return {name: np.array(tensor.data) for name, tensor in self._outputs.items()}


def open_openvino(path: Path) -> OpenVinoEngine:
    """The engine of a manifest file.

    Raises:
        EngineError: the manifest, a file of it, the library or this CPU does not fit.
    """
    manifest = load_manifest(path)
    return OpenVinoEngine(manifest, path.parent / manifest.file("onnx").name)


def _compile(manifest: Manifest, onnx: Path, taps: Sequence[str]) -> tuple[list[_Part], dict[str, ov.Tensor]]:
    """The compiled stages, wired to each other, and the tensors that they write the outputs and ``taps`` to."""
    core = ov.Core()
    model = core.read_model(onnx)
    model.reshape({manifest.input.name: list(manifest.input.shape)})
    folding = passes.Manager()
    folding.register_pass(passes.ConstantFolding())
    folding.run_passes(model)  # else what is computed from constants alone would be claimed, and rounded, by the first stage that reads it
    wanted = [*(spec.name for spec in manifest.outputs), *taps]
    pieces = cut(model, [stage.outputs for stage in manifest.stages], wanted)
    parts: list[_Part] = []
    tensors: dict[str, ov.Tensor] = {}
    for stage, piece in zip(manifest.stages, pieces, strict=True):
        settings = {
            "INFERENCE_PRECISION_HINT": ov.Type.bf16 if stage.precision == "bf16" else ov.Type.f32,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": available_threads(manifest.threads),
        }
        compiled = core.compile_model(piece.model, "CPU", settings)
        request = compiled.create_infer_request()
        # By position: compiling may take names away.
        for name, port in zip(piece.outputs, compiled.outputs, strict=True):
            tensors[name] = ov.Tensor(port.get_element_type(), port.shape)
            request.set_tensor(port, tensors[name])
        for name, port in zip(piece.inputs, compiled.inputs, strict=True):
            if name != manifest.input.name:
                request.set_tensor(port, tensors[name])
        parts.append(_Part(stage, compiled, request))
    return parts, {name: tensors[name] for name in wanted}


@dataclass(frozen=True, slots=True)
class Piece:
    """One of a chain of models; names by the position of its inputs and outputs."""

    model: ov.Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def cut(model: ov.Model, stages: Sequence[Sequence[str]], wanted: Sequence[str]) -> list[Piece]:
    """A model as a chain of models.

    A stage computes its named tensors and all that they need and no earlier stage has computed. What a later stage needs of an earlier one becomes an
    output there and an input here, under the same name, whether it was named as a cut or not; constants go to every stage that needs them.

    Args:
        model: the whole; it is taken apart and not to be used again.
        stages: tensor names by stage; those of the last are the network's outputs.
        wanted: tensors that have to be outputs, of whichever stage computes them.

    Returns:
        A model by stage. A tensor that is wanted or named as a cut goes by that name.

    Raises:
        EngineError: a name is no tensor of the model.
    """
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() != "Result"]
    found = {name: output for node in nodes for output in node.outputs() for name in output.get_names()}
    missing = sorted({name for names in (*stages, wanted) for name in names} - found.keys())
    if missing:
        raise EngineError(
            f"the network has no tensor {missing[0]!r}: export it again with `inspector compile RECIPE.toml --weights FILE --out FOLDER`"
        )
    known = {name for names in (wanted, *stages) for name in names}
    _drop_results(model)
    stage_of: dict[str, int] = {}
    for number, names in enumerate((*stages, wanted)):
        _claim([found[name].get_node() for name in names], min(number, len(stages) - 1), stage_of)
    starts: list[dict[str, ov.Node]] = [{} for _ in stages]
    ends: list[dict[str, ov.Node]] = [{} for _ in stages]
    inner = [node for node in nodes if node.get_friendly_name() in stage_of and node.get_type_name() != "Constant"]
    for node, port in [(reader, port) for reader in inner for port in reader.inputs()]:
        source = port.get_source_output()
        origin = source.get_node()
        here = stage_of[node.get_friendly_name()]
        there = stage_of.get(origin.get_friendly_name(), -1)
        name = _name_of(source, known)
        if there == -1:
            starts[here][name] = origin  # the network's own input
        elif there != here and origin.get_type_name() != "Constant":
            if name not in starts[here]:
                starts[here][name] = _parameter(source, name)
            ends[there].setdefault(name, ov.opset15.result(source))
            port.replace_source_output(starts[here][name].output(0))
    for name in wanted:
        ends[stage_of[found[name].get_node().get_friendly_name()]].setdefault(name, ov.opset15.result(found[name]))
    return [
        Piece(ov.Model(list(end.values()), list(start.values()), "stage"), tuple(start), tuple(end)) for start, end in zip(starts, ends, strict=True)
    ]


def _drop_results(model: ov.Model) -> None:
    """Take a model's outputs away: each stage gets its own, and the old ones would still count as readers of the tensors."""
    for result in model.results:
        source = result.input(0).get_source_output()
        result.input(0).replace_source_output(_parameter(source, "dropped").output(0))
        model.remove_result(result)


def _claim(nodes: list[ov.Node], number: int, stage_of: dict[str, int]) -> None:
    """Give all unclaimed ancestors of ``nodes``, and themselves, to a stage."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in stage_of:
            if node.get_type_name() != "Parameter":
                stage_of[node.get_friendly_name()] = number
            waiting.extend(port.get_source_output().get_node() for port in node.inputs())


def _name_of(source: ov.Output, known: set[str]) -> str:
    """One name of a tensor, always the same: a known one where it has one."""
    names = source.get_names()
    return str(min(names & known or names, default=f"{source.get_node().get_friendly_name()}:{source.get_index()}"))


def _parameter(source: ov.Output, name: str) -> ov.Node:
    """A stage's input in place of ``source``."""
    parameter = ov.opset15.parameter(list(source.get_shape()), source.get_element_type())
    parameter.set_friendly_name(name)
    return parameter


def _first_line(error: RuntimeError) -> str:
    """The sentence in one of OpenVINO's many-lined errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
