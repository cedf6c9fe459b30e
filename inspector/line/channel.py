"""The request channel: one thread with the socket at which controllers say hello, announce, ask for replays, acknowledge and command.

It never holds up a verdict: it takes at most a tenth of the interpreter, whatever comes. When that is used up it stops reading, and ZeroMQ pushes
back on those who send. The line thread hands it every message that was sent and every answer of its own, and waits for nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.records import Action, Event, EventLevel
from inspector.line.allowance import Share
from inspector.line.commands import Commands
from inspector.line.controllers import Controllers
from inspector.line.counts import ChannelCounts, Tally
from inspector.line.inlet import Inlet
from inspector.line.reception import Reception, Services
from inspector.line.replay import ReplayMemory
from inspector.line.replaying import Replaying
from inspector.line.welcome import Welcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import zmq

    from inspector.config.keys import KeyPair
    from inspector.config.station import ChannelConfig
    from inspector.contract.records import ClosedPart
    from inspector.contract.requests import Reply
    from inspector.line.access import Gatekeeper
    from inspector.line.commands import Controls
    from inspector.line.thread import LineThread
    from inspector.line.welcome import LineFacts

_SHARE = 0.1
_BURST_NS = 10_000_000
_BATCH = 4
"""Requests of one turn, which has a piece of a replay besides: about 0.3 ms of work."""
_YIELD_S = 0.0001
"""Between two turns. A thread that only gives the interpreter up takes it again before another one, which waits for it, is awake."""
_TICK_MS = 20
_ANSWERS = 128
"""The line thread's answers that are sent in one turn."""
_LINGER_MS = 100
_REFRESH_NS = 200_000_000


@dataclass(frozen=True, slots=True)
class _Sent:
    stream: str
    seq: int
    sent_ns: int


