"""What is done with one request: who asks, whether they may, how often, and what they are answered.

The channel's thread owns it. It never waits, and what it does for one request is bounded: announcements are the line thread's work, replays are
sent in pieces between other requests, commands that take time have a thread of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from inspector.config.keys import is_name
from inspector.contract.requests import (
    MAX_REQUEST_BYTES,
    VERSION,
    Acknowledge,
    Announce,
    Command,
    Done,
    Hello,
    Ping,
    Refusal,
    Refused,
    Replay,
    Request,
    Role,
    decode_request,
)
from inspector.line.allowance import Allowance
from inspector.line.askers import Asker, Askers, Neighbour

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.config.keys import Person
    from inspector.contract.requests import Reply
    from inspector.line.access import Gatekeeper
    from inspector.line.commands import Commands
    from inspector.line.controllers import Controllers
    from inspector.line.counts import Tally
    from inspector.line.replay import ReplayMemory
    from inspector.line.replaying import Replaying

_REFUSALS_PER_S = 200.0
"""Answers to what is not done, to all askers together."""
_EARLY = 256
"""An acknowledgement may run so many messages ahead of what is known to be sent."""


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises on what is no request: text that is no UTF-8 and deep nesting have errors of their own."""


class _Probe(msgspec.Struct):
    """What can be said of a request that this version cannot read."""

    v: int = VERSION
    no: int = -1


_probe = msgspec.json.Decoder(_Probe).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Whom the reception passes requests on to."""

    welcome: Callable[[Person | Neighbour, int], Reply]
    """Who it is, the request's number."""
    announce: Callable[[bytes, Announce], None]
    memory: ReplayMemory
    settle: Callable[[], None]
    """Tell the controllers' account of every verdict that is in the memory."""
    replaying: Replaying
    controllers: Controllers
    commands: Commands


