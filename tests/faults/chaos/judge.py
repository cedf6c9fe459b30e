"""The judge: holds every trigger of the simulated line against what the controllers decided, the journal and the published blind intervals.

A trigger is *unaccounted* if it has neither an outcome nor lies in a published blind interval. A *false PASS* is a part that a controller would
have let pass although this very part's image was not inspected and found good, in time, by a living daemon that saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from time import monotonic_ns, time_ns
from typing import Any

import numpy as np
from plant import MS, Line, Listener, Plant

from inspector.camera.simulator.nodes import Fault

CLOCKS_NS = 2 * MS
"""Exposures and intervals are logged as UTC, each by its own look at the wall clock."""
TRANSFER_NS = 20 * MS
"""An exposure on the host's clock is known to this: what the least frame is on its way, on a busy machine."""
DEAD_NS = 150 * MS
"""So long after its end a daemon is known as dead."""
IN_FLIGHT_NS = 60 * MS
"""What was exposed so shortly before SIGKILL may not have reached the ledger: nobody was told of it, and it does not pass."""
NEVER = float("inf")
NEAR_NS = 4 * MS
"""An exposure is that of a trigger if it lies so near."""
GHOST = -1
"""In the place of a trigger: none, the part was only announced."""
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
    nameless: int = 0


@dataclass
class Told:
    """One verdict, by whichever witness."""

    boot: str
    stream: str
    part_no: int
    part_id: str | None
    outcome: str
    exposure_ns: int | None
    """On this host's clock; None: not known (it was told on a clock that was stepped)."""


class Triggers:
    """One line's triggers, and which of them a verdict is about."""

    def __init__(self, plant: Plant, line: Line) -> None:
        self.rows = line.triggers()
        self._by_id: dict[str, list[int]] = defaultdict(list)
        self.ids = _ids(plant.identity, self.rows)
        for index, part_id in enumerate(self.ids):
            self._by_id[part_id].append(index)
        self._faults = {int(row["counter"]): Fault(int(row["faults"])) for row in self.rows}

    def find(self, part_id: str | None, exposure_ns: int | None) -> int | None:
        """By the id of the line; where that is not there, or several parts have it, by the exposure."""
        indices = list(range(len(self.rows))) if part_id is None else self._by_id.get(part_id, [])
        if not indices or (part_id is not None and len(indices) == 1):
            return indices[0] if indices else None
        if exposure_ns is None:
            return None
        nearest = min(indices, key=lambda index: abs(int(self.rows[index]["host_ns"]) - exposure_ns))
        return nearest if abs(int(self.rows[nearest]["host_ns"]) - exposure_ns) < NEAR_NS else None

    def faults(self, counter: int) -> Fault | None:
        """What happened to a trigger; None: there was no such one."""
        return self._faults.get(counter)


