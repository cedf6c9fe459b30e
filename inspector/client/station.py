"""A station as a controller follows it, over any number of boots: streams, heartbeats, silences, starts. Pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.client.decisions import Cause, Notice, NoticeKind, State, Update
from inspector.client.stream import Limits, Stream
from inspector.client.transit import Transit
from inspector.contract import wire

if TYPE_CHECKING:
    from inspector.contract.requests import Welcome

DEAD_AFTER_MS = 130.0
"""Three heartbeats of 40 ms and some: silence after which a stream is dead."""
REPAIR_MS = 60.0
"""Until the welcome tells another."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a controller keeps its books."""

    in_order: bool = False
    """Tell decisions in the order of part numbers; a missing one holds back others for ``repair_ms`` at most."""
    valid_ms: float = 60_000.0
    """How long a pass holds: more than a part needs from the camera to where it is let through, less than an id needs to come again."""
    history: int = 0
    """So many messages from before the start are asked for."""
    streams: tuple[str, ...] = ()
    """Streams to follow; empty: all."""
    topic: str = ""
    """Prefix of ``station/stream`` to follow; empty: all."""
    acknowledge: bool = True
    """Tell the station of every verdict that does not pass that it was received; False for who only looks on."""
    dead_after_ms: float | None = None
    """Instead of the station's own; None: that of the welcome, or 130 ms."""


