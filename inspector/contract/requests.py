"""Messages of the line channel: what a controller asks of a station beside the publisher, and what it is answered.

One JSON object per ZeroMQ message, DEALER to ROUTER. Every request has the asker's own number ``no``, which every answer to it repeats. The schema is
published as ``docs/schema/channel-v1.json``; ``docs/line-protocol.md`` tells states and timings.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from inspector.contract.records import Action

VERSION = 1
MAX_REQUEST_BYTES = 16 * 1024
"""A longer request is refused; one of more than four times that ends its connection."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]


class Role(StrEnum):
    """Who may do what; each may do what the one before it may."""

    OBSERVER = "observer"
    """Subscribe, hello, replay."""
    CONTROLLER = "controller"
    """Announce, acknowledge, pause and resume."""
    ENGINEER = "engineer"
    """Reload the product, acknowledge alarms."""


class AckState(StrEnum):
    """What became of a verdict at the controller."""

    RECEIVED = "received"
    ACTUATED = "actuated"
    """The part was rejected, diverted or stopped, as the verdict said."""
    FAILED = "failed"
    """It could not be: an alarm."""


class CommandName(StrEnum):
    """What a command does."""

    PAUSE = "pause"
    """Every part is UNINSPECTED(paused)."""
    RESUME = "resume"
    RELOAD = "reload"
    """Read the product recipe again."""
    ACKNOWLEDGE_ALARMS = "acknowledge_alarms"


class Refusal(StrEnum):
    """Why a request was not done."""

    UNREADABLE = "unreadable"
    VERSION = "version"
    FORBIDDEN = "forbidden"
    """The asker's role does not include it."""
    REVOKED = "revoked"
    """The asker's key was revoked."""
    NO_HELLO = "no_hello"
    """The first request must be hello."""
    TOO_FAST = "too_fast"
    """More requests than the station takes from one asker; what was not done must be asked again."""
    INVALID = "invalid"
    """It makes no sense here: an unknown stream, an announcement that was made before, ..."""


class Hello(msgspec.Struct, frozen=True, tag_field="type", tag="hello", kw_only=True, forbid_unknown_fields=True):
    """First request of a connection, and again after every new boot id."""

    v: int = VERSION
    no: Number
    name: Text
    """Who asks. Where keys are in use the name of the key counts instead."""


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping", kw_only=True, forbid_unknown_fields=True):
    """Sign of life; a controller that says nothing for ``present_ms`` (welcome) is not connected."""

    v: int = VERSION
    no: Number


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a camera will know the part. Every value that is given must agree, each within its window."""

    camera: Text | None = None
    """None: the stream's only camera."""
    in_ms: Milliseconds | None = None
    """Exposure, from now."""
    window_ms: Milliseconds | None = None
    """How far off ``in_ms`` may be; None: the station's ``announce_window_ms``."""
    encoder: Number | None = None
    """Encoder value at the exposure."""
    encoder_window: Number | None = None
    """How far off ``encoder`` may be; None: the station's ``announce_encoder_window``."""
    trigger_counter: Number | None = None
    """The camera's count of triggers at the exposure, exactly. It alone is order, no identity: give ``in_ms`` or ``encoder`` with it."""


class Announce(msgspec.Struct, frozen=True, tag_field="type", tag="announce", kw_only=True, forbid_unknown_fields=True):
    """A part is on its way to the camera. Opened at once; it ends in one outcome like every part, ``no_frame`` if it never appears."""

    v: int = VERSION
    no: Number
    stream: Text
    part_id: Text
    expect: tuple[Expectation, ...] = ()
    """One per camera of the stream. Empty where cameras latch the part id itself (trigger counter or encoder as text)."""
    timeout_ms: Milliseconds | None = None
    """From now until the part is given up as ``no_frame``; None: from ``in_ms`` and the product's deadline, else ``announce_timeout_ms``."""


