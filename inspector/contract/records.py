"""What the rooms hand to each other inside the daemon: parts, views, proposals, verdicts, events.

All are frozen: what crosses a queue does not change. Times ending in ``_ns`` are the host's CLOCK_MONOTONIC in nanoseconds
unless their name says UTC.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Outcome(StrEnum):
    """How every part ends: exactly one of these."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    REJECT = "REJECT"
    UNINSPECTED = "UNINSPECTED"


class Reason(StrEnum):
    """Why a part is UNINSPECTED."""

    NO_FRAME = "no_frame"
    """The camera or the line counted it, and no image came."""
    INCOMPLETE = "incomplete"
    """Its image arrived damaged."""
    IMAGE_INVALID = "image_invalid"
    """Its image is black, saturated, frozen, or of the wrong size or format."""
    OVERRUN = "overrun"
    """No slot of the ring was free: the station is slower than the line."""
    LATE = "late"
    """Its deadline passed before its result came."""
    CAMERA_LOST = "camera_lost"
    ENGINE_ERROR = "engine_error"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"


class Action(StrEnum):
    """What the line is to do with a part."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    REJECT = "reject"
    STOP = "stop"
    DIVERT = "divert"


class Box(msgspec.Struct, frozen=True, array_like=True):
    """Corners of an axis-aligned box; x1 <= x2, y1 <= y2. Pixels of the camera's image, or mm on the part, as the field's name says."""

    x1: float
    y1: float
    x2: float
    y2: float


class Defect(msgspec.Struct, frozen=True):
    """One detection, counted or not: raw scores are kept, so that other thresholds can be tried on old results."""

    name: str
    """Class, as the engine names it."""
    score: float
    """Raw score, 0..1."""
    box_px: Box
    counted: bool
    """True: it reached its class's threshold, size and region, and so rejects the part."""
    source: str
    """Network that found it."""
    camera: str
    box_mm: Box | None = None
    """None where the product gives no scale."""
    area_mm2: float | None = None


class StageTimes(msgspec.Struct, frozen=True):
    """Where a part's time went, in milliseconds; None: the part did not get there."""

    transfer_ms: float | None = None
    """Exposure to the frame's arrival in the camera process."""
    queue_ms: float | None = None
    """Arrival to the start of inspection."""
    validity_ms: float | None = None
    preprocess_ms: float | None = None
    """Converting, resizing and letterboxing, summed over the networks and what each was shown; with two networks, or crops, some of it passes while
    an engine computes, and so counts in ``engine_ms`` too."""
    engine_ms: float | None = None
    """From submitting the image to the first network to having the last network's last result."""
    rules_ms: float | None = None
    total_ms: float | None = None
    """Exposure (or, without one, opening) to closing."""


class HeatMap(msgspec.Struct, frozen=True, eq=False):
    """Where a classifier saw what it named."""

    name: str
    """The class that the map is of."""
    score: float
    """Its raw score, 0..1."""
    source: str
    """The network."""
    values: NDArray[np.float32]
    """[h, w], >= 0, of any scale."""
    box_px: Box
    """Where the map's outer edges lie on the camera's image; it may reach beyond the image to the right and below."""


class Picture(msgspec.Struct, frozen=True, eq=False):
    """A part's image, copied out of the ring into the archive's own pool; offered back with the closed part."""

    camera: str
    pixels: NDArray[np.uint8]
    """uint8 [H,W] or [H,W,3] (RGB), owned by the pool's buffer ``slot``."""
    slot: int
    heat: tuple[HeatMap, ...] = ()


class View(msgspec.Struct, frozen=True):
    """One camera's sight of one part: opened by the intake, one for every frame, trigger or gap."""

    ticket: int
    """Unique in this boot; proposals name it."""
    camera: str
    part_id: str | None
    """The line's identity of the part; None: the frame id and exposure time identify it."""
    frame_id: int | None
    """As the camera gave it (before unwrapping); None: no frame came."""
    frame_no: int | None
    """Frame id unwrapped: grows by one per frame the camera says it took."""
    encoder: int | None
    trigger_counter: int | None
    exposure_ns: int
    """Exposure time on the host's clock; where no frame came, the best estimate."""
    opened_ns: int
    deadline_ns: int
    reason: Reason | None = None
    """Set: the view is UNINSPECTED from the start, no image will be inspected."""
    transfer_ms: float | None = None


class Proposal(msgspec.Struct, frozen=True):
    """What the inspection (or the supervisor) says of a view. The line thread alone decides whether it still counts."""

    ticket: int
    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    """A clear sentence for UNINSPECTED: what was wrong."""
    defects: tuple[Defect, ...] = ()
    times: StageTimes = StageTimes()
    picture: Picture | None = None


class Blind(msgspec.Struct, frozen=True):
    """An interval in which a camera could not see: nothing passes in it."""

    stream: str
    from_ns: int
    to_ns: int | None
    """None: it goes on."""
    cause: str


class EventLevel(StrEnum):
    """How much an event matters to the people on the line."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(msgspec.Struct, frozen=True):
    """Something the operator should be able to read later."""

    name: str
    """A fixed word per kind of event (bounded: it becomes a metric's label)."""
    level: EventLevel
    detail: str
    at_ns: int
    stream: str = ""
    """Camera stream it belongs to; empty: the station."""


class ClosedView(msgspec.Struct, frozen=True):
    """A view with what was said of it."""

    view: View
    outcome: Outcome
    reason: Reason | None
    detail: str
    times: StageTimes
    picture: Picture | None


class ClosedPart(msgspec.Struct, frozen=True):
    """A part and its one verdict, as numbered and sent by the line thread."""

    stream: str
    """Camera, or the group of cameras, whose parts are numbered together."""
    part_no: int
    """The ledger's own number: 1, 2, 3, ... per boot and stream, given at opening."""
    seq: int
    """Number of the message on the wire, per boot and stream."""
    part_id: str | None
    outcome: Outcome
    reason: Reason | None
    detail: str
    action: Action
    defects: tuple[Defect, ...]
    views: tuple[ClosedView, ...]
    times: StageTimes
    exposure_ns: int
    opened_ns: int
    deadline_ns: int
    closed_ns: int
    product: str
    product_version: str
    engines: tuple[str, ...]
    """Hashes of the engines that decided."""
    record_no: int = 0
    """Its number in the flight recorder; 0: it was not recorded."""
    closed_utc_ns: int = 0
    """The wall clock at closing, ns since 1970 UTC: fixed once, so that every output tells the same time. 0: each takes its own."""


class LateResult(msgspec.Struct, frozen=True):
    """A result that came after its part was closed: evidence, never a verdict."""

    stream: str
    part_no: int
    proposal: Proposal
    at_ns: int


OutputItem = ClosedPart | LateResult | Blind | Event


class Output(Protocol):
    """Where things go after the wire. ``offer`` never blocks; what it refuses, it counts."""

    def offer(self, item: OutputItem) -> bool:
        """True: taken, or of no interest to this output. False: refused and counted."""

    def start(self) -> None:
        """Start the output's own thread."""

    def stop(self, deadline_s: float) -> bool:
        """Finish what was taken within ``deadline_s`` seconds; True: nothing was left behind."""
