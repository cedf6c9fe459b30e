"""A line controller as a process of its own: follows the station, and writes every observation down at once, so that SIGKILL takes none away.

python controller.py NAME PUBLISHER REQUESTS FILE [--key FILE] [--receive-buffer BYTES]
    [--announce LINE_FOLDER PARTS RATE_HZ DEADLINE_MS FORGET_EVERY GHOST_EVERY]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import zmq

from inspector.camera.simulator.log import read_trigger_log
from inspector.client.controller import Controller
from inspector.client.decisions import Decision, Notice, State, Update
from inspector.contract.requests import Expectation
from inspector.contract.wire import BlindMessage, EventMessage, HeartbeatMessage, VerdictMessage

LEAD_NS = 250_000_000
"""From the sensor to the camera."""
ENCODER_STEP = 1000


def utc_ns(text: str) -> int:
    """ISO 8601 with microseconds as ns since 1970."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def noted(update: Update) -> dict[str, Any]:
    """An update as it is written down."""
    if isinstance(update, Notice):
        return {"k": "notice", "kind": update.kind, "stream": update.stream, "missing": update.missing, "detail": update.detail}
    where = {"boot": update.boot_id, "stream": update.stream}
    if isinstance(update, Decision):
        numbers = {"part_no": update.part_no, "to_part_no": update.to_part_no, "part_id": update.part_id}
        return {"k": "decision", **where, **numbers, "passes": update.passes, "cause": update.cause, "detail": update.detail, **seen(update.verdict)}
    if isinstance(update, VerdictMessage):
        said = {"outcome": update.outcome, "reason": update.reason, "detail": update.detail}
        return {"k": "verdict", **where, "seq": update.seq, "part_no": update.part_no, "part_id": update.part_id, **said, **seen(update)}
    if isinstance(update, BlindMessage):
        ends = (update.from_ms_ago, update.to_ms_ago, utc_ns(update.from_utc), None if update.to_utc is None else utc_ns(update.to_utc))
        return {"k": "blind", **where, "ends": ends, "cause": update.cause, "seq": update.seq}
    if isinstance(update, HeartbeatMessage):
        return {"k": "beat", **where, "books": (update.opened, update.closed, update.pending), "blind": update.blind, "seq": update.last_seq}
    assert isinstance(update, EventMessage)
    return {"k": "event", **where, "name": update.name, "detail": update.detail}


def seen(verdict: VerdictMessage | None) -> dict[str, Any]:
    """Which images a verdict is about, by camera, and when it was exposed."""
    if verdict is None:
        return {"images": {}, "exposure_utc_ns": None}
    images = {defect.camera: defect.name for defect in verdict.defects if defect.score > 0.5}
    return {"images": images, "exposure_utc_ns": utc_ns(verdict.exposure_utc)}


class Announcer:
    """Announces every part a while before it reaches the camera, as a sensor up the line would see it.

    ``forget_every``: each so-many-th part is not announced; ``ghost_every``: after each so-many-th one is announced that never comes (0: none).
    """

    def __init__(self, folder: Path, parts: int, rate_hz: float, deadline_ms: float, forget_every: int, ghost_every: int) -> None:
        self._folder, self._parts, self._period_ns, self._deadline_ms = folder, parts, int(1e9 / rate_hz), deadline_ms
        self._forget_every, self._ghost_every = forget_every, ghost_every
        self._first_ns = 0
        self._counter = 0

    def due(self) -> list[tuple[str, float, int]]:
        """Part id, milliseconds until its exposure, and encoder value of what is to be announced now."""
        if not self._first_ns:
            triggers = read_trigger_log(self._folder)
            if not len(triggers):
                return []
            self._first_ns = int(triggers[0]["host_ns"]) - int(triggers[0]["counter"] - 1) * self._period_ns
            self._counter = (time.monotonic_ns() + LEAD_NS - self._first_ns) // self._period_ns + 2  # a whole period ahead of what is announced now
        found = []
        while self._counter <= self._parts and (ahead_ns := self._first_ns + (self._counter - 1) * self._period_ns - time.monotonic_ns()) < LEAD_NS:
            counter, self._counter = self._counter, self._counter + 1
            if not self._forget_every or counter % self._forget_every:
                found.append((f"P{counter}", ahead_ns / 1e6, counter * ENCODER_STEP))
            if self._ghost_every and counter % self._ghost_every == 0:
                found.append((f"X{counter}", (ahead_ns + self._period_ns // 2) / 1e6, counter * ENCODER_STEP + ENCODER_STEP // 2))
        return found

    def turn(self, line: Controller) -> list[dict[str, Any]]:
        """Announce what is due; what was announced, as it is written down."""
        told = []
        for part_id, in_ms, encoder in self.due():
            expect = Expectation(in_ms=max(0.0, in_ms), encoder=encoder)
            line.announce(part_id, in_ms + self._deadline_ms + 200, stream="top", expect=(expect,))
            told.append({"k": "announced", "part_id": part_id})
        return told


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("name", "publisher", "requests", "file"):
        parser.add_argument(name)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--receive-buffer", type=int)
    parser.add_argument("--announce", nargs=6)
    options = parser.parse_args()
    announcer = None
    if options.announce:
        folder, parts, rate, deadline, forget, ghost = options.announce
        announcer = Announcer(Path(folder), int(parts), float(rate), float(deadline), int(forget), int(ghost))
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["INSPECTOR_TEST_PARENT"]):
        sys.exit("the test is gone")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    out = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    with Controller(options.publisher, options.requests, name=options.name, key_file=options.key) as line:
        if options.receive_buffer:  # takes effect with the next connection: the first one is made anew
            line._sub.disconnect(options.publisher)
            line._sub.setsockopt(zmq.RCVBUF, options.receive_buffer)
            line._sub.setsockopt(zmq.RCVHWM, 10)
            line._sub.connect(options.publisher)
        os.write(out, b'{"k": "listening"}\n')
        while True:
            updates = line.receive(0.02)
            now_ns = time.monotonic_ns()
            if announcer is not None and line.state is State.LIVE and not stopped:
                told = announcer.turn(line)
                os.write(out, "".join(json.dumps({"at": now_ns, **one}) + "\n" for one in told).encode())
            if updates:
                os.write(out, "".join(json.dumps({"at": now_ns, **noted(update)}) + "\n" for update in updates).encode())
            elif stopped:
                return


if __name__ == "__main__":
    main()
