"""Which parts are in the journal, told by their numbers in the flight recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.records import ClosedPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.contract.records import OutputItem

Runs = tuple[tuple[int, int], ...]
"""First and last number of each run."""
_RUNS = 256


class Watermark:
    """Up to which number all is on the disk, and what is missing below it. The caller lets one thread at a time inside."""

    def __init__(self) -> None:
        self._missing: list[tuple[int, int]] = []

    def lost(self, item: OutputItem) -> None:
        """``item`` was refused or dropped: it is not in the journal and will not come."""
        if not isinstance(item, ClosedPart) or not item.record_no:
            return
        number = item.record_no
        if self._missing and self._missing[-1][1] == number - 1:
            self._missing[-1] = (self._missing[-1][0], number)
            return
        self._missing.append((number, number))
        if len(self._missing) > _RUNS:
            # What lies between the two oldest runs counts as missing too: the safe side, and it is the first to be overwritten.
            self._missing[:2] = [(min(self._missing[0][0], self._missing[1][0]), max(self._missing[0][1], self._missing[1][1]))]

    def committed(self, items: Iterable[OutputItem]) -> tuple[int, Runs] | None:
        """``items`` are on the disk: the highest number that is, and the runs below it that are not; None: there is no recorded part among them."""
        number = max((item.record_no for item in items if isinstance(item, ClosedPart)), default=0)
        return (number, tuple(self._missing)) if number else None
