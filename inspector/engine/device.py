"""GPU memory, pinned memory, streams and events, through pycuda. Nothing here was ever run on a GPU: see docs/decisions/0002."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inspector.contract.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspector.engine.base import Array

NEEDS_GPU = "run this engine on a machine with an NVIDIA GPU and its driver, or compile it for the CPU"


class GpuMemory(Protocol):
    """What an engine needs of a GPU. All work belongs to a stream, and is awaited by an event.

    Every method raises EngineError when the driver says that it failed; such an error is sticky, the same context never works again.
    """

    name: str
    architecture: str
    """Compute capability, ``sm_89``."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """A page-locked array, which the GPU copies from and to while the CPU goes on."""

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes of the GPU's memory, owned by this object."""

    def stream(self) -> Any:  # noqa: ANN401 (pycuda publishes no types)
        """A queue of work."""

    def stream_handle(self, stream: Any) -> int:  # noqa: ANN401
        """The number by which other libraries know a stream."""

    def copy_in(self, address: int, source: Array, stream: Any) -> None:  # noqa: ANN401
        """Queue a copy from a pinned array."""

    def copy_out(self, target: Array, address: int, stream: Any) -> None:  # noqa: ANN401
        """Queue a copy to a pinned array."""

    def mark(self, stream: Any) -> Any:  # noqa: ANN401
        """An event at the end of what is queued."""

    def wait(self, event: Any) -> None:  # noqa: ANN401
        """Wait until all before an event is done."""

    def close(self) -> None:
        """Free all memory and leave the GPU. Idempotent."""


class Cuda:
    """A :class:`GpuMemory` on the first GPU, or on number ``index``.

    The context is made current for the length of each call alone, so that any thread may call, one at a time.

    Raises:
        EngineError: there is no pycuda, no driver, or no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._driver: Any = importlib.import_module("pycuda.driver")
        except ImportError as error:  # pycuda is missing, or the driver's library is
            raise EngineError(f"no GPU can be used here ({error}): {NEEDS_GPU}") from None
        self._context: Any = None
        try:
            self._driver.init()
            device = self._driver.Device(index)
            self.name: str = device.name()
            self.architecture = "sm_{}{}".format(*device.compute_capability())
            self._context = device.retain_primary_context()
        except self._driver.Error as error:
            raise EngineError(f"GPU {index} cannot be used ({error}): {NEEDS_GPU}") from error
        self._owned: list[Any] = []

    @contextmanager
    def _current(self, what: str) -> Iterator[None]:
        """The context current, and the driver's errors as EngineError."""
        if self._context is None:
            raise EngineError("the GPU was closed")
        try:
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()
        except self._driver.Error as error:
            raise EngineError(f"the GPU failed: {what}: {error}") from error

    def pinned(self, shape: tuple[int, ...], dtype: str) -> Array:
        """See :class:`GpuMemory`."""
        with self._current("page-locked memory"):
            array: Array = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        self._owned.append(array.base)
        return array

    def allocate(self, size: int) -> int:
        """See :class:`GpuMemory`."""
        with self._current(f"{size} bytes of its memory"):
            memory = self._driver.mem_alloc(size)
        self._owned.append(memory)
        return int(memory)

    def stream(self) -> Any:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        with self._current("a stream"):
            return self._driver.Stream()

    def stream_handle(self, stream: Any) -> int:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        return int(stream.handle)

    def copy_in(self, address: int, source: Array, stream: Any) -> None:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        with self._current("a copy to it"):
            self._driver.memcpy_htod_async(address, source, stream)

    def copy_out(self, target: Array, address: int, stream: Any) -> None:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        with self._current("a copy from it"):
            self._driver.memcpy_dtoh_async(target, address, stream)

    def mark(self, stream: Any) -> Any:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        with self._current("an event"):
            return self._driver.Event(self._driver.event_flags.DISABLE_TIMING).record(stream)

    def wait(self, event: Any) -> None:  # noqa: ANN401
        """See :class:`GpuMemory`."""
        with self._current("the work before an event"):
            event.synchronize()

    def close(self) -> None:
        """See :class:`GpuMemory`."""
        if self._context is None:
            return
        with self._current("freeing its memory"):
            for memory in self._owned:
                memory.free()
        self._owned.clear()
        self._context.detach()
        self._context = None
