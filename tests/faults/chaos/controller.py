"""A line controller as a process of its own: listens, decides, and writes every observation down at once, so that SIGKILL takes none away.

python controller.py ENDPOINT FILE [RECEIVE_BUFFER_BYTES]
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

import zmq
from rule import HELD_UP_NS, Rule, utc_ns

from inspector.client.subscriber import Subscriber, Update
from inspector.contract.wire import BlindMessage, EventMessage, HeartbeatMessage, VerdictMessage


def noted(update: Update, decision: str | None) -> dict[str, Any]:
    """An update as it is written down."""
    if isinstance(update, VerdictMessage):
        view = update.views[0] if update.views else None
        return {
            "k": "verdict",
            "boot": update.boot_id,
            "stream": update.stream,
            "seq": update.seq,
            "part_no": update.part_no,
            "part_id": update.part_id,
            "outcome": update.outcome,
            "reason": update.reason,
            "detail": update.detail,
            "image": update.defects[0].name if update.defects else None,
            "exposure_utc_ns": utc_ns(update.exposure_utc),
            "frame_id": view.frame_id if view else None,
            "no": decision,
        }
    if isinstance(update, BlindMessage):
        ends = (update.from_ms_ago, update.to_ms_ago, utc_ns(update.from_utc), None if update.to_utc is None else utc_ns(update.to_utc))
        return {"k": "blind", "boot": update.boot_id, "stream": update.stream, "ends": ends, "cause": update.cause, "seq": update.seq}
    if isinstance(update, HeartbeatMessage):
        books = (update.opened, update.closed, update.pending)
        return {"k": "beat", "boot": update.boot_id, "stream": update.stream, "books": books, "blind": update.blind, "seq": update.last_seq}
    if isinstance(update, EventMessage):
        return {"k": "event", "boot": update.boot_id, "stream": update.stream, "name": update.name, "detail": update.detail}
    return {"k": "notice", "kind": update.kind, "stream": update.stream, "missing": update.missing, "detail": update.detail}


def main() -> None:
    endpoint, path = sys.argv[1:3]
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["INSPECTOR_TEST_PARENT"]):
        sys.exit("the test is gone")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    rule = Rule()
    with Subscriber(endpoint) as subscriber:
        if len(sys.argv) > 3:  # takes effect with the next connection: the first one is made anew
            subscriber._socket.disconnect(endpoint)
            subscriber._socket.setsockopt(zmq.RCVBUF, int(sys.argv[3]))
            subscriber._socket.setsockopt(zmq.RCVHWM, 10)
            subscriber._socket.connect(endpoint)
        os.write(out, b'{"k": "listening"}\n')
        while True:
            begun_ns = time.monotonic_ns()
            rule.look(begun_ns)
            updates = subscriber.receive(0.02)
            now_ns = time.monotonic_ns()
            if now_ns - begun_ns > HELD_UP_NS:  # it waits for 20 ms at most: the process was held up meanwhile
                rule.stale = True
            lines = [json.dumps({"at": now_ns, **noted(update, rule.take(update, now_ns))}) + "\n" for update in updates]
            if lines:
                os.write(out, "".join(lines).encode())
            elif stopped:
                return
            else:
                rule.emptied(time.monotonic_ns())


if __name__ == "__main__":
    main()
