"""How much of something may be used: token buckets for requests, and a share of the interpreter for a thread. Pure."""

from __future__ import annotations


class Allowance:
    """A token bucket: ``per_s`` in the long run, ``burst`` at once. Begins full."""

    __slots__ = ("_at_ns", "_burst", "_left", "_per_ns")

    def __init__(self, per_s: float, burst: float, now_ns: int) -> None:
        self._per_ns, self._burst, self._left, self._at_ns = per_s / 1e9, burst, burst, now_ns

    def take(self, now_ns: int, tokens: float = 1.0) -> bool:
        """Take ``tokens``; False: there are not enough, and none is taken."""
        self._left = min(self._burst, self._left + (now_ns - self._at_ns) * self._per_ns)
        self._at_ns = now_ns
        if self._left < tokens:
            return False
        self._left -= tokens
        return True


class Share:
    """A thread's share of the interpreter: it works, says what it has used, and rests until it may go on.

    A busy Python thread makes every other one wait for the interpreter; one that rests nine tenths of the time cannot.
    """

    __slots__ = ("_at_ns", "_burst_ns", "_left_ns", "_share")

    def __init__(self, share: float, burst_ns: int, now_ns: int) -> None:
        """``share``: 0..1 in the long run; ``burst_ns``: CPU time that may be used at once."""
        self._share, self._burst_ns, self._left_ns, self._at_ns = share, burst_ns, float(burst_ns), now_ns

    def use(self, cpu_ns: int, now_ns: int) -> None:
        """Note CPU time that was used; it may exceed what was left."""
        self._left_ns = min(self._burst_ns, self._left_ns + (now_ns - self._at_ns) * self._share) - cpu_ns
        self._at_ns = now_ns

    def rest_ns(self, now_ns: int) -> int:
        """How long to rest from now; 0: go on."""
        left_ns = self._left_ns + (now_ns - self._at_ns) * self._share
        return 0 if left_ns > 0 else int(-left_ns / self._share) + 1
