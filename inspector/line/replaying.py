"""Replays under way: sent in pieces, one asker after the other, so that a long one keeps nobody waiting."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.requests import Refusal, Replayed, ReplayEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.contract.requests import Replay, Reply
    from inspector.line.askers import Asker
    from inspector.line.counts import Tally
    from inspector.line.replay import ReplayMemory

MAX_MESSAGES = 512
"""Of one request."""
_MAX_BYTES = 1 << 20
"""Of one request; the message that passes it is still sent."""
_PIECE = 16
_AT_ONCE = 4
"""Replays of one asker."""


@dataclass(slots=True, eq=False)
class _Job:
    asker: Asker
    request: Replay
    next_seq: int
    gone_to: int = 0
    messages: int = 0
    bytes: int = 0


class Replaying:
    """All of them. The channel's thread owns it."""

    def __init__(self, memory: ReplayMemory, answer: Callable[[bytes, Reply], None], tally: Tally) -> None:
        self._memory, self._answer, self._tally = memory, answer, tally
        self._jobs: deque[_Job] = deque()

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def begin(self, asker: Asker, request: Replay) -> tuple[Refusal, str] | None:
        """Take a request; else why not."""
        if request.stream not in self._memory.streams:
            return Refusal.INVALID, f"the station has no stream {request.stream!r}"
        if request.from_seq > request.to_seq:
            return Refusal.INVALID, "from_seq is after to_seq"
        if asker.replays >= _AT_ONCE:
            return Refusal.TOO_FAST, f"{_AT_ONCE} replays are under way: wait for one of them to end"
        asker.replays += 1
        self._jobs.append(_Job(asker, request, max(request.from_seq, 1)))
        return None

    def step(self) -> None:
        """Send a piece of the replay whose turn it is."""
        if not self._jobs:
            return
        job = self._jobs.popleft()
        request = job.request
        span = self._memory.read(request.stream, job.next_seq, request.to_seq, min(_PIECE, MAX_MESSAGES - job.messages))
        job.gone_to = max(job.gone_to, span.gone_to)
        job.next_seq = span.next_seq
        now_ns = time.monotonic_ns()
        for _, payload, sent_ns in span.messages:
            self._answer(job.asker.identity, Replayed(no=request.no, age_ms=(now_ns - sent_ns) / 1e6, message=msgspec.Raw(payload)))
            job.bytes += len(payload)
        job.messages += len(span.messages)
        self._tally.replayed += len(span.messages)
        if span.messages and job.next_seq <= request.to_seq and job.messages < MAX_MESSAGES and job.bytes < _MAX_BYTES:
            self._jobs.append(job)
            return
        job.asker.replays -= 1
        end = ReplayEnd(no=request.no, stream=request.stream, from_seq=request.from_seq, to_seq=max(job.next_seq - 1, 0), gone_to=job.gone_to)
        self._answer(job.asker.identity, end)
