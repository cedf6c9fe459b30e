"""GenICam cameras through harvesters: the only module that imports it.

One Harvester, one ImageAcquirer, one thread: the binding holds the interpreter's lock while it waits and in every register
access, so nothing else may live in this process. Its traps are named where they are handled.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from genicam import genapi, gentl
from harvesters.core import Callback, Harvester, ParameterKey, ParameterSet

from inspector.camera.buffers import BufferReader, ChunkCheck
from inspector.camera.clock import Reading
from inspector.camera.port import CameraInfo, Frame, Value
from inspector.camera.settings import CHUNKS, NodeAccess, said
from inspector.contract.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inspector.config.station import CameraConfig

_ERRORS = (gentl.GenericException, genapi.GenericException)  # they share no base
_MIN_BUFFERS, _MAX_BUFFERS = 16, 64
_BUFFER_BYTES = 96 * 1024 * 1024
"""The driver's buffers bridge the pauses in which this process does not run: as many as fit in here, within the limits above."""
_FORMATS = {0x01080001: "Mono8", 0x01080009: "BayerRG8", 0x02180014: "RGB8"}
_IMAGE_PAYLOADS = {1, 4}  # image, and chunk data with an image


class _Counter(Callback):  # type: ignore[misc]
    """Counts incomplete frames: harvesters discards them, and this call is the only sign."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, context: object = None) -> None:
        del context
        self.count += 1


class _Remember(logging.Handler):
    """The library's last warnings: it logs why a producer did not open, and raises nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: collections.deque[str] = collections.deque(maxlen=3)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().strip())


