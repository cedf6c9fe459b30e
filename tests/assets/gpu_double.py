"""A GPU's memory on the host: copies happen when the stream is awaited, in their order, as on the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.base import Array
from inspector.engine.manifest import Manifest, TensorSpec

GARBAGE = 0xA5


class HostGpu:
    name = "host double"
    architecture = "sm_00"

    def __init__(self, fail_wait: bool = False) -> None:
        self.memory: dict[int, bytearray] = {}
        self.fail_wait = fail_wait
        self.closed = 0

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        return np.frombuffer(bytearray([GARBAGE] * int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)

    def allocate(self, size: int) -> int:
        address = 4096 * (1 + len(self.memory))
        self.memory[address] = bytearray([GARBAGE] * size)
        return address

    def stream(self) -> list[Callable[[], None]]:
        return []

    def stream_handle(self, stream: list[Callable[[], None]]) -> int:
        STREAMS[id(stream)] = stream
        return id(stream)

    def copy_in(self, address: int, source: Array, stream: list[Callable[[], None]]) -> None:
        stream.append(lambda: self.memory[address].__setitem__(slice(None), source.tobytes()))

    def copy_out(self, target: Array, address: int, stream: list[Callable[[], None]]) -> None:
        stream.append(lambda: target.__setitem__(..., np.frombuffer(self.memory[address], target.dtype).reshape(target.shape)))

    def mark(self, stream: list[Callable[[], None]]) -> list[Callable[[], None]]:
        return stream

    def wait(self, event: list[Callable[[], None]]) -> None:
        work, event[:] = list(event), []
        if self.fail_wait:
            raise EngineError("the GPU failed: the work before an event: an illegal address")
        for step in work:
            step()

    def close(self) -> None:
        self.memory.clear()
        self.closed += 1


STREAMS: dict[int, list[Callable[[], None]]] = {}


class HostPlan:
    """Answers with the mean brightness as the first slot's score."""

    def __init__(self, manifest: Manifest, gpu: HostGpu, refuse: bool = False) -> None:
        self.ports = tuple(TensorSpec(spec.name, spec.dtype, (-1, *spec.shape[1:])) for spec in (manifest.input, *manifest.outputs))
        self.outputs = manifest.outputs
        self.gpu = gpu
        self.refuse = refuse

    def context(self) -> HostPlan:
        return self

    def enqueue(self, image: TensorSpec, addresses: Mapping[str, int], stream_handle: int) -> bool:
        def run() -> None:
            brightness = np.frombuffer(self.gpu.memory[addresses[image.name]], np.uint8).mean() / 255
            for spec in self.outputs:
                values = np.zeros(spec.shape, spec.dtype)
                if spec.name == "scores":
                    values[0, 0] = brightness
                if spec.name == "converged":
                    values[:] = 1
                self.gpu.memory[addresses[spec.name]][:] = values.tobytes()

        STREAMS[stream_handle].append(run)
        return not self.refuse
