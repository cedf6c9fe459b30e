"""The inspection thread: images in their order, through validity, engine and rules, to proposals."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from inspector.contract.errors import EngineError
from inspector.contract.records import Outcome, Picture, Proposal, Reason, StageTimes, View
from inspector.contract.ring import Ring
from inspector.engine.base import EngineLostError
from inspector.inspection.rules import Rules
from inspector.inspection.validity import ImageFormat, ValidityGate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from inspector.config.product import Product
    from inspector.engine.base import Ticket
    from inspector.engine.detector import Detector
    from inspector.watchdog import StageStamp

_IDLE_S = 0.01
"""An idle loop looks round so often: its stamp is proof that it runs."""


class PictureSource(Protocol):
    """Where pictures of rejected parts are copied to (the archive's pool)."""

    def take(self, camera: str, pixels: NDArray[np.uint8]) -> Picture | None:
        """A copy of ``pixels``, or None when there is no room; counted there."""


class Line(Protocol):
    """Who hears proposals (the line thread)."""

    def propose(self, proposal: Proposal) -> None:
        """Never blocks and never refuses."""


class Job(msgspec.Struct, frozen=True, eq=False):
    """An image to inspect. Its slot belongs to the inspection until it is released."""

    view: View
    ring: Ring
    slot: int
    size_bytes: int
    stride_bytes: int
    given: ImageFormat
    opened: ImageFormat | None
    received_ns: int
    release: Callable[[], None]
    """Gives the slot back; called exactly once."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """An image that the engine works on."""

    job: Job
    image: NDArray[np.uint8]
    ticket: Ticket
    queue_ms: float
    validity_ms: float


class Inspection:
    """Takes jobs from any thread; proposes to the line. A job that it does not get to stays open: the line closes it.

    Args:
        detector: the product's engine, warmed up; used by this thread alone from ``start`` to ``stop``.
        product: thresholds and validity limits.
        line: hears the proposals.
        pictures: keeps a copy of rejected parts' images.
        stamp: touched by progress alone: an image done, or a look at an empty queue.
        on_failure: told of the error that ended the thread.
    """

    def __init__(
        self,
        detector: Detector,
        product: Product,
        line: Line,
        pictures: PictureSource,
        stamp: StageStamp,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._detector, self._line, self._pictures, self._stamp, self._on_failure = detector, line, pictures, stamp, on_failure
        self._validity = product.validity
        self._rules = Rules(product, detector.name)
        self._gates: dict[str, ValidityGate] = {}
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._flights: deque[_Flight] = deque()
        self._stopping = threading.Event()
        self._paused = threading.Event()
        self._skipped = 0
        self._thread = threading.Thread(target=self._run, name="inspection")

    # Any thread.

    def put(self, job: Job) -> None:
        """Queue an image; the ring bounds how many there can be."""
        self._jobs.put(job)

    def pause(self) -> None:
        """From now on parts are UNINSPECTED(paused)."""
        self._paused.set()

    def resume(self) -> None:
        """Inspect again."""
        self._paused.clear()

    @property
    def depth(self) -> int:
        """Images that wait or are being inspected."""
        return self._jobs.qsize() + len(self._flights)

    @property
    def skipped(self) -> int:
        """Images whose deadline had passed before their turn; the line has closed their parts as late."""
        return self._skipped

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """End after the image at hand, give every slot back. True: the thread has ended."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        if self._thread.is_alive():
            return False
        while self._flights:
            self._flights.popleft().job.release()
        while (job := self._next(0)) is not None:
            job.release()
        return True

    # The inspection thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must know that nothing is inspected any more
            while self._flights:
                self._refuse(self._flights.popleft().job, Reason.ENGINE_ERROR, str(error))
            self._on_failure(error)

    def _turn(self) -> None:
        """Start the next image while the engine has room, else finish the oldest: preprocessing overlaps the engine's work."""
        if len(self._flights) < self._detector.in_flight:
            job = self._next(0 if self._flights else _IDLE_S)
            if job is not None:
                self._begin(job)
            elif self._flights:
                self._finish(self._flights.popleft())
        else:
            self._finish(self._flights.popleft())
        self._stamp.touch()

    def _next(self, wait_s: float) -> Job | None:
        try:
            return self._jobs.get(block=wait_s > 0, timeout=wait_s or None)
        except queue.Empty:
            return None

    def _begin(self, job: Job) -> None:
        begun_ns = time.monotonic_ns()
        gate = self._gates.get(job.view.camera)
        if gate is None:
            gate = self._gates[job.view.camera] = ValidityGate(self._validity)
        image, problem = gate.admit(job.ring.pixels(job.slot, job.size_bytes), job.given, job.stride_bytes, job.opened)
        checked_ns = time.monotonic_ns()
        queue_ms, validity_ms = (begun_ns - job.received_ns) / 1e6, (checked_ns - begun_ns) / 1e6
        times = StageTimes(transfer_ms=job.view.transfer_ms, queue_ms=queue_ms, validity_ms=validity_ms)
        if self._paused.is_set():
            self._refuse(job, Reason.PAUSED, "the station is paused", times)
        elif image is None:
            self._refuse(job, Reason.IMAGE_INVALID, problem, times)
        elif checked_ns >= job.view.deadline_ns:
            self._skipped += 1
            del image
            job.release()
        else:
            try:
                ticket = self._detector.submit(image)
            except EngineLostError:
                self._refuse(job, Reason.ENGINE_ERROR, "the engine failed for good", times)
                raise
            except EngineError as error:
                self._refuse(job, Reason.ENGINE_ERROR, str(error), times)
            else:
                self._flights.append(_Flight(job, image, ticket, queue_ms, validity_ms))

    def _finish(self, flight: _Flight) -> None:
        job, view = flight.job, flight.job.view
        try:
            found = self._detector.collect(flight.ticket)
        except EngineLostError:
            self._refuse(job, Reason.ENGINE_ERROR, "the engine failed for good")
            raise
        except EngineError as error:
            self._refuse(job, Reason.ENGINE_ERROR, str(error))
            return
        begun_ns = time.monotonic_ns()
        outcome, defects = self._rules.judge(found, view.camera)
        times = StageTimes(
            transfer_ms=view.transfer_ms,
            queue_ms=flight.queue_ms,
            validity_ms=flight.validity_ms,
            preprocess_ms=found.preprocess_ms,
            engine_ms=found.engine_ms,
            rules_ms=(time.monotonic_ns() - begun_ns) / 1e6,
        )
        picture = self._pictures.take(view.camera, flight.image) if outcome is Outcome.REJECT else None
        self._line.propose(Proposal(view.ticket, outcome, defects=defects, times=times, picture=picture))
        job.release()

    def _refuse(self, job: Job, reason: Reason, detail: str, times: StageTimes | None = None) -> None:
        job.release()
        self._line.propose(
            Proposal(job.view.ticket, Outcome.UNINSPECTED, reason, detail, times=times or StageTimes(transfer_ms=job.view.transfer_ms))
        )
