"""The judge: holds every trigger of the simulated line against what the controllers decided, the journal and the published blind intervals.

A trigger is *unaccounted* if it has neither exactly one outcome nor lies in a blind interval. A *false PASS* is a part that a controller would have let
pass although this very part's image was not inspected and found good, in time, by a living daemon that saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from time import monotonic_ns, time_ns
from typing import Any

import numpy as np
from plant import MS, Listener, Plant

from inspector.camera.simulator.nodes import Fault

CLOCKS_NS = 2 * MS
"""Exposures and intervals are logged as UTC, each by its own look at the wall clock."""
TRANSFER_NS = 20 * MS
"""An exposure on the host's clock is known to this: what the least frame is on its way, on a busy machine."""
DEAD_NS = 150 * MS
"""So long after its end a daemon is known as dead."""
IN_FLIGHT_NS = 60 * MS
"""What was exposed so shortly before SIGKILL may not have reached the ledger: nobody was told of it, and it does not pass."""
UNSEEN = Fault.DROP | Fault.INCOMPLETE | Fault.BLACK | Fault.SATURATED | Fault.FROZEN | Fault.UNDERRUN
"""A trigger with one of these has no image that could be inspected."""
NOT_BEFORE_THE_NEXT = UNSEEN | Fault.REORDER | Fault.STALL | Fault.LOST | Fault.ABSENT
"""The image of such a trigger did not arrive before the next one's."""


@dataclass
class Judgement:
    """One line of the table."""

    parts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    in_blind: int = 0
    unaccounted: list[str] = field(default_factory=list)
    false_pass: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    passed_at_controller: int = 0


@dataclass
class Told:
    """One verdict, by whichever witness."""

    boot: str
    stream: str
    part_no: int
    part_id: str | None
    outcome: str
    reason: str | None