class Intervals:
    """Blind intervals of one stream, on this host's monotonic clock."""

    def __init__(self, plant: Plant, stream: str, camera: str) -> None:
        self._only = "" if stream == camera else f"camera {camera}: "  # a group's intervals name the camera in their cause
        self.offset_ns = time_ns() - monotonic_ns()
        finished: list[tuple[str, float, float]] = []
        going_on: list[tuple[str, float, float]] = []
        first_ns: dict[str, float] = {}
        for boot, begin, end in self._told(plant, stream):
            first_ns[boot] = min(begin, first_ns.get(boot, begin))
            (going_on if end == NEVER else finished).append((boot, begin, end))
        # What is told as going on is told again when it is over; the wire rounds to microseconds.
        same_ns = 5 * MS if plant.clock_shifted else 0.1 * MS
        going_on = [one for one in going_on if not any(one[0] == other[0] and abs(one[1] - other[1]) < same_ns for other in finished)]
        # What a daemon left open goes on until the next one says what it knows of that time.
        order = [name for name in plant.boot_names() if name in first_ns]
        following = {name: first_ns[after] for name, after in pairwise(order)}
        self.published = [(begin, min(end, following.get(boot, NEVER))) for boot, begin, end in finished + going_on]
        starts = [first_ns.get(boot.name, NEVER) for boot in plant.boots]
        self.no_daemon = [
            (boot.ended_ns - (IN_FLIGHT_NS if boot.killed else 0), min(starts[index + 1 :], default=NEVER))
            for index, boot in enumerate(plant.boots)
            if boot.ended_ns is not None
        ]

    def _told(self, plant: Plant, stream: str) -> list[tuple[str, float, float]]:
        told: list[tuple[str, float, float]] = []
        for listener in plant.listeners[:1]:
            for note in listener.of("blind"):
                if note["stream"] != stream or not note["cause"].startswith(self._only):
                    continue
                from_ago, to_ago, from_utc, to_utc = note["ends"]
                if plant.clock_shifted:
                    told.append((note["boot"], note["at"] - from_ago * MS, NEVER if to_ago is None else note["at"] - to_ago * MS))
                else:
                    told.append((note["boot"], from_utc - self.offset_ns, NEVER if to_utc is None else to_utc - self.offset_ns))
        if not plant.clock_shifted:
            for one in plant.blinds():
                if one.stream == stream and one.cause.startswith(self._only):
                    end = NEVER if one.to_utc_ns is None else one.to_utc_ns - self.offset_ns
                    told.append((one.boot_id, one.from_utc_ns - self.offset_ns, end))
        return told

    def covers(self, at_ns: int) -> bool:
        """Whether it was published that nothing passes at that time; after the last daemon's end nobody is there to publish it."""
        return any(begin <= at_ns <= end for begin, end in self.published) or any(begin <= at_ns and end == NEVER for begin, end in self.no_daemon)

    def deep(self, at_ns: int, margin_ns: int) -> bool:
        """Whether it lies deeper than ``margin_ns`` inside of an interval."""
        inside = any(begin + margin_ns <= at_ns <= end - margin_ns for begin, end in self.published)
        return inside or any(begin + IN_FLIGHT_NS + margin_ns <= at_ns <= end - margin_ns for begin, end in self.no_daemon)


def judge(plant: Plant) -> Judgement:
    """The whole run; the daemon and the controllers have ended."""
    result = Judgement(problems=list(plant.problems))
    journal, heard = _journalled(plant), _heard(plant)
    _check_books(plant, journal, result)
    for line in plant.lines:
        stream = plant.stream(line)
        triggers, blind = Triggers(plant, line), Intervals(plant, stream, line.name)
        if not plant.groups or line is plant.lines[0]:  # a part of a group is one part, whichever line counts it
            _account_all(plant, _outcomes(plant, stream, journal + heard, triggers, result), triggers, blind, result)
        for listener in plant.listeners:
            _judge_passes(plant, listener, line, triggers, blind, result)
    return result


def _ids(identity: str, rows: np.ndarray) -> list[str]:
    """How the line calls the part of each trigger: what the camera latched with it, or what was announced for it."""
    if identity in {"trigger_counter", "encoder"}:
        column = "camera_count" if identity == "trigger_counter" else "encoder"
        return [str(row[column]) for row in rows]
    bounced = (rows["faults"] & int(Fault.LINE_BOUNCE)) != 0
    numbers = np.cumsum(~bounced)
    return [f"bounce {row['counter']}" if extra else f"P{number}" for row, extra, number in zip(rows, bounced, numbers, strict=True)]


def _outcome(outcome: str, reason: str | None) -> str:
    return outcome + (f" {reason}" if reason else "")


def _exposure_ns(plant: Plant, utc_ns: int) -> int | None:
    return None if plant.clock_shifted else utc_ns - (time_ns() - monotonic_ns())


def _journalled(plant: Plant) -> list[Told]:
    return [
        Told(one.boot_id, one.stream, one.part_no, one.part_id, _outcome(one.outcome, one.reason), _exposure_ns(plant, one.exposure_utc_ns))
        for one in plant.parts()
    ]


