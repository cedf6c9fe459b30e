"""Faults of the engine, and of what lies between camera and engine: the ring of images and the socket of records."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from kinds import Injected, at_least, kind
from plant import Plant

from inspector.contract.errors import ExitCode

AT_UNSENT = 3
"""Word of the ring's header that counts records which could not be sent (``inspector.contract.ring``)."""


def _failures(plant: Plant) -> int:
    return int(np.count_nonzero(plant.engine_calls()["result"] == 0))


def _reasons(plant: Plant, reason: str) -> int:
    return sum(part.reason == reason for part in plant.parts())


@kind("engine_slow", "engine")
def engine_slow(plant: Plant) -> Injected:
    """Some images take 60 to 300 ms; what waits behind them comes late."""
    first = 40 + plant.rng.randrange(40)
    plant.write(plant.camera("", 300))
    plant.begin(f"stamp,slow_at={first}x12:60ms,slow_at={first + 60}x2:300ms")
    plant.finish()
    calls = plant.engine_calls()
    slow = int(np.count_nonzero(np.diff(calls["at_ns"]) > 50_000_000))
    at_least(_reasons(plant, "late") + _reasons(plant, "overrun"), 1, "late parts")
    return at_least(slow, 10, "engine's own log")


@kind("engine_throws", "engine", subset=True)
def engine_throws(plant: Plant) -> Injected:
    """Single images fail in the engine."""
    first = 20 + plant.rng.randrange(20)
    plant.write(plant.camera("", 250))
    plant.begin(f"stamp,throw_at={first},throw_at={first + 70}x2,throw_at={first + 130}")
    plant.finish()
    at_least(_reasons(plant, "engine_error"), 4, "parts of engine_error")
    return at_least(_failures(plant), 4, "engine's own log")


@kind("engine_nonsense", "engine")
def engine_nonsense(plant: Plant) -> Injected:
    """The engine returns numbers that are no detections."""
    first = 20 + plant.rng.randrange(20)
    plant.write(plant.camera("", 250))
    plant.begin(f"stamp,nan_at={first},nan_at={first + 70}x5")
    plant.finish()
    at_least(_reasons(plant, "engine_error"), 6, "parts of engine_error")
    return at_least(_failures(plant), 6, "engine's own log")


@kind("engine_rebuilt", "engine")
def engine_rebuilt(plant: Plant) -> Injected:
    """Three failures in a row: the engine is opened anew, and works again."""
    first = 30 + plant.rng.randrange(40)
    plant.write(plant.camera("", 250))
    plant.begin(f"stamp,throw_at={first}x3")
    plant.finish()
    return at_least(_failures(plant), 3, "engine's own log")


@kind("engine_given_up", "engine")
def engine_given_up(plant: Plant) -> Injected:
    """It fails again after it was opened anew: the daemon leaves with the engine's exit code, and is started again."""
    first = 60 + plant.rng.randrange(60)
    plant.write(plant.camera("", 0))
    boot = plant.begin(f"stamp,throw_at={first}x9")
    plant.ended(boot, ExitCode.ENGINE)
    plant.again()
    plant.finish()
    return at_least(_failures(plant), 6, "engine's own log; exit code 70")


@kind("engine_hangs_and_returns", "engine")
def engine_hangs_and_returns(plant: Plant) -> Injected:
    """One call takes 1.5 s: no heartbeats meanwhile, the parts come late."""
    plant.write(plant.camera("", 400))
    boot = plant.begin(f"stamp,hang_at={60 + plant.rng.randrange(40)}:1500ms")
    plant.finish()
    silent = _longest_silence_ms(plant)
    if silent < 500:
        plant.problems.append(f"heartbeats went on while the engine hung: the longest pause was {silent:.0f} ms")
    at_least(_reasons(plant, "late"), 20, "late parts")
    return at_least(boot.said.count("the engine hangs"), 1, "its own message")


@kind("engine_hangs", "engine")
def engine_hangs(plant: Plant) -> Injected:
    """A call never returns: silence, SIGTERM, exit within five seconds, a new start."""
    plant.write(plant.camera("", 0))
    boot = plant.begin(f"stamp,hang_at={60 + plant.rng.randrange(60)}:0s")
    plant.wait_said("the engine hangs")
    plant.wait(lambda: _silence_ms(plant) > 600, "heartbeats are withheld")
    plant.end(boot)
    plant.again()
    plant.finish()
    return at_least(boot.said.count("the engine hangs"), 1, "its own message, silence")


def _silence_ms(plant: Plant) -> float:
    plant.observer.refresh()
    return (time.monotonic_ns() - plant.observer.of("beat")[-1]["at"]) / 1e6


def _longest_silence_ms(plant: Plant) -> float:
    beats = [note["at"] for note in plant.observer.of("beat") if note["stream"] == plant.lines[0].name]
    return max((after - before) / 1e6 for before, after in pairwise(beats))


@kind("ring_full", "ring", subset=True)
def ring_full(plant: Plant) -> Injected:
    """Two slots and an engine that is slower than the line."""
    plant.write(plant.camera("", 300, slots=2))
    plant.begin("stamp,slow_every=3:40ms")
    plant.finish()
    return at_least(_reasons(plant, "overrun"), 10, "parts of overrun")


@kind("record_backlog", "ring")
def record_backlog(plant: Plant) -> Injected:
    """The daemon stands still until the camera process cannot even send records any more."""
    plant.write(plant.camera("", 1600, rate=250, slots=16, heartbeat_s=30))
    boot = plant.begin()
    plant.wait_trigger(100)
    ring = open_ring(boot.process.pid)
    boot.frozen_ns.append(plant.freeze(boot.process.pid, lambda: unsent(ring) > 20, "records could not be sent"))
    plant.finish()
    at_least(_reasons(plant, "overrun"), 20, "parts of overrun")
    count = unsent(ring)
    os.close(ring)
    return at_least(count, 20, "the ring's own count")


def unsent(ring: int) -> int:
    """The ring's count of records that could not be sent."""
    return int(np.frombuffer(os.pread(ring, 4 * (AT_UNSENT + 1), 0), np.uint32)[AT_UNSENT])


def open_ring(pid: int) -> int:
    """The ring of a running daemon, found among its descriptors."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if "memfd:inspector-ring" in str(entry.readlink()):
            return os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
    raise FileNotFoundError("the daemon has no ring")
