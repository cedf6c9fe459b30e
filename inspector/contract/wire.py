"""Messages on the ZeroMQ wire: JSON, versioned, with a published JSON Schema (``docs/schema/wire-v1.json``).

Two frames per message: the topic (``station/stream``, UTF-8) and one JSON object. Field names follow OPC 40100-1 where it has one
(ResultId, JobId, PartId, IsSimulated, ResultState). Ages and remaining times are relative; UTC is for display only. ``boot_age_ms`` puts all
messages of one boot on one axis: what was exposed ``age_ms`` before a message was sent lies at ``boot_age_ms - age_ms``, however late it is read.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from inspector.contract.records import Action, Defect, EventLevel, Outcome, Reason, StageTimes

VERSION = 1


class ResultState(IntEnum):
    """ResultState of OPC 40100-1."""

    COMPLETED = 1
    PROCESSING = 2
    ABORTED = 3
    FAILED = 4


class ViewMessage(msgspec.Struct, frozen=True):
    """One camera's part in a verdict."""

    camera: str
    outcome: Outcome
    reason: Reason | None
    frame_id: int | None
    encoder: int | None
    trigger_counter: int | None
    exposure_utc: str


class VerdictMessage(msgspec.Struct, frozen=True, tag_field="type", tag="verdict", kw_only=True):
    """The one verdict of one part."""

    v: int = VERSION
    station: str
    boot_id: str
    boot_age_ms: float
    """Age of the boot at sending."""
    stream: str
    seq: int
    """+1 per message of this boot and stream."""
    part_no: int
    """+1 per part of this boot and stream."""
    part_id: str | None = msgspec.field(name="PartId", default=None)
    result_id: str = msgspec.field(name="ResultId")
    job_id: str = msgspec.field(name="JobId")
    """Product and its version."""
    is_simulated: bool = msgspec.field(name="IsSimulated")
    result_state: ResultState = msgspec.field(name="ResultState")
    outcome: Outcome
    reason: Reason | None
    detail: str
    action: Action
    """What the line is to do. Only ``pass`` lets the part pass."""
    age_ms: float
    """Exposure to sending."""
    remaining_ms: float
    """Sending to the part's deadline; negative: too late."""
    exposure_utc: str
    views: tuple[ViewMessage, ...]
    defects: tuple[Defect, ...]
    product: str
    product_version: str
    engines: tuple[str, ...]
    times: StageTimes


class BlindMessage(msgspec.Struct, frozen=True, tag_field="type", tag="blind", kw_only=True):
    """The stream could not see, from so many ms ago to so many ms ago: nothing passes in it."""

    v: int = VERSION
    station: str
    boot_id: str
    boot_age_ms: float
    """Age of the boot at sending."""
    stream: str
    seq: int
    from_ms_ago: float
    to_ms_ago: float | None
    """None: it goes on."""
    from_utc: str
    to_utc: str | None
    cause: str


class EventMessage(msgspec.Struct, frozen=True, tag_field="type", tag="event", kw_only=True):
    """Something worth knowing; it decides nothing."""

    v: int = VERSION
    station: str
    boot_id: str
    boot_age_ms: float
    """Age of the boot at sending."""
    stream: str
    seq: int
    name: str
    level: EventLevel
    detail: str
    utc: str


class HeartbeatMessage(msgspec.Struct, frozen=True, tag_field="type", tag="heartbeat", kw_only=True):
    """Sent while the inspection is alive; carries no number of its own, but the last one given."""

    v: int = VERSION
    station: str
    boot_id: str
    boot_age_ms: float
    """Age of the boot at sending."""
    stream: str
    last_seq: int
    inspection_age_ms: float
    """Age of the inspection stage's last sign of life."""
    opened: int
    closed: int
    pending: int
    """The ledger's snapshot: opened == closed + pending."""
    blind: bool
    """True: the stream cannot see now."""


Message = VerdictMessage | BlindMessage | EventMessage | HeartbeatMessage

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Message).decode


def topic(station: str, stream: str) -> bytes:
    """First frame of a message: subscribe to it, or to a prefix that ends in ``/``."""
    return f"{station}/{stream}".encode()


def schema() -> dict[str, Any]:
    """The JSON Schema of every message, draft 2020-12."""
    (root,), components = msgspec.json.schema_components([Message], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:inspectord:wire:v{VERSION}",
        "title": f"inspector: messages on the wire, version {VERSION}",
        **root,
        "$defs": components,
    }
