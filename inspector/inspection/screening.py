"""What a camera process says is checked before it is believed: a vendor's driver may have written over its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.channel import FrameRecord, StatusRecord

if TYPE_CHECKING:
    from inspector.contract.channel import CameraMessage
    from inspector.inspection.images import Slots

_MOST = 1 << 63
_MOST_DAMAGED = 1 << 31


def nonsense(record: CameraMessage, slots: Slots, now_ns: int) -> str:
    """Why ``record``, read at ``now_ns``, cannot be true; empty: it can. ``slots``: what the daemon holds of that camera's ring."""
    if isinstance(record, FrameRecord):
        return _of_frame(record, slots, now_ns)
    if isinstance(record, StatusRecord):
        if not 0 <= record.at_ns <= now_ns:
            return f"a status of a time to come ({record.at_ns} ns, now {now_ns})"
        if not 0 <= record.incomplete_before < _MOST_DAMAGED or not 0 <= (record.triggers or 0) < _MOST:
            return f"{record.incomplete_before} damaged frames and {record.triggers} triggers"
    return ""


def _of_frame(record: FrameRecord, slots: Slots, now_ns: int) -> str:
    ring = slots.ring
    problem = ""
    if not -1 <= record.slot < ring.slots:
        problem = f"a frame in slot {record.slot} of {ring.slots}"
    elif slots.holds(record.slot):
        problem = f"a frame in slot {record.slot}, which still holds another"
    elif not 0 <= record.size_bytes <= ring.slot_bytes:
        problem = f"a frame of {record.size_bytes} bytes in slots of {ring.slot_bytes}"
    elif not 0 <= record.exposure_ns <= record.received_ns <= now_ns:
        problem = f"a frame exposed at {record.exposure_ns} ns and received at {record.received_ns} ns, now {now_ns}"
    elif not 0 <= record.incomplete_before < _MOST_DAMAGED:
        problem = f"{record.incomplete_before} damaged frames before a frame"
    elif min(record.frame_id, record.camera_ns, record.trigger_counter or 0) < 0:
        problem = f"frame {record.frame_id}, camera time {record.camera_ns}, trigger {record.trigger_counter}"
    return problem