class Channel:
    """The request socket, the replay memory and the controllers' account. An ``Audience`` of the line thread.

    ``sent`` belongs to the line thread, ``answer`` to any. Make it before the line thread, ``bind`` and ``start`` it after that one, and stop it
    after that one has stopped: its last answers still go out.

    Args:
        config: ``[channel]`` of the station file.
        facts: what a welcome says of the station.
        controls: what commands move.
        on_event: takes every event of the channel; from any thread, does not wait.
        on_failure: called from the channel's thread with the error that ended it.
        context: ``access.new_context()``, shared with publisher and gatekeeper; None: one of its own.
        keys: the station's key pair; None: everybody who reaches the address is an engineer.
        gatekeeper: knows whose key is whose. From ``start`` on the channel's thread owns it; it is closed at the end.
    """

    def __init__(
        self,
        config: ChannelConfig,
        facts: LineFacts,
        controls: Controls,
        on_event: Callable[[Event], None],
        on_failure: Callable[[BaseException], None],
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: KeyPair | None = None,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        now_ns = time.monotonic_ns()
        self.memory = ReplayMemory(facts.settings.streams.names)
        self._config, self._gatekeeper, self._on_failure = config, gatekeeper, on_failure
        self._inlet = Inlet(config.endpoint, context, keys, gatekeeper)
        self._tally = Tally()
        self._answers: deque[tuple[bytes, Reply]] = deque()
        self._to_acknowledge: deque[_Sent] = deque()
        self._stopping = False
        self._controllers = Controllers(config.controllers, config.present_ms, config.ack_ms, now_ns)
        self._commands = Commands(controls, self._controllers, on_event, self.answer)
        self._replaying = Replaying(self.memory, self._inlet.send, self._tally)
        self._welcomes = Welcomes(config, facts, controls, self.memory, self._controllers)
        self._reception: Reception
        self._share: Share
        self._counts = ChannelCounts()
        self._problem = ""
        self._checks: Mapping[str, Callable[[], str]] = {}
        self._losses: Mapping[str, Callable[[], int]] = {}
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """Where it is bound; after ``bind`` with the port that was found."""
        return self._inlet.endpoint

    def counts(self) -> ChannelCounts:
        """The account of at most some ten milliseconds ago; any thread."""
        return self._counts

    # The line thread.

    def sent(self, stream: str, seq: int, payload: bytes, part: ClosedPart | None) -> None:
        """A numbered message went to the wire: keep it, and note what is to be acknowledged."""
        now_ns = time.monotonic_ns()
        if part is not None and self._config.controllers and part.action is not Action.PASS:
            self._to_acknowledge.append(_Sent(stream, seq, now_ns))  # before the memory: see Reception
        self.memory.put(stream, seq, payload, now_ns)

    # Any thread.

    def answer(self, asker: bytes, reply: Reply) -> None:
        """Answer a request. Never blocks."""
        self._answers.append((asker, reply))
        self._inlet.wake()

    # The daemon's thread.

    def bind(self) -> None:
        """Bind the socket.

        Raises:
            AddressError: the endpoint cannot be bound.
        """
        self._inlet.bind()

    def use(self, product_version: str, uninspected: Action) -> None:
        """The product's rules have changed: welcomes say so. Any thread."""
        self._welcomes.use(product_version, uninspected)

    def watch(self, checks: Mapping[str, Callable[[], str]], losses: Mapping[str, Callable[[], int]]) -> None:
        """Make alarms of these, by name: ``checks`` say what is wrong now, ``losses`` how often something was lost. They return at once."""
        self._checks, self._losses = checks, losses

    def start(self, line: LineThread) -> None:
        """Bind if that was not done, then serve.

        Raises:
            AddressError: the endpoint cannot be bound; nothing runs.
        """
        self.bind()
        now_ns = time.monotonic_ns()
        self._share = Share(_SHARE, _BURST_NS, now_ns)
        services = Services(
            welcome=lambda person, no: self._welcomes.welcome(line.snapshot(), person, no),
            announce=line.announce,
            memory=self.memory,
            settle=self._settle,
            replaying=self._replaying,
            controllers=self._controllers,
            commands=self._commands,
        )
        self._reception = Reception(services, self._config.requests_per_s, self._gatekeeper, self._inlet.send, self._tally, now_ns)
        self._thread = threading.Thread(target=self._run, args=(line,), name="channel")
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Send the answers that wait, close the socket. Stop the line thread first. True: it ended in time."""
        until = time.monotonic() + deadline_s
        if self._thread is None:
            self._inlet.close(0)
            return True
        self._stopping = True
        self._inlet.wake()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            return False
        return self._commands.stop(max(0.0, until - time.monotonic()))

    # The channel's thread.

    def _run(self, line: LineThread) -> None:
        try:
            self._loop(line)
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon must know that nobody answers the controllers any more
            self._on_failure(error)
        finally:
            self._inlet.close(_LINGER_MS)

    def _loop(self, line: LineThread) -> None:
        refresh_ns = counted_ns = used_ns = 0
        while True:
            stopping = self._stopping  # read before the answers, so that all that came before the stop go out
            now_ns = time.monotonic_ns()
            self._send_answers()
            resting = self._share.rest_ns(now_ns) > 0
            more = not resting and not stopping and self._serve(now_ns)
            self._settle()
            self._commands.tell(self._controllers.look(now_ns))
            self._commands.look(now_ns)
            if now_ns >= refresh_ns:
                self._refresh(line)
                refresh_ns = now_ns + _REFRESH_NS
            if stopping or now_ns >= counted_ns:
                self._count()
                counted_ns = now_ns + 2 * _TICK_MS * 1_000_000
            if stopping:
                return
            cpu_ns = time.thread_time_ns()
            self._share.use(cpu_ns - used_ns, time.monotonic_ns())
            used_ns = cpu_ns
            self._wait(more=more)

    def _wait(self, *, more: bool) -> None:
        """Until there is something to do, or a tick."""
        rest_ms = -(-self._share.rest_ns(time.monotonic_ns()) // 1_000_000)
        if rest_ms:
            self._inlet.wait(min(_TICK_MS, rest_ms), reading=False)
        elif more:
            time.sleep(_YIELD_S)
        else:
            self._inlet.wait(_TICK_MS, reading=True)

    def _serve(self, now_ns: int) -> bool:
        """Take a batch of requests, and send a piece of a replay. True: there may be more to do."""
        self._inlet.greet()
        taken = 0
        while taken < _BATCH and (found := self._inlet.receive()) is not None:
            taken += 1
            if not found.rest:
                self._reception.take(found.identity, found.body, found.frames, found.user_id, now_ns)
        self._replaying.step()
        return taken == _BATCH or bool(self._replaying)

    def _send_answers(self) -> None:
        for _ in range(min(len(self._answers), _ANSWERS)):
            self._inlet.send(*self._answers.popleft())
        if self._answers:
            self._inlet.wake()

    def _settle(self) -> None:
        """Every verdict that is in the memory is in the controllers' account afterwards."""
        waiting = self._to_acknowledge
        while waiting:
            one = waiting.popleft()
            self._controllers.sent(one.stream, one.seq, one.sent_ns)

    def _refresh(self, line: LineThread) -> None:
        told = []
        revoked = self._inlet.refresh()
        if revoked:
            line.reopen_publisher()
            told.append(("key_revoked", f"every connection was ended: the key of {', '.join(sorted(revoked))} was revoked"))
        if self._inlet.problem != self._problem:
            self._problem = self._inlet.problem
            told.append(("keys_unreadable", self._problem or "they can be read again"))
        checks = {name: ask() for name, ask in self._checks.items()}
        losses = {name: ask() for name, ask in self._losses.items()}
        self._commands.tell(self._controllers.station(checks, losses, time.monotonic_ns()))
        self._commands.tell(Event(name, EventLevel.WARNING, detail, time.monotonic_ns()) for name, detail in told)

    def _count(self) -> None:
        self._counts = ChannelCounts(
            requests=dict(self._tally.requests),
            bad=dict(self._tally.bad),
            unanswered=self._tally.unanswered,
            askers=len(self._reception.askers),
            replayed=self._tally.replayed,
            busy_s=time.thread_time(),
            controllers=self._controllers.states(),
            alarms=self._controllers.alarms(),
            knocks=self._inlet.knocks(),
        )
