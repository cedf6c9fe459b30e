"""The GPU engine: TensorRT 11 or TensorRT-RTX, whichever the manifest names; both have the same API here. Never run on a GPU: docs/decisions/0002."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.desk import IN_FLIGHT, TicketedEngine
from inspector.engine.device import Cuda
from inspector.engine.manifest import Device, TensorSpec, check_backend, check_device, load_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.engine.base import Array
    from inspector.engine.device import GpuMemory
    from inspector.engine.manifest import Manifest

MODULES: dict[str, tuple[str, ...]] = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Import names by backend."""


class Plan(Protocol):
    """A deserialised engine, as far as it is used."""

    ports: tuple[TensorSpec, ...]
    """Inputs and outputs; an open batch is -1."""

    def context(self) -> PlanContext:
        """A place to run it; each image in flight has its own."""


class PlanContext(Protocol):
    """Where one image runs."""

    def enqueue(self, image: TensorSpec, addresses: Mapping[str, int], stream_handle: int) -> bool:
        """Bind the addresses, queue the run; False: the library refused."""


class TensorRtPlan:
    """A :class:`Plan` by TensorRT or TensorRT-RTX.

    Args:
        trt: the library.
        plan: the serialised engine.

    Raises:
        EngineError: the library cannot load it.
    """

    def __init__(self, trt: Any, plan: bytes) -> None:  # noqa: ANN401 (one of two libraries without types)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{trt.__name__} {trt.__version__} cannot load the plan (a driver is missing, or it was built for another GPU or version)"
            )
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.ports = tuple(
            TensorSpec(name, np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).name, tuple(self._engine.get_tensor_shape(name)))
            for name in names
        )

    def context(self) -> PlanContext:
        """See :class:`Plan`."""
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError("the GPU has no memory left for an execution context")
        return TensorRtContext(context)


class TensorRtContext:
    """A :class:`PlanContext` by TensorRT."""

    def __init__(self, context: Any) -> None:  # noqa: ANN401
        self._context = context

    def enqueue(self, image: TensorSpec, addresses: Mapping[str, int], stream_handle: int) -> bool:
        """See :class:`PlanContext`; every status that the library returns counts."""
        return (
            bool(self._context.set_input_shape(image.name, image.shape))
            and all(bool(self._context.set_tensor_address(name, address)) for name, address in addresses.items())
            and bool(self._context.execute_async_v3(stream_handle))
        )


@dataclass(slots=True)
class _Slot:
    """All that one image in flight needs; nothing of it is shared with the other."""

    context: PlanContext
    stream: Any
    image: Array
    """Pinned."""
    outputs: dict[str, Array]
    """Pinned."""
    addresses: dict[str, int]
    event: Any = None


class TensorRtEngine(TicketedEngine[_Slot]):
    """An :class:`~inspector.engine.base.Engine` on a GPU.

    Args:
        manifest: what is expected of it.
        plan: the deserialised engine.
        gpu: closed by this engine.

    Raises:
        EngineError: the plan does not fit the manifest, or the GPU's memory does not suffice.
    """

    def __init__(self, manifest: Manifest, plan: Plan, gpu: GpuMemory) -> None:
        super().__init__(manifest)
        self._plan = plan
        self._gpu = gpu
        self._check_ports()
        self._free_slots = [self._slot() for _ in range(IN_FLIGHT)]

    def _check_ports(self) -> None:
        """Names, dtypes and shapes of the plan against the manifest."""
        found = {port.name: port for port in self._plan.ports}
        for spec in (self._manifest.input, *self._manifest.outputs):
            port = found.pop(spec.name, None)
            if port is None:
                raise EngineError(f"engine {self._manifest.recipe.name!r}: the plan has no tensor {spec.name!r}: compile it again")
            if port.dtype != spec.dtype or port.shape[1:] != spec.shape[1:] or port.shape[0] not in {-1, spec.shape[0]}:
                raise EngineError(
                    f"engine {self._manifest.recipe.name!r}: the plan's {spec.name} is {port.dtype} {list(port.shape)}, "
                    f"the manifest says {spec.dtype} {list(spec.shape)}: compile it again"
                )
        if found:
            raise EngineError(f"engine {self._manifest.recipe.name!r}: the plan has a tensor {min(found)!r} that the manifest does not know")

    def _slot(self) -> _Slot:
        """Memory, stream and context of one image in flight."""
        specs = (self._manifest.input, *self._manifest.outputs)
        sizes = {spec.name: int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs}
        return _Slot(
            context=self._plan.context(),
            stream=self._gpu.stream(),
            image=self._gpu.pinned(self._manifest.input.shape, self._manifest.input.dtype),
            outputs={spec.name: self._gpu.pinned(spec.shape, spec.dtype) for spec in self._manifest.outputs},
            addresses={name: self._gpu.allocate(size) for name, size in sizes.items()},
        )

    def _start(self, image: NDArray[np.uint8]) -> _Slot:
        """Queue copy, run and copies back on a slot's stream."""
        slot = self._free_slots.pop()
        slot.image[0] = image
        try:
            self._queue(slot)
        except EngineError:
            self._free_slots.append(slot)
            raise
        return slot

    def _queue(self, slot: _Slot) -> None:
        """Copy in, run, copy out, on the slot's stream."""
        source = self._manifest.input
        self._gpu.copy_in(slot.addresses[source.name], slot.image, slot.stream)
        if not slot.context.enqueue(source, slot.addresses, self._gpu.stream_handle(slot.stream)):
            raise EngineError(f"engine {self._manifest.recipe.name!r}: {self._manifest.backend.name} refused to run an image")
        for name, target in slot.outputs.items():
            self._gpu.copy_out(target, slot.addresses[name], slot.stream)
        slot.event = self._gpu.mark(slot.stream)

    def _finish(self, job: _Slot) -> dict[str, Array]:
        """Wait for a slot's event; only then are its pinned arrays this image's."""
        try:
            self._gpu.wait(job.event)
            return {name: np.array(array) for name, array in job.outputs.items()}
        finally:
            job.event = None
            self._free_slots.append(job)

    def _free(self) -> None:
        """Contexts before the plan, the plan before the memory."""
        self._free_slots.clear()
        del self._plan
        self._gpu.close()


def load_library(backend: str, load: Callable[[str], Any] = importlib.import_module) -> Any:  # noqa: ANN401
    """TensorRT or TensorRT-RTX, as ``backend`` says.

    Args:
        backend: ``tensorrt`` or ``tensorrt_rtx``.
        load: imports a module by name.

    Raises:
        EngineError: it is not installed, or its libraries are missing.
    """
    reasons = []
    for name in MODULES[backend]:
        try:
            return load(name)
        except ImportError as error:
            reasons.append(str(error))
    raise EngineError(f"{backend} cannot be loaded ({'; '.join(reasons)}): install inspectord[gpu], or compile the engine for the CPU")


def open_tensorrt(path: Path) -> TensorRtEngine:
    """The engine of a manifest file, on the first GPU.

    Raises:
        EngineError: the manifest, a file of it, the library, the driver or the GPU does not fit.
    """
    manifest = load_manifest(path)
    trt = load_library(manifest.backend.name)
    check_backend(manifest, manifest.backend.name, str(trt.__version__))
    gpu = Cuda()
    try:
        check_device(manifest, Device("gpu", gpu.name, gpu.architecture))
        return TensorRtEngine(manifest, TensorRtPlan(trt, (path.parent / manifest.file("plan").name).read_bytes()), gpu)
    except EngineError:
        gpu.close()
        raise
