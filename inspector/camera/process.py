"""What runs in the camera process: ``python -m inspector.camera.process``, started by the supervisor and by nobody else.

One loop in one thread: obey commands, fetch, copy into a free slot of the ring, tell, never wait for the daemon. The binding
may freeze this whole process at any call; the pulse then stands still, and the supervisor kills it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.camera.backlog import Backlog
from inspector.camera.build import build_camera
from inspector.camera.clock import ClockMap
from inspector.camera.pulse import Pulse
from inspector.camera.sight import Sight
from inspector.config.station import CameraConfig
from inspector.contract.channel import (
    MAX_MESSAGE_BYTES,
    CameraMessage,
    CameraState,
    EndRecord,
    FrameRecord,
    OpenedRecord,
    StatusRecord,
    StopCommand,
    TriggerCommand,
    WriteCommand,
    decode_command,
    encode,
)
from inspector.contract.errors import CameraError
from inspector.contract.ring import Ring

if TYPE_CHECKING:
    from inspector.camera.port import Camera, Frame

STATUS_NS = 200_000_000
"""A status record at least so often."""
CHECK_NS = 1_000_000_000
"""A camera without a count of triggers is asked for a sign of life so often; one with a count at every status."""
_PR_SET_PDEATHSIG = 1


class CameraExit(IntEnum):
    """The camera process's exit codes."""

    STOPPED = 0
    LOST = 75
    """The camera is absent, lost, or refuses its settings: try again later (sysexits' EX_TEMPFAIL)."""
    ORPHAN = 76
    """The daemon is gone."""


class Start(msgspec.Struct, frozen=True):
    """First message on the socket, JSON: what the process is to do."""

    parent_pid: int
    config: dict[str, object]


class AcquisitionLoop:
    """Reads one camera until it is told to stop; owned by the process's only thread."""

    def __init__(self, camera: Camera, config: CameraConfig, ring: Ring, channel: socket.socket, pulse: Pulse) -> None:
        self._camera = camera
        self._name = config.name
        self._ring = ring
        self._channel = channel
        self._pulse = pulse
        self._sight = Sight(config)
        self._clock = ClockMap(camera.clock)
        self._told_incomplete = 0
        self._triggers: int | None = None
        self._checked_ns = 0
        self._told_ns = 0
        self._told_state = CameraState.OPENING
        self.stopping = False

    def run(self) -> None:
        """Open, stream, tell; returns when told to stop.

        Raises:
            CameraError: the camera cannot be opened, or is lost.
            ConnectionError: the daemon is gone.
        """
        self._pulse.state = CameraState.OPENING
        self._beat()
        info = self._camera.open()
        self._beat()
        self._tell(
            OpenedRecord(
                model=info.model,
                serial=info.serial,
                firmware=info.firmware,
                simulated=info.simulated,
                width_px=info.width_px,
                height_px=info.height_px,
                pixel_format=info.pixel_format,
                settings=info.settings,
                at_ns=time.monotonic_ns(),
            )
        )
        self._clock.refresh(time.monotonic_ns())
        frames = self._camera.frames()
        frame = next(frames)  # starts the acquisition
        begun_ns = started_ns = time.monotonic_ns()
        backlog = Backlog(started_ns)
        self._sight.started(started_ns)
        self._pulse.seen_ns = self._pulse.streaming_ns = started_ns
        self._pulse.state = CameraState.STREAMING
        while True:
            if frame is None:
                self._sight.empty(begun_ns)
                backlog.nothing(begun_ns, time.monotonic_ns())
            else:
                exposure_ns = self._clock.to_host(frame.camera_ns, frame.received_ns, backlog.frame(begun_ns, frame.received_ns))
                self._deliver(frame, exposure_ns)
                self._sight.frame(frame, exposure_ns)
                frame = None  # its pixels go back to the driver now
            now_ns = self._beat()  # before the command to stop: the last frame was seen
            self._obey()
            if self.stopping:
                break
            self._report(now_ns)
            begun_ns = time.monotonic_ns()
            frame = next(frames)
        self._triggers = self._camera.check()
        self._tell_status(CameraState.STOPPED, time.monotonic_ns())
        frames_close = getattr(frames, "close", None)
        if frames_close is not None:
            frames_close()

    def _beat(self) -> int:
        now = time.monotonic_ns()
        self._pulse.seen_ns, self._pulse.streaming_ns = self._sight.seen_ns, self._sight.sees_since_ns
        self._pulse.beat_ns = now
        return now

    def _deliver(self, frame: Frame, exposure_ns: int) -> None:
        size = frame.pixels.size
        slot = self._ring.claim()
        fits = size <= self._ring.slot_bytes
        if slot >= 0:
            if fits:
                np.copyto(self._ring.pixels(slot, size), frame.pixels)
            self._ring.fill(slot)
        damaged = self._camera.incomplete
        told = self._tell(
            FrameRecord(
                slot=slot,
                frame_id=frame.frame_id,
                camera_ns=frame.camera_ns,
                received_ns=frame.received_ns,
                exposure_ns=exposure_ns,
                width_px=frame.width_px,
                height_px=frame.height_px,
                stride_bytes=frame.stride_bytes,
                pixel_format=frame.pixel_format,
                size_bytes=size if fits else 0,
                encoder=frame.encoder,
                trigger_counter=frame.trigger_counter,
                line_status=frame.line_status,
                incomplete_before=damaged - self._told_incomplete,
            )
        )
        if told:
            self._told_incomplete = damaged
        else:
            self._ring.count_unsent()
            if slot >= 0:
                self._ring.release(slot)  # the daemon has never heard of it

    def _obey(self) -> None:
        while True:
            try:
                message = self._channel.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not message:
                raise ConnectionResetError("the daemon has closed the channel")
            command = decode_command(message)
            try:
                if isinstance(command, StopCommand):
                    self.stopping = True
                elif isinstance(command, TriggerCommand):
                    self._camera.trigger()
                    self._sight.triggered(time.monotonic_ns())
                elif isinstance(command, WriteCommand):
                    self._camera.write(command.node, command.value)
            except CameraError as error:
                self._pulse.cause = str(error)  # the supervisor makes an event of it
                self._camera.check()  # a camera that only refuses lives on

    def _report(self, now_ns: int) -> None:
        due = now_ns - self._told_ns >= STATUS_NS
        if due and (self._triggers is not None or now_ns - self._checked_ns >= CHECK_NS):
            self._triggers = self._camera.check()
            self._checked_ns = now_ns
            self._clock.refresh(now_ns)
            self._sight.answered(now_ns, self._triggers)
        state = self._sight.state
        self._pulse.state = state
        if self._sight.hopeless(now_ns):
            raise CameraError(f"camera {self._name} answers, but sends no frames although it should: it is opened again")
        if due or state != self._told_state:
            self._tell_status(state, now_ns)

    def _tell_status(self, state: CameraState, now_ns: int) -> None:
        damaged = self._camera.incomplete
        status = StatusRecord(
            state=state,
            at_ns=now_ns,
            triggers=self._triggers,
            incomplete_before=damaged - self._told_incomplete,
            underruns=self._camera.underruns,
        )
        self._told_ns, self._told_state = now_ns, state
        if self._tell(status):
            self._told_incomplete = damaged

    def _tell(self, message: CameraMessage) -> bool:
        try:
            self._channel.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True


