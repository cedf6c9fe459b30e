"""How many pictures are kept: the oldest make room for the newest."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED = ".part"
"""Ending of a picture that is being written."""


class Retention:
    """The pictures under one folder, oldest first; used by one thread.

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
        """Take stock of what earlier starts left, and remove pictures that a crash left half written.

        Raises:
            OSError: the folder cannot be read.
        """
        for unfinished in self._folder.glob(f"????-??-??/*{UNFINISHED}"):
            unfinished.unlink(missing_ok=True)
        pictures = [(path.parent.name, path.stat().st_mtime_ns, path) for path in self._folder.glob("????-??-??/*.jpg")]
        self._files = deque(path for _, _, path in sorted(pictures))

    def make_room(self) -> None:
        """Remove the oldest until one more fits.

        Raises:
            OSError: a picture cannot be removed.
        """
        while len(self._files) >= self._max:
            oldest = self._files[0]
            oldest.unlink(missing_ok=True)
            self._files.popleft()
            if not self._files or self._files[0].parent != oldest.parent:
                with contextlib.suppress(OSError):  # something else lies in that day's folder: it stays
                    oldest.parent.rmdir()

    def add(self, path: Path) -> None:
        """A picture was written."""
        self._files.append(path)
