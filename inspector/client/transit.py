"""How long a message was under way, judged by those that came fastest."""

from __future__ import annotations

import math

_WINDOW_NS = 10_000_000_000
"""The fastest of 10 to 20 s: long enough to hold a fast one, short enough for clocks that drift apart (0.1 ms in 1 s at most)."""


class Transit:
    """Puts the age of a boot on the controller's clock. The least delay that was seen counts as none."""

    def __init__(self) -> None:
        self._begun_ns: int | None = None
        self._before_ms = self._now_ms = math.inf

    def arrived(self, boot_age_ms: float, now_ns: int) -> float:
        """A message that was sent at ``boot_age_ms`` is here: by how many milliseconds it is later than the fastest ones, at least 0."""
        if self._begun_ns is None:
            self._begun_ns = now_ns
        elif now_ns - self._begun_ns > _WINDOW_NS:
            self._begun_ns, self._before_ms, self._now_ms = now_ns, self._now_ms, math.inf
        self._now_ms = min(self._now_ms, now_ns / 1e6 - boot_age_ms)
        return now_ns / 1e6 - boot_age_ms - self._offset_ms

    def boot_age_ms(self, now_ns: int) -> float:
        """How old the boot is now, at least."""
        return now_ns / 1e6 - self._offset_ms if self._begun_ns is not None else -math.inf

    @property
    def _offset_ms(self) -> float:
        return min(self._before_ms, self._now_ms)
