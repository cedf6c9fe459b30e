"""The names of a part's picture and of its heat maps: journal and archive derive them apart from each other and must agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inspector.contract.records import Outcome

if TYPE_CHECKING:
    from inspector.contract.records import ClosedPart, ClosedView

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


PICTURE_SUFFIX = ".jpg"
HEAT_SUFFIX = ".heat.png"


def _safe(text: str) -> str:
    """``text`` as part of a file name."""
    return "".join(letter if letter in _SAFE else "_" for letter in text)


def has_picture(part: ClosedPart, view: ClosedView) -> bool:
    """True: this view of the part goes to the archive (REJECT parts alone, where a picture was taken)."""
    return part.outcome is Outcome.REJECT and view.picture is not None


def picture_name(boot_id: str, part: ClosedPart, camera: str, closed_utc_ns: int) -> str:
    """Path of the picture under the archive's folder: ``YYYY-MM-DD/boot_stream_part-number_camera.jpg`` (date in UTC).

    Args:
        boot_id: the daemon's boot.
        part: the closed part.
        camera: whose view it is.
        closed_utc_ns: wall clock at the part's closing, ns since 1970 UTC.
    """
    day = datetime.fromtimestamp(closed_utc_ns // 1_000_000_000, tz=UTC).strftime("%Y-%m-%d")
    return f"{day}/{_safe(boot_id)}_{_safe(part.stream)}_{part.part_no:09d}_{_safe(camera)}{PICTURE_SUFFIX}"


def heat_name(picture: str) -> str:
    """Name of the file with a picture's heat maps, beside it: ``NAME.jpg`` has ``NAME.heat.png``, where a classifier looked at the part."""
    return picture.removesuffix(PICTURE_SUFFIX) + HEAT_SUFFIX
