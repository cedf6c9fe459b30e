"""Proof of progress: stamps that the stages touch, and what the service manager is told of them."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class StageStamp:
    """When a stage last made progress. One thread touches it, any thread reads it: one attribute, replaced whole."""

    __slots__ = ("_at_ns", "_clock_ns", "name")

    def __init__(self, name: str, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """``name``: the stage; it counts from now."""
        self.name = name
        self._clock_ns = clock_ns
        self._at_ns = clock_ns()

    def touch(self) -> None:
        """The stage has finished one piece of work, or has looked for work and found none."""
        self._at_ns = self._clock_ns()

    @property
    def at_ns(self) -> int:
        """The last progress, CLOCK_MONOTONIC."""
        return self._at_ns

    def age_ms(self) -> float:
        """Milliseconds since the last progress."""
        return (self._clock_ns() - self._at_ns) / 1e6


class Notifier:
    """Tells systemd how the service fares (``sd_notify(3)``). Does nothing where no service manager listens."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment``: the process's; NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked at."""
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of Linux's abstract names.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environment.get("WATCHDOG_USEC", "0")
        self.watchdog_s: float | None = int(limit) / 1e6 if for_us and limit.isdigit() and int(limit) > 0 else None
        """Silence after which the service is killed; None: nobody watches."""

    def ready(self, status: str = "") -> bool:
        """Start-up is finished."""
        return self.send("READY=1", *_status(status))

    def stopping(self) -> bool:
        """The service leaves."""
        return self.send("STOPPING=1")

    def watchdog(self, stamp: StageStamp, budget_ms: float) -> bool:
        """Feed the watchdog, only if ``stamp`` is younger than ``budget_ms``; True: fed."""
        return stamp.age_ms() < budget_ms and self.send("WATCHDOG=1")

    def send(self, *lines: str) -> bool:
        """Send assignments; False: nobody listens, or the manager did not take it."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.setblocking(False)  # a stuck manager must not stop the caller
                wire.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={text}",) if text else ()
