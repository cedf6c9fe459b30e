"""A line controller's books: what may pass, and what is to be asked. Pure: no sockets, no clock of its own.

``docs/line-protocol.md`` tells the states and the rules. One rule stands above all: a part passes on a PASS verdict of the present boot that
came in time, with nothing missing before it, outside of every blind interval, while heartbeats come. All else does not pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inspector.client.asking import Asking
from inspector.client.decisions import Cause, Decision, Notice, NoticeKind, State, Update, decision
from inspector.client.station import Options, Station
from inspector.contract import wire
from inspector.contract.records import Action
from inspector.contract.requests import Acknowledge, AckState, Announce, Done, Refusal, Refused, Replayed, ReplayEnd, Welcome

if TYPE_CHECKING:
    from inspector.contract.requests import Expectation, Reply, Request


class Session:
    """One controller and one station, over any number of the station's boots.

    Args:
        now_ns: the controller's monotonic clock, which every call is given.
        name: the controller's, for hello; None: there is no request socket, messages are followed only and no gap is repaired.
    """

    def __init__(self, now_ns: int, name: str | None, options: Options | None = None) -> None:
        self._asks = name is not None
        self._options = options or Options()
        self._station = Station(now_ns, self._options, asks=self._asks)
        self._asking = Asking(name or "", now_ns)
        self._refused_told = False

    @property
    def boot_id(self) -> str | None:
        """The station's present boot; None: nothing was heard yet."""
        return self._station.boot_id

    @property
    def welcome(self) -> Welcome | None:
        """The station's answer to hello, while it holds."""
        return self._asking.welcome

    @property
    def state(self) -> State:
        """Where the session stands; single streams may stand elsewhere."""
        return State.REFUSED if self._refused_told and self.welcome is None else self._station.state

    def stream_state(self, stream: str) -> State:
        """Where one stream stands."""
        known = self._station.streams.get(stream)
        return self.state if known is None else known.state

    # What has come.

    def take(self, message: wire.Message, now_ns: int) -> list[Update]:
        """A message of the publisher."""
        boot_id = self.boot_id
        told = self._station.take(message, now_ns)
        if boot_id != self.boot_id:
            self._asking.forget()
        return self._after(told, now_ns)

    def reply(self, reply: Reply, now_ns: int) -> list[Update]:
        """An answer of the request socket."""
        asking = self._asking
        asking.heard_ns = now_ns
        if isinstance(reply, Welcome):
            return self._welcomed(reply, now_ns) if reply.no == asking.hello_no and asking.welcome is None else []
        if isinstance(reply, Replayed):
            return self._replayed(reply, now_ns)
        if isinstance(reply, ReplayEnd):
            if reply.no not in asking.replays:
                return []
            stream, gap = asking.replays[reply.no]
            told = stream.gone(gap, reply.gone_to, now_ns) if gap in stream.numbers.gaps else []
            asking.answered(reply.no, reply.to_seq)
            return told
        if isinstance(reply, Refused):
            return self._refused(reply, now_ns)
        return self._done(reply)

    def tick(self, now_ns: int, *, behind: bool = False) -> list[Update]:
        """What the time has brought. ``behind``: not all that has arrived was taken, so that silence cannot be judged."""
        told = self._station.tick(now_ns, behind=behind)
        if not behind and self._asking.silent(now_ns):
            told.append(Notice(NoticeKind.SILENT, self._station.name, "", "the request socket does not answer: nothing passes until it does"))
            told += self._station.resync(Cause.UNSYNCHRONISED, "the request socket did not answer", now_ns)
        return self._after(told, now_ns)

    def next_ns(self) -> int | None:
        """When ``tick`` or ``outgoing`` has something to do, at the latest; None: never."""
        due = [self._station.next_ns(), self._asking.next_ns(self._station.streams) if self._asks else None]
        return min((one for one in due if one is not None), default=None)

    # What the controller wants.

    def outgoing(self, now_ns: int) -> list[Request]:
        """Requests to be sent now. Tell ``unsent`` of those that could not be."""
        return self._asking.outgoing(self._station.streams, now_ns) if self._asks else []

    def unsent(self, request: Request, now_ns: int) -> list[Update]:
        """A request that could not be sent: an announced part does not pass, acknowledgements are kept, the rest is asked again in its time."""
        if isinstance(request, Acknowledge):
            self._asking.keep(request)
        if isinstance(request, Announce):
            return self._unannounced(request.no, "the announcement could not be sent", now_ns)
        return []

    def announce(
        self,
        part_id: str,
        within_ms: float,
        now_ns: int,
        *,
        stream: str | None = None,
        expect: tuple[Expectation, ...] = (),
        timeout_ms: float | None = None,
    ) -> list[Update]:
        """A part is on its way; without a verdict ``within_ms`` from now it does not pass.

        Raises:
            ValueError: it was announced before, or the stream is not said and there are several.
        """
        if stream is None:
            names = [name for name in self._station.streams if name]
            if len(names) != 1:
                raise ValueError(f"part {part_id!r}: say on which stream it comes ({', '.join(names) or 'none is known yet'})")
            stream = names[0]
        known = self._station.streams.get(stream)
        if known is None or known.state not in {State.LIVE, State.GAP}:
            detail = f"it was announced while the stream was {self.stream_state(stream).value}"
            return [decision((self._station.name, self.boot_id or "", stream), part_id=part_id, cause=Cause.UNSYNCHRONISED, detail=detail)]
        known.parts.announce(part_id, now_ns + int(within_ms * 1e6))
        self._asking.announce(stream, part_id, expect, timeout_ms)
        return []

    def acknowledge(self, decision: Decision, state: AckState, detail: str = "") -> None:
        """What became of a part at the controller; nothing is said of a part without a verdict, or of another boot."""
        if decision.verdict is not None and decision.boot_id == self.boot_id:
            self._asking.acknowledge(decision.stream, decision.verdict.seq, state, detail)

    def may_pass(self, part_id: str, now_ns: int, stream: str | None = None) -> bool:
        """Whether the part may pass, as far as is known now; ``stream`` None: every stream that has parts must say so."""
        return self.state is not State.REFUSED and self._station.may_pass(part_id, now_ns, stream)

    # Inside.

    def _after(self, told: list[Update], now_ns: int) -> list[Update]:
        """What is to be asked or acknowledged for ``told``."""
        if self._station.hello_due:
            self._station.hello_due = False
            if self._asks:
                self._asking.again(now_ns)
        for update in told:
            if self._options.acknowledge and isinstance(update, wire.VerdictMessage) and update.action is not Action.PASS:
                self._asking.acknowledge(update.stream, update.seq, AckState.RECEIVED)
        return told

    def _welcomed(self, welcome: Welcome, now_ns: int) -> list[Update]:
        if self._station.is_past(welcome.boot_id):
            return []  # the station was started anew meanwhile; hello is said again
        if welcome.boot_id != self.boot_id:
            self._asking.forget()
        told = self._station.welcome(welcome, now_ns)
        self._asking.welcomed(welcome)
        self._refused_told = False
        return self._after(told, now_ns)

    def _replayed(self, replayed: Replayed, now_ns: int) -> list[Update]:
        asked = self._asking.replays.get(replayed.no)
        if asked is None:
            return []
        try:
            message = wire.decode(bytes(replayed.message))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [Notice(NoticeKind.UNREADABLE, self._station.name, asked[0].name, f"a replayed message cannot be read: {error}")]
        asked[1].asked_ns = now_ns  # it is on its way: not to be asked for again yet
        stream = self._station.streams.get(message.stream)
        if isinstance(message, wire.HeartbeatMessage) or stream is None or message.boot_id != self.boot_id or self._station.foreign(message):
            return []
        return self._after(stream.message(message, now_ns), now_ns)

    def _refused(self, refused: Refused, now_ns: int) -> list[Update]:
        asking = self._asking
        if refused.no in asking.announced:
            return self._unannounced(refused.no, refused.detail, now_ns)
        hello = asking.welcome is None and refused.no == asking.hello_no
        lost = asking.welcome is not None and refused.code in {Refusal.REVOKED, Refusal.NO_HELLO}
        told: list[Update] = []
        if not self._refused_told and refused.no not in asking.replays:
            told.append(Notice(NoticeKind.REFUSED, self._station.name, "", f"{refused.code.value}: {refused.detail}"))
        if lost:
            told += self._station.resync(Cause.REFUSED, "the station does not talk to this controller any more", now_ns)
        if hello or refused.code is Refusal.REVOKED:
            self._refused_told = True
            told = self._after(told, now_ns)
            asking.refused(now_ns)
            return told
        return self._after(told, now_ns)

    def _unannounced(self, no: int, detail: str, now_ns: int) -> list[Update]:
        stream, part_id = self._asking.announced.pop(no, ("", ""))
        known = self._station.streams.get(stream)
        return [] if known is None else [*known.parts.refused(part_id, detail, now_ns)]

    def _done(self, done: Done) -> list[Update]:
        stream, part_id = self._asking.announced.pop(done.no, ("", ""))
        known = self._station.streams.get(stream)
        if known is not None and done.part_no is not None:
            known.parts.numbered(part_id, done.part_no)
        return []