class GenicamCamera:
    """One camera behind a GenTL producer (.cti). ``resources`` are closed with it."""

    def __init__(self, config: CameraConfig, producer: Path, resources: contextlib.ExitStack | None = None) -> None:
        self._config = config
        self._producer = producer
        self._resources = resources
        self._name = f"camera {config.name}"
        self._remember = _Remember()
        self._harvester: Any = None
        self._acquirer: Any = None
        self._nodes: NodeAccess | None = None
        self._chunks: dict[str, Any] = {}
        self._counter: Any = None
        self._damaged = _Counter()
        self._format = ""
        # This process has one thread: a longer wait in the library costs nobody the interpreter's lock.
        self._poll_ms = 2 if config.trigger == "software" else 10
        self._buffers = BufferReader((gentl.GenericException,))
        self._chunk_check = ChunkCheck()

    @property
    def incomplete(self) -> int:
        """Frames that arrived damaged and were discarded."""
        return self._damaged.count

    @property
    def underruns(self) -> int:
        """Frames lost for want of a buffer; 0 where the producer does not tell."""
        try:
            return int(self._acquirer.data_streams[0].module.num_underrun)
        except (*_ERRORS, AttributeError):
            return 0

    def open(self) -> CameraInfo:
        """See ``Camera.open``."""
        try:
            return self._open()
        except CameraError:
            self.close()
            raise

    def _open(self) -> CameraInfo:
        self._connect()
        self._acquirer.add_callback(self._acquirer.Events.INCOMPLETE_BUFFER, self._damaged)
        self._nodes = nodes = NodeAccess(self._name, self._acquirer.remote_device.node_map, genapi.EInterfaceType, _ERRORS)
        settings = nodes.configure(self._config)
        self._chunks = {name: nodes.node("Chunk" + name) for name in CHUNKS if nodes.has("Chunk" + name)}
        self._find_counter(nodes)
        try:
            payload = int(nodes.node("PayloadSize").value) if nodes.has("PayloadSize") else _BUFFER_BYTES
            self._acquirer.num_buffers = max(_MIN_BUFFERS, min(_MAX_BUFFERS, _BUFFER_BYTES // max(payload, 1)))
            self._format = str(nodes.node("PixelFormat").value)
            return CameraInfo(
                model=nodes.text("DeviceModelName"),
                serial=nodes.text("DeviceSerialNumber", "DeviceID"),
                firmware=nodes.text("DeviceFirmwareVersion", "DeviceVersion"),
                simulated=self._config.kind == "simulator",
                width_px=int(nodes.node("Width").value),
                height_px=int(nodes.node("Height").value),
                pixel_format=self._format,
                settings=settings,
            )
        except _ERRORS as error:
            raise self._lost(error) from error

    def _connect(self) -> None:
        if not self._producer.is_file():
            raise CameraError(f"{self._name}: the GenTL producer {self._producer} is not there; install the vendor's, or mend `producer`")
        logger = logging.Logger(f"harvesters.{self._config.name}")  # noqa: LOG001 - its own, so that no root handler prints per frame
        logger.addHandler(self._remember)
        self._harvester = Harvester(logger=logger)
        self._harvester.add_file(str(self._producer))
        parameters = ParameterSet({ParameterKey.TIMEOUT_PERIOD_ON_UPDATE_EVENT_DATA_CALL: self._poll_ms})
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if main else None
        try:
            self._harvester.update()
            found = [str(info.serial_number) for info in self._harvester.device_info_list]
            wanted = self._config.serial
            if wanted is None and len(found) > 1:
                raise CameraError(f"{self._name}: there are several cameras, set `serial` to one of {', '.join(found)}")
            if wanted is not None and found.count(wanted) > 1:
                raise CameraError(f"{self._name}: {found.count(wanted)} cameras say that their serial is {wanted}: disconnect all but one")
            if not found or (wanted is not None and wanted not in found):
                there = f"; there are {', '.join(found)}" if found else ""
                warned = f" ({'; '.join(self._remember.lines)})" if self._remember.lines else ""
                raise CameraError(f"{self._name}: no camera {wanted or 'at all'} answers behind {self._producer.name}{there}{warned}")
            self._acquirer = self._harvester.create(found.index(wanted) if wanted is not None else 0, config=parameters)
        except _ERRORS as error:
            raise CameraError(f"{self._name}: cannot be opened: {said(error)}") from error
        finally:
            if main and handler is not None:
                signal.signal(signal.SIGINT, handler)  # harvesters takes the handler; a Ctrl-C would destroy a running fetch

    def _find_counter(self, nodes: NodeAccess) -> None:
        """The selected counter, if it counts triggers: cameras say so by CounterEventSource, the simulator counts nothing else."""
        source = nodes.read("CounterEventSource") if nodes.has("CounterEventSource") else "Trigger"
        if nodes.has("CounterValue") and ("Trigger" in str(source) or "Line" in str(source)):
            self._counter = nodes.node("CounterValue")
        else:
            self._chunks.pop("CounterValue", None)

    def frames(self) -> Iterator[Frame | None]:
        """See ``Camera.frames``."""
        try:
            self._acquirer.start()
            yield None
            while True:
                # Raw: no payload objects are built, and lines keep their padding, which harvesters promises to remove and does not.
                buffer = self._acquirer.try_fetch(timeout=self._poll_ms * 2e-3, is_raw=True)
                if buffer is None:
                    yield None
                    continue
                try:
                    if self._buffers.overflown(buffer):
                        self._damaged.emit()
                        yield None
                    else:
                        yield self._frame(buffer)  # the caller copies now: once queued again, the memory changes
                finally:
                    buffer.parent.queue_buffer(buffer)
        except _ERRORS as error:
            raise self._lost(error) from error

    def _frame(self, buffer: Any) -> Frame:  # noqa: ANN401 - the binding has no types
        received_ns = time.monotonic_ns()
        if int(buffer.payload_type) not in _IMAGE_PAYLOADS:
            raise CameraError(f"{self._name} sends payload type {buffer.payload_type}: only plain images are read; switch multi-part payload off")
        pixel_format = int(buffer.pixel_format)
        width, height = int(buffer.width), int(buffer.height)
        bits = pixel_format >> 16 & 0xFF  # PFNC: effective bits per pixel
        stride = -(-width * bits // 8) + self._buffers.padding(buffer)
        data = np.frombuffer(buffer.raw_buffer, np.uint8)
        first = self._buffers.offset(buffer)
        frame_id = int(buffer.frame_id)
        chunks = self._buffers.has_chunks(buffer)
        told_id = self._chunk("FrameID") if chunks else None
        chunks = chunks and (told_id is None or self._chunk_check.fits(frame_id, told_id))
        return Frame(
            pixels=data[first : first + stride * height],
            frame_id=frame_id,
            camera_ns=self._buffers.timestamp_ns(buffer),
            received_ns=received_ns,
            width_px=width,
            height_px=height,
            stride_bytes=stride,
            pixel_format=_FORMATS.get(pixel_format, f"0x{pixel_format:08X}") if pixel_format else self._format,
            encoder=self._chunk("EncoderValue") if chunks else None,
            trigger_counter=self._chunk("CounterValue") if chunks else None,
            line_status=self._chunk("LineStatusAll") if chunks else None,
        )

    def _chunk(self, name: str) -> int | None:
        node = self._chunks.get(name)
        if node is None:
            return None
        try:
            return int(node.value)
        except _ERRORS:
            return None  # not in this frame

    def check(self) -> int | None:
        """See ``Camera.check``."""
        try:
            if self._counter is not None:
                return int(self._counter.value)
            if self._nodes is not None:
                self._nodes.fresh("DeviceModelName")
        except _ERRORS as error:
            raise self._lost(error) from error
        return None

    def clock(self) -> Reading | None:
        """See ``Camera.clock``."""
        nodes = self._nodes
        if nodes is None or not (nodes.has("TimestampLatch") and nodes.has("TimestampLatchValue")):
            return None
        begun_ns = time.monotonic_ns()
        try:
            nodes.node("TimestampLatch").execute()
            ended_ns = time.monotonic_ns()
            value = nodes.fresh("TimestampLatchValue")
        except _ERRORS as error:
            raise self._lost(error) from error
        return Reading(begun_ns, value, ended_ns) if isinstance(value, int) and value > 0 else None

    def trigger(self) -> None:
        """See ``Camera.trigger``."""
        self.write("TriggerSoftware", None)

    def write(self, node: str, value: Value | None) -> None:
        """See ``Camera.write``."""
        if self._nodes is not None:
            self._nodes.set(node, value)

    def close(self) -> None:
        """See ``Camera.close``."""
        acquirer, harvester = self._acquirer, self._harvester
        self._acquirer = self._harvester = self._nodes = self._counter = None
        self._chunks = {}
        # Each step may fail on a camera that is gone, and the next must come all the same; destroy succeeds at the second call.
        for step in ([acquirer.stop, acquirer.destroy, acquirer.destroy] if acquirer else []) + ([harvester.reset] if harvester else []):
            with contextlib.suppress(*_ERRORS, AttributeError):
                step()
        if self._resources is not None:
            self._resources.close()

    def _lost(self, error: Exception) -> CameraError:
        return CameraError(f"{self._name} is lost: {said(error)}")