class Station:
    """The books of one station. ``now_ns`` is the controller's monotonic clock.

    Args:
        asks: hello is said; without a welcome nothing passes. False: messages are followed only, and no gap is repaired.
    """

    def __init__(self, now_ns: int, options: Options, *, asks: bool) -> None:
        self._options, self._asks = options, asks
        self.limits = self._new_limits(options.dead_after_ms or DEAD_AFTER_MS, REPAIR_MS if asks else 0.0)
        self.name = ""
        self.boot_id: str | None = None
        self.streams: dict[str, Stream] = {}
        self.welcomed = False
        """Hello is answered."""
        self.hello_due = False
        """Something has happened after which hello must be said."""
        self._past: deque[str] = deque(maxlen=64)
        """Boots that are over: what still comes of them is old."""
        self._transit = Transit()
        self._begun_ns = now_ns
        self._silence_told = self._live_told = False
        self._synchronised = False
        """The present boot has sent a welcome."""
        self._from_first = False
        """A stream that is new to us has sent nothing yet that we did not hear."""
        self._product = ""

    @property
    def state(self) -> State:
        """Where the station stands; single streams may stand elsewhere."""
        states = {stream.state for stream in self.streams.values() if stream.name}
        if State.DEAD in states:
            return State.DEAD
        if self.boot_id is None or (self._asks and not self.welcomed):
            return State.CONNECTING
        return State.LIVE if states and states <= {State.LIVE, State.GAP} else State.SYNCHRONISING

    def is_past(self, boot_id: str) -> bool:
        """Whether this boot is over."""
        return boot_id in self._past

    def foreign(self, message: wire.Message) -> bool:
        """Whether the message is of another station, or of a stream that is not followed."""
        return (bool(self.name) and message.station != self.name) or not self._follows(message.station, message.stream)

    def take(self, message: wire.Message, now_ns: int) -> list[Update]:
        """A message of the publisher."""
        if self.foreign(message) or self.is_past(message.boot_id):
            return []
        told: list[Update] = []
        if message.boot_id != self.boot_id:
            told += self._boot(message.boot_id, message.station, message.stream, now_ns)
        late_ms = self._transit.arrived(message.boot_age_ms, now_ns)
        stream = self._stream(message, now_ns)
        if isinstance(message, wire.HeartbeatMessage):
            return told + self._beat(stream, message, late_ms, now_ns)
        return told + stream.message(message, now_ns)

    def tick(self, now_ns: int, *, behind: bool) -> list[Update]:
        """What the time has brought; ``behind``: silence cannot be judged."""
        told: list[Update] = []
        if self.boot_id is None and not self._silence_told and now_ns - self._begun_ns > self.limits.dead_after_ms * 1e6:
            self._silence_told = True
            told.append(Notice(NoticeKind.DEAD, "", "", "nothing heard from the station yet"))
        for stream in self.streams.values():
            for gap in stream.numbers.overdue(now_ns, int(self.limits.repair_ms * 1e6)):
                told += stream.lose(gap, now_ns)
            if not behind:
                told += self._silence(stream, now_ns)
            told += stream.tick(now_ns)
        return told

    def next_ns(self) -> int | None:
        """When ``tick`` has something to do, at the latest; None: never."""
        dead_ns = int(self.limits.dead_after_ms * 1e6) + 1
        due: list[int | None] = []
        if self.boot_id is None and not self._silence_told:
            due.append(self._begun_ns + dead_ns)
        for stream in self.streams.values():
            due += [gap.found_ns + int(self.limits.repair_ms * 1e6) for gap in stream.numbers.gaps]
            due.append(stream.parts.next_ns())
            if stream.name and not stream.silent:
                due.append(max(stream.since_ns, stream.beat_ns or 0) + dead_ns)
        return min((one for one in due if one is not None), default=None)

    def may_pass(self, part_id: str, now_ns: int, stream: str | None) -> bool:
        """Whether the part may pass; ``stream`` None: every stream that has parts must say so."""
        asked = [known for name, known in self.streams.items() if name and stream in {None, name}]
        return bool(asked) and all(known.may_pass(part_id, now_ns) for known in asked)

    def welcome(self, welcome: Welcome, now_ns: int) -> list[Update]:
        """The station's answer to hello; not of a boot that is over."""
        told: list[Update] = []
        if welcome.boot_id != self.boot_id:
            told += self._boot(welcome.boot_id, welcome.station, "", now_ns)
        first, self._synchronised = not self._synchronised, True
        self.welcomed, self._from_first, self.hello_due = True, True, False
        self._product = f"{welcome.product} {welcome.product_version}"
        self.limits = self._new_limits(self._options.dead_after_ms or welcome.dead_after_ms, welcome.repair_ms)
        for name, info in welcome.streams.items():
            if not self._follows(welcome.station, name):
                continue
            stream = self.streams.get(name)
            if stream is None:
                stream = self._new_stream(name, info.last_seq, info.opened, info.pending, now_ns)
            elif first:
                stream.limits = self.limits
                told += stream.welcome(info.last_seq, info.opened, info.pending, now_ns)
            if info.blind:
                stream.sight.beat(-math.inf, info.last_seq, blind=True)
            if first:
                stream.numbers.before(self._options.history, now_ns)
        for stream in self.streams.values():
            stream.limits, stream.state, stream.since_ns = self.limits, State.SYNCHRONISING, now_ns
        return told

    def resync(self, cause: Cause, detail: str, now_ns: int) -> list[Update]:
        """Everything under way does not pass, and nothing until hello is answered and heartbeats come."""
        told: list[Update] = []
        for stream in self.streams.values():
            told += stream.fail(cause, detail, now_ns)
            stream.state = State.DEAD if stream.silent else State.CONNECTING
        self.welcomed, self._live_told, self.hello_due = False, False, True
        return told

    def _follows(self, station: str, stream: str) -> bool:
        followed = self._options.streams
        return f"{station}/{stream}".startswith(self._options.topic) and (not stream or not followed or stream in followed)

    def _boot(self, boot_id: str, station: str, stream: str, now_ns: int) -> list[Update]:
        """Another boot than the present one: all that was known of that is over."""
        told: list[Update] = []
        before, self.boot_id, self.name = self.boot_id, boot_id, station
        if before is not None:
            detail = f"the station was started anew ({before} -> {boot_id}): parts under way have no verdict"
            told.append(Notice(NoticeKind.BOOT, station, stream, detail))
            for known in self.streams.values():
                told += known.fail(Cause.BOOT, "the station was started anew while it was under way", now_ns)
            self._past.append(before)
        self.streams.clear()
        self._transit = Transit()
        self.welcomed = self._synchronised = self._live_told = False
        self._from_first = before is not None and not self._asks
        self.hello_due = True
        return told

    def _stream(self, message: wire.Message, now_ns: int) -> Stream:
        stream = self.streams.get(message.stream)
        if stream is not None:
            return stream
        if self._from_first:
            return self._new_stream(message.stream, 0, 0, 0, now_ns)
        if isinstance(message, wire.HeartbeatMessage):
            return self._new_stream(message.stream, message.last_seq, message.opened, message.pending, now_ns)
        opened = message.part_no - 1 if isinstance(message, wire.VerdictMessage) else 0
        return self._new_stream(message.stream, message.seq - 1, opened, 0, now_ns)

    def _new_stream(self, name: str, base: int, opened: int | None, pending: int, now_ns: int) -> Stream:
        where = (self.name, self.boot_id or "", name)
        opened = opened if self._synchronised or not self._asks else None
        stream = self.streams[name] = Stream(where, self.limits, self._transit, base, opened, pending)
        stream.since_ns = now_ns
        stream.state = State.SYNCHRONISING if self.welcomed or not self._asks else State.CONNECTING
        return stream

    def _beat(self, stream: Stream, beat: wire.HeartbeatMessage, late_ms: float, now_ns: int) -> list[Update]:
        told = stream.heartbeat(beat, late_ms, now_ns)
        if stream.alive(now_ns):
            if stream.silent:
                stream.silent = False
                told.append(Notice(NoticeKind.ALIVE, stream.station, stream.name, "heartbeats are back"))
            if stream.state not in {State.LIVE, State.GAP}:
                able = State.GAP if any(gap.wanted for gap in stream.numbers.gaps) else State.LIVE
                stream.state = able if self.welcomed or not self._asks else State.CONNECTING
            if not self._live_told and self.welcomed and self.state is State.LIVE:
                self._live_told = True
                detail = f"boot {self.boot_id}, product {self._product}: parts may pass"
                told.append(Notice(NoticeKind.LIVE, stream.station, "", detail))
        return [*told, beat]

    def _silence(self, stream: Stream, now_ns: int) -> list[Update]:
        since_ns = max(stream.since_ns, stream.beat_ns or 0)
        if not stream.name or stream.silent or now_ns - since_ns <= self.limits.dead_after_ms * 1e6:
            return []
        stream.silent = True
        detail = f"no heartbeat for {(now_ns - since_ns) / 1e6:.0f} ms: nothing may pass"
        told: list[Update] = [Notice(NoticeKind.DEAD, stream.station, stream.name, detail)]
        stream.state = State.DEAD
        if self._asks:
            return told + self.resync(Cause.DEAD, "heartbeats stopped while it was under way", now_ns)
        return told + stream.fail(Cause.DEAD, "heartbeats stopped while it was under way", now_ns)

    def _new_limits(self, dead_after_ms: float, repair_ms: float) -> Limits:
        return Limits(dead_after_ms, repair_ms, self._options.valid_ms, self._options.in_order)
