"""The intake thread: reads what the camera processes tell, opens a view for every part, queues the images."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.channel import CameraState, EndRecord, FrameRecord, OpenedRecord, StatusRecord, decode_message
from inspector.contract.records import Blind, Event, EventLevel, Reason
from inspector.inspection.identity import FrameTracker
from inspector.inspection.images import QueuedImage, Slots
from inspector.inspection.screening import nonsense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from inspector.config.station import IdentityRules
    from inspector.contract.ring import Ring
    from inspector.inspection.ports import Incarnation, Line
    from inspector.inspection.views import Seen

_BATCH = 64
"""Records taken from one camera before the others have their turn."""
_MODULO = 1 << 32


@dataclass(frozen=True, slots=True)
class IntakeCamera:
    """One camera as the intake knows it."""

    name: str
    rules: IdentityRules
    ring: Ring


@dataclass(frozen=True, slots=True)
class CameraSnapshot:
    """One camera's account."""

    state: CameraState
    opened: OpenedRecord | None
    """What the camera said when it was last opened; None: never yet."""
    starts: int
    """Camera processes that were handed over."""
    frames: int
    triggers: int | None
    """The camera's own count, as last told."""
    underruns: int
    held_slots: int


class _Camera:
    """The intake thread's own state of one camera."""

    def __init__(self, camera: IntakeCamera, deadline_ns: int, tickets: Iterator[int]) -> None:
        self.name, self.ring = camera.name, camera.ring
        self.slots = Slots(camera.ring)
        self.tracker = FrameTracker(camera.name, camera.rules, deadline_ns, tickets)
        self.incarnation: Incarnation | None = None
        self.condemned = False
        """What the present incarnation says is not believed any more."""
        self.opened: OpenedRecord | None = None
        self.state = CameraState.OPENING
        self.unsent = camera.ring.unsent
        self.starts = self.frames = self.underruns = 0
        self.triggers: int | None = None
        self.told_ns = 0  # what the process could have shown before then was told as blind, or its tracker accounts for it


