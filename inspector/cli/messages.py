"""The daemon's messages on stderr: written by a thread of their own, so that whoever does not read them holds up nothing else."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

_MOST = 10_000
"""Messages that wait; what is beyond it is counted, and told when they are read again."""
_FLUSH_S = 0.5
_TURN_S = 0.002


class BackgroundHandler(logging.Handler):
    """Writes log lines to ``descriptor``. ``flush`` waits for at most half a second, also at the end of the process."""

    def __init__(self, descriptor: int = 2, most: int = _MOST) -> None:
        super().__init__()
        self._descriptor, self._most = descriptor, most
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._taken = self._written = 0
        self._wake = threading.Event()
        # Past the interpreter's own stream, whose lock a writer that hangs would keep to the end; and a daemon thread, for the same reason.
        self._thread = threading.Thread(target=self._run, name="messages", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message; never waits. Its lock is held, as logging does."""
        if len(self._lines) >= self._most:
            self._dropped += 1
            return
        self._lines.append(self.format(record) + "\n")
        self._taken += 1
        self._wake.set()

    def flush(self) -> None:
        """Wait until everything is written, for at most half a second."""
        until = time.monotonic() + _FLUSH_S
        while self._written < self._taken and time.monotonic() < until:
            time.sleep(_TURN_S)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._lines:
                self._write(self._lines.popleft())
                dropped, self._dropped = self._dropped, 0
                if dropped:
                    self._write(f"WARNING {dropped} messages were dropped: nobody read them\n")
                self._written += 1

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                time.sleep(0.05)  # somebody has made it non-blocking
            except OSError:
                return  # nobody will ever read it
