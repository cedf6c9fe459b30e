"""Which parts are numbered together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Streams:
    """Which parts are numbered together: one stream per camera, or one for a group of cameras.

    Raises:
        ValueError: the group names a camera that the station does not have.
    """

    def __init__(self, cameras: Sequence[str], group: Sequence[str] = ()) -> None:
        """``group``: cameras that see one part together (the product's ``views``); empty: none do."""
        unknown = [name for name in group if name not in cameras]
        if unknown:
            raise ValueError(f"the group names cameras that the station does not have: {', '.join(unknown)}")
        self.group = tuple(group)
        self.group_stream = "+".join(group)
        self._of = {name: self.group_stream if name in group else name for name in cameras}
        self.names: tuple[str, ...] = tuple(dict.fromkeys(self._of.values()))

    def of(self, camera: str) -> str:
        """The stream of ``camera``; what is no camera's name is returned as it is."""
        return self._of.get(camera, camera)

    def cameras(self, stream: str) -> tuple[str, ...]:
        """The cameras of ``stream``; one, or the group."""
        return self.group if self.group and stream == self.group_stream else (stream,)
