"""Parsing an ONNX and building an engine by TensorRT or TensorRT-RTX. Neither step needs a GPU with TensorRT-RTX; running the engine does."""

from __future__ import annotations

import functools
import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inspector.contract.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.config.network import Precision

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Import names of the two libraries, the fuller one first; the wheels of TensorRT-RTX carry either name."""
MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the network; -1 stands for the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorRTReport:
    """What was built."""

    library: str
    version: str
    layers: int
    plan_bytes: int
    parse_s: float
    build_s: float
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    warnings: tuple[str, ...]


def load_tensorrt() -> Any:  # noqa: ANN401 (one of two libraries without type information)
    """The installed library.

    Raises:
        EngineError: there is none.
    """
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:  # also an installed module whose libraries are missing
            continue
    raise EngineError("neither TensorRT nor TensorRT-RTX can be imported; install inspectord[gpu]")


def parse_and_build(onnx_path: Path, *, precision: Precision, plan_path: Path | None = None) -> TensorRTReport:
    """Builds the ONNX for batches 1 to 8, tuned for 1.

    The network is strongly typed: every tensor has the type that the ONNX gives it.

    Args:
        onnx_path: the graph.
        precision: ``fp32`` also forbids TF32 in matrix products; ``bf16`` allows it where the ONNX says float32.
        plan_path: where the built engine is written; None: it is dropped.

    Raises:
        EngineError: no library, a file that cannot be read, parser errors (all of them are listed), or a graph that cannot be built.
    """
    trt = load_tensorrt()
    if not onnx_path.is_file():
        raise EngineError(f"{onnx_path}: no such file; export the network first")
    logger = _logger(trt)
    logger.messages.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    begun = time.monotonic()
    # The parser takes a file that is no ONNX for an empty graph.
    if not parser.parse_from_file(str(onnx_path)) or not network.num_outputs:
        errors = [f"{error.desc()} (node {error.node()}, {error.node_name() or 'without a name'})" for error in _errors(parser)]
        raise EngineError(f"{onnx_path}: {trt.__name__} {trt.__version__} cannot parse the graph: {'; '.join(errors) or _told(logger)}")
    parsed = time.monotonic()
    config = builder.create_builder_config()
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    _set_batches(builder, network, config, onnx_path)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{onnx_path}: {trt.__name__} {trt.__version__} cannot build the graph: {_told(logger)}")
    built = time.monotonic()
    if plan_path is not None:
        plan_path.write_bytes(plan)
    return TensorRTReport(
        library=trt.__name__,
        version=trt.__version__,
        layers=network.num_layers,
        plan_bytes=plan.nbytes,
        parse_s=parsed - begun,
        build_s=built - parsed,
        inputs=tuple(_port(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_port(network.get_output(index)) for index in range(network.num_outputs)),
        warnings=tuple(message for severity, message in logger.messages if severity == trt.ILogger.Severity.WARNING),
    )


@functools.cache
def _logger(trt: Any) -> Any:  # noqa: ANN401
    """A logger that keeps warnings and errors, so that they end in the report or the exception.

    One per process: the library keeps the first that it is given, and ignores all later ones.
    """

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            if severity <= trt.ILogger.Severity.WARNING:
                self.messages.append((severity, message))

    return Collector()


def _errors(parser: Any) -> list[Any]:  # noqa: ANN401
    """All errors of a parser."""
    return [parser.get_error(index) for index in range(parser.num_errors)]


def _told(logger: Any) -> str:  # noqa: ANN401
    """The last things the library said."""
    return "; ".join(message for _, message in logger.messages[-5:]) or "it gave no reason"


def _port(tensor: Any) -> Port:  # noqa: ANN401
    """Name, type and shape of a network's tensor."""
    return Port(tensor.name, str(tensor.dtype).removeprefix("DataType.").lower(), tuple(tensor.shape))


def _set_batches(builder: Any, network: Any, config: Any, onnx_path: Path) -> None:  # noqa: ANN401
    """Allows batches 1 to 8 on every input whose batch is open."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        if -1 in rest:
            raise EngineError(f"{onnx_path}: input {tensor.name} has open sizes {tuple(tensor.shape)}; only the batch may be open")
        if tensor.shape[0] == -1:
            profile.set_shape(tensor.name, (1, *rest), (1, *rest), (MAX_BATCH, *rest))
    config.add_optimization_profile(profile)
