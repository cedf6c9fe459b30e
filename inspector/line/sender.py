"""What leaves the line thread: numbered, recorded, sent, and only then offered to the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from inspector.contract.wire import encode, topic
from inspector.line.closing import closed_part
from inspector.line.messages import MessageBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inspector.contract.records import Blind, ClosedPart, Event, LateResult, Output, OutputItem
    from inspector.contract.wire import Message
    from inspector.line.parts import Closing
    from inspector.line.ports import Audience, Recorder
    from inspector.line.publisher import Publisher
    from inspector.line.settings import LineSettings, StreamState


class Sender:
    """Owned by the line thread: one number per message and stream, in the order of sending."""

    def __init__(self, settings: LineSettings, publisher: Publisher, recorder: Recorder, audience: Audience, outputs: Sequence[Output]) -> None:
        self._settings, self._publisher, self._recorder, self._audience = settings, publisher, recorder, audience
        self._outputs = tuple(outputs)
        self._messages = MessageBuilder(settings.station, settings.boot_id)
        self._seq: dict[str, int] = dict.fromkeys(settings.streams.names, 0)
        self.sent = 0
        """Messages with a number."""
        self.late_results = 0

    def last_seq(self, stream: str) -> int:
        """The number of the last message of ``stream``; 0: none yet."""
        return self._seq.get(stream, 0)

    def use(self, settings: LineSettings) -> None:
        """What stands on every message from now on."""
        self._settings = settings
        self._recorder.use(settings.product_version, settings.uninspected)

    def verdict(self, closing: Closing, *, simulated: bool) -> None:
        """A part has ended."""
        part = closed_part(closing, self._settings, self._next_seq(closing.stream))
        part = msgspec.structs.replace(part, record_no=self._recorder.closed(part))  # before it goes to the wire
        self._send(part.stream, part.seq, self._messages.verdict(part, simulated=simulated), part)
        self._offer(part)

    def evidence(self, late: LateResult) -> None:
        """A result that came too late; it does not go to the wire."""
        self.late_results += 1
        self._offer(late)

    def blind(self, blind: Blind) -> None:
        """An interval of a camera; it is told of the stream that the camera belongs to."""
        camera = blind.stream
        stream = self._settings.streams.of(camera)
        if stream != camera:
            blind = msgspec.structs.replace(blind, stream=stream, cause=f"camera {camera}: {blind.cause}")
        seq = self._next_seq(stream)
        self._send(stream, seq, self._messages.blind(blind, seq))
        self._offer(blind)

    def event(self, event: Event) -> None:
        """Something happened."""
        stream = self._settings.streams.of(event.stream)
        if stream != event.stream:
            event = msgspec.structs.replace(event, stream=stream, detail=f"camera {event.stream}: {event.detail}")
        seq = self._next_seq(stream)
        self._send(stream, seq, self._messages.event(event, seq))
        self._offer(event)

    def heartbeats(self, streams: Mapping[str, StreamState], age_ms: float) -> None:
        """One per stream; they have no number of their own and are not kept."""
        for stream, state in streams.items():
            beat = self._messages.heartbeat(stream, state.last_seq, state.books, inspection_age_ms=age_ms, blind=state.blind)
            self._publisher.send(topic(self._settings.station, stream), encode(beat))

    def _next_seq(self, stream: str) -> int:
        seq = self._seq.get(stream, 0) + 1
        self._seq[stream] = seq
        return seq

    def _send(self, stream: str, seq: int, message: Message, part: ClosedPart | None = None) -> None:
        payload = encode(message)
        self._publisher.send(topic(self._settings.station, stream), payload)
        self._audience.sent(stream, seq, payload, part)
        self.sent += 1

    def _offer(self, item: OutputItem) -> None:
        for output in self._outputs:
            output.offer(item)
