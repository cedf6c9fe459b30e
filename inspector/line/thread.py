"""The line thread: it alone closes parts, numbers messages and sends them. The line goes first, outputs after the wire."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import zmq

from inspector.contract.records import Blind, Event, LateResult, Proposal, Reason, View
from inspector.contract.wire import encode, topic
from inspector.line.closing import closed_part
from inspector.line.ledger import Closing, Ledger
from inspector.line.messages import MessageBuilder
from inspector.line.settings import LineSnapshot, StreamState
from inspector.line.sight import LineSight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from inspector.contract.records import Output, OutputItem
    from inspector.contract.wire import Message
    from inspector.line.publisher import Publisher
    from inspector.line.settings import LineSettings, Liveness

_BATCH = 256
"""Inputs taken before deadlines are looked at again."""


@dataclass(frozen=True, slots=True)
class _Simulated:
    camera: str
    simulated: bool


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
    ) -> None:
        """``on_failure`` is called from the line thread with the error that ended it."""
        self._settings, self._publisher, self._outputs, self._liveness = settings, publisher, tuple(outputs), liveness
        self._on_failure = on_failure
        self._ledger = Ledger(settings.streams)
        self._messages = MessageBuilder(settings.station, settings.boot_id)
        self._input: deque[View | Proposal | Blind | Event | _Simulated] = deque()
        self._wake = -1
        self._wake_lock = threading.Lock()  # guards _wake: a closed descriptor may be another's at once
        self._stop_reason: Reason | None = None
        self._seq: dict[str, int] = dict.fromkeys(settings.streams.names, 0)
        self._sight = LineSight()
        self._simulated: set[str] = set()
        self._sent = self._heartbeats = self._withheld = self._late = 0
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

    def _put(self, item: View | Proposal | Blind | Event | _Simulated) -> None:
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
                self._send_blind(item)
            elif isinstance(item, Event):
                self._send_event(item)
            elif item.simulated:
                self._simulated.add(item.camera)
            else:
                self._simulated.discard(item.camera)
        return bool(waiting)

    def _weigh(self, proposal: Proposal) -> None:
        view = self._ledger.view(proposal.ticket)
        judged = proposal if view is None else self._sight.judge(view, proposal)
        if judged is not None:
            self._finish(self._ledger.propose(judged, time.monotonic_ns()))

    def _finish(self, items: Iterable[Closing | LateResult]) -> None:
        for item in items:
            if isinstance(item, LateResult):
                self._late += 1
                self._offer(item)
            else:
                # The flight recorder's place is here: what was decided is written before it is numbered and sent.
                part = closed_part(item, self._settings, self._next_seq(item.stream))
                simulated = any(one.view.camera in self._simulated for one in part.views)
                self._send(part.stream, self._messages.verdict(part, simulated=simulated))
                self._offer(part)
                for one in part.views:
                    held = self._sight.forget(one.view.ticket)
                    if held is not None:
                        self._weigh(held)  # its part is closed: it is late evidence

    def _send_blind(self, blind: Blind) -> None:
        camera = blind.stream
        blind = self._sight.told(blind)
        stream = self._settings.streams.of(camera)
        if stream != camera:
            blind = msgspec.structs.replace(blind, stream=stream, cause=f"camera {camera}: {blind.cause}")
        self._send(stream, self._messages.blind(blind, self._next_seq(stream)))
        self._offer(blind)
        if not self._sight.blind(camera):
            for proposal in self._sight.released(camera):
                self._weigh(proposal)

    def _send_event(self, event: Event) -> None:
        stream = self._settings.streams.of(event.stream)
        if stream != event.stream:
            event = msgspec.structs.replace(event, stream=stream, detail=f"camera {event.stream}: {event.detail}")
        self._send(stream, self._messages.event(event, self._next_seq(stream)))
        self._offer(event)

    def _next_seq(self, stream: str) -> int:
        seq = self._seq.get(stream, 0) + 1
        self._seq[stream] = seq
        return seq

    def _send(self, stream: str, message: Message) -> None:
        self._publisher.send(topic(self._settings.station, stream), encode(message))
        self._sent += 1

    def _offer(self, item: OutputItem) -> None:
        for output in self._outputs:
            output.offer(item)

    def _beat(self) -> None:
        self._snapshot = snapshot = self._take_snapshot()
        age_ms = self._liveness.age_ms()
        if age_ms >= self._liveness.budget_ms:
            self._withheld += 1
            return
        for stream, state in snapshot.streams.items():
            beat = self._messages.heartbeat(stream, state.last_seq, state.books, inspection_age_ms=age_ms, blind=state.blind)
            self._publisher.send(topic(self._settings.station, stream), encode(beat))
        self._heartbeats += 1

    def _take_snapshot(self) -> LineSnapshot:
        streams = self._settings.streams
        return LineSnapshot(
            at_ns=time.monotonic_ns(),
            streams={
                name: StreamState(books, self._seq.get(name, 0), any(self._sight.blind(camera) for camera in streams.cameras(name)))
                for name, books in self._ledger.snapshot().items()
            },
            messages=self._sent,
            heartbeats=self._heartbeats,
            heartbeats_withheld=self._withheld,
            late_results=self._late,
            waiting=len(self._input),
        )
