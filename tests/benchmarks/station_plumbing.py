"""The station around an engine that does nothing: rate, latency, memory; every part accounted for.

    python tests/benchmarks/station_plumbing.py rate     # 1280x960 at 400 parts/s for 60 s
    python tests/benchmarks/station_plumbing.py latency  # 1280x960 at 50 parts/s, exposure to published, beside an idle control
    python tests/benchmarks/station_plumbing.py memory   # 200,000 parts: growth of the daemon after warm-up

The daemon runs in a process of its own, as in real life; this process follows its publisher and compares three counts: the simulated
line's triggers, the verdicts on the wire, the rows in the journal.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path

import numpy as np
import psutil

from inspector.camera.simulator.log import read_trigger_log
from inspector.client.subscriber import Subscriber
from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.config.station import read_station
from inspector.contract.wire import HeartbeatMessage, VerdictMessage
from inspector.daemon.station import Daemon
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
endpoint = "tcp://127.0.0.1:*"
[metrics]
port = 0
[[cameras]]
name = "top"
kind = "simulator"
trigger = "line"
rate_hz = {rate}
width_px = {width}
height_px = {height}
max_image_bytes = {size}
settings = {{ SimTriggerLimit = {parts}, SimEncoderStep = 10 }}
environment = {{ INSPECTOR_SIM_STATE = "{line}" }}
[cameras.identity]
part_id = "trigger_counter"
"""
PRODUCT = """
name = "bench"
version = "1"
deadline_ms = 1000
[detector]
engine = "none.json"
[validity]
black_below = 0
saturated_share = 1.0
"""


def serve(station: Path) -> None:
    """The daemon, with an engine that does nothing."""
    recipe = DetectorRecipe(name="nothing", classes=("none",), input=InputRecipe(height_px=64, width_px=64))
    sys.exit(Daemon(read_station(station), open_detector=lambda _: Detector(NullEngine(recipe))).run())


def idle_control(seconds: float) -> np.ndarray:
    """How late this machine wakes a process that waits for 20 ms, with nothing of ours running: milliseconds."""
    late = []
    due = time.monotonic() + 0.02
    while len(late) < seconds * 50:
        time.sleep(max(0.0, due - time.monotonic()))
        late.append((time.monotonic() - due) * 1e3)
        due += 0.02
    return np.array(late)


def percentiles(values: np.ndarray) -> str:
    return "  ".join(
        f"{name} {value:.2f}" for name, value in zip(("p50", "p90", "p99", "max"), np.percentile(values, [50, 90, 99, 100]), strict=True)
    )


def follow(
    line: Subscriber, daemon: subprocess.Popen[bytes], parts: int, process: psutil.Process
) -> tuple[list[VerdictMessage], list[tuple[int, float, int, int]]]:
    """Verdicts, and once a second (parts, private MiB, descriptors, threads) of the daemon."""
    verdicts: list[VerdictMessage] = []
    samples = []
    sampled = last = time.monotonic()
    while len(verdicts) < parts:
        for update in line.receive(0.2):
            if isinstance(update, VerdictMessage):
                verdicts.append(update)
                last = time.monotonic()
            elif isinstance(update, HeartbeatMessage) and time.monotonic() - sampled >= 1:
                sampled = time.monotonic()
                samples.append((len(verdicts), process.memory_full_info().uss / 2**20, process.num_fds(), process.num_threads()))
        if daemon.poll() is not None or time.monotonic() - last > 30:
            break
    return verdicts, samples


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("mode", choices=("rate", "latency", "memory", "serve"))
    arguments.add_argument("station", nargs="?", type=Path)
    arguments.add_argument("--rate", type=float)
    arguments.add_argument("--parts", type=int)
    options = arguments.parse_args()
    if options.mode == "serve":
        serve(options.station)
    rate = options.rate or {"rate": 400.0, "latency": 50.0, "memory": 800.0}[options.mode]
    parts = options.parts or {"rate": 24_000, "latency": 3_000, "memory": 200_000}[options.mode]
    width, height = (64, 48) if options.mode == "memory" else (1280, 960)
    if options.mode == "latency":
        print("idle control, lateness of a 20 ms timer, ms:", percentiles(idle_control(10)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        (folder / "line").mkdir()
        (folder / "none.json").write_text("{}")
        (folder / "product.toml").write_text(PRODUCT)
        text = STATION.format(port=port, rate=rate, width=width, height=height, size=width * height, parts=parts, line=folder / "line")
        (folder / "station.toml").write_text(text)
        with Subscriber(f"tcp://127.0.0.1:{port}") as line:
            daemon = subprocess.Popen([sys.executable, __file__, "serve", str(folder / "station.toml")], stderr=subprocess.PIPE)
            process = psutil.Process(daemon.pid)
            begun = time.monotonic()
            verdicts, samples = follow(line, daemon, parts, process)
            seconds = time.monotonic() - begun
            cpu = process.cpu_times() if daemon.poll() is None else None
            daemon.send_signal(signal.SIGTERM)
            _, errors = daemon.communicate(timeout=20)
        triggers = read_trigger_log(folder / "line")
        with JournalReader(folder / "state" / "journal.sqlite") as journal:
            logged = journal.logged(verdicts[0].boot_id) if verdicts else 0
            reasons = journal.reasons(verdicts[0].boot_id) if verdicts else {}
    span = (triggers["host_ns"][-1] - triggers["host_ns"][0]) / 1e9 if len(triggers) > 1 else 0
    print(f"{options.mode}: {width}x{height} Mono8, {len(triggers)} triggers in {span:.1f} s = {(len(triggers) - 1) / span:.1f} parts/s")
    ids = {verdict.part_id for verdict in verdicts}
    print(f"triggers {len(triggers)}  verdicts {len(verdicts)}  distinct ids {len(ids)}  logged {logged}  exit code {daemon.returncode}")
    print("outcomes:", {name: sum(v.outcome == name for v in verdicts) for name in ("PASS", "REJECT", "UNINSPECTED")}, reasons)
    print("exposure to published, ms:", percentiles(np.array([verdict.age_ms for verdict in verdicts])))
    if cpu is not None:
        print(f"daemon CPU: {(cpu.user + cpu.system) / max(1, len(verdicts)) * 1e3:.2f} ms per part; run {seconds:.0f} s")
    if options.mode == "memory":
        warm = [sample for sample in samples if sample[0] >= parts * 0.1]
        first, last = warm[0], warm[-1]
        print(f"private memory, MiB: {first[1]:.1f} at part {first[0]} -> {last[1]:.1f} at part {last[0]}: growth {last[1] - first[1]:.2f}")
        print(f"descriptors {sorted({s[2] for s in warm})}  threads {sorted({s[3] for s in warm})}")
    if errors.strip() and daemon.returncode:
        print(errors.decode())


if __name__ == "__main__":
    main()
