"""The composition root: builds the station's parts, starts them in order, stops them in reverse, every join with a deadline.

Started first is what must be there before a part can come: the engines (a wrong one is told before anything is made), the journal, the inspection,
the intake, the line, which says from its first message on that no camera sees yet, the pages; the cameras last. Stopped first are the cameras: what
they sent is still taken; then the inspection, then the line closes what is open as ``shutdown`` and sends it, and only then do the outputs finish.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import secrets
import signal
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from inspector.archive.writer import Archive
from inspector.contract.errors import ExitCode, InspectorError
from inspector.contract.records import Blind, Event, EventLevel
from inspector.daemon.account import Account
from inspector.daemon.cameras import Rings, Supervisors
from inspector.daemon.check import check_classes
from inspector.daemon.contact import Contact, line_settings
from inspector.daemon.loading import load_engines
from inspector.daemon.parts import Parts
from inspector.daemon.recovery import make_folder, start_recorder
from inspector.engine.opening import open_classifier, open_detector
from inspector.inspection.intake import Intake, IntakeCamera
from inspector.inspection.networks import open_networks
from inspector.inspection.pipeline import Inspection
from inspector.inspection.validity import ValidityGate
from inspector.inspection.verdict import ProductRules
from inspector.journal.writer import Journal
from inspector.line.settings import Liveness
from inspector.line.thread import LineThread
from inspector.metrics import Metrics, new_registry
from inspector.watchdog import Notifier, StageStamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inspector.config.classifier import MapKind
    from inspector.config.station import StationFiles
    from inspector.engine.classifier import Classifier
    from inspector.engine.detector import Detector
    from inspector.inspection.networks import Networks

LOG = logging.getLogger("inspector")
STOP_S = 4.5
"""All of a stop: SIGTERM to exit within 5 s."""
_TURN_S = 0.1
_LINE_AGE_NS = 2_000_000_000
"""A line thread that has not looked round for so long hangs: the watchdog is not fed."""
_LOG_LEVELS = {EventLevel.INFO: logging.INFO, EventLevel.WARNING: logging.WARNING, EventLevel.ERROR: logging.ERROR}


def program_version() -> str:
    """The installed version of the program."""
    try:
        return version("inspectord")
    except PackageNotFoundError:
        return "unknown"


class Daemon:
    """One station. ``run`` is the whole life of the process; ``start`` and ``stop`` are for those who have a loop of their own.

    Args:
        files: station file and product recipe, checked.
        open_detector: opens the product's detector; another one for tests and measurements.
        open_classifier: the same for its classifier, with the heat map that it is to give out.
    """

    def __init__(
        self,
        files: StationFiles,
        open_detector: Callable[[Path], Detector] = open_detector,
        open_classifier: Callable[[Path, MapKind | None], Classifier] = open_classifier,
    ) -> None:
        self.files = files
        self.boot_id = secrets.token_hex(6)
        self._openers = open_detector, open_classifier
        self._signalled = False
        self.left_running = False
        """True: native code still runs in a thread that cannot be ended; only the end of the process ends it."""
        self._failure: BaseException | None = None
        self._parts = Parts()
        self._notifier = Notifier(os.environ)
        self.stamp = StageStamp("inspection")
        self._line: LineThread | None = None
        self.journal: Journal
        self.archive: Archive
        self.contact: Contact
        self.metrics: Metrics
        self.inspection: Inspection
        self.intake: Intake
        self.cameras: Supervisors

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
        # What is there now stays: a collection that looked at all of it would hold up the line thread for some ten milliseconds.
        gc.collect()
        gc.freeze()
        try:
            if not self._must_stop():
                self._serve()
        finally:
            gc.unfreeze()
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
            InspectorError: an engine does not fit, a port is busy, the journal cannot be written, ...; what had been started is stopped again.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """Stop everything in reverse order, all within 5 seconds. True: nothing was left behind."""
        return self._parts.stop(STOP_S)

    def fail(self, error: BaseException) -> None:
        """Called by a thread that cannot go on; the daemon stops and exits with the error's code."""
        self._failure = self._failure or error

    def _take_signal(self, *_: object) -> None:
        # No lock may be taken here (an Event has one): this runs between any two steps of the main thread, which might be holding it.
        self._signalled = True

    def _must_stop(self) -> bool:
        return self._signalled or self._failure is not None

    def _serve(self) -> None:
        name, requests = self.files.station.name, self.contact.channel.endpoint
        LOG.info("ready: station %s, boot %s, metrics on port %d, requests at %s", name, self.boot_id, self.metrics.port, requests)
        self._notifier.ready()
        turn_s = min(_TURN_S, (self._notifier.watchdog_s or _TURN_S) / 3)
        while not self._must_stop():
            time.sleep(turn_s)
            if time.monotonic_ns() - self.line.snapshot().at_ns < _LINE_AGE_NS:
                self._notifier.watchdog(self.stamp, self._budget_ms)
        LOG.info("stopping")

    def _start(self) -> None:
        station, product = self.files.station, self.files.product
        loaded = load_engines(partial(open_networks, product, *self._openers), self._must_stop)
        self.left_running, networks = loaded.left_running, loaded.engines
        if networks is None:
            return
        self._parts.started("engines", partial(self._close_engines, networks), 1.0)
        check_classes(self.files, networks.facts)
        self._budget_ms = networks.budget_ms
        make_folder(station.state_dir, "state_dir")
        program = f"inspectord {program_version()}"
        recorder, recovered = start_recorder(self.files, self.boot_id, program, networks.hashes)
        self._parts.started("recorder", recorder.stop, 0.1)
        named = {"station": station.name, "boot_id": self.boot_id, "program": program}
        self.journal = journal = Journal(station.journal, **named, on_event=self._event, on_committed=recorder.committed)
        journal.start()
        self._parts.started("journal", journal.stop, 0.6)
        self.archive = archive = Archive(station.archive, boot_id=self.boot_id, on_event=self._event)
        archive.start()
        self._parts.started("archive", archive.stop, 0.5)
        self.metrics = metrics = Metrics(
            station.metrics, registry=new_registry(), station=station.name, version=program_version(), classes=networks.facts.defects
        )
        settings = line_settings(self.files, self.boot_id, networks.hashes)
        self.contact = contact = Contact(self.files, settings, self._event, self.fail)
        self._parts.started("contact", contact.stop, 0.3)
        outputs, liveness = (journal, archive, metrics), Liveness(self.stamp.age_ms, self._budget_ms)
        line = LineThread(settings, contact.publisher, outputs, liveness, self.fail, recorder, contact.channel)
        self._parts.started("line", line.stop, 0.6)
        self._line = line
        # The rings outlive the inspection, which may hold an image of one to the last.
        rings = Rings(station.cameras)
        self._parts.started("rings", rings.close, 0.1)
        self._start_inspection(networks)
        seen = [IntakeCamera(camera.name, camera.identity, rings.rings[camera.name]) for camera in station.cameras]
        self.intake = Intake(seen, product.deadline_ms, itertools.count(1), line, self.inspection.put, self.fail)
        self.intake.start()
        self._parts.started("intake", self.intake.stop, 0.4)
        self.cameras = supervisors = Supervisors(station.cameras, rings, self.intake.attach, self._event, self.fail)
        self._parts.started("cameras", supervisors.stop, 1.5)
        for item in recovered.told(settings.streams):
            self._event(item)
        line.start()
        contact.start(line, self.inspection, networks.facts)
        account = Account(
            line=line,
            journal=journal,
            archive=archive,
            inspection=self.inspection,
            stamp=self.stamp,
            budget_ms=self._budget_ms,
            supervisors=supervisors.by_camera,
            rings=rings.rings,
            channel=contact.channel,
            recorder=recorder,
            publisher=contact.publisher,
        )
        contact.channel.watch(*account.alarms())
        metrics.watch(account.sources(), account.health())
        metrics.start()
        self._parts.started("metrics", metrics.stop, 0.4)
        supervisors.start()

    def _close_engines(self, networks: Networks, _: float) -> bool:
        """Close the engines, unless the inspection is still inside one: native code that hangs ends with the process."""
        if self._parts.left("inspection"):
            return False
        networks.close()
        return True

    def _start_inspection(self, networks: Networks) -> None:
        product = self.files.product
        rules = ProductRules(product, networks.facts)
        self.inspection = Inspection(networks, ValidityGate(product.validity), rules, self.line.propose, self.archive, self.stamp, self.fail)
        self.inspection.start()
        self._parts.started("inspection", self.inspection.stop, 0.8)

    def _event(self, item: Event | Blind) -> None:
        """Something happened: to the line, which tells everybody else, then to the log. Any thread."""
        if isinstance(item, Blind):
            if self._line is not None:
                self._line.blind(item)
            told = "blind" if item.to_ns is None else f"sees again after {(item.to_ns - item.from_ns) / 1e9:.3f} s"
            LOG.log(logging.WARNING if item.to_ns is None else logging.INFO, "camera %s: %s: %s", item.stream, told, item.cause)
            return
        if self._line is not None:  # else nobody listens yet: the log has it
            self._line.event(item)
        where, what = (f"camera {item.stream}: " if item.stream else ""), (f": {item.detail}" if item.detail else "")
        LOG.log(_LOG_LEVELS[item.level], "%s%s%s", where, item.name, what)
