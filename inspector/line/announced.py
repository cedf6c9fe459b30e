"""Which announced part a frame shows (docs/decisions/0008-announced-parts.md).

Pure. A frame is matched to an announcement only if every value that was announced agrees, no other announcement agrees too, and the chain
is unbroken: the announcements before it had their frames, and every frame had its announcement. Where the chain breaks (a part was removed,
added or not announced, a frame was lost, the belt or its encoder slipped) every part that is under way to that camera is in doubt: it gets no
frame any more. Parts that are announced afterwards begin a new chain. Order alone never matches anything; it only forbids.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inspector.contract.records import Event, EventLevel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.contract.records import View
    from inspector.line.parts import OpenPart

_FRAMES = 512
"""Frames of a camera that are remembered: an announcement that comes after its frame is known by them."""
_PASSED = 4096
"""Announcements of a camera that had their turn and are remembered: a second frame is known by them."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How one camera will know a part. What is None was not announced."""

    camera: str
    at_ns: int | None
    """Exposure, on the host's monotonic clock."""
    window_ns: int
    encoder: int | None
    encoder_window: int
    trigger_counter: int | None

    def fits(self, view: View) -> bool:
        """Whether everything that was announced agrees with the frame."""
        if self.at_ns is not None and abs(view.exposure_ns - self.at_ns) > self.window_ns:
            return False
        if self.encoder is not None and (view.encoder is None or abs(view.encoder - self.encoder) > self.encoder_window):
            return False
        return self.trigger_counter is None or view.trigger_counter == self.trigger_counter

    def seen_in(self, view: View) -> bool:
        """Whether the frame may be the part's own: one of the values that place it fits. A message that was long on its way tells a wrong time."""
        by_time = self.at_ns is not None and abs(view.exposure_ns - self.at_ns) <= self.window_ns
        return by_time or (self.encoder is not None and view.encoder is not None and abs(view.encoder - self.encoder) <= self.encoder_window)

    def fits_lost(self, view: View, since_ns: int) -> bool:
        """Whether it may be the trigger whose frame was lost, somewhen between ``since_ns`` and when it was noticed."""
        if self.at_ns is not None and not since_ns - self.window_ns <= self.at_ns <= view.opened_ns + self.window_ns:
            return False
        return self.trigger_counter is None or view.trigger_counter in {None, self.trigger_counter}

    def over_ns(self, view: View, now_ns: int) -> int:
        """When no second frame can be expected any more: the window is over, and a frame took as long as this one to come."""
        end_ns = view.exposure_ns if self.at_ns is None else self.at_ns
        return end_ns + self.window_ns + max(0, now_ns - view.exposure_ns)


@dataclass(slots=True, eq=False)
class Expected:
    """One camera's view of an announced part that is to come, or came."""

    keys: Keys
    part: OpenPart
    no: int
    """Number of the announcement at this camera."""
    had: View | None = None
    """The frame that was matched."""
    forget_ns: int = 0


@dataclass(frozen=True, slots=True)
class Doubled:
    """A second frame fits: the part's frame on this camera may be another part's."""

    part: OpenPart
    ticket: int
    cause: str


