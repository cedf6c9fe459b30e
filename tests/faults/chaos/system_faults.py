"""The machine around the daemon: clock, ports, memory, processors, descriptors, and whoever should read its messages."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import psutil
from kinds import Injected, at_least, kind
from plant import Boot, ChaosError, Plant

from inspector.camera.simulator.nodes import Fault
from inspector.contract.errors import ExitCode

HERE = Path(__file__).resolve().parent


class ShiftedClock:
    """A wall clock for one process alone: a shim between it and the C library adds what stands in a file."""

    def __init__(self, plant: Plant) -> None:
        library = plant.folder / "clock_shim.so"
        subprocess.run(["g++", "-shared", "-fPIC", "-O2", "-o", str(library), str(HERE / "clock_shim.cpp"), "-ldl"], check=True)
        self.file = plant.folder / "clock"
        self.file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIM_FILE": str(self.file)}
        plant.clock_shifted = True

    def step(self, seconds: float) -> None:
        """From now on the wall clock of the process goes before this one's by so much."""
        with self.file.open("r+b") as file:
            file.write(int(seconds * 1e9).to_bytes(8, "little", signed=True))


def _clock(plant: Plant, *steps_s: float) -> Injected:
    clock = ShiftedClock(plant)
    plant.write(plant.camera("", 0))
    plant.begin("stamp", **clock.environment)
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    for step_s in steps_s:
        clock.step(step_s)
        plant.wait_verdicts(plant.heard() + 100)
    plant.finish()
    utc = [part.closed_utc_ns for part in plant.parts()]
    jumps = [after - before for before, after in pairwise(utc)]
    return at_least(sum(abs(jump) > 5e9 for jump in jumps), len(steps_s), "times in the journal")


@kind("clock_forward", "system", subset=True)
def clock_forward(plant: Plant) -> Injected:
    """The wall clock jumps an hour ahead."""
    return _clock(plant, 3600)


@kind("clock_backwards", "system")
def clock_backwards(plant: Plant) -> Injected:
    """The wall clock jumps an hour back."""
    return _clock(plant, -3600)


@kind("clock_to_and_fro", "system")
def clock_to_and_fro(plant: Plant) -> Injected:
    """The wall clock jumps ten seconds to and fro, and a year."""
    return _clock(plant, 10, 0, -10, 31_536_000)


@kind("port_taken", "system", subset=True)
def port_taken(plant: Plant) -> Injected:
    """After SIGKILL another program takes the publisher's port: refused with exit code 69, until it is free."""
    return _port(plant, plant.port)


@kind("request_port_taken", "system")
def request_port_taken(plant: Plant) -> Injected:
    """After SIGKILL another program takes the request socket's port."""
    return _port(plant, plant.channel_port)


def _port(plant: Plant, port: int) -> Injected:
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_verdicts(60 + plant.rng.randrange(60))
    plant.end(number=signal.SIGKILL)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((plant.host, port))
        other.listen()
        refused = plant.daemon()
        plant.ended(refused, ExitCode.UNAVAILABLE)
    if str(port) not in refused.said:
        raise ChaosError(f"the daemon did not name the port: {refused.said}")
    plant.again()
    plant.finish()
    return at_least(int(refused.code == ExitCode.UNAVAILABLE), 1, "exit status 69")


@kind("garbage_at_the_ports", "system")
def garbage_at_the_ports(plant: Plant) -> Injected:
    """Connections that send rubbish, half a greeting or nothing at all, to all three ports."""
    plant.write(plant.camera("", 500))
    plant.begin()
    sent = 0
    for _ in range(60):
        for port in (plant.port, plant.channel_port, plant.metrics_port):
            with socket.socket() as caller:
                caller.settimeout(5)
                caller.connect((plant.host, port))
                caller.sendall(plant.rng.randbytes(plant.rng.randrange(1, 2000)))
                sent += 1
    greeting = b"\xff" + bytes(8) + b"\x7f"
    with socket.socket() as half:
        half.connect((plant.host, plant.port))
        half.sendall(greeting)
        plant.finish()
    return at_least(sent, 180, "sent")


@kind("processors_busy", "system")
def processors_busy(plant: Plant) -> Injected:
    """Other programs take all processors."""
    plant.write(plant.camera("", 600))
    plant.begin()
    plant.wait_trigger(60)
    code = f"import os\nparent = {os.getpid()}\nwhile os.getppid() == parent:\n    sum(range(10000))"
    for _ in range(3 * (os.cpu_count() or 1)):
        plant.helpers.append(subprocess.Popen([sys.executable, "-c", code]))
    plant.wait_trigger(400)
    used_s = 0.0
    for helper in plant.helpers:
        used_s += psutil.Process(helper.pid).cpu_times().user
        helper.kill()
        helper.wait()
    plant.finish()
    return at_least(int(used_s * 10), 5, "tenths of a second that they used")


@kind("driver_eats_memory", "system")
def driver_eats_memory(plant: Plant) -> Injected:
    """The driver leaks until the camera process gets no more memory."""
    plant.write(plant.camera("leak_every=2", 0))
    plant.begin()
    process = plant.camera_process()
    plant.wait_trigger(60)
    limit = process.memory_info().vms + (64 << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    plant.wait(lambda: not process.is_running(), "the camera process has died of it")
    plant.wait_event("camera_streaming", 2)
    plant.finish()
    return at_least(plant.flags(Fault.LEAK), 10, "LEAK in the trigger log; a new camera process")


@kind("descriptors_used_up", "system")
def descriptors_used_up(plant: Plant) -> Injected:
    """The daemon gets no more file descriptors, and its camera process dies."""
    plant.write(plant.camera("", 0))
    boot = plant.begin()
    plant.wait_trigger(60 + plant.rng.randrange(60))
    pid = boot.process.pid
    used = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 1
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(10, used - 20), hard))
    plant.kill_process(plant.camera_process())
    plant.wait(lambda: "Too many open files" in boot.said or not boot.alive, "the daemon has no descriptor left")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    plant.survive(boot, ExitCode.FAILURE, lambda: len(plant.events("camera_streaming")) > 1)
    plant.finish()
    return at_least(boot.said.count("Too many open files"), 1, "its own message")


@kind("log_blocked", "system")
def log_blocked(plant: Plant) -> Injected:
    """Whoever should read the daemon's messages stands still, and its pipe is full, while the camera is lost and comes back."""
    plant.write(plant.camera("lost_at=200:300ms,drop_at=150,crash_at=420", 0))
    reading, writing = os.pipe()
    boots: list[Boot] = []

    def read_on() -> None:
        """What the daemon says, on to its log."""
        with contextlib.suppress(BlockingIOError), (plant.folder / "boot-0.log").open("ab") as log:
            while said := os.read(reading, 65536):
                log.write(said)

    os.set_blocking(reading, False)
    try:
        plant.pump = read_on
        boots.append(plant.begin(out=writing))
        plant.wait_trigger(120)
        plant.pump = lambda: None
        filled = fill_pipe(writing)
        plant.wait_trigger(300)
        plant.wait(plant.for_ms(1500), "the log stands still for a while")
        plant.pump = read_on
        plant.wait_event("camera_streaming", 2)
        plant.finish()
    finally:
        os.close(reading)
        os.close(writing)
    return at_least(filled, 1000, "bytes that filled the pipe")


def fill_pipe(writing: int) -> int:
    """Until not a byte more goes in, by a description of the pipe's end that is not the daemon's."""
    end = os.open(f"/proc/self/fd/{writing}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    filled = 0
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(end, b"." * size)
    os.close(end)
    return filled
