"""What a controller says on the request socket, and when: hello, signs of life, replays, announcements, acknowledgements."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from inspector.contract.requests import Ack, Acknowledge, AckState, Announce, Hello, Ping, Replay, Role

if TYPE_CHECKING:
    from inspector.client.numbers import Gap
    from inspector.client.stream import Stream
    from inspector.contract.requests import Expectation, Request, Welcome

_HELLO_AGAIN_NS = 200_000_000
_REFUSED_AGAIN_NS = 1_000_000_000
_ACKS = 256
_MOST_ACKS = 65_536
_MOST_REPLAYS = 4
"""Replays under way at once: a station refuses more."""
_MOST_AWAITED = 256
"""Replays whose end may still come."""


class Asking:
    """Requests that are to be sent, and those that are awaited. Pure."""

    def __init__(self, name: str, now_ns: int) -> None:
        self._name = name
        self._no = 0
        self.hello_ns: int | None = now_ns
        """When hello is due; None: it is not."""
        self.hello_no = -1
        self.welcome: Welcome | None = None
        """None: nothing but hello may be asked."""
        self.heard_ns = now_ns
        """The last answer."""
        self._said_ns = now_ns
        self._announcements: deque[Announce] = deque()
        self._acks: deque[Ack] = deque(maxlen=_MOST_ACKS)
        self.announced: dict[int, tuple[str, str]] = {}
        """Announcements that were not answered: stream and part id, by number."""
        self.replays: dict[int, tuple[Stream, Gap]] = {}

    def again(self, now_ns: int) -> None:
        """Say hello (again); until it is answered nothing else."""
        self.welcome = None
        self.hello_ns = now_ns
        self.announced.clear()
        self._announcements.clear()
        self.replays.clear()

    def forget(self) -> None:
        """Another boot: its numbers are others."""
        self._acks.clear()

    def refused(self, now_ns: int) -> None:
        """Hello was refused: not so soon again."""
        self.welcome = None
        self.hello_ns = now_ns + _REFUSED_AGAIN_NS

    def welcomed(self, welcome: Welcome) -> None:
        """Hello was answered."""
        self.welcome, self.hello_ns = welcome, None

    def announce(self, stream: str, part_id: str, expect: tuple[Expectation, ...], timeout_ms: float | None) -> None:
        """Tell the station of a part."""
        request = Announce(no=self._next(), stream=stream, part_id=part_id, expect=expect, timeout_ms=timeout_ms)
        self._announcements.append(request)
        self.announced[request.no] = (stream, part_id)

    def acknowledge(self, stream: str, seq: int, state: AckState, detail: str = "") -> None:
        """Tell the station what became of a verdict."""
        self._acks.append(Ack(stream=stream, seq=seq, state=state, detail=detail[:256]))

    def keep(self, request: Acknowledge) -> None:
        """It could not be sent: once more in its turn."""
        self._acks.extendleft(reversed(request.acks))

    def silent(self, now_ns: int) -> bool:
        """Whether the station answers no more."""
        welcome = self.welcome
        return welcome is not None and now_ns - self.heard_ns > self._patience_ns(welcome)

    def outgoing(self, streams: dict[str, Stream], now_ns: int) -> list[Request]:
        """What is to be sent now."""
        requests: list[Request] = []
        if self.hello_ns is not None and now_ns >= self.hello_ns:
            self.hello_ns = now_ns + _HELLO_AGAIN_NS
            self.hello_no = self._next()
            requests.append(Hello(no=self.hello_no, name=self._name))
        welcome = self.welcome
        if welcome is None:
            return requests
        requests += self._announcements
        self._announcements.clear()
        for stream in streams.values():
            requests += self._replays(stream, now_ns)
        if welcome.role is Role.OBSERVER:
            self._acks.clear()
        while self._acks:
            acks = tuple(self._acks.popleft() for _ in range(min(_ACKS, len(self._acks))))
            requests.append(Acknowledge(no=self._next(), acks=acks))
        if now_ns >= self._said_ns + _ping_ns(welcome):
            requests.append(Ping(no=self._next()))  # the only one that is always answered
            self._said_ns = now_ns
        return requests

    def next_ns(self, streams: dict[str, Stream]) -> int | None:
        """When something is to be sent, or an answer is missing."""
        due = [] if self.hello_ns is None else [self.hello_ns]
        if self.welcome is not None:
            due += [self._said_ns + _ping_ns(self.welcome), self.heard_ns + self._patience_ns(self.welcome)]
            for stream in streams.values():
                due += [gap.asked_ns + stream.retry_ns for gap in stream.numbers.gaps if gap.replay and gap.asked_ns is not None]
        return min(due, default=None)

    def answered(self, no: int, to_seq: int) -> None:
        """A replay has ended at ``to_seq``: what is missing after it is asked for at once, what is missing before it a little later."""
        stream, gap = self.replays.pop(no)
        if to_seq < gap.last and gap in stream.numbers.gaps and gap.missing and gap.first_missing() > to_seq:
            gap.asked_ns = None

    def _replays(self, stream: Stream, now_ns: int) -> list[Request]:
        requests: list[Request] = []
        if not stream.numbers.gaps:
            return requests
        room = _MOST_REPLAYS - sum(one.underway(gap, now_ns) for one, gap in self.replays.values())
        for gap in stream.numbers.gaps:
            if not gap.replay or stream.underway(gap, now_ns):
                continue
            if len(requests) >= room:
                break
            gap.asked_ns = now_ns
            request = Replay(no=self._next(), stream=stream.name, from_seq=gap.first_missing(), to_seq=gap.last)
            self.replays[request.no] = (stream, gap)
            if len(self.replays) > _MOST_AWAITED:
                del self.replays[next(iter(self.replays))]
            requests.append(request)
        return requests

    def _next(self) -> int:
        self._no += 1
        return self._no

    @staticmethod
    def _patience_ns(welcome: Welcome) -> int:
        return int(max(1000.0, 2 * welcome.present_ms) * 1e6)


def _ping_ns(welcome: Welcome) -> int:
    return int(welcome.present_ms * 1e6 / 3)
