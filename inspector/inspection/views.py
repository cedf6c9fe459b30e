"""What a record has shown, and the making of one camera's views."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from inspector.contract.records import Event, EventLevel, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.contract.channel import FrameRecord
    from inspector.contract.records import Blind, Reason

_REMEMBERED = 65_536
"""Encoder values that are no second part's id. One of 32 bits that rolls over comes back after far more parts."""


@dataclass(slots=True)
class Seen:
    """What a record, or the passing of time, has shown."""

    view: View | None = None
    """The frame's own view; None: it opens none (a duplicate, or evidence for a part that is closed)."""
    lost: list[View] = field(default_factory=list)
    """Views without an image, UNINSPECTED from the start; they come before ``view``."""
    events: list[Event] = field(default_factory=list)
    blinds: list[Blind] = field(default_factory=list)


class ViewMaker:
    """Gives each view its ticket, part id and deadline."""

    def __init__(
        self, camera: str, part_id: Literal["trigger_counter", "encoder", "announced", "frame"], deadline_ns: int, tickets: Iterator[int]
    ) -> None:
        """``part_id``: what the line knows a part by; ``deadline_ns``: exposure to deadline."""
        self._camera, self._rule, self._deadline_ns, self._tickets = camera, part_id, deadline_ns, tickets
        self._encoders: OrderedDict[int, None] = OrderedDict()
        """The last ids that an encoder gave, over restarts of the camera process too: the line may stand still meanwhile, or run backwards."""

    def lost(self, triggers: Sequence[int | None], reasons: Sequence[Reason], between_ns: tuple[int, int], now_ns: int) -> list[View]:
        """Views without an image, one per reason, their exposures spread evenly between two times on the host's clock."""
        since_ns, until_ns = min(between_ns), between_ns[1]
        views = []
        for index, (trigger, reason) in enumerate(zip(triggers, reasons, strict=True)):
            exposure_ns = since_ns + (until_ns - since_ns) * (index + 1) // (len(reasons) + 1)
            views.append(
                View(
                    ticket=next(self._tickets),
                    camera=self._camera,
                    part_id=str(trigger) if self._rule == "trigger_counter" and trigger is not None else None,
                    frame_id=None,
                    frame_no=None,
                    encoder=None,
                    trigger_counter=trigger,
                    exposure_ns=exposure_ns,
                    opened_ns=now_ns,
                    deadline_ns=exposure_ns + self._deadline_ns,
                    reason=reason,
                ),
            )
        return views

    def own(self, seen: Seen, record: FrameRecord, frame_no: int, exposure_ns: int, now_ns: int, reason: Reason | None, *, repeated: bool) -> None:
        """Add a frame's view; ``repeated``: a second exposure of one trigger, whose id has its verdict already.

        An encoder that stands still or runs backwards tells the second exposure's part no more than a repeated trigger does.
        """
        part_id: str | None = None
        if self._rule == "encoder" and record.encoder is not None:
            if record.encoder in self._encoders:
                detail = f"frame {record.frame_id} came with the encoder value {record.encoder} of an earlier frame: it gets no part id"
                seen.events.append(Event("repeated_encoder", EventLevel.WARNING, detail, now_ns, self._camera))
            else:
                part_id = str(record.encoder)
            self._encoders[record.encoder] = None
            if len(self._encoders) > _REMEMBERED:
                self._encoders.popitem(last=False)
        elif self._rule == "trigger_counter" and record.trigger_counter is not None and not repeated:
            part_id = str(record.trigger_counter)
        seen.view = View(
            ticket=next(self._tickets),
            camera=self._camera,
            part_id=part_id,
            frame_id=record.frame_id,
            frame_no=frame_no,
            encoder=record.encoder,
            trigger_counter=record.trigger_counter,
            exposure_ns=exposure_ns,
            opened_ns=now_ns,
            deadline_ns=exposure_ns + self._deadline_ns,
            reason=reason,
            transfer_ms=(record.received_ns - exposure_ns) / 1e6,
        )