class Replay(msgspec.Struct, frozen=True, tag_field="type", tag="replay", kw_only=True, forbid_unknown_fields=True):
    """Send ``from_seq..to_seq`` of a stream again."""

    v: int = VERSION
    no: Number
    stream: Annotated[str, msgspec.Meta(max_length=128)]
    """Empty: the station's own events."""
    from_seq: Number
    to_seq: Number


class Ack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one verdict."""

    stream: Text
    seq: Number
    state: AckState
    detail: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Acknowledge(msgspec.Struct, frozen=True, tag_field="type", tag="acknowledge", kw_only=True, forbid_unknown_fields=True):
    """What became of verdicts. Answered only where something is refused."""

    v: int = VERSION
    no: Number
    acks: Annotated[tuple[Ack, ...], msgspec.Meta(max_length=256)]


class Command(msgspec.Struct, frozen=True, tag_field="type", tag="command", kw_only=True, forbid_unknown_fields=True):
    """Do something to the station; it becomes an event that names who asked."""

    v: int = VERSION
    no: Number
    name: CommandName


Request = Hello | Ping | Announce | Replay | Acknowledge | Command


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream at the moment of the welcome."""

    last_seq: int
    opened: int
    closed: int
    pending: int
    blind: bool


class Welcome(msgspec.Struct, frozen=True, tag_field="type", tag="welcome", kw_only=True):
    """Answer to hello: what the controller must know. Messages up to ``last_seq`` were sent before it."""

    v: int = VERSION
    no: int
    station: str
    boot_id: str
    name: str
    role: Role
    product: str
    product_version: str
    deadline_ms: float
    """Exposure to verdict."""
    uninspected: Action
    streams: dict[str, StreamInfo]
    """By name; the empty one carries the station's own events."""
    heartbeat_ms: float
    dead_after_ms: float
    """Silence after which the station is dead: nothing passes."""
    present_ms: float
    """A controller must say something at least so often."""
    repair_ms: float
    """A gap that is not repaired after this: its parts do not pass."""
    ack_ms: float
    """A verdict that does not pass is to be acknowledged within this."""
    must_acknowledge: bool
    """The station waits for this controller's acknowledgements."""
    replay_messages: int
    """So many of the last messages of each stream can be replayed."""
    paused: bool
    alarms: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done", kw_only=True):
    """The request was done. For an announcement ``part_no`` is the part's number."""

    v: int = VERSION
    no: int
    part_no: int | None = None
    detail: str = ""


class Refused(msgspec.Struct, frozen=True, tag_field="type", tag="refused", kw_only=True):
    """The request was not done; ``no`` is -1 where it could not be read."""

    v: int = VERSION
    no: int
    code: Refusal
    detail: str


class Replayed(msgspec.Struct, frozen=True, tag_field="type", tag="replayed", kw_only=True):
    """One message again, as it was sent ``age_ms`` ago: its own ages grew by that, what remained of its deadline shrank by it."""

    v: int = VERSION
    no: int
    age_ms: float
    message: msgspec.Raw
    """As on the publisher (``docs/schema/wire-v1.json``)."""


class ReplayEnd(msgspec.Struct, frozen=True, tag_field="type", tag="replay_end", kw_only=True):
    """All of the replay was sent."""

    v: int = VERSION
    no: int
    stream: str
    from_seq: int
    to_seq: int
    """Of what was asked for, everything up to this number was replayed or is gone; smaller than asked where the answer is bounded (at most
    512 messages: ask on from the next one) or nothing newer was sent."""
    gone_to: int
    """Of what was asked for, numbers up to this are gone from memory; 0: none."""


Reply = Welcome | Done | Refused | Replayed | ReplayEnd

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode


def schema() -> dict[str, Any]:
    """The JSON Schema of requests and replies, draft 2020-12."""
    (request, reply), components = msgspec.json.schema_components([Request, Reply], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:inspectord:channel:v{VERSION}",
        "title": f"inspector: requests and replies of the line channel, version {VERSION}",
        "anyOf": [request, reply],
        "$defs": components,
    }
