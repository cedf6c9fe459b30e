"""Stations as processes: the real daemon, a tiny real engine, a simulated or folder camera, real sockets and files."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from runpy import run_path

import cv2
import numpy as np
import psutil
import pytest

from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.feed import write_feed
from inspector.client.subscriber import Notice, Subscriber
from inspector.compile.build import new_manifest
from inspector.compile.network import read_network
from inspector.contract.wire import BlindMessage, EventMessage, HeartbeatMessage, VerdictMessage
from inspector.engine.manifest import SUFFIX, encode_manifest
from inspector.journal.reader import JournalReader

ASSETS = Path(__file__).resolve().parents[1] / "assets"
free_port = run_path(str(ASSETS / "ports.py"))["free_port"]
PATIENCE_S = 60.0
"""What must happen happens within this time, however busy the machine is; nothing is measured by it."""
STOP_S = 5.0

STATION = """
name = "test"
product = "product.toml"
state_dir = "state"
[publisher]
endpoint = "tcp://127.0.0.1:{port}"
[channel]
endpoint = "tcp://127.0.0.1:{channel_port}"
{channel}
[metrics]
port = {metrics_port}
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
ring_slots = 64
max_image_bytes = 8192
restart_min_s = 0.1
restart_max_s = 0.2
settings = {{ SimTriggerLimit = {parts}{settings} }}
environment = {{ INSPECTOR_SIM_STATE = "{line}", INSPECTOR_SIM_SEED = "7", INSPECTOR_SIM_FAULTS = "{faults}" }}
[cameras.identity]
part_id = "trigger_counter"
"""
FOLDER_CAMERA = """
[[cameras]]
name = "top"
kind = "folder"
images = "pictures"
rate_hz = {rate}
ring_slots = 64
max_image_bytes = 8192
restart_min_s = 0.1
restart_max_s = 0.2
[cameras.identity]
part_id = "frame"
"""
PRODUCT = """
name = "plate"
version = "1"
deadline_ms = {deadline_ms}
{head}
[detector]
engine = {engine}
threshold = 0.9
{rules}
"""


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def picture(number: int) -> np.ndarray:
    """Odd ones have a bright square, which the tiny engine calls ``bright``; on even ones nothing reaches the threshold."""
    image = np.random.default_rng(number).integers(122, 133, (64, 64)).astype(np.uint8)
    if number % 2:
        image[16:32, 16:32] = 235
    return image


def write_pictures(folder: Path, count: int = 12) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture(number))


class Wire:
    """A subscriber and all it has heard."""

    def __init__(self, port: int) -> None:
        self.subscriber = Subscriber(f"tcp://127.0.0.1:{port}")
        self.verdicts: list[VerdictMessage] = []
        self.blinds: list[BlindMessage] = []
        self.events: list[EventMessage] = []
        self.beats: list[HeartbeatMessage] = []
        self.notices: list[Notice] = []

    def listen(self, seconds: float) -> None:
        for update in self.subscriber.receive(seconds):
            if isinstance(update, VerdictMessage):
                self.verdicts.append(update)
            elif isinstance(update, BlindMessage):
                self.blinds.append(update)
            elif isinstance(update, EventMessage):
                self.events.append(update)
            elif isinstance(update, HeartbeatMessage):
                self.beats.append(update)
            else:
                self.notices.append(update)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Listen until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
            self.listen(0.05)

    def rest(self) -> None:
        """What is still on its way when the publisher has closed."""
        self.listen(0.3)

    @property
    def lost(self) -> int:
        return sum(notice.missing for notice in self.notices)


class Running:
    """``inspector run`` as a process; what it says is read all the time."""

    def __init__(self, station: Path, engine: str = "") -> None:
        command = [str(ASSETS / "run_with_engine.py"), engine] if engine else ["-m", "inspector.cli.main", "run"]
        self.process = subprocess.Popen(
            [sys.executable, *command, str(station)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_ready(self) -> None:
        wait_for(lambda: "ready:" in self.said or self.process.poll() is not None, "the daemon is ready")
        assert self.process.poll() is None, self.said

    def cameras(self) -> list[psutil.Process]:
        """Its camera processes; not the moment's helper that a library may start (``uname``, while an engine is loaded)."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if "inspector.camera.process" in child.cmdline()]
        except psutil.NoSuchProcess:
            return []

    def end(self, number: int = signal.SIGTERM, within_s: float = STOP_S) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.wait(within_s)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        assert not self._reader.is_alive(), "somebody still holds the daemon's stderr"
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            children = self.cameras()
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(children, 5)
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()