class Reception:
    """Takes requests."""

    def __init__(
        self,
        services: Services,
        requests_per_s: float,
        gatekeeper: Gatekeeper | None,
        answer: Callable[[bytes, Reply], None],
        tally: Tally,
        now_ns: int,
    ) -> None:
        """``requests_per_s``: of one asker; all together have twice as many."""
        self._services, self._gatekeeper, self._answer, self._tally = services, gatekeeper, answer, tally
        self.askers = Askers(requests_per_s)
        self._all = Allowance(2 * requests_per_s, max(40.0, requests_per_s / 5), now_ns)
        self._refusals = Allowance(_REFUSALS_PER_S, _REFUSALS_PER_S, now_ns)
        self._does: dict[type, Callable[..., None]] = {
            Announce: self._announce,
            Replay: self._replay,
            Acknowledge: self._acknowledge,
            Command: self._command,
        }

    def take(self, identity: bytes, body: bytes, frames: int, user_id: str, now_ns: int) -> None:
        """One message: ``body`` is its last frame of ``frames``, without the connection's identity."""
        asker = self.askers.find(identity, user_id, now_ns)
        if asker is None:
            self._bad("too_many_askers", None, -1, Refusal.TOO_FAST, "", now_ns)
            return
        if not (asker.requests.take(now_ns) and self._all.take(now_ns)):
            self._bad(
                "too_fast", asker, -1, Refusal.TOO_FAST, "more requests than the station takes: what was not done must be asked again", now_ns, body
            )
            return
        if len(body) > MAX_REQUEST_BYTES:
            self._bad("oversized", asker, -1, Refusal.UNREADABLE, f"a request has at most {MAX_REQUEST_BYTES} bytes", now_ns)
            return
        if frames != 1:
            self._bad("unreadable", asker, -1, Refusal.UNREADABLE, "a request is one frame", now_ns)
            return
        try:
            request: Request = decode_request(body)
        except _UNREADABLE as error:
            probe = _read(body)
            if probe is not None and probe.v != VERSION:
                self._bad("version", asker, probe.no, Refusal.VERSION, f"the station speaks version {VERSION}", now_ns)
            else:
                self._bad("unreadable", asker, -1 if probe is None else probe.no, Refusal.UNREADABLE, str(error)[:200], now_ns)
            return
        if request.v != VERSION:
            self._bad("version", asker, request.no, Refusal.VERSION, f"the station speaks version {VERSION}", now_ns)
            return
        self._serve(asker, request, now_ns)

    def refuse(self, asker: Asker, no: int, code: Refusal, detail: str, now_ns: int) -> None:
        """Count and, as a rule, answer a request that is not done."""
        self._bad(code.value, asker, no, code, detail, now_ns)

    def _serve(self, asker: Asker, request: Request, now_ns: int) -> None:
        self._tally.requests[str(request.__struct_config__.tag)] += 1
        if self._gatekeeper is not None:
            # Asked every time: a key may have been revoked, or have got another role.
            person = self._gatekeeper.person(asker.user_id)
            if person is None:
                asker.person = None
                self._ignored(asker, request, Refusal.REVOKED, now_ns)
                self.refuse(asker, request.no, Refusal.REVOKED, "the key of this connection is not valid any more", now_ns)
                return
            if asker.person is not None:
                asker.person = person
        if isinstance(request, Hello):
            self._hello(asker, request, now_ns)
            return
        if asker.person is None:
            self._ignored(asker, request, Refusal.NO_HELLO, now_ns)
            self.refuse(asker, request.no, Refusal.NO_HELLO, "the first request of a connection is hello", now_ns)
            return
        self._present(asker, asker.person, now_ns)
        if isinstance(request, Ping):
            self._answer(asker.identity, Done(no=request.no))
        else:
            self._does[type(request)](asker, request, now_ns)

    def _hello(self, asker: Asker, request: Hello, now_ns: int) -> None:
        person: Person | Neighbour | None = self._gatekeeper.person(asker.user_id) if self._gatekeeper is not None else None
        if person is None:
            if not is_name(request.name):
                detail = "a name has letters, digits, '.', '_' and '-', at most 64, and begins with a letter or digit"
                self.refuse(asker, request.no, Refusal.INVALID, detail, now_ns)
                return
            person = Neighbour(request.name)
        asker.person = person
        self._present(asker, person, now_ns)
        self._answer(asker.identity, self._services.welcome(person, request.no))

    def _present(self, asker: Asker, person: Person | Neighbour, now_ns: int) -> None:
        if asker.may(Role.CONTROLLER):
            self._services.commands.tell(self._services.controllers.said(person.name, now_ns))

    def _announce(self, asker: Asker, request: Announce, now_ns: int) -> None:
        if self._allowed(asker, request.no, Role.CONTROLLER, now_ns):
            self._services.announce(asker.identity, request)

    def _replay(self, asker: Asker, request: Replay, now_ns: int) -> None:
        problem = self._services.replaying.begin(asker, request)
        if problem is not None:
            self.refuse(asker, request.no, *problem, now_ns)

    def _acknowledge(self, asker: Asker, request: Acknowledge, now_ns: int) -> None:
        if asker.person is None or not self._allowed(asker, request.no, Role.CONTROLLER, now_ns):
            return
        # The numbers first: what they say was sent is in the account afterwards.
        memory = self._services.memory
        last_seqs = {name: memory.last_seq(name) for name in {ack.stream for ack in request.acks} if name in memory.streams}
        self._services.settle()
        wrong = []
        for ack in request.acks:
            last_seq = last_seqs.get(ack.stream, -_EARLY)
            if 1 <= ack.seq <= last_seq + _EARLY:
                events = self._services.controllers.acknowledged(asker.person.name, ack, now_ns, early=ack.seq > last_seq)
                self._services.commands.tell(events)
            else:
                wrong.append(ack)
        if wrong:
            detail = f"{len(wrong)} of {len(request.acks)}: no message {wrong[0].seq} of {wrong[0].stream!r} was sent in this boot"
            self.refuse(asker, request.no, Refusal.INVALID, detail, now_ns)

    def _command(self, asker: Asker, request: Command, now_ns: int) -> None:
        refusal = self._services.commands.give(asker, request, now_ns)
        if refusal is not None:
            self.refuse(asker, request.no, *refusal, now_ns)

    def _ignored(self, asker: Asker, request: Request, code: Refusal, now_ns: int) -> None:
        if isinstance(request, Command):
            self._services.commands.ignored(asker, request, code, now_ns)

    def _allowed(self, asker: Asker, no: int, role: Role, now_ns: int) -> bool:
        if asker.may(role):
            return True
        self.refuse(asker, no, Refusal.FORBIDDEN, f"it needs the role {role}", now_ns)
        return False

    def _bad(self, kind: str, asker: Asker | None, no: int, code: Refusal, detail: str, now_ns: int, body: bytes = b"") -> None:
        self._tally.bad[kind] += 1
        if asker is None or not (asker.refusals.take(now_ns) and self._refusals.take(now_ns)):
            self._tally.unanswered += 1
            return
        if no < 0 and body and (probe := _read(body[:MAX_REQUEST_BYTES])) is not None:
            no = probe.no
        self._answer(asker.identity, Refused(no=no, code=code, detail=detail))


def _read(body: bytes) -> _Probe | None:
    try:
        return _probe(body)
    except _UNREADABLE:
        return None
