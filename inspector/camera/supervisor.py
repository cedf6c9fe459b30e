"""One permanent thread per camera: starts the camera process, watches its pulse, kills, reaps, restarts, and says when the station is blind.

The thread must outlive every process it starts: the kernel kills the camera process when its parent *thread* ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from inspector.camera.blindness import Blindness
from inspector.camera.incarnation import Incarnation
from inspector.camera.launch import launch, signal_name
from inspector.camera.process import CameraExit, Start
from inspector.camera.pulse import Pulse
from inspector.contract.channel import CameraCommand, CameraState, StopCommand, encode
from inspector.contract.records import Blind, Event, EventLevel

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from inspector.config.station import CameraConfig
    from inspector.contract.ring import Ring

__all__ = ["OPEN_TIMEOUT_S", "CameraSupervisor", "Incarnation"]

OPEN_TIMEOUT_S = 30.0
"""Finding and opening a camera may take a vendor's driver many seconds, in which nothing beats."""
_TURN_OPENING_MS, _TURN_STREAMING_MS = 5, 50
_DRAIN_WARNING_S = 5.0
_LEVELS = {CameraState.STALLED: EventLevel.ERROR, CameraState.LOST: EventLevel.ERROR}


class CameraSupervisor:
    """Keeps one camera process alive. Callbacks run in its thread and must return soon; blind from its making until the camera streams.

    An ``on_incarnation`` that raises has not taken the incarnation. ``on_failure`` is called with the error that ended the supervision:
    by then the camera process is reaped, and the camera is told as lost and blind.
    """

    def __init__(
        self,
        config: CameraConfig,
        ring: Ring,
        ring_fd: int,
        *,
        on_incarnation: Callable[[Incarnation], None],
        on_event: Callable[[Event | Blind], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._ring = ring
        self._ring_fd = ring_fd
        self._on_incarnation = on_incarnation
        self._on_event = on_event
        self._on_failure = on_failure
        self._blindness = Blindness(config.name, on_event)
        self._stopping = threading.Event()
        self._deadline_s = 0.0
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pulse_fd = Pulse.create()
        self._pulse = Pulse(self._pulse_fd)
        self._lock = threading.Lock()  # guards _commands
        self._commands: socket.socket | None = None
        self._told_cause = ""
        self._graceful = True
        self._state = CameraState.OPENING
        self._told = (CameraState.STOPPED, "")
        self._thread = threading.Thread(target=self._run, name=f"supervisor-{config.name}")
        # Told before anything else: at no instant does a station look as if it saw while its camera was never open.
        self._blindness.begin(time.monotonic_ns(), "the camera is not open yet")

    @property
    def state(self) -> CameraState:
        """The camera's state as last seen. Any thread."""
        return self._state

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, command: CameraCommand) -> bool:
        """Send a command to the camera process; False: there is none now, or it does not read. Any thread."""
        with self._lock:
            if self._commands is None:
                return False
            try:
                self._commands.send(encode(command), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:
                return False
            return True

    def stop(self, deadline_s: float) -> bool:
        """Stop the process, kill it if it does not leave within ``deadline_s``, end the thread. True: it left by itself.

        The intake must read on until then. Call it once, from any thread but this one.
        """
        self._deadline_s = time.monotonic() + deadline_s
        self._stopping.set()
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.is_alive():
            self._thread.join(deadline_s + 2.0)
        if self._thread.is_alive():
            raise RuntimeError(f"the supervisor of camera {self._config.name} does not end: its intake does not drain, or a callback hangs")
        self._pulse.close()
        os.close(self._pulse_fd)
        os.close(self._wake_fd)
        return self._graceful

    # Everything below runs in the supervisor's thread.

    def _run(self) -> None:
        try:
            self._keep_alive()
        except Exception as error:  # noqa: BLE001 - whatever it is: a camera that nobody watches must not look as if it saw
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The supervision ends by an error: no sight from here on, and the daemon must know."""
        detail = f"the supervision of the camera failed, restart the daemon: {type(error).__name__}: {error}"
        from_ns = self._pulse.seen_ns or time.monotonic_ns()
        for tell in (partial(self._blindness.begin, from_ns), partial(self._enter, CameraState.LOST)):
            try:
                tell(detail)
            except Exception as second:  # noqa: BLE001 - the callback may be what failed; the first error is the one to report
                error.add_note(f"nor could it be told: {type(second).__name__}: {second}")
        self._on_failure(error)

    def _keep_alive(self) -> None:
        config = self._config
        pause_s = config.restart_min_s
        while not self._stopping.is_set():
            started = time.monotonic()
            self._live()
            if self._stopping.is_set():
                break
            streamed = self._pulse.streaming_ns > 0
            if streamed and time.monotonic() - started > config.restart_max_s:
                pause_s = config.restart_min_s
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, config.restart_max_s)

    def _live(self) -> None:
        """One incarnation, from start to reaped and drained."""
        self._pulse.reset()
        self._told_cause = ""
        self._enter(CameraState.OPENING, "")
        generation = self._ring.next_generation()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            try:
                with theirs:
                    process = launch(self._config, self._ring_fd, theirs.fileno(), self._pulse_fd)
            except OSError as error:
                self._enter(CameraState.LOST, f"the camera process cannot be started: {error}")
                return
            try:
                incarnation = self._hand_over(process, ours, generation)
                killed = self._watch(process, incarnation)
            except BaseException:
                self._graceful = False
                process.kill()  # else it would never leave, nor the wait below end
                raise
            finally:
                code = process.wait()
                with self._lock:
                    self._commands = None
        self._tell_end(code, killed)
        self._reclaim(incarnation)

    def _hand_over(self, process: subprocess.Popen[bytes], ours: socket.socket, generation: int) -> Incarnation:
        """Tell the process what it is to do, and the intake that it lives."""
        incarnation = Incarnation(generation, ours.dup())
        with self._lock:
            self._commands = ours
        try:
            start = Start(parent_pid=os.getpid(), config=self._config.model_dump(mode="json"))
            ours.send(msgspec.json.encode(start), socket.MSG_NOSIGNAL)
        except OSError:
            process.kill()  # it died at once; its exit is told later
        try:
            self._on_incarnation(incarnation)
        except BaseException:
            incarnation.channel.close()
            raise
        return incarnation

    def _watch(self, process: subprocess.Popen[bytes], incarnation: Incarnation) -> str:
        """Until the process has left. Returns why it was killed, empty if it was not."""
        killed = ""
        stop_sent = False
        started_ns = time.monotonic_ns()
        silence_ns = int(self._config.heartbeat_s * 1e9)
        pidfd = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        try:
            while True:
                turn_ms = _TURN_STREAMING_MS if self._state is CameraState.STREAMING else _TURN_OPENING_MS
                ready = dict(poll.poll(turn_ms))
                if pidfd in ready:
                    return killed
                if self._wake_fd in ready:
                    poll.unregister(self._wake_fd)  # it has done its work, and would wake every turn from now on
                now_ns = time.monotonic_ns()
                if self._stopping.is_set() and not stop_sent:
                    stop_sent = self.send(StopCommand())  # refused while the process does not read: tried again next turn
                self._look(now_ns)
                opening = self._pulse.streaming_ns == 0
                limit_ns = max(int(OPEN_TIMEOUT_S * 1e9), silence_ns) if opening else silence_ns
                if incarnation.condemned:
                    killed = killed or incarnation.condemned
                elif now_ns - max(self._pulse.beat_ns, started_ns) > limit_ns:
                    killed = killed or f"it did not answer for {limit_ns / 1e9:.1f} s and was killed"
                elif self._stopping.is_set() and time.monotonic() > self._deadline_s:
                    killed = killed or "it did not leave in time and was killed"
                if killed:
                    self._graceful = self._graceful and not self._stopping.is_set()
                    process.send_signal(signal.SIGKILL)
        finally:
            os.close(pidfd)

    def _look(self, now_ns: int) -> None:
        """Take over what the pulse says."""
        pulse = self._pulse
        cause = pulse.cause
        if cause != self._told_cause:
            self._told_cause = cause
            if pulse.state in {CameraState.STREAMING, CameraState.STALLED}:
                self._event("camera_refused", EventLevel.WARNING, cause)
        if pulse.streaming_ns == 0:
            return
        frozen = now_ns - pulse.beat_ns > self._config.heartbeat_s * 0.5e9
        if pulse.state is CameraState.STREAMING and not frozen:
            self._blindness.end(pulse.streaming_ns, pulse.beat_ns)
            self._enter(CameraState.STREAMING, "")
        elif not self._stopping.is_set():
            state = CameraState.STALLED if frozen else pulse.state
            if frozen:
                detail = "the camera process does not answer"
            elif state is CameraState.STALLED:
                detail = "no frames come although they should"
            else:
                detail = pulse.cause or "the camera is lost"
            self._blindness.begin(pulse.seen_ns, detail)
            self._enter(state, detail)

    def _tell_end(self, code: int, killed: str) -> None:
        if code < 0:
            detail = killed or f"the camera process died by {signal_name(-code)}"
        elif code == CameraExit.STOPPED and self._stopping.is_set():
            detail = "the daemon stops"
        else:
            detail = self._pulse.cause or f"the camera process left with code {code}"
        self._blindness.begin(self._pulse.seen_ns or time.monotonic_ns(), detail)
        stopped = self._stopping.is_set() and not killed
        self._enter(CameraState.STOPPED if stopped else CameraState.LOST, detail)

    def _reclaim(self, incarnation: Incarnation) -> None:
        """Free the slots that died with the process; only the intake knows which ones it has been told of."""
        warned = False
        begun = time.monotonic()
        while True:
            held = incarnation.wait_drained(0.05)
            if held is not None:
                self._ring.release_unknown(held)
                return
            if self._stopping.is_set() and time.monotonic() > self._deadline_s:
                return
            if not warned and time.monotonic() - begun > _DRAIN_WARNING_S:
                warned = True
                self._event("camera_not_drained", EventLevel.ERROR, "the intake does not finish the records of a camera process that has ended")

    def _enter(self, state: CameraState, detail: str) -> None:
        self._state = state
        told = (state, detail)
        # An absent camera is tried again and again: neither the attempts nor the same cause are told twice.
        if told != self._told and not (state is CameraState.OPENING and self._told[0] is CameraState.LOST):
            self._told = told
            self._event(f"camera_{state.value}", _LEVELS.get(state, EventLevel.INFO), detail)

    def _event(self, name: str, level: EventLevel, detail: str) -> None:
        self._on_event(Event(name=name, level=level, detail=detail, at_ns=time.monotonic_ns(), stream=self._config.name))
