"""How many pictures are kept: the oldest make room for the newest."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from inspector.contract.pictures import HEAT_SUFFIX, PICTURE_SUFFIX, heat_name

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED = ".part"
"""Ending of a file that is being written."""


def heat_file(picture: Path) -> Path:
    """Where a picture's heat maps lie, if it has any."""
    return picture.with_name(heat_name(picture.name))


class Retention:
    """The pictures under one folder, oldest first; used by one thread. A picture's heat maps come and go with it, and do not count.

    Args:
        folder: the archive's folder, with one folder per day in it.
        max_pictures: how many may be there.
    """

    def __init__(self, folder: Path, max_pictures: int) -> None:
        self._folder = folder
        self._max = max_pictures
        self._files: deque[Path] = deque()

    def __len__(self) -> int:
        return len(self._files)

    def scan(self) -> None:
        """Take stock of what earlier starts left, and remove what a crash left half written, or heat maps without their picture.

        Raises:
            OSError: the folder cannot be read.
        """
        for unfinished in self._folder.glob(f"????-??-??/*{UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        pictures = [(path.parent.name, path.stat().st_mtime_ns, path) for path in self._folder.glob(f"????-??-??/*{PICTURE_SUFFIX}")]
        kept = {heat_file(path) for _, _, path in pictures}
        for heat in self._folder.glob(f"????-??-??/*{HEAT_SUFFIX}"):
            if heat not in kept:
                heat.unlink(missing_ok=True)
        self._files = deque(path for _, _, path in sorted(pictures))

    def make_room(self) -> None:
        """Remove the oldest until one more fits.

        Raises:
            OSError: a picture cannot be removed.
        """
        while len(self._files) >= self._max:
            oldest = self._files[0]
            heat_file(oldest).unlink(missing_ok=True)
            oldest.unlink(missing_ok=True)
            self._files.popleft()
            if not self._files or self._files[0].parent != oldest.parent:
                with contextlib.suppress(OSError):  # something else lies in that day's folder: it stays
                    oldest.parent.rmdir()

    def add(self, path: Path) -> None:
        """A picture was written."""
        self._files.append(path)
