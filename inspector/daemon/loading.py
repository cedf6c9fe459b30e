"""Loading engines: native code that takes seconds and hears no signal, in a thread of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_TURN_S = 0.1
_GRACE_S = 2.0
"""After a stop was asked for: most engines are loaded by then, and can be closed."""


class Engines(Protocol):
    """What is loaded."""

    def warm_up(self) -> float:
        """Run a few images."""

    def close(self) -> None:
        """Free the device."""


Opened = TypeVar("Opened", bound=Engines)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Opened]):
    """How it ended."""

    engines: Opened | None
    """Warmed up; None: a stop was asked for meanwhile."""
    left_running: bool = False
    """True: native code still loads, and only the end of the process ends it."""


def load_engines(open_engines: Callable[[], Opened], must_stop: Callable[[], bool]) -> Loaded[Opened]:
    """Open and warm up, while ``must_stop`` is asked again and again. Nothing else was started yet: a stop leaves a load to the process's end.

    Raises:
        Exception: whatever opening raised.
    """
    done: list[Opened | Exception] = []

    def load() -> None:
        try:
            engines = open_engines()
            try:
                engines.warm_up()
            except Exception:
                engines.close()
                raise
            done.append(engines)
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that waits
            done.append(error)

    if must_stop():
        return Loaded(None)
    thread = threading.Thread(target=load, name="engine-load", daemon=True)
    thread.start()
    while thread.is_alive() and not must_stop():
        thread.join(_TURN_S)
    thread.join(_GRACE_S)
    result = done[0] if done else None
    if result is None or must_stop():
        if result is not None and not isinstance(result, Exception):
            result.close()
        return Loaded(None, left_running=thread.is_alive())
    if isinstance(result, Exception):
        raise result
    return Loaded(result)
