"""The kinds of faults: a name, a group, what it needs, and a function that plays it on a plant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plant import ChaosError, Plant


@dataclass(frozen=True)
class Injected:
    """The witness: how often the fault happened, and who says so. None at all fails the run."""

    times: int
    witness: str


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    group: str
    play: Callable[[Plant], Injected]
    needs_root: bool = False
    """It mounts, or lays a network of its own: played in name spaces of its own, which vanish with it."""
    subset: bool = False
    """Part of the few that every run of the tests plays."""
    least_passed: int = 20
    """So many parts must have passed at the controller, else nothing was shown."""

    @property
    def text(self) -> str:
        """The first line of what it does."""
        return (self.play.__doc__ or "").strip().partition("\n")[0]


KINDS: dict[str, Kind] = {}


def kind(
    name: str, group: str, *, needs_root: bool = False, subset: bool = False, least_passed: int = 20
) -> Callable[[Callable[[Plant], Injected]], Callable[[Plant], Injected]]:
    """Register a function as a kind."""

    def register(play: Callable[[Plant], Injected]) -> Callable[[Plant], Injected]:
        if name in KINDS:
            raise ValueError(f"two kinds are called {name}")
        KINDS[name] = Kind(name, group, play, needs_root, subset, least_passed)
        return play

    return register


def at_least(times: int, least: int, witness: str) -> Injected:
    """The witness, which must have seen the fault so often."""
    if times < least:
        raise ChaosError(f"the fault happened {times} times, not {least}: nothing was shown ({witness})")
    return Injected(times, witness)
