"""A station under test: its folder, the daemon's process boot after boot, the controllers' processes, and what each of them witnessed."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path
from typing import Any, Self

import numpy as np
import psutil

from inspector.camera.simulator.feed import write_feed
from inspector.camera.simulator.log import read_trigger_log
from inspector.camera.simulator.nodes import Fault
from inspector.journal.reader import JournalReader, LoggedBlind, LoggedEvent, LoggedPart

HERE = Path(__file__).resolve().parent
ASSETS = HERE.parents[1] / "assets"
PATIENCE_S = 60.0
"""What must happen happens within this time, however busy the machine is; nothing is measured by it."""
STOP_S = 5.0
"""From SIGTERM to the exit, plus what a busy machine may add."""
QUIET_S = 0.6
"""So long nothing is pending, blind or under way: the run is over."""
ENOUGH = 120
"""So many more verdicts show that the station works again."""
MS = 1_000_000


free_port = run_path(str(ASSETS / "ports.py"))["free_port"]


def _load_stamps() -> Any:
    spec = importlib.util.spec_from_file_location("stamps", ASSETS / "stamps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stamps"] = module
    spec.loader.exec_module(module)
    return module


stamps = _load_stamps()

STATION = """
name = "chaos"
product = "product.toml"
state_dir = {state}
runtime_dir = {runtime}
[publisher]
endpoint = "tcp://{host}:{port}"
high_water_mark = {high_water_mark}
[channel]
endpoint = "tcp://{host}:{channel_port}"
{channel}
[metrics]
port = {metrics_port}
[archive]
enabled = false
{extra}
"""
CAMERA = """
[[cameras]]
name = "{name}"
kind = "simulator"
serial = "{serial}"
images = "images.feed"
trigger = "line"
rate_hz = {rate}
ring_slots = {slots}
max_image_bytes = 8192
heartbeat_s = {heartbeat_s}
restart_min_s = 0.1
restart_max_s = 0.2
frame_timeout_s = 0.4
settings = {{ SimTriggerLimit = {parts}{settings} }}
environment = {{ INSPECTOR_SIM_STATE = "{line}", INSPECTOR_SIM_SEED = "{seed}", INSPECTOR_SIM_FAULTS = "{faults}"{environment} }}
[cameras.identity]
part_id = "{identity}"
{rules}
"""
PRODUCT = """
name = "stamped"
version = "1"
deadline_ms = {deadline_ms}
{head}
[detector]
engine = "none.json"
"""
# Odd images have a defect that counts, even ones none: the raw finding tells the image's number in any case.
IGNORED = "".join(f'[detector.classes."{n}"]\nignore = true\n' for n in range(0, stamps.IMAGES, 2))


class ChaosError(Exception):
    """The run did not go as it must: a fault did not happen, something hangs, a process left with the wrong code."""


def memory_folder(folder: Path) -> Path:
    """The runtime directory that belongs to the folder of a run: in memory, where there is such a file system."""
    memory = Path("/dev/shm")
    return memory / folder.name if memory.is_dir() else folder / "run"


def own_environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "INSPECTOR_TEST_PARENT": str(os.getpid())} | more


@dataclass
class Boot:
    """One life of the daemon."""

    process: subprocess.Popen[bytes]
    log: Path
    started_ns: int
    name: str = ""
    """Its boot id; empty: it never got ready."""
    ended_ns: int | None = None
    """When it was killed, or was found dead."""
    killed: bool = False
    code: int | None = None
    expected_code: int = 0
    frozen_ns: list[tuple[int, int]] = field(default_factory=list)
    """Intervals in which its process was stopped."""

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class Listener:
    """A controller's process and what it wrote down."""

    def __init__(self, name: str, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.name, self.path, self.process = name, path, process
        self.notes: list[dict[str, Any]] = []
        self._read = 0

    def refresh(self) -> None:
        """Take what was written since the last time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read += whole
        self.notes += [json.loads(line) for line in data[:whole].splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [note for note in self.notes if note["k"] == kind]


@dataclass
class Line:
    """One camera of the plant and its simulated line."""

    name: str
    folder: Path
    parts: int

    def triggers(self) -> np.ndarray:
        return read_trigger_log(self.folder)


class Plant:
    """Use it as a context manager: whatever happens, all of its processes end."""

    def __init__(self, folder: Path, rng: random.Random, host: str = "127.0.0.1") -> None:
        self.folder, self.rng, self.host = folder, rng, host
        self.state = folder / "state"
        self.runtime = memory_folder(folder)
        self.port, self.metrics_port, self.channel_port = (free_port() for _ in range(3))
        self.lines: list[Line] = []
        self.boots: list[Boot] = []
        self.listeners: list[Listener] = []
        self.helpers: list[subprocess.Popen[Any]] = []
        self.deadline_ms = 0.0
        self.identity = ""
        self.channel = ""
        """More of the station's [channel]."""
        self.groups = False
        self.journals = [self.state / "journal.sqlite"]
        """Where rows may be found: the present journal first."""
        self.pump: Callable[[], object] = lambda: None
        """Called again and again while something is waited for."""
        self.problems: list[str] = []
        """What went wrong beside the law."""
        self.clock_shifted = False
        """The daemon's wall clock was stepped: its UTC stamps cannot be mapped to this process's clock."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [one.process for one in self.boots] + [one.process for one in self.listeners] + self.helpers:
            if process.poll() is None:
                children = _children(process.pid)
                process.kill()
                process.wait()
                psutil.wait_procs(children, 5)

    # Files.

    def camera(
        self,
        faults: str = "",
        parts: int = 250,
        rate: float = 100,
        *,
        name: str = "top",
        serial: str = "SIM0",
        slots: int = 64,
        identity: str = "trigger_counter",
        settings: str = "",
        environment: str = "",
        heartbeat_s: float = 0.6,
        rules: str = "",
    ) -> str:
        """A camera's section; its line is followed from now on."""
        line = self.folder / f"line-{name}"
        line.mkdir(exist_ok=True)
        self.lines.append(Line(name, line, parts))
        self.identity = identity
        return CAMERA.format(
            name=name,
            serial=serial,
            rate=rate,
            slots=slots,
            heartbeat_s=heartbeat_s,
            parts=parts,
            settings=settings,
            line=line,
            seed=self.rng.randrange(1 << 30),
            faults=faults,
            environment=environment,
            identity=identity,
            rules=rules,
        )

    def write(self, *cameras: str, deadline_ms: float = 400, extra: str = "", head: str = "", high_water_mark: int = 100_000) -> None:
        """Station file, product recipe, images."""
        self.deadline_ms = deadline_ms
        self.groups = "views" in head
        write_feed(self.folder / "images.feed", (stamps.stamped(n) for n in range(stamps.IMAGES)))
        (self.folder / "none.json").write_text("{}")
        (self.folder / "product.toml").write_text(PRODUCT.format(deadline_ms=deadline_ms, head=head) + IGNORED)
        text = STATION.format(
            state=json.dumps(str(self.state)),
            runtime=json.dumps(str(self.runtime)),
            host=self.host,
            port=self.port,
            channel_port=self.channel_port,
            channel=self.channel,
            metrics_port=self.metrics_port,
            extra=extra,
            high_water_mark=high_water_mark,
        )
        (self.folder / "station.toml").write_text(text + "".join(cameras))

    # Processes.

    def daemon(self, engine: str = "stamp", *, prefix: tuple[str, ...] = (), out: int | None = None, **environment: str) -> Boot:
        """Start the daemon; ``engine`` as ``run_with_engine.py`` takes it; ``out``: where its messages go instead of the boot's log."""
        log = self.folder / f"boot-{len(self.boots)}.log"
        command = [*prefix, sys.executable, str(ASSETS / "run_with_engine.py"), engine, str(self.folder / "station.toml")]
        variables = own_environment(INSPECTOR_TEST_ENGINE_LOG=str(self.folder / "engine.log"), **environment)
        with log.open("wb") as file:
            started_ns = time.monotonic_ns()
            said = file.fileno() if out is None else out
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=variables)
        boot = Boot(process, log, started_ns)
        self.boots.append(boot)
        return boot

    def ready(self, boot: Boot | None = None) -> Boot:
        """Wait until the daemon says that it is ready."""
        boot = boot or self.boots[-1]
        self.wait(lambda: "ready:" in boot.said or not boot.alive, "the daemon is ready")
        self.name(boot)
        if not boot.name:
            raise ChaosError(f"the daemon did not get ready:\n{boot.said}")
        return boot

    def name(self, boot: Boot) -> None:
        """Note the boot id, as soon as the daemon has said it."""
        found = re.search(r"ready: .*boot ([0-9a-f]+)", boot.said)
        boot.name = found[1] if found else ""

    def listen(self, name: str, *options: str, prefix: tuple[str, ...] = ()) -> Listener:
        """Start a controller's process."""
        path = self.folder / f"{name}.jsonl"
        endpoints = (f"tcp://{self.host}:{port}" for port in (self.port, self.channel_port))
        command = [*prefix, sys.executable, str(HERE / "controller.py"), name, *endpoints, str(path), *options]
        with (self.folder / f"{name}.log").open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=own_environment())
        listener = Listener(name, path, process)
        self.listeners.append(listener)

        def listening() -> bool:
            listener.refresh()
            if process.poll() is not None:
                raise ChaosError(f"the controller {name} ended: {(self.folder / f'{name}.log').read_text()}")
            return bool(listener.of("listening"))

        self.wait(listening, f"the controller {name} listens")
        return listener

    def begin(self, engine: str = "stamp", *, out: int | None = None, **environment: str) -> Boot:
        """An observer that is never disturbed, a controller, and the daemon, ready."""
        self.listen("observer")
        self.listen("controller")
        self.daemon(engine, out=out, **environment)
        return self.ready()

    def again(self, engine: str = "stamp", **environment: str) -> Boot:
        """Start the daemon anew and wait until it is ready."""
        self.daemon(engine, **environment)
        return self.ready()

    def survive(self, boot: Boot, code: int, condition: Callable[[], object]) -> None:
        """Either the daemon reaches ``condition``, or it leaves with ``code`` and is started again."""
        self.wait(lambda: condition() or not boot.alive, "the daemon goes on, or leaves")
        if not boot.alive:
            self.ended(boot, code)
            self.again()

    def stream(self, line: Line) -> str:
        """The stream that a camera's parts are numbered in."""
        return "+".join(one.name for one in self.lines) if self.groups else line.name

    @property
    def observer(self) -> Listener:
        return self.listeners[0]

    @property
    def controller(self) -> Listener:
        return self.listeners[1]

    def camera_process(self) -> psutil.Process:
        """The camera process of the present daemon (the first of several)."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = [one for one in _children(self.boots[-1].process.pid) if "inspector.camera.process" in _command(one)]
            return bool(found)

        self.wait(look, "a camera process runs")
        return found[0]

    # Waiting.

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
        """Poll until ``condition`` holds."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise ChaosError(f"{what}: not within {seconds} s")
            self.pump()
            time.sleep(0.01)

    def wait_alive(self, condition: Callable[[], object], what: str) -> None:
        """The same, while the daemon lives."""

        def holds() -> object:
            boot = self.boots[-1]
            if not boot.alive:
                raise ChaosError(f"{what}: the daemon ended with code {boot.process.poll()}")
            return condition()

        self.wait(holds, what)

    def wait_said(self, text: str, boot: Boot | None = None) -> None:
        boot = boot or self.boots[-1]
        self.wait(lambda: text in boot.said or not boot.alive, f"the daemon says {text!r}")
        if text not in boot.said:
            raise ChaosError(f"the daemon ended and did not say {text!r}")

    def wait_event(self, name: str, count: int = 1) -> None:
        """Until the observer has heard so many events of that name."""

        def heard() -> bool:
            self.observer.refresh()
            return sum(note["name"] == name for note in self.observer.of("event")) >= count

        self.wait_alive(heard, f"event {name}")

    def wait_trigger(self, number: int, line: int = 0) -> None:
        """Until the line has fired so often (as logged: it must be watched by a camera)."""
        self.wait_alive(lambda: len(self.lines[line].triggers()) >= number, f"trigger {number}")

    def wait_passes(self, count: int) -> None:
        """Until the controller has let so many parts pass."""

        def passed() -> bool:
            self.controller.refresh()
            return sum(note["passes"] for note in self.controller.of("decision")) >= count

        self.wait_alive(passed, f"{count} parts pass at the controller")

    def wait_verdicts(self, count: int) -> None:
        """Until the observer has heard so many."""

        def heard() -> bool:
            self.observer.refresh()
            return len(self.observer.of("verdict")) >= count

        self.wait_alive(heard, f"{count} verdicts")

    def run_out(self) -> None:
        """Until the lines have stopped and the ledger is quiet."""
        quiet_since: list[float] = []

        def quiet() -> bool:
            self.observer.refresh()
            boot = self.boots[-1]
            if not boot.alive:
                raise ChaosError(f"the daemon ended:\n{boot.said[-3000:]}")
            beats = {note["stream"]: note for note in self.observer.notes[-400:] if note["k"] == "beat" and note["boot"] == boot.name}
            fresh = beats and all(time.monotonic_ns() - beat["at"] < 500 * MS for name, beat in beats.items() if name)
            busy = (
                not fresh
                or any(len(line.triggers()) < line.parts for line in self.lines)
                or any(beat["books"][2] or beat["blind"] for beat in beats.values())
            )
            now = time.monotonic()
            if busy:
                quiet_since.clear()
            elif not quiet_since:
                quiet_since.append(now)
            return bool(quiet_since) and now - quiet_since[0] > QUIET_S

        self.wait(quiet, "the line has run out and nothing is pending", 90)

    # Signals.

    def end(self, boot: Boot | None = None, number: int = signal.SIGTERM, code: int = 0, within_s: float = STOP_S + 5) -> Boot:
        """Send a signal to the daemon and wait for its end."""
        boot = boot or self.boots[-1]
        boot.killed = number == signal.SIGKILL
        if boot.killed:
            boot.ended_ns = time.monotonic_ns()
        boot.process.send_signal(number)
        return self.ended(boot, -number if boot.killed else code, within_s)

    def ended(self, boot: Boot | None = None, code: int = 0, within_s: float = PATIENCE_S) -> Boot:
        """The daemon is to end by itself, with ``code``."""
        boot = boot or self.boots[-1]
        try:
            boot.code = boot.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise ChaosError(f"the daemon did not end within {within_s} s:\n{boot.said[-3000:]}") from None
        boot.ended_ns = boot.ended_ns or time.monotonic_ns()
        boot.expected_code = code
        if boot.code != code:
            self.problems.append(f"boot {len(self.boots)} left with code {boot.code}, not {code}: {boot.said[-600:]}")
        return boot

    def freeze(self, pid: int, until: Callable[[], object], what: str) -> tuple[int, int]:
        """SIGSTOP, wait for ``until``, SIGCONT. When it stood still."""
        begun_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"process {pid} stands still")
            self.wait(until, what)
        finally:
            os.kill(pid, signal.SIGCONT)
        return begun_ns, time.monotonic_ns()

    def kill_process(self, process: psutil.Process) -> None:
        """SIGKILL, and see it gone."""
        process.kill()
        self.wait(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, f"process {process.pid} is gone")

    def stop_for_good(self, process: psutil.Process) -> None:
        """SIGSTOP; somebody else is to kill it."""
        process.suspend()
        self.wait(lambda: not process.is_running(), f"the stopped process {process.pid} is killed by the daemon")

    def blind_now(self) -> bool:
        """Whether the last heartbeat says that a camera cannot see."""
        self.observer.refresh()
        beats = [note for note in self.observer.notes[-50:] if note["k"] == "beat" and note["stream"] == self.stream(self.lines[0])]
        return bool(beats) and bool(beats[-1]["blind"])

    def for_ms(self, milliseconds: float) -> Callable[[], bool]:
        """A condition: so much time has passed since now. For faults that have a duration."""
        until_ns = time.monotonic_ns() + int(milliseconds * MS)
        return lambda: time.monotonic_ns() >= until_ns

    def finish(self) -> None:
        """The line runs out (one without an end is followed for a while), the daemon stops, the controllers read the rest."""
        if any(line.parts == 0 for line in self.lines):
            self.wait_verdicts(self.heard() + ENOUGH)
        else:
            self.run_out()
        self.end()
        self.hang_up()

    def hang_up(self) -> None:
        """The controllers read what is left and end."""
        for listener in self.listeners:
            if listener.process.poll() is None:
                listener.process.terminate()
        for listener in self.listeners:
            listener.process.wait(PATIENCE_S)
            listener.refresh()

    def heard(self) -> int:
        """Verdicts that the observer has heard so far."""
        self.observer.refresh()
        return len(self.observer.of("verdict"))

    # Witnesses.

    def flags(self, fault: Fault, line: int = 0) -> int:
        """Triggers of the line's log that carry a fault."""
        return int(np.count_nonzero(self.lines[line].triggers()["faults"] & int(fault)))

    def events(self, name: str) -> list[dict[str, Any]]:
        self.observer.refresh()
        return [note for note in self.observer.of("event") if note["name"] == name]

    def parts(self) -> list[LoggedPart]:
        """All rows of all journals."""
        return [part for path in self.journals for part in _read(path, JournalReader.parts)]

    def boot_names(self) -> list[str]:
        """Boot ids of all starts that reached a journal, the oldest first."""
        return [name for path in reversed(self.journals) for name in _read(path, JournalReader.boots)]

    def blinds(self) -> list[LoggedBlind]:
        return [blind for path in self.journals for blind in _read(path, JournalReader.blinds)]

    def logged_events(self) -> list[LoggedEvent]:
        return [event for path in self.journals for event in _read(path, JournalReader.events)]

    def announced(self) -> set[str]:
        """Ids of all parts that a controller announced and the station took."""
        told = {note["part_id"] for listener in self.listeners for note in listener.of("announced")}
        refused = {
            note["part_id"]
            for listener in self.listeners
            for note in listener.of("decision")
            if note["cause"] in {"refused", "unsynchronised"} and note["part_no"] is None
        }
        return told - refused

    def ghosts(self) -> set[str]:
        """Those of them that never came, on purpose."""
        return {part_id for part_id in self.announced() if part_id.startswith("X")}

    def engine_calls(self) -> np.ndarray:
        return stamps.read_engine_log(self.folder / "engine.log")


def _read(path: Path, what: Callable[[JournalReader], Iterable[Any]]) -> list[Any]:
    with JournalReader(path) as journal:
        return list(what(journal))


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
