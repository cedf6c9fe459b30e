"""What people and controllers make the station do. Every command, done or refused, becomes an event that says who, when and what."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from inspector.contract.errors import InspectorError
from inspector.contract.records import Event, EventLevel
from inspector.contract.requests import CommandName, Done, Refusal, Refused, Role
from inspector.line.allowance import Allowance
from inspector.line.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from inspector.contract.requests import Command, Reply
    from inspector.line.askers import Asker
    from inspector.line.controllers import Controllers

_COMMANDS_PER_S = 20.0
"""Of all askers together."""
_NEEDS = {
    CommandName.PAUSE: Role.CONTROLLER,
    CommandName.RESUME: Role.CONTROLLER,
    CommandName.RELOAD: Role.ENGINEER,
    CommandName.ACKNOWLEDGE_ALARMS: Role.ENGINEER,
}


class Controls(Protocol):
    """What a command moves."""

    @property
    def paused(self) -> bool:
        """Whether parts are let by uninspected."""

    def pause(self, *, paused: bool) -> None:
        """From now on every part is UNINSPECTED(paused), or is inspected again. Returns at once."""

    def reload(self) -> str:
        """Read the product recipe again; a sentence that says what has changed. It may read files.

        Raises:
            InspectorError: nothing was changed.
        """


class Commands:
    """Carries commands out. The channel's thread owns it; reading files is a thread's of its own."""

    def __init__(
        self, controls: Controls, controllers: Controllers, on_event: Callable[[Event], None], answer: Callable[[bytes, Reply], None]
    ) -> None:
        """``on_event`` and ``answer`` may be called from any thread."""
        self._controls, self._controllers, self._on_event, self._answer = controls, controllers, on_event, answer
        self._reload: threading.Thread | None = None
        self._all = Allowance(_COMMANDS_PER_S, 2 * _COMMANDS_PER_S, time.monotonic_ns())
        self._digest = Digest()

    def tell(self, events: Iterable[Event]) -> None:
        """Pass events on."""
        for event in events:
            self._on_event(event)

    def give(self, asker: Asker, command: Command, now_ns: int) -> tuple[Refusal, str] | None:
        """Carry out, and answer; else why not."""
        if not (asker.commands.take(now_ns) and self._all.take(now_ns)):
            self.ignored(asker, command, Refusal.TOO_FAST, now_ns)
            return Refusal.TOO_FAST, "more commands than the station takes: give it again"
        role = _NEEDS[command.name]
        if not asker.may(role):
            return self._refused(asker, command, now_ns, Refusal.FORBIDDEN, f"it needs the role {role}")
        if command.name is CommandName.RELOAD:
            if self._reload is not None and self._reload.is_alive():
                return self._refused(asker, command, now_ns, Refusal.TOO_FAST, "the product is being read already")
            self._reload = threading.Thread(target=self._run_reload, args=(asker, command), name="reload", daemon=True)
            self._reload.start()
            return None
        if command.name is CommandName.ACKNOWLEDGE_ALARMS:
            names = self._controllers.acknowledge_alarms(_who(asker))
            detail = f"acknowledged: {', '.join(names)}" if names else "there was no alarm to acknowledge"
        else:
            paused = command.name is CommandName.PAUSE
            was = self._controls.paused
            self._controls.pause(paused=paused)
            detail = ("paused" if paused else "resumed") if was != paused else ("it was paused already" if paused else "it was not paused")
        self._done(asker, command, now_ns, detail)
        return None

    def ignored(self, asker: Asker, command: Command, code: Refusal, now_ns: int) -> None:
        """One that was not even looked at: told at most once a second."""
        detail = f"{command.name} by {_who(asker)}: refused ({code})"
        self.tell(self._digest.tell("command", _who(asker), EventLevel.WARNING, detail, now_ns))

    def look(self, now_ns: int) -> None:
        """Tell what was held back."""
        self.tell(self._digest.due(now_ns))

    def stop(self, deadline_s: float) -> bool:
        """Wait for a command that still runs. True: none is left."""
        if self._reload is not None:
            self._reload.join(deadline_s)
            return not self._reload.is_alive()
        return True

    def _run_reload(self, asker: Asker, command: Command) -> None:
        try:
            self._done(asker, command, time.monotonic_ns(), self._controls.reload())
            return
        except InspectorError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - told as what it is; the station runs on with the rules it has
            problem = f"the program failed: {error!r}"
        self._refused(asker, command, time.monotonic_ns(), Refusal.INVALID, problem)
        self._answer(asker.identity, Refused(no=command.no, code=Refusal.INVALID, detail=problem))

    def _done(self, asker: Asker, command: Command, now_ns: int, detail: str) -> None:
        self._on_event(Event("command", EventLevel.INFO, f"{command.name} by {_who(asker)}: done: {detail}", now_ns))
        self._answer(asker.identity, Done(no=command.no, detail=detail))

    def _refused(self, asker: Asker, command: Command, now_ns: int, code: Refusal, problem: str) -> tuple[Refusal, str]:
        self._on_event(Event("command", EventLevel.WARNING, f"{command.name} by {_who(asker)}: refused ({code}): {problem}", now_ns))
        return code, problem


def _who(asker: Asker) -> str:
    return "nobody" if asker.person is None else f"{asker.person.name} ({asker.person.role})"