@dataclass
class Site:
    """A station's folder, and what runs there."""

    folder: Path
    engine: Path
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    channel_port: int = field(default_factory=free_port)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def station(self) -> Path:
        return self.folder / "station.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def journal(self) -> Path:
        return self.state / "journal.sqlite"

    def write(self, *cameras: str, head: str = "", rules: str = "", extra: str = "", channel: str = "", deadline_ms: float = 5000) -> Path:
        """Station file, product recipe and images; without cameras one simulated camera. ``channel``: further keys of ``[channel]``."""
        write_feed(self.folder / "images.feed", (picture(number) for number in range(16)))
        product = PRODUCT.format(head=head, rules=rules, deadline_ms=deadline_ms, engine=json.dumps(str(self.engine)))
        (self.folder / "product.toml").write_text(product)
        text = STATION.format(port=self.port, metrics_port=self.metrics_port, channel_port=self.channel_port, channel=channel, extra=extra)
        self.station.write_text(text + "".join(cameras or [self.camera()]))
        return self.station

    def camera(self, name: str = "top", serial: str = "SIM0", rate: float = 50, parts: int = 0, faults: str = "", settings: str = "") -> str:
        line = self.folder / f"line-{name}"
        line.mkdir(exist_ok=True)
        return CAMERA.format(name=name, serial=serial, rate=rate, parts=parts, faults=faults, line=line, settings=settings)

    def folder_camera(self, rate: float = 50) -> str:
        (self.folder / "pictures").mkdir(exist_ok=True)
        return FOLDER_CAMERA.format(rate=rate)

    def run(self, engine: str = "") -> Running:
        """``engine``: a misbehaving one of ``tests/assets/run_with_engine.py``; empty: the tiny real one."""
        running = Running(self.station, engine)
        self.stack.callback(running.close)
        return running

    def wire(self) -> Wire:
        wire = Wire(self.port)
        self.stack.callback(wire.subscriber.close)
        return wire

    def read(self) -> JournalReader:
        return self.stack.enter_context(JournalReader(self.journal))

    def get(self, path: str) -> tuple[int, str]:
        """A page of the running daemon."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=5)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def complain(self, command: str = "run") -> tuple[int, list[str]]:
        """Run a command that is to fail at once: its exit code and what it says; never a traceback."""
        arguments = [sys.executable, "-m", "inspector.cli.main", command, str(self.station)]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [line.removeprefix("inspector: ") for line in done.stderr.splitlines() if line.startswith("inspector: ")]


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest: the tiny network as an engine of this machine."""
    folder = tmp_path_factory.mktemp("engine")
    network = read_network(ASSETS / "tiny.onnx")
    (folder / "tiny.onnx").write_bytes((ASSETS / "tiny.onnx").read_bytes())
    path = folder / f"tiny{SUFFIX}"
    path.write_bytes(encode_manifest(new_manifest(network, folder)))
    return path


@pytest.fixture
def site(tmp_path: Path, tiny_engine: Path) -> Iterator[Site]:
    if simulator_path() is None:
        pytest.skip("the simulator was not built: no C++ compiler")
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path, tiny_engine, stack=stack)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "default")


@pytest.fixture(name="write_pictures")
def _write_pictures() -> Callable[[Path], None]:
    return write_pictures


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., None]:
    return wait_for


@pytest.fixture(name="free_port")
def _free_port() -> int:
    return free_port()
