"""The composition root: builds the station's parts, starts them in order, stops them in reverse, every join with a deadline.

Started first is what must be there before a part can come: the engine (a wrong one is told before anything is made), the journal, the inspection,
the intake, the line, which says from its first message on that no camera sees yet, the pages; the cameras last. Stopped first are the cameras: what
they sent is still taken; then the inspection, then the line closes what is open as ``shutdown`` and sends it, and only then do the outputs finish.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import signal
import threading
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from inspector.archive.writer import Archive
from inspector.camera.supervisor import CameraSupervisor
from inspector.contract.errors import ConfigError, ExitCode, InspectorError
from inspector.contract.records import Blind, Event, EventLevel
from inspector.contract.ring import Ring
from inspector.daemon.account import Account
from inspector.daemon.check import check_classes
from inspector.engine.opening import open_detector
from inspector.inspection.intake import Intake, IntakeCamera
from inspector.inspection.pipeline import Inspection
from inspector.inspection.rules import DefectRules
from inspector.inspection.validity import ValidityGate
from inspector.journal.writer import Journal
from inspector.line.publisher import Publisher
from inspector.line.settings import LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread
from inspector.metrics import Metrics, new_registry
from inspector.watchdog import Notifier, StageStamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inspector.config.station import CameraConfig, StationFiles
    from inspector.engine.detector import Detector

LOG = logging.getLogger("inspector")
STOP_S = 4.5
"""All of a stop: SIGTERM to exit within 5 s."""
_TURN_S = 0.1
_LOG_LEVELS = {EventLevel.INFO: logging.INFO, EventLevel.WARNING: logging.WARNING, EventLevel.ERROR: logging.ERROR}


def program_version() -> str:
    """The installed version of the program."""
    try:
        return version("inspectord")
    except PackageNotFoundError:
        return "unknown"


class _RingOwner:
    """The memory of one camera's ring."""

    def __init__(self, config: CameraConfig) -> None:
        self.fd = Ring.create(config.ring_slots, config.max_image_bytes)
        self.ring = Ring(self.fd)

    def close(self) -> None:
        self.ring.close()
        os.close(self.fd)


