"""The inspection thread: validity, networks, rules, in the order of the images; at least two images under way."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol, cast

from inspector.contract.errors import EngineError
from inspector.contract.records import Outcome, Proposal, Reason, StageTimes
from inspector.engine.base import EngineLostError
from inspector.engine.preprocess import from_pixel_format

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from inspector.contract.records import HeatMap, Picture, View
    from inspector.engine.preprocess import PixelFormat
    from inspector.inspection.images import QueuedImage
    from inspector.inspection.networks import Networks, Shown
    from inspector.inspection.validity import ValidityGate
    from inspector.inspection.verdict import ProductRules
    from inspector.watchdog import StageStamp

_IDLE_S = 0.02
"""How long the thread waits for an image before it shows that it lives; well under any engine's budget."""


class PictureSource(Protocol):
    """The archive's pool."""

    def take(self, camera: str, pixels: NDArray[np.uint8], heat: tuple[HeatMap, ...] = ()) -> Picture | None:
        """A copy in a free buffer, with the heat maps that are to be drawn on it; None: none is free."""


@dataclass(slots=True, eq=False)
class _UnderWay:
    image: QueuedImage
    shown: Shown
    queue_ms: float
    validity_ms: float
    convert_ms: float


class Inspection:
    """One thread around a product's networks. ``put``, ``pause``, ``use`` and ``waiting`` may be called from any thread.

    Every image that is put is released exactly once; its view is proposed for exactly once, unless its deadline had passed before its turn came:
    the line thread closes such a view without being told.
    """

    def __init__(
        self,
        networks: Networks,
        gate: ValidityGate,
        rules: ProductRules,
        propose: Callable[[Proposal], None],
        pictures: PictureSource | None,
        stamp: StageStamp,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """``stamp`` is touched after each image and each idle turn, and before each crop; ``on_failure`` gets the error that ended the thread."""
        self._networks, self._gate, self._rules, self._propose, self._pictures = networks, gate, rules, propose, pictures
        self._stamp, self._on_failure = stamp, on_failure
        self._queue: SimpleQueue[QueuedImage | None] = SimpleQueue()
        self._under_way: deque[_UnderWay] = deque()
        self._coming: deque[tuple[ProductRules, Callable[[], None]]] = deque()
        self._paused = threading.Event()
        self._stopping = threading.Event()
        self._leaving = Reason.SHUTDOWN
        self._thread = threading.Thread(target=self._run, name="inspection")

    def put(self, image: QueuedImage) -> None:
        """Queue an image; never blocks, bounded by the ring's slots."""
        self._queue.put(image)

    def pause(self, *, paused: bool) -> None:
        """While paused, every part is UNINSPECTED(paused)."""
        if paused:
            self._paused.set()
        else:
            self._paused.clear()

    @property
    def paused(self) -> bool:
        """Whether parts are let by uninspected."""
        return self._paused.is_set()

    def use(self, rules: ProductRules, told: Callable[[], None]) -> None:
        """Other rules, from the next image on whose findings are there.

        ``told`` is called in the inspection thread: after the last proposal by the old rules, before the first one by the new.
        """
        self._coming.append((rules, told))

    def waiting(self) -> int:
        """Images that wait for their turn."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Finish what the engine has, give up what waits, end. Stop the intake first. True: it ended in time."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(deadline_s)
        return not self._thread.is_alive()

    # The inspection thread.

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must know that nothing is inspected any more
            self._leaving = Reason.ENGINE_ERROR
            _forget_images(error)
            self._on_failure(error)
        finally:
            self._give_up(self._leaving)

    def _loop(self) -> None:
        while True:
            while self._coming:
                self._rules, told = self._coming.popleft()
                told()
            full = len(self._under_way) >= self._networks.in_flight
            if self._under_way and (full or self._queue.empty()):
                self._collect(self._under_way.popleft())
                self._stamp.touch()
                continue
            try:
                image = self._queue.get(timeout=_IDLE_S)
            except Empty:
                self._stamp.touch()
                continue
            if image is None or self._stopping.is_set():
                if image is not None:
                    self._refuse(image, Reason.SHUTDOWN, "the station was stopped", StageTimes())
                while self._under_way:
                    self._collect(self._under_way.popleft())
                return
            self._begin(image)

    def _begin(self, image: QueuedImage) -> None:
        """Validity, then to the networks. An image that does not get there is released here."""
        view = image.view
        begun_ns = time.monotonic_ns()
        if begun_ns >= view.deadline_ns:
            self._let_go(image)
            return
        queue_ms = (begun_ns - image.record.received_ns) / 1e6
        if self._paused.is_set():
            self._refuse(image, Reason.PAUSED, "the inspection is paused", StageTimes(queue_ms=queue_ms))
            return
        problem = self._gate.forms(image.record, image.opened)
        try:
            raw = image.raw()
        except ValueError as error:
            problem = problem or str(error)
            self._refuse(image, Reason.IMAGE_INVALID, problem, StageTimes(queue_ms=queue_ms))
            return
        problem = problem or self._gate.check(view.camera, raw)
        checked_ns = time.monotonic_ns()
        validity_ms = (checked_ns - begun_ns) / 1e6
        if problem:
            del raw
            self._refuse(image, Reason.IMAGE_INVALID, problem, StageTimes(queue_ms=queue_ms, validity_ms=validity_ms))
            return
        picture = from_pixel_format(raw, cast("PixelFormat", image.record.pixel_format))  # raw() has refused all others
        convert_ms = (time.monotonic_ns() - checked_ns) / 1e6
        try:
            shown = self._networks.submit(picture)
        except EngineError as error:
            self._refuse(image, Reason.ENGINE_ERROR, str(error), StageTimes(queue_ms=queue_ms, validity_ms=validity_ms))
            if isinstance(error, EngineLostError):
                raise
            return
        self._under_way.append(_UnderWay(image, shown, queue_ms, validity_ms, convert_ms))

    def _collect(self, one: _UnderWay) -> None:
        """Wait for the networks, apply the rules, propose. The image is released after its picture is taken."""
        view = one.image.view
        try:
            found = self._networks.collect(one.shown, self._rules, partial(self._goes_on, view))
        except EngineError as error:
            times = StageTimes(queue_ms=one.queue_ms, validity_ms=one.validity_ms)
            self._refuse(one.image, Reason.ENGINE_ERROR, str(error), times)
            if isinstance(error, EngineLostError):
                raise
            return
        collected_ns = time.monotonic_ns()
        outcome, defects = self._rules.apply(found, view.camera)
        picture = None
        if self._pictures is not None and outcome is Outcome.REJECT:
            picture = self._pictures.take(view.camera, one.shown.picture, self._rules.heat(found))
        times = StageTimes(
            transfer_ms=view.transfer_ms,
            queue_ms=one.queue_ms,
            validity_ms=one.validity_ms,
            preprocess_ms=one.convert_ms + found.preprocess_ms,
            engine_ms=found.engine_ms,
            rules_ms=(time.monotonic_ns() - collected_ns) / 1e6,
        )
        self._propose(Proposal(view.ticket, outcome, defects=defects, times=times, picture=picture))
        one.image.release()

    def _goes_on(self, view: View) -> bool:
        """A sign of life between two crops; False: the view's deadline has passed, what follows is evidence and no verdict."""
        self._stamp.touch()
        return time.monotonic_ns() < view.deadline_ns

    def _refuse(self, image: QueuedImage, reason: Reason, detail: str, times: StageTimes) -> None:
        self._propose(Proposal(image.view.ticket, Outcome.UNINSPECTED, reason, detail, times=times))
        self._let_go(image)

    def _let_go(self, image: QueuedImage) -> None:
        image.release()
        self._stamp.touch()

    def _give_up(self, reason: Reason) -> None:
        """What waits, and what the engine still has after a failure, is not inspected."""
        left = [one.image for one in self._under_way]
        self._under_way.clear()
        while True:
            try:
                image = self._queue.get_nowait()
            except Empty:
                break
            if image is not None:
                left.append(image)
        for image in left:
            self._propose(Proposal(image.view.ticket, Outcome.UNINSPECTED, reason, "the inspection has ended"))
            image.release()


def _forget_images(error: BaseException) -> None:
    """The error outlives the inspection, and the variables that its traceback keeps would keep the ring mapped."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