def _die_first() -> None:
    """Where memory runs out, a driver that leaks is to die, not the daemon; it is started again."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _bind_to_parent(parent_pid: int) -> bool:
    """Die with the daemon, however it dies. False: it is dead already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    return os.getppid() == parent_pid


def serve(ring: Ring, channel: socket.socket, pulse: Pulse) -> CameraExit:
    """Read the start message, run the loop, say why it ended."""
    start = msgspec.json.decode(channel.recv(MAX_MESSAGE_BYTES), type=Start)
    if not _bind_to_parent(start.parent_pid):
        return CameraExit.ORPHAN
    _die_first()
    cause, code = "", CameraExit.STOPPED
    camera: Camera | None = None
    try:
        config = CameraConfig.model_validate(start.config)
        camera = build_camera(config)
        AcquisitionLoop(camera, config, ring, channel, pulse).run()
    except CameraError as error:
        cause, code = str(error), CameraExit.LOST
    except ConnectionError as error:
        cause, code = str(error), CameraExit.ORPHAN
    pulse.state = CameraState.LOST if code is CameraExit.LOST else CameraState.STOPPED
    pulse.cause = cause
    try:
        channel.send(encode(EndRecord(cause=cause, at_ns=time.monotonic_ns())), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BlockingIOError, ConnectionError):
        code = code or CameraExit.STOPPED  # the pulse has said it; the socket is full or nobody reads it
    if camera is not None:
        camera.close()  # last: a driver may hang here, and the supervisor does not wait for it
    return code


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="One camera of the inspection daemon; started by it, not by hand.")
    for name in ("ring", "channel", "pulse"):
        parser.add_argument(f"--{name}-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they go to the whole group; the daemon says when this process is to stop
    with socket.socket(fileno=options.channel_fd) as channel, Ring(options.ring_fd) as ring:
        channel.setblocking(True)
        pulse = Pulse(options.pulse_fd)
        try:
            return serve(ring, channel, pulse)
        finally:
            pulse.close()


if __name__ == "__main__":
    sys.exit(main())
