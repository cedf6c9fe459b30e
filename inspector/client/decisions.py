"""What a controller is told: decisions on parts, and what no message of the station says itself."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from inspector.contract import wire


class State(StrEnum):
    """Where a session, or one of its streams, stands. A part passes in ``live`` alone."""

    CONNECTING = "connecting"
    """Hello is not answered."""
    SYNCHRONISING = "synchronising"
    """Welcome is there, a heartbeat is not."""
    LIVE = "live"
    GAP = "gap"
    """Of a stream: messages are missing and asked for; what was sent before them passes, what was sent after them waits."""
    DEAD = "dead"
    """No heartbeat for too long: the station, or its inspection, is dead or hung."""
    REFUSED = "refused"
    """The station does not talk to this controller."""


class Cause(StrEnum):
    """Why a part may pass, or not."""

    VERDICT = "verdict"
    """The station said so."""
    NO_VERDICT = "no_verdict"
    """Announced, and no verdict came in the controller's own time; or numbers after it were decided and it was not."""
    LATE = "late"
    """Its PASS came after the part's deadline."""
    BLIND = "blind"
    """The station could not see when the part was exposed."""
    GAP = "gap"
    """Messages were lost that may have been about it."""
    DEAD = "dead"
    BOOT = "boot"
    """The station was started anew while the part was under way."""
    UNSYNCHRONISED = "unsynchronised"
    """Its PASS came while hello or the first heartbeat was still awaited."""
    REFUSED = "refused"
    """The station refused the announcement, or the controller."""
    MISMATCH = "mismatch"
    """The part's number is not the one that was given to the announcement."""
    DOUBLE = "double"
    """Two parts came with this id."""


class NoticeKind(StrEnum):
    """What the client has to say itself."""

    GAP = "gap"
    """Messages were lost on the way."""
    REPAIRED = "repaired"
    """All of a gap was replayed."""
    LOST = "lost"
    """What is still missing of a gap does not come any more."""
    BOOT = "boot"
    """The station was started anew: parts that were under way have no verdict."""
    DEAD = "dead"
    """No heartbeat: nothing may pass."""
    ALIVE = "alive"
    """Heartbeats are back."""
    LIVE = "live"
    """Hello is answered and heartbeats come: parts may pass."""
    REFUSED = "refused"
    """The station refused a request."""
    SILENT = "silent"
    """The request socket does not answer."""
    UNREADABLE = "unreadable"
    """A message that this program does not understand."""


class Notice(msgspec.Struct, frozen=True, tag_field="type", tag="notice"):
    """Something about the stream of messages that no message says."""

    kind: NoticeKind
    station: str
    stream: str
    detail: str
    """A sentence."""
    missing: int = 0
    """gap, repaired, lost: how many messages."""


class Decision(msgspec.Struct, frozen=True, tag_field="type", tag="decision", kw_only=True):
    """One part passes or does not; or a run of numbers, of which nothing is known, does not.

    A number that was given up is told again, still as not passing, when it turns out to be that of an announced part.
    """

    station: str
    stream: str
    boot_id: str
    part_id: str | None
    part_no: int | None
    """None: it was announced, and its number never became known."""
    to_part_no: int | None = None
    """Last number of a run of lost parts; None: it is one part."""
    passes: bool
    cause: Cause
    detail: str
    """A sentence."""
    verdict: wire.VerdictMessage | None = None


NumberedMessage = wire.VerdictMessage | wire.BlindMessage | wire.EventMessage
Update = wire.Message | Notice | Decision


def decision(
    where: tuple[str, str, str],
    *,
    part_id: str | None,
    cause: Cause,
    detail: str,
    part_no: int | None = None,
    to_part_no: int | None = None,
    passes: bool = False,
    verdict: wire.VerdictMessage | None = None,
) -> Decision:
    """A decision; ``where``: station, boot id and stream."""
    station, boot_id, stream = where
    return Decision(
        station=station,
        stream=stream,
        boot_id=boot_id,
        part_id=part_id,
        part_no=part_no,
        to_part_no=to_part_no,
        passes=passes,
        cause=cause,
        detail=detail,
        verdict=verdict,
    )
