"""Closed parts as the line thread would hand them on, for tests of what comes after the wire."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from inspector.contract.records import Action, Box, ClosedPart, ClosedView, Defect, Outcome, Picture, Proposal, Reason, StageTimes, View

TIMES = StageTimes(transfer_ms=1.0, queue_ms=0.5, validity_ms=0.1, preprocess_ms=0.4, engine_ms=6.0, rules_ms=0.05, total_ms=8.5)


def make_defect(name: str = "scratch", *, score: float = 0.9, counted: bool = True, camera: str = "top") -> Defect:
    return Defect(
        name=name,
        score=score,
        box_px=Box(10.0, 20.0, 60.0, 50.0),
        counted=counted,
        source="multiscale",
        camera=camera,
        box_mm=Box(1.0, 2.0, 6.0, 5.0),
        area_mm2=15.0,
    )


def make_part(
    number: int,
    outcome: Outcome = Outcome.PASS,
    *,
    reason: Reason | None = None,
    defects: tuple[Defect, ...] | None = None,
    pictures: tuple[Picture, ...] = (),
    camera: str = "top",
    **changes: Any,
) -> ClosedPart:
    """Part ``number`` of a stream; one view, or one per picture. ``changes``: any field of ClosedPart."""
    now_ns = time.monotonic_ns()
    if defects is None:
        defects = (make_defect(camera=camera),) if outcome is Outcome.REJECT else ()
    views = []
    for picture in pictures or (None,):
        view = View(
            ticket=number,
            camera=picture.camera if picture else camera,
            part_id=f"P{number}",
            frame_id=number,
            frame_no=number,
            encoder=10 * number,
            trigger_counter=number,
            exposure_ns=now_ns - 8_500_000,
            opened_ns=now_ns - 7_500_000,
            deadline_ns=now_ns + 40_000_000,
        )
        views.append(ClosedView(view=view, outcome=outcome, reason=reason, detail="", times=TIMES, picture=picture))
    part = ClosedPart(
        stream=camera,
        part_no=number,
        seq=number,
        part_id=f"P{number}",
        outcome=outcome,
        reason=reason,
        detail="",
        action=Action.PASS if outcome is Outcome.PASS else Action.REJECT,
        defects=defects,
        views=tuple(views),
        times=TIMES,
        exposure_ns=now_ns - 8_500_000,
        opened_ns=now_ns - 7_500_000,
        deadline_ns=now_ns + 40_000_000,
        closed_ns=now_ns,
        product="profile",
        product_version="3",
        engines=("ab" * 32,),
        closed_utc_ns=time.time_ns(),
    )
    return msgspec.structs.replace(part, **changes)


def make_proposal(outcome: Outcome = Outcome.REJECT, picture: Picture | None = None) -> Proposal:
    return Proposal(ticket=1, outcome=outcome, defects=(make_defect(),), times=TIMES, picture=picture)