def _heard(plant: Plant) -> list[Told]:
    return [
        Told(
            note["boot"],
            note["stream"],
            note["part_no"],
            note["part_id"],
            _outcome(note["outcome"], note["reason"]),
            _exposure_ns(plant, note["exposure_utc_ns"]),
        )
        for listener in plant.listeners
        for note in listener.of("verdict")
    ]


def _outcomes(plant: Plant, stream: str, told: list[Told], triggers: Triggers, result: Judgement) -> dict[int, dict[tuple[str, int], str]]:
    """Trigger -> (boot, part number) -> outcome, by all witnesses; where two of them differ, that is told."""
    outcomes: dict[int, dict[tuple[str, int], str]] = defaultdict(dict)
    nobody: set[str] = set()
    ghosts = plant.ghosts()
    by_name: set[int] = set()
    for one in sorted(told, key=lambda one: one.part_id is None):  # those without an id last
        if one.stream != stream:
            continue
        if one.part_id is not None and one.part_id in ghosts:
            outcomes[GHOST][one.part_id, 0] = one.outcome
            continue
        if one.part_id is None and plant.identity == "announced":
            continue  # a frame that nobody could name: the announced part has its own verdict
        index = triggers.find(one.part_id, one.exposure_ns)
        if index is None:
            nobody.add(f"part {one.part_id} (number {one.part_no}: {one.outcome})")
            continue
        if one.part_id is None and index in by_name:
            continue  # a second frame of a part that has its verdict; without a name it lets nothing pass
        if one.part_id is not None:
            by_name.add(index)
        before = outcomes[index].setdefault((one.boot, one.part_no), one.outcome)
        if before != one.outcome:
            result.problems.append(f"part {one.part_id} is {before} for one witness and {one.outcome} for another")
    result.problems += [f"a verdict for a part that never was: {one}" for one in sorted(nobody)]
    return outcomes


def _judge_ghosts(plant: Plant, told: dict[tuple[str, int], str], result: Judgement) -> None:
    """Parts that were announced and never came: each ends as one that has no image."""
    for part_id in sorted(plant.ghosts()):
        outcome = told.get((part_id, 0), "")
        result.parts += 1
        result.outcomes[outcome.partition(" ")[0]] += 1
        if not outcome:
            result.unaccounted.append(f"part {part_id}, which was announced and never came")
        elif not outcome.startswith("UNINSPECTED"):
            result.false_pass.append(f"part {part_id} never came, and is {outcome}")


def _account_all(plant: Plant, told: dict[int, dict[tuple[str, int], str]], triggers: Triggers, blind: Intervals, result: Judgement) -> None:
    """Every trigger, and every part that was announced, has an outcome."""
    result.parts += len(triggers.rows)
    _judge_ghosts(plant, told.pop(GHOST, {}), result)
    named = plant.announced() if plant.identity == "announced" else None
    for index, row in enumerate(triggers.rows):
        if named is not None and triggers.ids[index] not in named:
            result.nameless += 1  # nobody has said that it exists, and nobody can let it pass
            continue
        _account(row, told.get(index, {}), blind, result)


def _account(row: Any, told: dict[tuple[str, int], str], blind: Intervals, result: Judgement) -> None:
    if len(told) > 1:
        result.problems.append(f"trigger {row['counter']} has more than one outcome: {told}")
    for outcome in told.values():
        name, _, reason = outcome.partition(" ")
        result.outcomes[name] += 1
        result.reasons[reason] += bool(reason)
        return
    if blind.covers(int(row["host_ns"])):
        result.in_blind += 1
    else:
        result.unaccounted.append(f"trigger {row['counter']} ({Fault(int(row['faults']))!r})")


