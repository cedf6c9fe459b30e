"""Nothing passes in a blind interval: what the line thread knows of every camera's sight, and what that does to a PASS.

A frame that a stalled or frozen camera process kept back and delivers later may be inspected like any other; that its part was
exposed while the station was told as blind decides all the same. While an interval goes on, its end is not known: a PASS of a part
exposed in it waits, for the end or for its deadline. A defect that was found stays found, and what is UNINSPECTED stays so.

The interval's first instant belongs to it for whatever is opened after it was told. A camera without time stamps gives every frame that its
driver kept back the time of the last look at which there was none: the very time of the newest frame before the freeze, at which it begins.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from inspector.contract.records import Outcome, Reason

if TYPE_CHECKING:
    from inspector.contract.records import Blind, Proposal, View

_REMEMBERED = 256
"""Finished intervals of a camera; before the oldest of them nothing passes any more."""


@dataclass(slots=True)
class _Camera:
    newest_ns: int = 0
    """Exposure of the newest frame that was opened: up to it the camera saw, or the daemon has noticed what is missing."""
    newest_ticket: int = 0
    """Of the views of frames, the last that was opened."""
    told_from_ns: int | None = None
    """The open interval, as its teller knows it; None: the camera sees."""
    from_ns: int = 0
    """The open interval, as published."""
    from_ticket: int = 0
    """``newest_ticket`` when it was told."""
    finished: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    last_ns: int = 0
    """No finished interval ends later."""
    forgotten_ns: int = 0


class LineSight:
    """The blind intervals of all cameras, as published. Not thread-safe: the line thread alone owns it."""

    def __init__(self) -> None:
        self._cameras: dict[str, _Camera] = {}
        self._held: dict[int, tuple[str, Proposal]] = {}

    def blind(self, camera: str) -> bool:
        """Whether ``camera`` cannot see now."""
        known = self._cameras.get(camera)
        return known is not None and known.told_from_ns is not None

    def opened(self, view: View) -> None:
        """A view was opened: a frame proves that the camera saw."""
        if view.frame_id is not None:
            camera = self._camera(view.camera)
            camera.newest_ns = max(camera.newest_ns, view.exposure_ns)
            camera.newest_ticket = max(camera.newest_ticket, view.ticket)

    def told(self, blind: Blind) -> Blind:
        """Note an interval, open or finished.

        Returns:
            It as it is to be published: an open one begins after the newest frame that was opened already. The camera process may die
            after it has delivered a frame and before it says that it did.
        """
        camera = self._camera(blind.stream)
        if blind.to_ns is None:
            camera.told_from_ns = blind.from_ns
            camera.from_ns, camera.from_ticket = max(blind.from_ns, camera.newest_ns), camera.newest_ticket
            return msgspec.structs.replace(blind, from_ns=camera.from_ns)
        ticket = camera.newest_ticket
        if camera.told_from_ns == blind.from_ns:  # another interval, told afterwards, ends nothing
            camera.told_from_ns, ticket = None, camera.from_ticket
            blind = msgspec.structs.replace(blind, from_ns=camera.from_ns, to_ns=max(blind.to_ns, camera.from_ns))
        finished = (blind.from_ns, blind.to_ns or blind.from_ns, ticket)
        if len(camera.finished) == _REMEMBERED:
            camera.forgotten_ns = max(camera.forgotten_ns, camera.finished[0][1])
        camera.finished.append(finished)
        camera.last_ns = max(camera.last_ns, finished[1])
        return blind

    def judge(self, view: View, proposal: Proposal) -> Proposal | None:
        """What becomes of ``proposal`` for ``view``; None: it is held until the interval ends, ask ``released`` then."""
        known = self._cameras.get(view.camera)
        if known is None or proposal.outcome is not Outcome.PASS:
            return proposal
        at_ns = view.exposure_ns
        inside = (begin for begin, end, ticket in known.finished if at_ns < end and _holds(begin, ticket, view))
        if at_ns < known.last_ns and (at_ns < known.forgotten_ns or any(True for _ in inside)):
            detail = "the part was exposed while the camera was told as blind"
            return msgspec.structs.replace(proposal, outcome=Outcome.UNINSPECTED, reason=Reason.CAMERA_LOST, detail=detail)
        if known.told_from_ns is not None and _holds(known.from_ns, known.from_ticket, view):
            self._held[proposal.ticket] = (view.camera, proposal)
            return None
        return proposal

    def released(self, camera: str) -> list[Proposal]:
        """Proposals that were held for ``camera``, in their order, to be judged again."""
        tickets = [ticket for ticket, (name, _) in self._held.items() if name == camera]
        return [self._held.pop(ticket)[1] for ticket in tickets]

    def forget(self, ticket: int) -> Proposal | None:
        """The view is closed; the proposal that was held for it, if any."""
        return self._held.pop(ticket, (None, None))[1] if self._held else None

    def _camera(self, name: str) -> _Camera:
        camera = self._cameras.get(name)
        if camera is None:
            camera = self._cameras[name] = _Camera()
        return camera


def _holds(begin_ns: int, ticket: int, view: View) -> bool:
    """Whether an interval that begins at ``begin_ns``, told when ``ticket`` was the newest, has begun for a view."""
    return view.exposure_ns > begin_ns or (view.exposure_ns == begin_ns and view.ticket > ticket)
