"""Whether a station whose parts are known by announcements only can tell them from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.config.station import StationFiles


def announce_problems(files: StationFiles, source: Path) -> list[str]:
    """What cannot be safe, or cannot work, with ``identity.part_id = "announced"``; one line each."""
    station, channel, deadline_ms = files.station, files.station.channel, files.product.deadline_ms
    known = [(index, camera) for index, camera in enumerate(station.cameras) if camera.identity.part_id == "announced"]
    problems = []
    if known and 2 * channel.announce_window_ms >= deadline_ms:
        problems.append(
            f"{source}: channel.announce_window_ms: {channel.announce_window_ms:g} must be less than half of the product's deadline_ms "
            f"({deadline_ms:g}): a PASS waits until the window is over, so that a second frame in it is seen"
        )
    problems += [
        f"{source}: cameras.{index}.identity.part_id: a folder of pictures has no encoder that could tell announced parts: "
        'set channel.announce_by = "time" (safe only if the belt never changes its speed)'
        for index, camera in known
        if camera.kind == "folder" and channel.announce_by != "time"
    ]
    return problems