class Intake:
    """Owns the trackers of all cameras. ``attach`` and ``snapshot`` may be called from any thread."""

    def __init__(
        self,
        cameras: Sequence[IntakeCamera],
        deadline_ms: float,
        tickets: Iterator[int],
        line: Line,
        inspect: Callable[[QueuedImage], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """``inspect`` takes an image and never blocks; ``on_failure`` is called from the intake thread with the error that ended it."""
        self._cameras = {one.name: _Camera(one, int(deadline_ms * 1e6), tickets) for one in cameras}
        self._line, self._inspect, self._on_failure = line, inspect, on_failure
        self._handed: deque[tuple[_Camera, Incarnation, int]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._poll = select.poll()
        self._by_fd: dict[int, _Camera] = {}
        self._thread = threading.Thread(target=self._run, name="intake")

    def attach(self, camera: str, incarnation: Incarnation) -> None:
        """A camera process was started. Its ``drained`` is called when it has ended and all it said was taken."""
        self._handed.append((self._cameras[camera], incarnation, time.monotonic_ns()))
        os.eventfd_write(self._wake, 1)

    def snapshot(self) -> dict[str, CameraSnapshot]:
        """What is known of every camera now."""
        return {
            name: CameraSnapshot(one.state, one.opened, one.starts, one.frames, one.triggers, one.underruns, len(one.slots.held()))
            for name, one in self._cameras.items()
        }

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Take what the camera processes have told, then end. Stop the supervisors first. True: it ended in time."""
        if self._wake < 0:
            return True
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        if self._thread.is_alive():
            return False
        os.close(self._wake)
        self._wake = -1
        return True

    # The intake thread.

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must know that no part is opened any more
            self._on_failure(error)
        finally:
            for camera in self._cameras.values():
                if camera.incarnation is not None:
                    self._detach(camera, camera.incarnation)

    def _loop(self) -> None:
        self._poll.register(self._wake, select.POLLIN)
        while True:
            stopping = self._stopping.is_set()
            ready = [fd for fd, _ in self._poll.poll(0 if stopping else self._patience_ms())]
            if self._wake in ready:
                os.eventfd_read(self._wake)
            while self._handed:
                self._take_over(*self._handed.popleft())
            more = [self._read(self._by_fd[fd]) for fd in ready if fd in self._by_fd]
            now_ns = time.monotonic_ns()
            for camera in self._cameras.values():
                due_ns = camera.tracker.due_ns()
                if due_ns is not None and due_ns <= now_ns:
                    self._open(camera.tracker.expire(now_ns))
            if stopping and not any(more):
                return

    def _patience_ms(self) -> int | None:
        times = [due_ns for camera in self._cameras.values() if (due_ns := camera.tracker.due_ns()) is not None]
        return max(0, -((time.monotonic_ns() - min(times)) // 1_000_000)) if times else None

    def _take_over(self, camera: _Camera, incarnation: Incarnation, started_ns: int) -> None:
        if camera.incarnation is not None:  # its predecessor ended: read it to the end first
            self._read_all(camera)
        incarnation.channel.setblocking(False)
        camera.incarnation, camera.state, camera.told_ns = incarnation, CameraState.OPENING, started_ns
        camera.condemned = False
        camera.starts += 1
        camera.tracker.restart(started_ns)
        self._by_fd[incarnation.channel.fileno()] = camera
        self._poll.register(incarnation.channel, select.POLLIN)

    def _read_all(self, camera: _Camera) -> None:
        while self._read(camera):
            pass
        if camera.incarnation is not None:
            self._end(camera, camera.incarnation)

    def _read(self, camera: _Camera) -> bool:
        """Take at most a batch of one camera's records; True: more may be there."""
        for _ in range(_BATCH):
            if camera.incarnation is None:
                return False
            try:
                message = camera.incarnation.receive()
            except BlockingIOError:
                return False
            if not message:
                self._end(camera, camera.incarnation)
                return False
            self._count_unsent(camera)
            if not camera.condemned:
                self._hear(camera, camera.incarnation, message)
        return True

    def _hear(self, camera: _Camera, incarnation: Incarnation, message: bytes) -> None:
        try:
            record = decode_message(message)
        except ValueError as error:  # msgspec's errors are such, and so are letters that are none
            cause = f"a message of {len(message)} bytes cannot be read: {error}"
        else:
            cause = nonsense(record, camera.slots, time.monotonic_ns())
            if not cause:
                self._take(camera, record)
                return
        cause = f"the camera process sent nonsense and is killed: {cause}"
        camera.condemned = True
        self._unseen(camera, cause)
        self._line.event(Event("camera_message_unreadable", EventLevel.ERROR, cause, time.monotonic_ns(), camera.name))
        incarnation.condemn(cause)

    def _unseen(self, camera: _Camera, cause: str) -> None:
        """A frame may have been in what was not believed: since the last one that was accounted for the station could not see."""
        now_ns = time.monotonic_ns()
        since_ns, camera.told_ns = max(camera.told_ns, camera.tracker.seen_until_ns or 0), now_ns
        self._line.blind(Blind(camera.name, min(since_ns, now_ns), now_ns, cause))

    def _take(self, camera: _Camera, record: FrameRecord | StatusRecord | OpenedRecord | EndRecord) -> None:
        if isinstance(record, FrameRecord):
            self._take_frame(camera, record)
        elif isinstance(record, StatusRecord):
            camera.state, camera.triggers, camera.underruns = record.state, record.triggers, record.underruns
            self._open(camera.tracker.status(record))
        elif isinstance(record, OpenedRecord):
            camera.opened = record
            self._line.simulated(camera.name, simulated=record.simulated)
            detail = f"{record.model} {record.serial}, firmware {record.firmware}: {record.width_px}x{record.height_px} {record.pixel_format}"
            self._line.event(Event("camera_opened", EventLevel.INFO, detail, record.at_ns, camera.name))
        else:
            camera.state = CameraState.LOST if record.cause else CameraState.STOPPED

    def _take_frame(self, camera: _Camera, record: FrameRecord) -> None:
        camera.frames += 1
        reason: Reason | None = None
        if record.slot < 0:
            reason = Reason.OVERRUN
        else:
            camera.slots.hold(record.slot)
            if record.size_bytes == 0:  # it did not fit into the slot
                reason = Reason.IMAGE_INVALID
        seen = camera.tracker.frame(record, time.monotonic_ns(), reason)
        self._open(seen)
        if seen.view is not None and seen.view.reason is None:
            self._inspect(QueuedImage(seen.view, record, camera.opened, camera.slots))
        elif record.slot >= 0:
            camera.slots.release(record.slot)

    def _open(self, seen: Seen) -> None:
        for blind in seen.blinds:
            self._line.blind(blind)
        for view in seen.lost:
            self._line.open(view)
        if seen.view is not None:
            self._line.open(seen.view)
        for event in seen.events:
            self._line.event(event)

    def _count_unsent(self, camera: _Camera) -> None:
        """The writer counts before it sends its next record: whoever has read the record sees the count."""
        unsent = camera.ring.unsent
        if unsent != camera.unsent:
            camera.tracker.unsent((unsent - camera.unsent) % _MODULO, time.monotonic_ns())
            camera.unsent = unsent

    def _end(self, camera: _Camera, incarnation: Incarnation) -> None:
        """All that the process said was read."""
        self._count_unsent(camera)
        self._open(camera.tracker.end(time.monotonic_ns()))
        if camera.condemned:
            self._unseen(camera, "what the camera process said was not believed any more")
        if camera.state is not CameraState.STOPPED:
            camera.state = CameraState.LOST
        self._detach(camera, incarnation)

    def _detach(self, camera: _Camera, incarnation: Incarnation) -> None:
        camera.incarnation = None
        fd = incarnation.channel.fileno()
        if fd in self._by_fd:
            del self._by_fd[fd]
            self._poll.unregister(fd)
        incarnation.channel.close()
        incarnation.drained(camera.slots.held())
