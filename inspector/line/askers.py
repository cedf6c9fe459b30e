"""Who asks: one entry per connection of the request socket, bounded in number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.contract.requests import Role
from inspector.line.allowance import Allowance

if TYPE_CHECKING:
    from inspector.config.keys import Person

MAX_ASKERS = 256
_SILENT_NS = 2_000_000_000
"""An asker that has said nothing for so long makes room for another one."""
_REFUSALS_PER_S = 50.0
_COMMANDS_PER_S, _COMMANDS_BURST = 5.0, 10.0
_RANK = {Role.OBSERVER: 0, Role.CONTROLLER: 1, Role.ENGINEER: 2}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody on this machine, where no keys are in use."""

    name: str
    role: Role = Role.ENGINEER


@dataclass(slots=True, eq=False)
class Asker:
    """One connection."""

    identity: bytes
    user_id: str
    requests: Allowance
    commands: Allowance
    refusals: Allowance
    last_ns: int
    person: Person | Neighbour | None = None
    """None: it has not said hello."""
    replays: int = 0
    """Replays under way."""

    def may(self, role: Role) -> bool:
        """Whether its role includes ``role``."""
        return self.person is not None and _RANK[self.person.role] >= _RANK[role]


class Askers:
    """All of them. One thread owns it."""

    def __init__(self, requests_per_s: float) -> None:
        self._requests_per_s = requests_per_s
        self._askers: dict[bytes, Asker] = {}

    def __len__(self) -> int:
        return len(self._askers)

    def find(self, identity: bytes, user_id: str, now_ns: int) -> Asker | None:
        """The asker, new or known; None: there are too many."""
        asker = self._askers.get(identity)
        if asker is None or asker.user_id != user_id:  # a name of a connection can be taken over, what it may do cannot
            if asker is None and len(self._askers) >= MAX_ASKERS and not self._make_room(now_ns):
                return None
            asker = Asker(
                identity,
                user_id,
                requests=Allowance(self._requests_per_s, max(20.0, self._requests_per_s / 10), now_ns),
                commands=Allowance(_COMMANDS_PER_S, _COMMANDS_BURST, now_ns),
                refusals=Allowance(_REFUSALS_PER_S, _REFUSALS_PER_S, now_ns),
                last_ns=now_ns,
            )
            self._askers[identity] = asker
        asker.last_ns = now_ns
        return asker

    def _make_room(self, now_ns: int) -> bool:
        silent = min(self._askers.values(), key=lambda one: one.last_ns)
        if now_ns - silent.last_ns < _SILENT_NS:
            return False
        del self._askers[silent.identity]
        return True
