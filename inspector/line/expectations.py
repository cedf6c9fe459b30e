"""Whether an announcement makes sense, and what it says of the part: the keys of each camera, and until when it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.line.announced import Keys

if TYPE_CHECKING:
    from inspector.contract.requests import Announce, Expectation
    from inspector.line.settings import Announcing
    from inspector.line.streams import Streams


_BY = {
    "time_and_encoder": "time and encoder, because neither alone sees every mishap (channel.announce_by)",
    "time": "time (channel.announce_by)",
    "encoder": "encoder (channel.announce_by)",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """An announcement, understood."""

    keys: tuple[Keys, ...]
    """One per camera that knows its parts by announcements only; cameras that latch the part id have none."""
    deadline_ns: int


def plan(request: Announce, asked_ns: int, streams: Streams, rules: Announcing) -> Plan:
    """Understand ``request``, which was made at ``asked_ns``.

    Raises:
        ValueError: the stream is unknown or its cameras do not know announced parts, or the expectations do not tell the part from another.
    """
    if request.stream not in streams.names:
        raise ValueError(f"stream {request.stream!r}: the station has none of this name, but {', '.join(streams.names)}")
    cameras = streams.cameras(request.stream)
    for camera in cameras:
        if rules.part_id(camera) == "frame":
            raise ValueError(
                f"stream {request.stream!r}: camera {camera} knows its parts by frame id only: "
                "set its identity.part_id to announced, trigger_counter or encoder to announce parts"
            )
    by_camera = _by_camera(request, cameras)
    keys: list[Keys] = []
    for camera in cameras:
        latched = rules.part_id(camera) != "announced"
        wanted = by_camera.get(camera)
        if latched and wanted is not None:
            raise ValueError(
                f"part {request.part_id!r}: camera {camera} latches the part id (its {rules.part_id(camera)}): leave the expectation out"
            )
        if not latched:
            if wanted is None:
                raise ValueError(f"part {request.part_id!r}: an expectation for camera {camera} is missing")
            keys.append(_keys(request, camera, wanted, asked_ns, rules))
    return Plan(tuple(keys), _deadline_ns(request, keys, asked_ns, rules))


def _by_camera(request: Announce, cameras: tuple[str, ...]) -> dict[str, Expectation]:
    found: dict[str, Expectation] = {}
    for one in request.expect:
        if one.camera is None and len(cameras) > 1:
            raise ValueError(
                f"part {request.part_id!r}: stream {request.stream!r} has the cameras {', '.join(cameras)}: name one in each expectation"
            )
        camera = cameras[0] if one.camera is None else one.camera
        if camera not in cameras:
            raise ValueError(f"part {request.part_id!r}: stream {request.stream!r} has no camera {camera!r}, but {', '.join(cameras)}")
        if camera in found:
            raise ValueError(f"part {request.part_id!r}: two expectations for camera {camera}")
        found[camera] = one
    return found


def _keys(request: Announce, camera: str, wanted: Expectation, asked_ns: int, rules: Announcing) -> Keys:
    for name, value, other in (("in_ms", wanted.in_ms, "encoder"), ("encoder", wanted.encoder, "time")):
        if value is None and rules.by != other:
            raise ValueError(f"part {request.part_id!r}: {name} is missing for camera {camera}: the station matches parts by {_BY[rules.by]}")
    window_ns = rules.window_ns if wanted.window_ms is None else int(wanted.window_ms * 1e6)
    if 2 * window_ns >= rules.deadline_ns:
        raise ValueError(
            f"part {request.part_id!r}: window_ms {window_ns / 1e6:g} of camera {camera} must be less than half of "
            f"the product's deadline of {rules.deadline_ns / 1e6:g} ms: a PASS waits until the window is over"
        )
    return Keys(
        camera,
        None if wanted.in_ms is None else asked_ns + int(wanted.in_ms * 1e6),
        window_ns,
        wanted.encoder,
        rules.encoder_window if wanted.encoder_window is None else wanted.encoder_window,
        wanted.trigger_counter,
    )


def _deadline_ns(request: Announce, keys: list[Keys], asked_ns: int, rules: Announcing) -> int:
    """The given time; else the latest expected exposure, its window and the product's deadline; else the station's patience."""
    ends_ns = [one.at_ns + one.window_ns for one in keys if one.at_ns is not None]
    if request.timeout_ms is not None:
        deadline_ns = asked_ns + int(request.timeout_ms * 1e6)
        if ends_ns and deadline_ns < max(ends_ns):
            raise ValueError(f"part {request.part_id!r}: timeout_ms {request.timeout_ms:g} is over before the part is expected")
        return deadline_ns
    if ends_ns and len(ends_ns) == len(keys):
        return max(ends_ns) + rules.deadline_ns
    return asked_ns + rules.timeout_ns
