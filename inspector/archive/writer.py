"""The archive as an output: pictures copied at once into a bounded pool, drawn and written by a thread of their own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from inspector.archive.draw import annotate
from inspector.archive.heat_file import encode_heat
from inspector.archive.retention import UNFINISHED, Retention, heat_file
from inspector.contract.pictures import has_picture, picture_name
from inspector.contract.records import ClosedPart, Event, EventLevel, LateResult, Picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.station import ArchiveConfig
    from inspector.contract.records import HeatMap, OutputItem


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """One consistent snapshot; every taken picture is in one of the last four."""

    writable: bool
    """False: the last attempt to write a picture failed."""
    refused: int
    """Pictures not taken, because the pool was full or the archive is off."""
    taken: int
    """Copies made: ``taken == written + given_back + failed + held``."""
    written: int
    given_back: int
    """Pictures of parts that did not end as REJECT."""
    failed: int
    """Pictures lost, because the disk refused or the archive stopped."""
    held: int
    """Buffers in use now."""
    last_error: str


@dataclass(frozen=True, slots=True)
class _Job:
    part: ClosedPart
    picture: Picture
    closed_utc_ns: int


def _ignore(_: Event) -> None:
    """The default listener."""


class Archive:
    """Output that keeps annotated pictures of rejected parts as JPEG, with the heat maps of their classifier as numbers beside them.

    Args:
        config: folder (absolute), bounds and quality.
        boot_id: this start of the daemon; a part of every picture's name.
        on_event: told when pictures cannot be written, and when they can again; called from the archive's thread.
    """

    def __init__(self, config: ArchiveConfig, *, boot_id: str, on_event: Callable[[Event], None] = _ignore) -> None:
        self._config = config
        self._boot_id = boot_id
        self._on_event = on_event
        self._mutex = threading.Lock()
        self._ready = threading.Condition(self._mutex)
        self._buffers: list[NDArray[np.uint8]] = [np.empty(0, dtype=np.uint8) for _ in range(config.pool)]
        self._free = list(range(config.pool))
        self._out: dict[int, Picture] = {}
        self._jobs: deque[_Job] = deque()
        self._retention = Retention(config.path, config.max_pictures)
        self._refused = self._taken = self._written = self._given_back = self._failed = 0
        self._writable, self._last_error = True, ""
        self._open = self._scanned = False
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)

    def start(self) -> None:
        """Start the thread. A folder that cannot be written is told as an event: pictures never stop the line."""
        self._open = self._config.enabled
        self._thread.start()

    def take(self, camera: str, pixels: NDArray[np.uint8], heat: tuple[HeatMap, ...] = ()) -> Picture | None:
        """A copy of ``pixels`` in a buffer of the pool; None: none is free. Any thread; waits for nothing.

        Args:
            camera: whose view it is.
            pixels: uint8 [H,W] or [H,W,3] (RGB); may be reused as soon as this returns.
            heat: where a classifier looked. The maps are not copied: they must not change any more.
        """
        with self._mutex:
            if not self._open or not self._free:
                self._refused += 1
                return None
            slot = self._free.pop()
            self._taken += 1
        # The slot is this caller's alone now: the copy needs no lock. A buffer grows to the largest image and is kept.
        if self._buffers[slot].size < pixels.size:
            self._buffers[slot] = np.empty(pixels.size, dtype=np.uint8)
        copy = self._buffers[slot][: pixels.size].reshape(pixels.shape)
        np.copyto(copy, pixels)
        picture = Picture(camera=camera, pixels=copy, slot=slot, heat=heat)
        with self._mutex:
            self._out[slot] = picture
        return picture

    def give_back(self, picture: Picture) -> None:
        """The picture is not needed. Any thread; a picture that is not out (any more) is left alone."""
        with self._mutex:
            if self._release(picture):
                self._given_back += 1

    def offer(self, item: OutputItem) -> bool:
        """Queue the pictures of a REJECT part and take all others back. Any thread; waits for nothing."""
        taken = True
        if isinstance(item, ClosedPart):
            utc_ns = item.closed_utc_ns or item.closed_ns + time.time_ns() - time.monotonic_ns()
            for view in item.views:
                if view.picture is None:
                    continue
                if not has_picture(item, view):
                    self.give_back(view.picture)
                else:
                    taken &= self._enqueue(_Job(item, view.picture, utc_ns))
        elif isinstance(item, LateResult) and item.proposal.picture is not None:
            self.give_back(item.proposal.picture)
        return taken

    def state(self) -> ArchiveState:
        """How it is now. Any thread."""
        with self._mutex:
            return ArchiveState(
                writable=self._writable,
                refused=self._refused,
                taken=self._taken,
                written=self._written,
                given_back=self._given_back,
                failed=self._failed,
                held=self._config.pool - len(self._free),
                last_error=self._last_error,
            )

    def stop(self, deadline_s: float) -> bool:
        """Take no more, write what waits. True: every queued picture is on the disk and the thread has ended."""
        with self._ready:
            self._open = False
            self._ready.notify()
        if self._thread.ident is None:
            return True
        failed_before = self._failed
        self._thread.join(deadline_s)
        with self._mutex:
            left = list(self._jobs)
            self._jobs.clear()
            for job in left:
                self._failed += self._release(job.picture)
        return not self._thread.is_alive() and not left and self._failed == failed_before

    def _enqueue(self, job: _Job) -> bool:
        with self._ready:
            if self._out.get(job.picture.slot) is not job.picture:
                return True  # taken back before: its buffer may hold another part's image by now
            if not self._open:
                self._failed += self._release(job.picture)
                return False
            self._jobs.append(job)
            self._ready.notify()
        return True

    def _release(self, picture: Picture) -> bool:
        """The mutex is held."""
        if self._out.get(picture.slot) is not picture:
            return False
        del self._out[picture.slot]
        self._free.append(picture.slot)
        return True

    # From here on: the archive's thread.

    def _run(self) -> None:
        if self._config.enabled:
            self._attempt(self._scan)
        while True:
            with self._ready:
                while not self._jobs and self._open:
                    self._ready.wait()
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            done = self._attempt(partial(self._write, job))
            with self._mutex:
                if self._release(job.picture):
                    self._written += done
                    self._failed += not done

    def _scan(self) -> None:
        self._config.path.mkdir(parents=True, exist_ok=True)
        self._retention.scan()
        self._scanned = True

    def _attempt(self, action: Callable[[], None]) -> bool:
        """True: done. A refusal is told once, and so is its end."""
        try:
            action()
        except (OSError, cv2.error) as error:
            problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            with self._mutex:
                first, self._writable, self._last_error = self._writable, False, problem
            if first:
                self._tell("archive_unwritable", EventLevel.WARNING, f"{self._config.path}: pictures cannot be written ({problem})")
            return False
        with self._mutex:
            first, self._writable = not self._writable, True
        if first:
            self._tell("archive_recovered", EventLevel.INFO, f"{self._config.path}: pictures are written again")
        return True

    def _write(self, job: _Job) -> None:
        if not self._scanned:
            self._scan()
        path = self._config.path / picture_name(self._boot_id, job.part, job.picture.camera, job.closed_utc_ns)
        defects = [defect for defect in job.part.defects if defect.camera == job.picture.camera]
        drawn = annotate(job.picture.pixels, _header(job), defects, job.picture.heat)
        _, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, self._config.jpeg_quality])
        # The picture last: where it is, all of it is.
        files = {heat_file(path): encode_heat(job.picture.heat)} if job.picture.heat else {}
        files[path] = encoded.tobytes()
        self._retention.make_room()
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(files)
        self._retention.add(path)

    def _tell(self, name: str, level: EventLevel, detail: str) -> None:
        self._on_event(Event(name=name, level=level, detail=detail, at_ns=time.monotonic_ns()))


def _put(files: dict[Path, bytes]) -> None:
    """All the files, in their order, or none of them; under their names they are always whole."""
    unfinished = {path: path.with_name(path.name + UNFINISHED) for path in files}
    try:
        for path, content in files.items():
            unfinished[path].write_bytes(content)
        for path in files:
            unfinished[path].replace(path)
    except OSError:
        for path in (*unfinished.values(), *files):
            with contextlib.suppress(OSError):  # the first refusal is the one that is told
                path.unlink(missing_ok=True)
        raise


def _header(job: _Job) -> tuple[str, str]:
    part = job.part
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(job.closed_utc_ns // 1_000_000_000))
    identity = f"part {part.part_no}" + (f"  id {part.part_id}" if part.part_id is not None else "")
    return f"{part.outcome.value}  {identity}  {part.stream}/{job.picture.camera}", f"{when}  {part.product} {part.product_version}"
