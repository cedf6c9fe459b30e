"""Messages between a camera process and the daemon, one per SOCK_SEQPACKET datagram, msgpack.

The camera process sends records and never waits: a full socket makes it count in the ring's header
(``inspector.contract.ring``). The daemon sends commands.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

MAX_MESSAGE_BYTES = 64 * 1024


class CameraState(StrEnum):
    """What the camera is doing, as its process tells."""

    OPENING = "opening"
    STREAMING = "streaming"
    STALLED = "stalled"
    """It should deliver and does not."""
    LOST = "lost"
    """It does not answer; the process is about to leave."""
    STOPPED = "stopped"


class FrameRecord(msgspec.Struct, frozen=True, tag="frame", array_like=True):
    """One frame that the camera delivered."""

    slot: int
    """Slot of the ring that holds the pixels; -1: no slot was free, the frame is lost (overrun)."""
    frame_id: int
    camera_ns: int
    """Exposure time on the camera's clock; 0: the camera gives none."""
    received_ns: int
    """Host's monotonic clock when the frame was fetched."""
    exposure_ns: int
    """Exposure time on the host's monotonic clock, as far as it can be known; at most ``received_ns``."""
    width_px: int
    height_px: int
    stride_bytes: int
    pixel_format: str
    """PFNC name, e.g. Mono8."""
    size_bytes: int
    """Bytes in the slot."""
    encoder: int | None
    trigger_counter: int | None
    """The camera's count of triggers, latched with this frame (chunk)."""
    line_status: int | None
    incomplete_before: int
    """Frames that arrived damaged and were discarded since the last record."""


class StatusRecord(msgspec.Struct, frozen=True, tag="status", array_like=True):
    """Sign of life, at least every 200 ms."""

    state: CameraState
    at_ns: int
    triggers: int | None
    """The camera's own count of triggers so far; None: it has none."""
    incomplete_before: int
    """As in FrameRecord: damaged frames discarded since the last record."""
    underruns: int


class OpenedRecord(msgspec.Struct, frozen=True, tag="opened", array_like=True):
    """The camera is open, its settings written and read back."""

    model: str
    serial: str
    firmware: str
    simulated: bool
    width_px: int
    height_px: int
    pixel_format: str
    settings: dict[str, str]
    """Every setting as read back from the camera."""
    at_ns: int


class EndRecord(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """The process is about to leave: last message of an incarnation that could still speak."""

    cause: str
    """A sentence for the operator; empty: it was told to stop."""
    at_ns: int


CameraMessage = FrameRecord | StatusRecord | OpenedRecord | EndRecord


class StopCommand(msgspec.Struct, frozen=True, tag="stop", array_like=True):
    """Stop the acquisition, close the camera, leave."""


class TriggerCommand(msgspec.Struct, frozen=True, tag="trigger", array_like=True):
    """Execute one software trigger."""


class WriteCommand(msgspec.Struct, frozen=True, tag="write", array_like=True):
    """Write one node (user output, exposure, a fault of the simulator); None executes a command node."""

    node: str
    value: bool | int | float | str | None


CameraCommand = StopCommand | TriggerCommand | WriteCommand

encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(CameraMessage).decode
decode_command = msgspec.msgpack.Decoder(CameraCommand).decode
