"""What the line contract promises in milliseconds, with keys (CURVE) on loopback, beside an idle control.

    python tests/benchmarks/line_contract.py received  # 200 parts/s: closed to received by a controller, while the journal runs
    python tests/benchmarks/line_contract.py late      # parts that are not ready at their deadline: how long after it `late` is sent
    python tests/benchmarks/line_contract.py dead      # a killed, a stopped and a hung daemon: when the controller knows it

The daemon runs in a process of its own; times of both processes are of the same machine's clock. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np

from inspector.camera.simulator.log import read_trigger_log
from inspector.client.controller import Controller
from inspector.client.decisions import Notice, NoticeKind
from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.config.station import read_station
from inspector.contract.wire import VerdictMessage
from inspector.daemon.station import Daemon
from inspector.engine.base import Array
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine
from inspector.journal.reader import JournalReader

free_port = run_path(str(Path(__file__).resolve().parents[1] / "assets" / "ports.py"))["free_port"]

STATION = """
name = "bench"
product = "product.toml"
state_dir = "state"
[publisher]
endpoint = "tcp://127.0.0.1:{port}"
[channel]
endpoint = "tcp://127.0.0.1:{requests}"
controllers = ["plc"]
[access]
keys = "keys"
[metrics]
port = 0
[[cameras]]
name = "top"
kind = "simulator"
trigger = "line"
rate_hz = {rate}
width_px = 640
height_px = 480
max_image_bytes = 307200
settings = {{ SimTriggerLimit = {parts} }}
environment = {{ INSPECTOR_SIM_STATE = "{line}" }}
[cameras.identity]
part_id = "trigger_counter"
"""
PRODUCT = """
name = "bench"
version = "1"
deadline_ms = {deadline_ms}
[detector]
engine = "none.json"
[validity]
black_below = 0
saturated_share = 1.0
"""
RECIPE = DetectorRecipe(name="nothing", classes=("none",), input=InputRecipe(height_px=64, width_px=64))
HANG_AT = 50
HANG_NOTE = "hangs at"


class BusyEngine(NullEngine):
    """Computes in native code, without the interpreter's lock, for longer than the deadline allows; or hangs at an image."""

    def __init__(self, kind: str) -> None:
        super().__init__(RECIPE)
        self._kind, self._images = kind, 0
        self._matrix = np.random.default_rng(7).random((700, 700))

    def _finish(self, job: Any) -> dict[str, Array]:
        self._images += 1
        if self._kind == "busy":
            until = time.monotonic() + 0.08
            while time.monotonic() < until:
                self._matrix @ self._matrix
        if self._kind == "hung" and self._images == HANG_AT:
            print(HANG_NOTE, time.monotonic_ns(), file=sys.stderr, flush=True)
            threading.Event().wait()
        return super()._finish(job)


def serve(station: Path, kind: str) -> None:
    """The daemon, with that engine."""
    daemon = Daemon(read_station(station), open_detector=lambda _: Detector(BusyEngine(kind)))
    code = daemon.run()
    if daemon.left_running:
        os._exit(code)
    sys.exit(code)


def percentiles(values: np.ndarray | list[float]) -> str:
    """p50, p99 and the greatest, milliseconds."""
    return "  ".join(f"{name} {value:.2f}" for name, value in zip(("p50", "p99", "max"), np.percentile(values, [50, 99, 100]), strict=True))


def idle_control(seconds: float) -> list[float]:
    """How late this machine wakes a process that waits for 20 ms, with nothing of ours running: milliseconds."""
    late = []
    due = time.monotonic() + 0.02
    while len(late) < seconds * 50:
        time.sleep(max(0.0, due - time.monotonic()))
        late.append((time.monotonic() - due) * 1e3)
        due += 0.02
    return late


