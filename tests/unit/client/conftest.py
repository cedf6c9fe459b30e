"""Messages as a station sends them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inspector.contract import wire
from inspector.contract.records import Action, EventLevel, Outcome, Reason, StageTimes
from inspector.contract.requests import Role, StreamInfo, Welcome


def verdict(seq: int, **changes: Any) -> wire.VerdictMessage:
    """A PASS, unless told otherwise; part number and id follow the number of the message."""
    outcome = changes.get("outcome", Outcome.PASS)
    fields: dict[str, Any] = {
        "station": "line-1",
        "boot_id": "b1",
        "boot_age_ms": 1000.0 + seq,
        "stream": "top",
        "seq": seq,
        "part_no": seq,
        "part_id": f"P{seq}",
        "result_id": "r",
        "job_id": "j",
        "is_simulated": True,
        "result_state": wire.ResultState.COMPLETED,
        "outcome": outcome,
        "reason": Reason.LATE if outcome is Outcome.UNINSPECTED else None,
        "detail": "",
        "action": Action.PASS if outcome is Outcome.PASS else Action.REJECT,
        "age_ms": 10.0,
        "remaining_ms": 500.0,
        "exposure_utc": "2026-01-01T00:00:00Z",
        "views": (),
        "defects": (),
        "product": "plate",
        "product_version": "1",
        "engines": (),
        "times": StageTimes(),
    }
    return wire.VerdictMessage(**(fields | changes))


def event(seq: int, **changes: Any) -> wire.EventMessage:
    fields: dict[str, Any] = {"station": "line-1", "boot_id": "b1", "boot_age_ms": 1000.0 + seq, "stream": "top", "seq": seq}
    return wire.EventMessage(**(fields | {"name": "e", "level": EventLevel.INFO, "detail": "", "utc": "x"} | changes))


def blind(seq: int, from_ms: float, to_ms: float | None, **changes: Any) -> wire.BlindMessage:
    """From and to as ages of the boot."""
    age_ms = changes.pop("boot_age_ms", 1000.0 + seq)
    fields: dict[str, Any] = {"station": "line-1", "boot_id": "b1", "boot_age_ms": age_ms, "stream": "top", "seq": seq}
    ago_ms = None if to_ms is None else age_ms - to_ms
    return wire.BlindMessage(
        **(fields | {"from_ms_ago": age_ms - from_ms, "to_ms_ago": ago_ms, "from_utc": "x", "to_utc": None, "cause": "c"} | changes)
    )


def beat(last_seq: int, **changes: Any) -> wire.HeartbeatMessage:
    fields: dict[str, Any] = {"station": "line-1", "boot_id": "b1", "boot_age_ms": 1000.0 + last_seq, "stream": "top", "last_seq": last_seq}
    return wire.HeartbeatMessage(
        **(fields | {"inspection_age_ms": 1.0, "opened": last_seq, "closed": last_seq, "pending": 0, "blind": False} | changes)
    )


def welcome(no: int, last_seq: int = 0, **changes: Any) -> Welcome:
    info = StreamInfo(last_seq=last_seq, opened=last_seq, closed=last_seq, pending=0, blind=changes.pop("blind", False))
    fields: dict[str, Any] = {
        "no": no,
        "station": "line-1",
        "boot_id": "b1",
        "name": "plc",
        "role": Role.CONTROLLER,
        "product": "plate",
        "product_version": "1",
        "deadline_ms": 100.0,
        "uninspected": Action.REJECT,
        "streams": {"top": info},
        "heartbeat_ms": 40.0,
        "dead_after_ms": 130.0,
        "present_ms": 500.0,
        "repair_ms": 60.0,
        "ack_ms": 200.0,
        "must_acknowledge": True,
        "replay_messages": 65536,
        "paused": False,
        "alarms": (),
    }
    return Welcome(**(fields | changes))


@pytest.fixture(scope="session")
def say() -> SimpleNamespace:
    """``verdict``, ``event``, ``blind``, ``beat`` and ``welcome``."""
    return SimpleNamespace(verdict=verdict, event=event, blind=blind, beat=beat, welcome=welcome)
