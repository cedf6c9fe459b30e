"""A part that has ended, as it goes to the wire and to the outputs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from inspector.contract.records import ClosedPart, StageTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.line.parts import Closing
    from inspector.line.settings import LineSettings


def closed_part(closing: Closing, settings: LineSettings, seq: int) -> ClosedPart:
    """``closing`` with its number on the wire, what the line is to do with it, and what decided it."""
    return ClosedPart(
        stream=closing.stream,
        part_no=closing.part_no,
        seq=seq,
        part_id=closing.part_id,
        outcome=closing.outcome,
        reason=closing.reason,
        detail=closing.detail,
        action=settings.action(closing.outcome),
        defects=closing.defects,
        views=closing.views,
        times=_slowest([one.times for one in closing.views]),
        exposure_ns=closing.exposure_ns,
        opened_ns=closing.opened_ns,
        deadline_ns=closing.deadline_ns,
        closed_ns=closing.closed_ns,
        product=settings.product,
        product_version=settings.product_version,
        engines=settings.engines,
        closed_utc_ns=time.time_ns() - time.monotonic_ns() + closing.closed_ns,
    )


def _slowest(times: Sequence[StageTimes]) -> StageTimes:
    """The times of a part: of each stage, its slowest view's."""
    if len(times) == 1:
        return times[0]
    fields = StageTimes.__struct_fields__
    return StageTimes(*(max((value for one in times if (value := getattr(one, name)) is not None), default=None) for name in fields))