class Bench:
    """A station file with keys, daemons on it, a controller."""

    def __init__(self, folder: Path, *, rate: float, parts: int, deadline_ms: float) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        (folder / "line").mkdir()
        (folder / "none.json").write_text("{}")
        (folder / "product.toml").write_text(PRODUCT.format(deadline_ms=deadline_ms))
        text = STATION.format(port=self.ports[0], requests=self.ports[1], rate=rate, parts=parts, line=folder / "line")
        self.station = folder / "station.toml"
        self.station.write_text(text)
        command = [sys.executable, "-m", "inspector.cli.main", "keys", "new", "plc", str(self.station), "--role", "controller"]
        subprocess.run([*command, "--to", str(folder / "plc.key")], check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def daemon(self, kind: str) -> Iterator[subprocess.Popen[str]]:
        """One daemon; ended at the end, however."""
        process = subprocess.Popen([sys.executable, __file__, "serve", str(self.station), kind], stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.communicate()

    def controller(self) -> Controller:
        """One that has a key."""
        publisher, requests = (f"tcp://127.0.0.1:{port}" for port in self.ports)
        return Controller(publisher, requests, name="plc", key_file=self.folder / "plc.key")


def follow(line: Controller, parts: int) -> tuple[dict[int, int], list[VerdictMessage]]:
    """Arrival of each verdict on the wall clock, by part number."""
    arrived: dict[int, int] = {}
    verdicts = []
    last = time.monotonic()
    while len(arrived) < parts and time.monotonic() - last < 20:
        for update in line.receive(0.2):
            if isinstance(update, VerdictMessage):
                arrived[update.part_no] = time.time_ns()
                verdicts.append(update)
                last = time.monotonic()
    return arrived, verdicts


def await_notice(line: Controller, kind: NoticeKind, stream: str | None = None, seconds: float = 30) -> int:
    """When the controller says so, monotonic ns."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for update in line.receive(0.5):
            if isinstance(update, Notice) and update.kind is kind and stream in {None, update.stream}:
                return time.monotonic_ns()
    raise TimeoutError(f"no {kind} in {seconds} s")


def bench_received(parts: int, rate: float) -> None:
    """Closed to received."""
    print(f"idle control, lateness of a 20 ms timer, ms: {percentiles(idle_control(10))}")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), rate=rate, parts=parts, deadline_ms=1000)
        with bench.controller() as line, bench.daemon("null"):
            arrived, verdicts = follow(line, parts)
        triggers = len(read_trigger_log(Path(name) / "line"))
        with JournalReader(Path(name) / "state" / "journal.sqlite") as journal:
            closed = {part.part_no: part.closed_utc_ns for part in journal.parts()}
    waits = [(at_ns - closed[part_no]) / 1e6 for part_no, at_ns in arrived.items()]
    print(f"{triggers} triggers at {rate:g}/s, {len(arrived)} received, {len(closed)} logged, {sum(v.outcome == 'PASS' for v in verdicts)} PASS")
    print(f"closed to received, ms: {percentiles(waits)}")


def bench_late(parts: int) -> None:
    """Deadline to `late`."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), rate=20, parts=parts, deadline_ms=40)
        with bench.controller() as line, bench.daemon("busy"):
            arrived, verdicts = follow(line, parts)
        with JournalReader(Path(name) / "state" / "journal.sqlite") as journal:
            logged = {part.part_no: part for part in journal.parts()}
    late = [verdict.part_no for verdict in verdicts if verdict.reason == "late"]
    print(f"{len(verdicts)} verdicts, {len(late)} late (40 ms; the engine computes 80 ms without a pause)")
    print(f"deadline to closed, ms:   {percentiles([(logged[no].closed_utc_ns - logged[no].deadline_utc_ns) / 1e6 for no in late])}")
    print(f"deadline to received, ms: {percentiles([(arrived[no] - logged[no].deadline_utc_ns) / 1e6 for no in late])}")


def bench_dead(times: int) -> None:
    """A daemon that dies, stops or hangs."""
    killed, stopped, hung = [], [], []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), rate=50, parts=1_000_000, deadline_ms=1000)
        with bench.controller() as line:
            for _ in range(times):
                with bench.daemon("null") as process:
                    await_notice(line, NoticeKind.LIVE)
                    for _ in range(3):
                        line.receive(0.03)
                    process.send_signal(signal.SIGSTOP)
                    begun = time.monotonic_ns()
                    stopped.append((await_notice(line, NoticeKind.DEAD) - begun) / 1e6)
                    process.send_signal(signal.SIGCONT)
                    await_notice(line, NoticeKind.LIVE)
                    process.kill()
                    begun = time.monotonic_ns()
                    killed.append((await_notice(line, NoticeKind.DEAD) - begun) / 1e6)
            for _ in range(max(3, times // 2)):
                with bench.daemon("hung") as process:
                    assert process.stderr is not None
                    notes = (note for note in process.stderr if HANG_NOTE in note)
                    found: list[int] = []
                    reader = threading.Thread(target=lambda notes=notes, found=found: found.append(int(next(notes).split()[-1])))
                    reader.start()
                    await_notice(line, NoticeKind.LIVE)
                    known_ns = await_notice(line, NoticeKind.DEAD)
                    reader.join()
                    hung.append((known_ns - found[0]) / 1e6)
                    process.kill()
    with Detector(NullEngine(RECIPE)) as detector:
        budget_ms = detector.budget_ms
    print(f"SIGKILL to known, ms: {percentiles(killed)}  ({len(killed)} times)")
    print(f"SIGSTOP to known, ms: {percentiles(stopped)}  ({len(stopped)} times)")
    print(f"hung engine to known, ms: {percentiles(hung)}  ({len(hung)} times); its budget is {budget_ms:g} ms")


def main() -> None:
    """The modes."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mode", choices=("received", "late", "dead", "serve"))
    arguments.add_argument("station", nargs="?", type=Path)
    arguments.add_argument("kind", nargs="?", default="null")
    arguments.add_argument("--rate", type=float, default=200)
    arguments.add_argument("--parts", type=int)
    arguments.add_argument("--times", type=int, default=10)
    options = arguments.parse_args()
    modes = {
        "serve": functools.partial(serve, options.station, options.kind),
        "received": functools.partial(bench_received, options.parts or 12_000, options.rate),
        "late": functools.partial(bench_late, options.parts or 400),
        "dead": functools.partial(bench_dead, options.times),
    }
    modes[options.mode]()


if __name__ == "__main__":
    main()
