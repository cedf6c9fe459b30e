"""Signals: the daemon and the controller are stopped, killed, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from kinds import Injected, at_least, kind
from plant import ASSETS, ChaosError, Plant, own_environment

from inspector.contract.errors import ExitCode


@kind("daemon_sigkill", "daemon", subset=True)
def daemon_sigkill(plant: Plant) -> Injected:
    """SIGKILL in the middle of the line; started again."""
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_trigger(100 + plant.rng.randrange(100))
    plant.end(number=signal.SIGKILL)
    plant.again()
    plant.finish()
    return at_least(_crashes(plant), 1, "exit status -9")


@kind("daemon_sigkill_slow_engine", "daemon")
def daemon_sigkill_slow_engine(plant: Plant) -> Injected:
    """SIGKILL while parts are open and images wait: they end as crashed."""
    plant.write(plant.camera("", 0), deadline_ms=600)
    plant.begin("stamp,slow_at=60x2000:30ms")
    plant.wait_trigger(100 + plant.rng.randrange(50))
    plant.end(number=signal.SIGKILL)
    plant.again()
    plant.finish()
    at_least(sum(part.reason == "crashed" for part in plant.parts()), 3, "parts of crashed")
    return at_least(_crashes(plant), 1, "exit status -9")


@kind("daemon_sigkill_often", "daemon")
def daemon_sigkill_often(plant: Plant) -> Injected:
    """SIGKILL at four random instants, each time as soon as it runs again."""
    plant.write(plant.camera("", 0, rate=150))
    plant.begin()
    for _ in range(4):
        plant.wait_verdicts(plant.heard() + 20 + plant.rng.randrange(60))
        plant.wait(plant.for_ms(plant.rng.uniform(0, 100)), "a random time has passed")
        plant.end(number=signal.SIGKILL)
        plant.again()
    plant.finish()
    return at_least(_crashes(plant), 4, "exit status -9")


@kind("daemon_sigkill_at_start", "daemon")
def daemon_sigkill_at_start(plant: Plant) -> Injected:
    """SIGKILL while the daemon starts and its camera opens."""
    plant.write(plant.camera("", 0))
    plant.begin()
    plant.wait_trigger(60)
    plant.end(number=signal.SIGKILL)
    for _ in range(3):
        boot = plant.daemon()
        plant.wait(lambda boot=boot: "camera_opening" in boot.said, "the camera is being opened")
        plant.wait(plant.for_ms(plant.rng.uniform(0, 250)), "a random time has passed")
        plant.name(boot)
        plant.end(boot, signal.SIGKILL)
    plant.again()
    plant.finish()
    return at_least(_crashes(plant), 4, "exit status -9")


def _crashes(plant: Plant) -> int:
    return sum(boot.code == -signal.SIGKILL for boot in plant.boots)


@kind("daemon_sigstop", "daemon")
def daemon_sigstop(plant: Plant) -> Injected:
    """SIGSTOP for a second; it goes on with what has gathered."""
    plant.write(plant.camera("", 500))
    boot = plant.begin()
    plant.wait_trigger(80 + plant.rng.randrange(80))
    boot.frozen_ns.append(plant.freeze(boot.process.pid, plant.for_ms(1000), "a second has passed"))
    plant.finish()
    return at_least(len(boot.frozen_ns), 1, "process state")


@kind("daemon_sigstop_short", "daemon")
def daemon_sigstop_short(plant: Plant) -> Injected:
    """SIGSTOP for 60 to 250 ms, six times: around the time after which it counts as dead."""
    plant.write(plant.camera("", 600))
    boot = plant.begin()
    plant.wait_trigger(60)
    for _ in range(6):
        boot.frozen_ns.append(plant.freeze(boot.process.pid, plant.for_ms(plant.rng.uniform(60, 250)), "a while has passed"))
        plant.wait_trigger(len(plant.lines[0].triggers()) + 40)
    plant.finish()
    return at_least(len(boot.frozen_ns), 6, "process state")


@kind("daemon_sigstop_sigkill", "daemon")
def daemon_sigstop_sigkill(plant: Plant) -> Injected:
    """SIGSTOP, then SIGKILL after a second: it never says a word more."""
    plant.write(plant.camera("", 0))
    boot = plant.begin()
    plant.wait_trigger(80 + plant.rng.randrange(80))
    os.kill(boot.process.pid, signal.SIGSTOP)
    stopped_ns = time.monotonic_ns()
    plant.wait(plant.for_ms(1000), "a second has passed")
    plant.end(boot, signal.SIGKILL)
    boot.ended_ns = stopped_ns
    plant.again()
    plant.finish()
    return at_least(_crashes(plant), 1, "exit status -9")


@kind("daemon_sigterm", "daemon", subset=True)
def daemon_sigterm(plant: Plant) -> Injected:
    """SIGTERM under load: open parts close as shutdown, exit 0 within five seconds; started again."""
    plant.write(plant.camera("", 0, rate=150), deadline_ms=600)
    boot = plant.begin("stamp,slow_at=60x2000:12ms")
    plant.wait_trigger(120 + plant.rng.randrange(100))
    plant.end(boot)
    plant.again()
    plant.finish()
    return at_least(int(boot.code == ExitCode.OK), 1, "exit status 0")


@kind("second_daemon", "daemon")
def second_daemon(plant: Plant) -> Injected:
    """A second daemon on the same station: it is refused, and the first does not notice."""
    plant.write(plant.camera("", 500))
    plant.begin()
    plant.wait_trigger(60)
    command = [sys.executable, str(ASSETS / "run_with_engine.py"), "stamp", str(plant.folder / "station.toml")]
    done = subprocess.run(command, env=own_environment(), capture_output=True, text=True, timeout=60, check=False)
    if done.returncode not in {ExitCode.UNAVAILABLE, ExitCode.JOURNAL} or "another" not in done.stderr:
        raise ChaosError(f"the second daemon left with {done.returncode}: {done.stderr[-500:]}")
    plant.finish()
    return at_least(1, 1, f"exit status {done.returncode}")


@kind("controller_sigkill", "controller")
def controller_sigkill(plant: Plant) -> Injected:
    """SIGKILL of the controller; another one takes its place in the middle of the line."""
    plant.write(plant.camera("", 500))
    plant.begin()
    plant.wait_trigger(100 + plant.rng.randrange(60))
    plant.controller.process.kill()
    code = plant.controller.process.wait()
    plant.listen("controller-2")
    plant.finish()
    return at_least(int(code == -signal.SIGKILL), 1, "exit status -9")


@kind("controller_sigstop", "controller", subset=True)
def controller_sigstop(plant: Plant) -> Injected:
    """SIGSTOP of the controller for longer than the deadline: what it reads afterwards is old."""
    plant.write(plant.camera("", 500))
    plant.begin()
    plant.wait_trigger(80 + plant.rng.randrange(80))
    plant.freeze(plant.controller.process.pid, plant.for_ms(900), "0.9 s have passed")
    plant.finish()
    return at_least(1, 1, "process state")


@kind("controller_sigstop_short", "controller")
def controller_sigstop_short(plant: Plant) -> Injected:
    """SIGSTOP of the controller for 50 to 380 ms, six times: less than the deadline, more than a heartbeat."""
    plant.write(plant.camera("", 700))
    plant.begin()
    plant.wait_trigger(60)
    for _ in range(6):
        plant.freeze(plant.controller.process.pid, plant.for_ms(plant.rng.uniform(50, 380)), "a while has passed")
        plant.wait_trigger(len(plant.lines[0].triggers()) + 30)
    plant.finish()
    return at_least(6, 6, "process state")


@kind("storm", "all together")
def storm(plant: Plant) -> Injected:
    """Twelve of these at random, one after the other, while the camera makes faults of its own."""
    faults = "drop_rate=0.01,incomplete_rate=0.01,black_rate=0.01,frozen_rate=0.01,duplicate_rate=0.01,late_rate=0.01:60ms,reorder_rate=0.01:30ms"
    plant.write(plant.camera(faults, 0))
    plant.begin()
    controllers = [plant.controller]

    def kill_daemon() -> None:
        plant.end(number=signal.SIGKILL)
        plant.again()

    def stop_daemon() -> None:
        plant.end()
        plant.again()

    def freeze_daemon() -> None:
        boot = plant.boots[-1]
        boot.frozen_ns.append(plant.freeze(boot.process.pid, plant.for_ms(plant.rng.uniform(50, 700)), "a while has passed"))

    def kill_camera() -> None:
        plant.kill_process(plant.camera_process())

    def freeze_camera() -> None:
        plant.freeze(plant.camera_process().pid, plant.for_ms(plant.rng.uniform(50, 450)), "a while has passed")

    def freeze_controller() -> None:
        plant.freeze(controllers[-1].process.pid, plant.for_ms(plant.rng.uniform(50, 700)), "a while has passed")

    def kill_controller() -> None:
        controllers[-1].process.kill()
        controllers[-1].process.wait()
        controllers.append(plant.listen(f"controller-{len(controllers) + 1}"))

    actions = [kill_daemon, stop_daemon, freeze_daemon, kill_camera, freeze_camera, freeze_controller, kill_controller]
    chosen = [*plant.rng.sample(actions, len(actions)), *plant.rng.choices(actions, k=5)]
    for action in chosen:
        plant.wait_verdicts(plant.heard() + 10 + plant.rng.randrange(50))
        plant.wait(plant.for_ms(plant.rng.uniform(0, 50)), "a random time has passed")
        action()
    plant.finish()
    return at_least(len(chosen), 12, ", ".join(dict.fromkeys(action.__name__ for action in chosen)))
