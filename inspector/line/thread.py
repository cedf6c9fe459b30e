"""The line thread: it alone closes parts, numbers messages and sends them. The line goes first, outputs after the wire."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import zmq

from inspector.contract.records import Blind, Event, LateResult, Proposal, Reason, View
from inspector.contract.requests import Done, Refusal, Refused
from inspector.line.ledger import Ledger
from inspector.line.parts import Opened
from inspector.line.ports import NoAudience, NoRecorder
from inspector.line.sender import Sender
from inspector.line.settings import LineSnapshot, StreamState
from inspector.line.sight import LineSight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from inspector.contract.records import Action, Output
    from inspector.contract.requests import Announce
    from inspector.line.parts import Item
    from inspector.line.ports import Audience, Recorder
    from inspector.line.publisher import Publisher
    from inspector.line.settings import LineSettings, Liveness

_BATCH = 256
"""Inputs taken before deadlines are looked at again."""


@dataclass(frozen=True, slots=True)
class _Simulated:
    camera: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    asker: bytes
    request: Announce
    at_ns: int


@dataclass(frozen=True, slots=True)
class _Reopen:
    pass


@dataclass(frozen=True, slots=True)
class _Rules:
    product_version: str
    uninspected: Action


_Input = View | Proposal | Blind | Event | _Simulated | _Asked | _Reopen | _Rules


class LineThread:
    """Takes views, proposals, blind intervals and events from any thread; closes, numbers, sends, then offers to the outputs.

    ``open``, ``propose``, ``blind``, ``event`` and ``simulated`` may be called from any thread, never block and never refuse. Stop those who
    call them first: what comes after ``stop`` is not sent.
    """

    def __init__(
        self,
        settings: LineSettings,
        publisher: Publisher,
        outputs: Sequence[Output],
        liveness: Liveness,
        on_failure: Callable[[BaseException], None],
        recorder: Recorder | None = None,
        audience: Audience | None = None,
    ) -> None:
        """``on_failure`` is called from the line thread with the error that ended it."""
        self._recorder, self._audience = recorder or NoRecorder(), audience or NoAudience()
        self._settings, self._publisher, self._liveness = settings, publisher, liveness
        self._on_failure = on_failure
        self._ledger = Ledger(settings.streams, settings.announcing)
        self._sender = Sender(settings, publisher, self._recorder, self._audience, outputs)
        self._input: deque[_Input] = deque()
        self._wake = -1
        self._wake_lock = threading.Lock()  # guards _wake: a closed descriptor may be another's at once
        self._stop_reason: Reason | None = None
        self._sight = LineSight()
        self._simulated: set[str] = set()
        self._heartbeats = self._withheld = 0
        self._snapshot = self._take_snapshot()
        self._thread = threading.Thread(target=self._run, name="line")

    # Any thread.

    def open(self, view: View) -> None:
        """Open a part, or a group's further view."""
        self._put(view)

    def propose(self, proposal: Proposal) -> None:
        """Say what a view's outcome should be."""
        self._put(proposal)

    def blind(self, blind: Blind) -> None:
        """Publish a blind interval; ``blind.stream`` names the camera.

        With ``to_ns`` None it goes on until one with the same ``from_ns`` ends it.
        """
        self._put(blind)

    def event(self, event: Event) -> None:
        """Publish an event."""
        self._put(event)

    def simulated(self, camera: str, *, simulated: bool) -> None:
        """Say whether ``camera`` is no real one: its verdicts carry it."""
        self._put(_Simulated(camera, simulated))

    def announce(self, asker: bytes, request: Announce) -> None:
        """Open a part that is on its way; ``asker`` is answered through the audience."""
        self._put(_Asked(asker, request, time.monotonic_ns()))

    def use(self, product_version: str, uninspected: Action) -> None:
        """The product's rules have changed: parts that are closed after this carry it."""
        self._put(_Rules(product_version, uninspected))

    def reopen_publisher(self) -> None:
        """End every subscriber's connection; whoever still may comes back by himself."""
        self._put(_Reopen())

    def snapshot(self) -> LineSnapshot:
        """The account as of the last heartbeat tick; after ``stop`` the final one."""
        return self._snapshot

    # The daemon's thread.

    def start(self) -> None:
        """Bind, then run.

        Raises:
            AddressError: the endpoint cannot be bound; nothing runs.
        """
        self._publisher.bind()
        self._wake = os.eventfd(1 if self._input else 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()

    def stop(self, deadline_s: float, reason: Reason = Reason.SHUTDOWN) -> bool:
        """Take what has come, close every open part for ``reason``, send, close the socket. True: all of it was done in time."""
        if self._thread.ident is None:
            self._publisher.close(0)
            return True
        self._stop_reason = reason
        self._signal()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            return False
        with self._wake_lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
        return not self._input

    # Inside.

    def _put(self, item: _Input) -> None:
        self._input.append(item)
        self._signal()

    def _signal(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must know that no part is closed any more
            self._on_failure(error)
        finally:
            self._publisher.close(self._settings.linger_ms)

    def _loop(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        beat_ns = int(self._settings.heartbeat_ms * 1e6)
        next_beat_ns = time.monotonic_ns()
        while True:
            stopping = self._stop_reason  # read before the input, so that all that came before the stop is taken
            more = self._take_input()
            now_ns = time.monotonic_ns()
            for proposal in self._ledger.released(now_ns):
                self._weigh(proposal)
            self._finish(self._ledger.expire(now_ns))
            if now_ns >= next_beat_ns:
                self._beat()
                next_beat_ns = max(next_beat_ns + beat_ns, now_ns)
            if more:
                continue
            if stopping is not None:
                self._finish(self._ledger.close_all(stopping, time.monotonic_ns()))
                self._snapshot = self._take_snapshot()
                return
            due_ns = self._ledger.next_deadline_ns()
            wake_ns = next_beat_ns if due_ns is None else min(next_beat_ns, due_ns)
            # Rounded up: a poll that ends before the deadline would only turn round.
            if poller.poll(max(0, -((time.monotonic_ns() - wake_ns) // 1_000_000))):
                os.eventfd_read(self._wake)

    def _take_input(self) -> bool:
        """Take at most a batch; True: more is there."""
        waiting = self._input
        for _ in range(min(len(waiting), _BATCH)):
            item = waiting.popleft()
            if isinstance(item, View):
                self._sight.opened(item)
                self._finish(self._ledger.open(item, time.monotonic_ns()))
            elif isinstance(item, Proposal):
                self._weigh(item)
            elif isinstance(item, Blind):
                self._take_blind(item)
            elif isinstance(item, Event):
                self._sender.event(item)
            elif isinstance(item, _Asked):
                self._announce(item)
            elif isinstance(item, _Reopen):
                self._publisher.reopen()
            elif isinstance(item, _Rules):
                self._sender.use(replace(self._settings, product_version=item.product_version, uninspected=item.uninspected))
            elif item.simulated:
                self._simulated.add(item.camera)
            else:
                self._simulated.discard(item.camera)
        return bool(waiting)

    def _announce(self, asked: _Asked) -> None:
        no = asked.request.no
        try:
            items = self._ledger.announce(asked.request, asked.at_ns, time.monotonic_ns())
        except ValueError as error:
            self._audience.answer(asked.asker, Refused(no=no, code=Refusal.INVALID, detail=str(error)))
            return
        self._finish(items)
        part_no = next((one.part_no for one in items if isinstance(one, Opened)), None)
        self._audience.answer(asked.asker, Done(no=no, part_no=part_no))

    def _take_blind(self, blind: Blind) -> None:
        self._sender.blind(self._sight.told(blind))
        if not self._sight.blind(blind.stream):
            for proposal in self._sight.released(blind.stream):
                self._weigh(proposal)

    def _weigh(self, proposal: Proposal) -> None:
        view = self._ledger.view(proposal.ticket)
        judged = proposal if view is None else self._sight.judge(view, proposal)
        if judged is not None:
            self._finish(self._ledger.propose(judged, time.monotonic_ns()))

    def _finish(self, items: Iterable[Item]) -> None:
        for item in items:
            if isinstance(item, LateResult):
                self._sender.evidence(item)
            elif isinstance(item, Opened):
                self._recorder.opened(item)
            elif isinstance(item, Event):
                self._sender.event(item)
            else:
                # By the stream's cameras, not the views: a part that never appeared has none.
                self._sender.verdict(item, simulated=any(camera in self._simulated for camera in self._settings.streams.cameras(item.stream)))
                for one in item.views:
                    held = self._sight.forget(one.view.ticket)
                    if held is not None:
                        self._weigh(held)  # its part is closed: it is late evidence

    def _beat(self) -> None:
        self._snapshot = snapshot = self._take_snapshot()
        self._recorder.beat(snapshot.at_ns)
        age_ms = self._liveness.age_ms()
        if age_ms >= self._liveness.budget_ms:
            self._withheld += 1
            return
        self._sender.heartbeats(snapshot.streams, age_ms)
        self._heartbeats += 1

    def _take_snapshot(self) -> LineSnapshot:
        streams = self._settings.streams
        return LineSnapshot(
            at_ns=time.monotonic_ns(),
            streams={
                name: StreamState(books, self._sender.last_seq(name), any(self._sight.blind(camera) for camera in streams.cameras(name)))
                for name, books in self._ledger.snapshot().items()
            },
            messages=self._sender.sent,
            heartbeats=self._heartbeats,
            heartbeats_withheld=self._withheld,
            late_results=self._sender.late_results,
            waiting=len(self._input),
        )
