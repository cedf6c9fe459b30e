"""A whole station around an engine that reads the number stamped on each image: what was inspected is known, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.feed import write_feed
from inspector.camera.simulator.log import CallFault, read_call_log, read_trigger_log
from inspector.client.subscriber import Notice, NoticeKind, Subscriber
from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.config.station import read_station
from inspector.contract.wire import BlindMessage, EventMessage, VerdictMessage
from inspector.daemon.station import Daemon
from inspector.engine.base import Array
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine
from inspector.journal.reader import JournalReader, LoggedPart

free_port = run_path(str(Path(__file__).resolve().parents[1] / "assets" / "ports.py"))["free_port"]
IMAGES = 64
SIDE = 64
RECIPE = DetectorRecipe(name="stamp", classes=tuple(str(n) for n in range(IMAGES)), input=InputRecipe(height_px=SIDE, width_px=SIDE))

STATION = """
name = "faults"
product = "product.toml"
state_dir = "state"
[publisher]
endpoint = "tcp://127.0.0.1:{port}"
[channel]
endpoint = "tcp://127.0.0.1:*"
[metrics]
port = 0
[archive]
enabled = false
[[cameras]]
name = "top"
kind = "simulator"
images = "images.feed"
trigger = "line"
rate_hz = {rate}
ring_slots = {slots}
max_image_bytes = 8192
heartbeat_s = 0.6
restart_min_s = 0.1
restart_max_s = 0.2
frame_timeout_s = 0.4
settings = {{ SimTriggerLimit = {parts}{settings} }}
environment = {{ INSPECTOR_SIM_STATE = "{line}", INSPECTOR_SIM_SEED = "7", INSPECTOR_SIM_FAULTS = "{faults}"{environment} }}
[cameras.identity]
part_id = "{identity}"
"""
# Odd images have a defect that counts, even ones none: the raw finding tells the image's number in any case.
PRODUCT = """
name = "stamped"
version = "1"
deadline_ms = DEADLINE
[detector]
engine = "none.json"
""" + "".join(f'[detector.classes."{n}"]\nignore = true\n' for n in range(0, IMAGES, 2))


def stamped(number: int) -> np.ndarray:
    """Grey, with the number's six bits as blocks of 8x8 pixels."""
    image = np.full((SIDE, SIDE), 90, np.uint8)
    for bit in range(6):
        image[:8, 8 * bit : 8 * bit + 8] = 200 if number >> bit & 1 else 30
    return image


class StampEngine(NullEngine):
    """Reads the stamp, and reports it as the only detection's class."""

    def _start(self, image: np.ndarray) -> int:  # type: ignore[override]
        return sum(int(image[0, 4, 8 * bit + 4] > 115) << bit for bit in range(6))

    def _finish(self, job: int) -> dict[str, Array]:  # type: ignore[override]
        outputs = super()._finish(None)
        outputs["scores"][0, 0] = 0.9
        outputs["boxes"][0, 0] = (0, 0, 48, 8)
        outputs["classes"][0, 0] = job
        return outputs


@dataclass
class Story:
    """What happened, from every witness."""

    triggers: np.ndarray
    """The simulated line's own log."""
    parts: list[LoggedPart]
    """The journal."""
    verdicts: list[VerdictMessage] = field(default_factory=list)
    """The wire."""
    events: list[EventMessage] = field(default_factory=list)
    gaps: int = 0
    blind_ns: list[tuple[int, int]] = field(default_factory=list)
    """Finished intervals, CLOCK_MONOTONIC."""
    opened: int = 0
    closed: int = 0
    pending: int = 0

    utc_offset_ns: int = 0
    calls: list[CallFault] = field(default_factory=list)
    """Calls into the driver that a fault hit."""

    def is_blind(self, at_ns: int, margin_ns: int = 0) -> bool:
        """``margin_ns``: only if it lies deeper than that inside an interval."""
        return any(begin + margin_ns <= at_ns <= end - margin_ns for begin, end in self.blind_ns)


@pytest.fixture
def run_story(tmp_path: Path) -> Callable[..., Story]:
    if simulator_path() is None:
        pytest.skip("the simulator was not built: no C++ compiler")

    def run(
        faults: str,
        parts: int,
        rate: float = 100,
        *,
        identity: str = "trigger_counter",
        slots: int = 16,
        deadline_ms: int = 400,
        engine: Callable[[], NullEngine] | None = None,
        meddle: Callable[[Daemon, int], None] = lambda _daemon, _triggers: None,
        settings: str = "",
        environment: str = "",
    ) -> Story:
        """``meddle`` is called again and again with the daemon and the triggers so far; ``settings`` and ``environment``: more of the camera's."""
        port = free_port()
        line = tmp_path / "line"
        line.mkdir()
        (tmp_path / "none.json").write_text("{}")
        write_feed(tmp_path / "images.feed", (stamped(n) for n in range(IMAGES)))
        (tmp_path / "product.toml").write_text(PRODUCT.replace("DEADLINE", str(deadline_ms)))
        text = STATION.format(
            port=port, rate=rate, parts=parts, line=line, faults=faults, identity=identity, slots=slots, settings=settings, environment=environment
        )
        (tmp_path / "station.toml").write_text(text)
        daemon = Daemon(read_station(tmp_path / "station.toml"), open_detector=lambda _: Detector((engine or (lambda: StampEngine(RECIPE)))()))
        story = Story(np.empty(0), [])
        with Subscriber(f"tcp://127.0.0.1:{port}") as wire:
            daemon.start()
            try:
                _follow(daemon, wire, story, line, parts, meddle)
                story.utc_offset_ns = offset_ns = time.time_ns() - time.monotonic_ns()
            finally:
                clean = daemon.stop()
            for update in wire.receive(0.2):
                _take(update, story)
        assert clean, "the daemon left something behind"
        books = daemon.line.snapshot().streams["top"].books
        story.opened, story.closed, story.pending = books.opened, books.closed, books.pending
        story.triggers = read_trigger_log(line)
        story.calls = read_call_log(line) + read_call_log(line, 1)
        with JournalReader(tmp_path / "state" / "journal.sqlite") as journal:
            story.parts = list(journal.parts())
            story.blind_ns = [(one.from_utc_ns - offset_ns, one.to_utc_ns - offset_ns) for one in journal.blinds() if one.to_utc_ns is not None]
        return story

    return run


def _follow(daemon: Daemon, wire: Subscriber, story: Story, line: Path, parts: int, meddle: Callable[[Daemon, int], None]) -> None:
    """Until the line has run out and the ledger is quiet."""
    deadline = time.monotonic() + 90
    quiet_since = None
    while time.monotonic() < deadline:
        for update in wire.receive(0.1):
            _take(update, story)
        meddle(daemon, len(read_trigger_log(line)))
        if daemon.failure is not None:
            raise AssertionError("a thread of the daemon failed") from daemon.failure
        books = daemon.line.snapshot().streams["top"]
        busy = len(read_trigger_log(line)) < parts or books.books.pending or books.blind
        if busy:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > 1.5:
            return
    raise AssertionError(f"no quiet after 90 s: {daemon.line.snapshot()}")


def _take(update: object, story: Story) -> None:
    if isinstance(update, VerdictMessage):
        story.verdicts.append(update)
    elif isinstance(update, EventMessage):
        story.events.append(update)
    elif isinstance(update, Notice) and update.kind is NoticeKind.GAP:
        story.gaps += update.missing
    elif isinstance(update, BlindMessage):
        pass  # taken from the journal, where the clock is exact