@dataclass(slots=True)
class Sighting:
    """What a frame has shown."""

    part: OpenPart | None = None
    """The announced part that it shows; None: none that is known."""
    over_ns: int = 0
    """A PASS of it is held until then."""
    doubled: list[Doubled] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Lane:
    """The announcements of one camera, in their order, and its frames."""

    def __init__(self, camera: str, deadline_ns: int, memory_ns: int) -> None:
        """``deadline_ns``: the product's; a frame that comes later than that after its exposure passes in no case.

        ``memory_ns``: how long a frame is remembered, so that an announcement that is later than its frame is known as such.
        """
        self._camera, self._deadline_ns, self._memory_ns = camera, deadline_ns, memory_ns
        self._waiting: dict[int, Expected] = {}
        """By number, so in the order of the announcements."""
        self._passed: deque[Expected] = deque(maxlen=_PASSED)
        self._frames: deque[View] = deque(maxlen=_FRAMES)
        self._last_no = 0
        self._doubtful_to = 0
        self._doubt = ""

    def seen(self, keys: Keys, now_ns: int) -> View | None:
        """A frame that may be the part's own and came before its announcement."""
        while self._frames and self._frames[0].opened_ns < now_ns - self._memory_ns:
            self._frames.popleft()
        return next((frame for frame in reversed(self._frames) if keys.seen_in(frame)), None)

    def expect(self, keys: Keys, part: OpenPart) -> Expected:
        """A part was announced."""
        self._last_no += 1
        one = self._waiting[self._last_no] = Expected(keys, part, self._last_no)
        return one

    def doubt(self, one: Expected) -> str:
        """Why its frame was not taken for it; empty: there was no such doubt."""
        return self._doubt if one.no <= self._doubtful_to and one.had is None else ""

    def end(self, one: Expected, now_ns: int) -> list[Event]:
        """Its part has ended. If no frame had come, the chain is broken."""
        if one.no not in self._waiting:
            return []
        self._pass(one, now_ns)
        return self._break(f"part {one.part.part_id} did not come", now_ns)

    def see(self, view: View, now_ns: int) -> Sighting:
        """A frame came, or the camera says that one was lost (without frame id)."""
        while self._passed and self._passed[0].forget_ns < now_ns:
            self._passed.popleft()
        if view.frame_id is None:
            return self._see_lost(view, now_ns)
        self._frames.append(view)
        fits = [one for group in (self._waiting.values(), self._passed) for one in group if one.keys.fits(view)]
        one = fits[0] if len(fits) == 1 else None
        if one is None or one.no not in self._waiting:
            return self._unmatched(view, fits, now_ns)
        first = next(iter(self._waiting))
        sighting = Sighting()
        if first != one.no:
            missing = self._waiting[first].part.part_id
            for before in [other for other in self._waiting.values() if other.no < one.no]:
                self._pass(before, now_ns)
            sighting.events = self._break(f"part {one.part.part_id} came, part {missing} before it did not", now_ns)
        return self._matched(one, view, sighting, now_ns)

    def _matched(self, one: Expected, view: View, sighting: Sighting, now_ns: int) -> Sighting:
        self._pass(one, now_ns)
        if one.no <= self._doubtful_to:
            sighting.events.append(self._unannounced(view, f"it fits part {one.part.part_id} only, but {self._doubt}", now_ns))
            return sighting
        one.had = view
        sighting.part, sighting.over_ns = one.part, one.keys.over_ns(view, now_ns)
        return sighting

    def _unmatched(self, view: View, fits: list[Expected], now_ns: int) -> Sighting:
        names = ", ".join(str(one.part.part_id) for one in fits[:4])
        if not fits:
            cause = "no announcement fits it"
        elif len(fits) == 1:
            cause = f"part {names}, the only one that it fits, had its frame"
        else:
            cause = f"{len(fits)} announcements fit it ({names}{', ...' if len(fits) > 4 else ''})"
        event = self._unannounced(view, cause, now_ns)
        detail = f"its image cannot be told from another part's: frame {view.frame_id} fits it too"
        doubled = [Doubled(one.part, one.had.ticket, detail) for one in fits if one.had is not None]
        return Sighting(doubled=doubled, events=[event, *self._break(f"of frame {view.frame_id} {cause}", now_ns)])

    def _see_lost(self, view: View, now_ns: int) -> Sighting:
        """The next part that is to come is the one whose frame was lost, if that is possible; it is UNINSPECTED in any case."""
        since_ns = self._frames[-1].exposure_ns if self._frames else 0
        one = next(iter(self._waiting.values()), None)
        if one is not None and one.keys.fits_lost(view, since_ns):
            return self._matched(one, view, Sighting(), now_ns)
        cause = "no announcement fits it"
        return Sighting(events=[self._unannounced(view, cause, now_ns), *self._break(f"of a lost frame {cause}", now_ns)])

    def _pass(self, one: Expected, now_ns: int) -> None:
        """It had its turn, with a frame or without."""
        if self._waiting.pop(one.no, None) is not None:
            end_ns = now_ns if one.keys.at_ns is None else max(now_ns, one.keys.at_ns + one.keys.window_ns)
            one.forget_ns = end_ns + self._deadline_ns
            self._passed.append(one)

    def _break(self, cause: str, now_ns: int) -> list[Event]:
        hit = sum(1 for no in self._waiting if no > self._doubtful_to)
        if self._last_no > self._doubtful_to:
            self._doubtful_to, self._doubt = self._last_no, cause
        if not hit:
            return []
        detail = f"{cause}: the frames of {hit} announced parts that are under way cannot be told from one another"
        return [Event("announcements_in_doubt", EventLevel.WARNING, detail, now_ns, self._camera)]

    def _unannounced(self, view: View, cause: str, now_ns: int) -> Event:
        what = "a lost frame" if view.frame_id is None else f"frame {view.frame_id}"
        return Event("unannounced_part", EventLevel.WARNING, f"{what} becomes a part without id: {cause}", now_ns, self._camera)


class Announcements:
    """The lanes of all cameras that know their parts by announcements only."""

    def __init__(self, cameras: Iterable[str], deadline_ns: int, memory_ns: int) -> None:
        self._lanes = {camera: Lane(camera, deadline_ns, memory_ns) for camera in cameras}
        self._by_part: dict[OpenPart, list[Expected]] = {}

    def identifies(self, camera: str) -> bool:
        """Whether the parts of ``camera`` are known by announcements only."""
        return camera in self._lanes

    def seen(self, keys: Keys, now_ns: int) -> View | None:
        """A frame that may be the part's own and came before its announcement."""
        return self._lanes[keys.camera].seen(keys, now_ns)

    def expect(self, part: OpenPart, all_keys: Iterable[Keys]) -> None:
        """A part was announced."""
        self._by_part[part] = [self._lanes[keys.camera].expect(keys, part) for keys in all_keys]

    def see(self, view: View, now_ns: int) -> Sighting:
        """A frame of a camera that ``identifies`` names came or was lost."""
        return self._lanes[view.camera].see(view, now_ns)

    def doubts(self, part: OpenPart) -> dict[str, str]:
        """Why no frame was taken for ``part``, by camera."""
        return {one.keys.camera: doubt for one in self._by_part.get(part, ()) if (doubt := self._lanes[one.keys.camera].doubt(one))}

    def end(self, part: OpenPart, now_ns: int) -> list[Event]:
        """``part`` has ended."""
        return [event for one in self._by_part.pop(part, ()) for event in self._lanes[one.keys.camera].end(one, now_ns)]
