"""What of a CPU decides how an engine computes."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from inspector.engine.manifest import Device

ARITHMETIC = frozenset(
    {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16", "amx_fp16", "amx_int8"}
)
"""Instruction sets that change which kernels, and so which rounding, a runtime takes."""
ARM_ARITHMETIC = frozenset({"asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"})


def cpu_device(cpuinfo: Path = Path("/proc/cpuinfo")) -> Device:
    """This machine's CPU.

    Args:
        cpuinfo: the kernel's description of it.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name") or platform.machine()
    return Device("cpu", name, platform.machine(), tuple(sorted(flags & (ARITHMETIC | ARM_ARITHMETIC))))


def available_threads(wanted: int = 0) -> int:
    """Threads of an engine: ``wanted``, or one per core that this process may use when ``wanted`` is 0."""
    return wanted or len(os.sched_getaffinity(0))
