"""Images that carry their own number, and the engine that reads it: what was inspected is known, not assumed."""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inspector.config.detector import CompileRecipe
from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.base import Array
from inspector.engine.manifest import Manifest, manifest_hash
from inspector.engine.null import NullEngine, null_manifest

BITS = 8
IMAGES = 1 << BITS
BLOCK = 8
SIDE = BITS * BLOCK
BUDGET_MS = 400.0
RECIPE = DetectorRecipe(
    name="stamp",
    classes=tuple(str(n) for n in range(IMAGES)),
    input=InputRecipe(height_px=SIDE, width_px=SIDE),
    compile=CompileRecipe(budget_ms=BUDGET_MS),
)
CALL = struct.Struct("<qii")
"""A record of the engine's log: CLOCK_MONOTONIC in ns at the end of the call, the number that was read, 1 if there was a result."""
UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def stamped(number: int) -> np.ndarray:
    """Grey, with the number's bits as blocks of 8x8 pixels."""
    image = np.full((SIDE, SIDE), 90, np.uint8)
    for bit in range(BITS):
        image[:BLOCK, BLOCK * bit : BLOCK * bit + BLOCK] = 200 if number >> bit & 1 else 30
    return image


def read_stamp(image: np.ndarray) -> int:
    """The number on an image [C, H, W]."""
    return sum(int(image[0, BLOCK // 2, BLOCK * bit + BLOCK // 2] > 115) << bit for bit in range(BITS))


@dataclass(frozen=True)
class Mischief:
    """What the engine does to some of its calls."""

    kind: str
    first: int = 0
    count: int = 1
    every: int = 0
    seconds: float = 0.0

    def hits(self, call: int) -> bool:
        return call % self.every == 0 if self.every else self.first <= call < self.first + self.count


def read_mischief(text: str) -> Mischief:
    """``throw_at=50x3``, ``hang_at=80:2s`` (0s: for ever), ``slow_at=10x200:30ms``, ``slow_every=7:30ms``, ``nan_at=9``, ``crowd_at=1x9999``."""
    name, _, value = text.partition("=")
    kind, _, when = name.rpartition("_")
    value, _, duration = value.partition(":")
    unit = duration.lstrip("0123456789.")
    seconds = float(duration.removesuffix(unit)) * UNITS_S[unit] if duration else 0.0
    if when == "every":
        return Mischief(kind, every=int(value), seconds=seconds)
    first, _, count = value.partition("x")
    return Mischief(kind, int(first), int(count or 1), seconds=seconds)


@dataclass
class Calls:
    """The calls of a whole process, whichever engine had them: an engine that is opened anew goes on counting."""

    mischiefs: tuple[Mischief, ...] = ()
    count: int = 0
    manifest: Manifest = field(default_factory=lambda: null_manifest(RECIPE))
    """The same however often the engine is opened: it is made from the same files."""
    log_fd: int = field(default_factory=lambda: _open_log(os.environ.get("INSPECTOR_TEST_ENGINE_LOG", "")))

    def seconds(self, kind: str) -> float | None:
        """How long ``kind`` lasts in this call; None: it does not happen."""
        return next((one.seconds for one in self.mischiefs if one.kind == kind and one.hits(self.count)), None)

    def log(self, number: int, *, result: bool) -> None:
        if self.log_fd >= 0:
            os.write(self.log_fd, CALL.pack(time.monotonic_ns(), number, result))


def _open_log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644) if path else -1


def read_engine_log(path: Path) -> np.ndarray:
    """All calls: at_ns, number, result."""
    data = path.read_bytes() if path.exists() else b""
    return np.frombuffer(data[: len(data) - len(data) % CALL.size], np.dtype([("at_ns", "<i8"), ("number", "<i4"), ("result", "<i4")]))


class StampEngine(NullEngine):
    """Reads the stamp and reports it as the class of the one detection above the threshold; misbehaves as it was told."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(RECIPE)
        self._manifest, self._hash = calls.manifest, manifest_hash(calls.manifest)
        self._calls = calls

    def _start(self, image: np.ndarray) -> int:  # type: ignore[override]
        return read_stamp(image)

    def _finish(self, job: int) -> dict[str, Array]:  # type: ignore[override]
        calls = self._calls
        calls.count += 1
        seconds = calls.seconds("hang")
        if seconds is not None:
            print(f"the engine hangs for {seconds} s", file=sys.stderr, flush=True)
            threading.Event().wait(seconds or None)
        time.sleep(calls.seconds("slow") or 0.0)
        if calls.seconds("throw") is not None:
            calls.log(job, result=False)
            raise EngineError(f"call {calls.count} fails on purpose")
        outputs = super()._finish(None)
        slots = outputs["scores"].shape[1] if calls.seconds("crowd") is not None else 1
        outputs["scores"][0, :slots] = 0.1
        outputs["scores"][0, 0] = 0.9
        outputs["boxes"][0, :slots] = (0, 0, SIDE, BLOCK)
        outputs["classes"][0, 0] = job
        if calls.seconds("nan") is not None:
            outputs["boxes"][0, 0] = np.nan
            calls.log(job, result=False)
        else:
            calls.log(job, result=True)
        return outputs