class Daemon:
    """One station. ``run`` is the whole life of the process; ``start`` and ``stop`` are for those who have a loop of their own.

    Args:
        files: station file and product recipe, checked.
        open_detector: opens the product's engine; another one for tests and measurements.
    """

    def __init__(self, files: StationFiles, open_detector: Callable[[Path], Detector] = open_detector) -> None:
        self.files = files
        self.boot_id = secrets.token_hex(6)
        self._open_detector = open_detector
        self._signalled = False
        self._failure: BaseException | None = None
        self._parts = contextlib.ExitStack()
        """Undoes, in reverse order, what was started."""
        self._notifier = Notifier(os.environ)
        self._stop_at = 0.0
        self._clean = True
        self.stamp = StageStamp("inspection")
        self.rings: dict[str, Ring] = {}
        self.supervisors: dict[str, CameraSupervisor] = {}
        self._line: LineThread | None = None
        self.journal: Journal
        self.archive: Archive
        self.metrics: Metrics
        self.inspection: Inspection
        self.intake: Intake

    @property
    def line(self) -> LineThread:
        """The line thread; there from ``start`` on."""
        if self._line is None:
            raise RuntimeError("the daemon was not started")
        return self._line

    @property
    def failure(self) -> BaseException | None:
        """The error that ended one of the daemon's threads; None: all of them run."""
        return self._failure

    def run(self) -> ExitCode:
        """Start, serve until SIGTERM, SIGINT or a failure, stop. The process's exit code.

        Raises:
            InspectorError: it could not be started; nothing is left running.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take_signal)
        self.start()
        try:
            if not self._must_stop():
                self._serve()
        finally:
            self._notifier.stopping()
            self.stop()
        if self._failure is None:
            return ExitCode.OK
        expected = isinstance(self._failure, InspectorError)
        LOG.error("%s", self._failure if expected else "a thread of the daemon failed", exc_info=None if expected else self._failure)
        return self._failure.exit_code if isinstance(self._failure, InspectorError) else ExitCode.FAILURE

    def start(self) -> None:
        """Start everything in order.

        Raises:
            InspectorError: the engine does not fit, a port is busy, the journal cannot be written, ...; what had been started is stopped again.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop everything in reverse order, all within 5 seconds. True: nothing was left behind."""
        self._stop_at = time.monotonic() + STOP_S
        self._parts.close()
        return self._clean

    def fail(self, error: BaseException) -> None:
        """Called by a thread that cannot go on; the daemon stops and exits with the error's code."""
        self._failure = self._failure or error

    def _take_signal(self, *_: object) -> None:
        # No lock may be taken here (an Event has one): this runs between any two steps of the main thread, which might be holding it.
        self._signalled = True

    def _must_stop(self) -> bool:
        return self._signalled or self._failure is not None

    def _serve(self) -> None:
        LOG.info("ready: station %s, boot %s, metrics on port %d", self.files.station.name, self.boot_id, self.metrics.port)
        self._notifier.ready()
        turn_s = min(_TURN_S, (self._notifier.watchdog_s or _TURN_S) / 3)
        while not self._must_stop():
            time.sleep(turn_s)
            self._notifier.watchdog(self.stamp, self._budget_ms)
        LOG.info("stopping")

    def _start(self) -> None:
        station, product = self.files.station, self.files.product
        # The engine takes seconds to load: a stop in the meantime has nothing else to undo.
        detector = self._open_detector(product.detector.engine)
        self._parts.callback(detector.close)
        check_classes(self.files, detector.classes)
        detector.warm_up()
        if self._must_stop():
            return
        self._budget_ms = detector.budget_ms
        _make_folder(station.state_dir)
        self.journal = journal = Journal(
            station.journal, station=station.name, boot_id=self.boot_id, program=f"inspectord {program_version()}", on_event=self._event
        )
        journal.start()
        self._undo("journal", journal.stop, 0.6)
        self.archive = archive = Archive(station.archive, boot_id=self.boot_id, on_event=self._event)
        archive.start()
        self._undo("archive", archive.stop, 0.5)
        self.metrics = metrics = Metrics(
            station.metrics, registry=new_registry(), station=station.name, version=program_version(), classes=detector.classes
        )
        settings = LineSettings(
            station=station.name,
            boot_id=self.boot_id,
            streams=Streams([camera.name for camera in station.cameras], product.views),
            product=product.name,
            product_version=product.version,
            uninspected=product.uninspected,
            engines=(detector.hash,),
            heartbeat_ms=station.publisher.heartbeat_ms,
        )
        publisher = Publisher(station.publisher.endpoint, station.publisher.high_water_mark)
        line = LineThread(settings, publisher, (journal, archive, metrics), Liveness(self.stamp.age_ms, self._budget_ms), self.fail)
        self._undo("line", line.stop, 0.6)
        self._line = line
        self._start_inspection(detector)
        self._prepare_cameras()
        line.start()
        account = Account(
            line=line,
            journal=journal,
            archive=archive,
            inspection=self.inspection,
            stamp=self.stamp,
            budget_ms=self._budget_ms,
            supervisors=self.supervisors,
            rings=self.rings,
        )
        metrics.watch(account.sources(), account.health())
        metrics.start()
        self._undo("metrics", metrics.stop, 0.5)
        for supervisor in self.supervisors.values():
            supervisor.start()

    def _start_inspection(self, detector: Detector) -> None:
        product = self.files.product
        self.inspection = Inspection(
            detector,
            ValidityGate(product.validity),
            DefectRules(product, detector.name),
            self.line.propose,
            self.archive,
            self.stamp,
            self.fail,
        )
        self.inspection.start()
        self._undo("inspection", self.inspection.stop, 0.8)

    def _prepare_cameras(self) -> None:
        """Rings, intake and supervisors, in that order; no camera process runs yet."""
        cameras = self.files.station.cameras
        owners = {config.name: _RingOwner(config) for config in cameras}
        for name, owner in owners.items():
            self._parts.callback(owner.close)
            self.rings[name] = owner.ring
        seen = [IntakeCamera(config.name, config.identity, self.rings[config.name]) for config in cameras]
        self.intake = Intake(seen, self.files.product.deadline_ms, itertools.count(1), self.line, self.inspection.put, self.fail)
        self.intake.start()
        self._undo("intake", self.intake.stop, 0.6)
        # One callback stops all of them at the same time: a camera may take a second to close.
        self._parts.callback(self._stop_cameras)
        for config in cameras:
            owner = owners[config.name]
            self.supervisors[config.name] = CameraSupervisor(
                config, owner.ring, owner.fd, on_incarnation=partial(self.intake.attach, config.name), on_event=self._event
            )

    def _stop_cameras(self) -> None:
        limit_s = max(0.1, min(1.5, self._stop_at - time.monotonic()))
        threads = [threading.Thread(target=supervisor.stop, args=(limit_s,), name="stop") for supervisor in self.supervisors.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _undo(self, name: str, stop: Callable[[float], bool], seconds: float) -> None:
        """Stop a part when the daemon stops; it gets ``seconds``, or what is left of all."""

        def undo() -> None:
            if not stop(max(seconds, 0.1) if time.monotonic() < self._stop_at else 0.1):
                self._clean = False
                LOG.error("%s did not stop in time, or left something behind", name)

        self._parts.callback(undo)

    def _event(self, item: Event | Blind) -> None:
        """Something happened: to the log, and to the line, which tells everybody else. Any thread."""
        if isinstance(item, Blind):
            told = "blind" if item.to_ns is None else f"sees again after {(item.to_ns - item.from_ns) / 1e9:.3f} s"
            LOG.log(logging.WARNING if item.to_ns is None else logging.INFO, "camera %s: %s: %s", item.stream, told, item.cause)
            if self._line is not None:
                self._line.blind(item)
            return
        where, what = (f"camera {item.stream}: " if item.stream else ""), (f": {item.detail}" if item.detail else "")
        LOG.log(_LOG_LEVELS[item.level], "%s%s%s", where, item.name, what)
        if self._line is not None:  # else nobody listens yet: the log has it
            self._line.event(item)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"state_dir: {path} cannot be made: {error.strerror}; name a folder that the service may write"]) from None