def _check_books(plant: Plant, journal: list[Told], result: Judgement) -> None:
    """Ledger, numbers on the wire and journal agree."""
    observer = plant.observer
    lost = sum(note["missing"] for note in observer.of("notice") if note["kind"] == "lost")
    if lost:
        result.problems.append(f"{lost} messages were lost on the way to the undisturbed observer")
    heard: dict[str, set[tuple[str, int, str]]] = defaultdict(set)
    seqs: Counter[tuple[str, str, int]] = Counter()
    for note in observer.of("verdict"):
        heard[note["boot"]].add((note["stream"], note["part_no"], _outcome(note["outcome"], note["reason"])))
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
        # Of a daemon that was killed more may be recorded than was heard, never less.
        differ = heard[boot.name] - logged if boot.killed else heard[boot.name] ^ logged
        if differ:
            result.problems.append(f"boot {boot.name}: journal and wire differ in {len(differ)} parts: {sorted(differ)[:5]}")


def _judge_passes(plant: Plant, listener: Listener, line: Line, triggers: Triggers, blind: Intervals, result: Judgement) -> None:
    """Every part that a controller let pass, as this line's camera saw it."""
    stream = plant.stream(line)
    calls = plant.engine_calls()
    # A part that nobody can name is none that a controller could let pass.
    passed = [note for note in listener.of("decision") if note["passes"] and note["part_id"] is not None and note["stream"] == stream]
    if listener is not plant.observer and line is plant.lines[0]:
        result.passed_at_controller += len(passed)
    twice: Counter[int] = Counter()
    for note in passed:
        index = triggers.find(note["part_id"], _exposure_ns(plant, note["exposure_utc_ns"]))
        twice[-1 if index is None else index] += 1
        shown = note | {"image": note["images"].get(line.name)}
        wrong = "never was" if index is None else _wrong(plant, shown, triggers.rows[index], triggers, blind, calls)
        if not wrong and index is not None and twice[index] > 1:
            wrong = "passed twice"
        if wrong:
            result.false_pass.append(f"{listener.name}: part {note['part_id']} (number {note['part_no']}) {wrong}")


def _wrong(plant: Plant, note: dict[str, Any], row: Any, triggers: Triggers, blind: Intervals, calls: np.ndarray) -> str:
    """Why this PASS is false; empty: it is right."""
    at_ns, decided_ns = int(row["host_ns"]), note["at"]
    late_ns = decided_ns - at_ns - int(plant.deadline_ms * MS)
    if blind.deep(at_ns, TRANSFER_NS):
        return "was exposed in a published blind interval"
    if late_ns > TRANSFER_NS:
        return f"was decided {late_ns / MS:.1f} ms after its deadline"
    return _wrong_image(note, row, triggers, calls) or _wrong_boot(plant, note["boot"], decided_ns)


def _wrong_image(note: dict[str, Any], row: Any, triggers: Triggers, calls: np.ndarray) -> str:
    at_ns, decided_ns, image = int(row["host_ns"]), note["at"], int(row["image"])
    hit = Fault(int(row["faults"]))
    before = triggers.faults(int(row["counter"]) - 1)
    if hit & Fault.FROZEN and (before is None or before & NOT_BEFORE_THE_NEXT):
        return ""  # a still of an image that never arrived: nobody can tell it from a new one
    if hit & UNSEEN:
        return f"has no image that could be inspected: {hit!r}"
    if note["image"] != str(image):
        return f"shows image {image} and has the verdict of image {note['image']} ({hit!r})"
    if image % 2:
        return f"is defective (image {image})"
    if not np.any((calls["number"] == image) & (calls["result"] == 1) & (calls["at_ns"] >= at_ns) & (calls["at_ns"] <= decided_ns)):
        return f"was not inspected: the engine has not seen image {image} after its exposure"
    return ""


def _wrong_boot(plant: Plant, name: str, decided_ns: int) -> str:
    for boot in plant.boots:
        if boot.name == name:
            if boot.ended_ns is not None and boot.killed and decided_ns > boot.ended_ns + DEAD_NS:
                return "was passed by a daemon that was known as dead"
            if any(begin + DEAD_NS < decided_ns < end for begin, end in boot.frozen_ns):
                return "was passed by a daemon that stood still"
    return ""