class Intervals:
    """Blind intervals of one stream, on this host's monotonic clock."""

    def __init__(self, plant: Plant, stream: str) -> None:
        self.offset_ns = time_ns() - monotonic_ns()
        found: dict[tuple[str, int], tuple[float, float]] = {}
        first_ns: dict[str, float] = {}
        for boot, begin, end in self._told(plant, stream):
            first_ns[boot] = min(begin, first_ns.get(boot, begin))
            key = (boot, int(begin) // (5 * MS) if plant.clock_shifted else int(begin))
            known = found.get(key)
            if known is None or end < known[1]:
                found[key] = (begin, end)
        starts = [first_ns.get(boot.name, float("inf")) if boot.name else float("inf") for boot in plant.boots]
        lives = {boot.name: index for index, boot in enumerate(plant.boots) if boot.name}
        self.published: list[tuple[float, float]] = []
        for (boot, _), (begin, end) in found.items():
            following = min(starts[lives[boot] + 1 :], default=float("inf")) if boot in lives else end
            self.published.append((begin, min(end, following)))
        self.no_daemon = [
            (boot.ended_ns - (IN_FLIGHT_NS if boot.killed else 0), min(starts[index + 1 :], default=float("inf")))
            for index, boot in enumerate(plant.boots)
            if boot.ended_ns is not None
        ]

    def _told(self, plant: Plant, stream: str) -> list[tuple[str, float, float]]:
        told: list[tuple[str, float, float]] = []
        for listener in plant.listeners[:1]:
            for note in listener.of("blind"):
                if note["stream"] != stream:
                    continue
                from_ago, to_ago, from_utc, to_utc = note["ends"]
                if plant.clock_shifted:
                    told.append((note["boot"], note["at"] - from_ago * MS, float("inf") if to_ago is None else note["at"] - to_ago * MS))
                else:
                    told.append((note["boot"], from_utc - self.offset_ns, float("inf") if to_utc is None else to_utc - self.offset_ns))
        if not plant.clock_shifted:
            for one in plant.blinds():
                if one.stream == stream:
                    end = float("inf") if one.to_utc_ns is None else one.to_utc_ns - self.offset_ns
                    told.append((one.boot_id, one.from_utc_ns - self.offset_ns, end))
        return told

    def covers(self, at_ns: int) -> bool:
        """Whether nothing passes at that time, by what was published or because no daemon ran."""
        return any(begin <= at_ns <= end for begin, end in self.published + self.no_daemon)

    def deep(self, at_ns: int, margin_ns: int) -> bool:
        """Whether it lies deeper than ``margin_ns`` inside of an interval."""
        inside = any(begin + margin_ns <= at_ns <= end - margin_ns for begin, end in self.published)
        return inside or any(begin + IN_FLIGHT_NS + margin_ns <= at_ns <= end - margin_ns for begin, end in self.no_daemon)


def judge(plant: Plant) -> Judgement:
    """The whole run; the daemon and the controllers have ended."""
    result = Judgement(problems=list(plant.problems))
    journal = [Told(part.boot_id, part.stream, part.part_no, part.part_id, part.outcome, part.reason) for part in plant.parts()]
    _check_books(plant, journal, result)
    for line in plant.lines:
        triggers = line.triggers()
        blind = Intervals(plant, line.name)
        known = {_part_id(plant, int(row["counter"])): row for row in triggers}
        result.parts += len(known)
        told = _outcomes(plant, line.name, journal, result)
        for part_id in told.keys() - known.keys():
            result.problems.append(f"a verdict for part {part_id}, which never was: {sorted(told[part_id].values())}")
        for part_id, row in known.items():
            _account(part_id, row, told.get(part_id, {}), blind, result)
        for listener in plant.listeners:
            _judge_passes(plant, listener, line.name, known, blind, result)
    return result


def _part_id(_: Plant, counter: int) -> str:
    return str(counter)


def _outcomes(plant: Plant, stream: str, journal: list[Told], result: Judgement) -> dict[str, dict[tuple[str, int], str]]:
    """Part id -> (boot, part number) -> outcome, by all witnesses; where two of them differ, that is told."""
    told: dict[str, dict[tuple[str, int], str]] = defaultdict(dict)
    heard = [
        Told(note["boot"], note["stream"], note["part_no"], note["part_id"], note["outcome"], note["reason"])
        for listener in plant.listeners
        for note in listener.of("verdict")
    ]
    for one in journal + heard:
        if one.part_id is None or one.stream != stream:
            continue
        outcome = one.outcome + (f" {one.reason}" if one.reason else "")
        before = told[one.part_id].setdefault((one.boot, one.part_no), outcome)
        if before != outcome:
            result.problems.append(f"part {one.part_id} is {before} for one witness and {outcome} for another")
    return told


def _account(part_id: str, row: Any, told: dict[tuple[str, int], str], blind: Intervals, result: Judgement) -> None:
    at_ns = int(row["host_ns"])
    if len(told) > 1:
        result.problems.append(f"part {part_id} has more than one outcome: {told}")
    for outcome in told.values():
        name, _, reason = outcome.partition(" ")
        result.outcomes[name] += 1
        result.reasons[reason] += bool(reason)
        return
    if blind.covers(at_ns):
        result.in_blind += 1
    else:
        result.unaccounted.append(f"part {part_id} ({Fault(int(row['faults']))!r})")


def _check_books(plant: Plant, journal: list[Told], result: Judgement) -> None:
    """Ledger, numbers on the wire and journal agree."""
    observer = plant.observer
    lost = sum(note["missing"] for note in observer.of("notice"))
    if lost:
        result.problems.append(f"{lost} messages were lost on the way to the undisturbed observer")
    heard: dict[str, set[tuple[str, int, str]]] = defaultdict(set)
    seqs: Counter[tuple[str, str, int]] = Counter()
    for note in observer.of("verdict"):
        heard[note["boot"]].add((note["stream"], note["part_no"], note["outcome"]))
        seqs[note["boot"], note["stream"], note["seq"]] += 1
    if doubles := [key for key, count in seqs.items() if count > 1]:
        result.problems.append(f"numbers given twice: {doubles[:5]}")
    for beat in observer.of("beat"):
        opened, closed, pending = beat["books"]
        if opened != closed + pending:
            result.problems.append(f"the books do not balance: {beat['books']}")
            break
    for boot in plant.boots:
        if not boot.name:
            continue
        logged = {(one.stream, one.part_no, one.outcome) for one in journal if one.boot == boot.name}
        if not boot.killed and (missing := heard[boot.name] ^ logged):
            result.problems.append(f"boot {boot.name}: journal and wire differ in {len(missing)} parts: {sorted(missing)[:5]}")


def _judge_passes(plant: Plant, listener: Listener, stream: str, known: dict[str, Any], blind: Intervals, result: Judgement) -> None:
    """Every part that a controller let pass."""
    calls = plant.engine_calls()
    passed = [note for note in listener.of("verdict") if note["no"] == "" and note["stream"] == stream]
    if listener is not plant.observer:
        result.passed_at_controller += len(passed)
    for part_id, count in Counter(note["part_id"] for note in passed).items():
        if count > 1:
            result.false_pass.append(f"{listener.name}: part {part_id} passed {count} times")
    for note in passed:
        wrong = _wrong(plant, note, known, blind, calls)
        if wrong:
            result.false_pass.append(f"{listener.name}: part {note['part_id']} {wrong}")


def _wrong(plant: Plant, note: dict[str, Any], known: dict[str, Any], blind: Intervals, calls: np.ndarray) -> str:
    """Why this PASS is false; empty: it is right."""
    row = known.get(note["part_id"])
    if row is None:
        return "never was"
    at_ns, decided_ns, image = int(row["host_ns"]), note["at"], int(row["image"])
    hit = Fault(int(row["faults"]))
    before = known.get(_part_id(plant, int(row["counter"]) - 1))
    still = bool(hit & Fault.FROZEN) and (before is None or bool(Fault(int(before["faults"])) & NOT_BEFORE_THE_NEXT))
    if still:
        return ""  # a still of an image that never arrived before: nobody can tell it from a new one
    if hit & UNSEEN:
        return f"has no image that could be inspected: {hit!r}"
    if note["image"] != str(image):
        return f"shows image {image} and has the verdict of image {note['image']}"
    if image % 2:
        return f"is defective (image {image})"
    if not np.any((calls["number"] == image) & (calls["result"] == 1) & (calls["at_ns"] >= at_ns) & (calls["at_ns"] <= decided_ns)):
        return f"was not inspected: the engine has not seen image {image} after its exposure"
    if blind.deep(at_ns, TRANSFER_NS):
        return "was exposed in a published blind interval"
    late_ns = decided_ns - at_ns - int(plant.deadline_ms * MS)
    if late_ns > TRANSFER_NS:
        return f"was decided {late_ns / MS:.1f} ms after its deadline"
    for boot in plant.boots:
        if boot.name == note["boot"]:
            if boot.ended_ns is not None and boot.killed and decided_ns > boot.ended_ns + DEAD_NS:
                return "passed by a daemon that was known as dead"
            if any(begin + DEAD_NS < decided_ns < end for begin, end in boot.frozen_ns):
                return "passed by a daemon that stood still"
    return ""
