"""Chaos: every kind of fault against a whole station of real processes, one kind after the other, and a table at the end.

python tests/faults/chaos [--only KIND ...] [--seed N] [--subset] [--list] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import camera_faults
import engine_faults
import line_faults
import process_faults
import storage_faults
import system_faults
from judge import Judgement, judge
from kinds import KINDS, Kind
from plant import ChaosError, Plant, memory_folder
from report import Row, heading, line, write_json, write_markdown

from inspector.camera.simulator import simulator_path

GROUPS = (camera_faults, engine_faults, process_faults, line_faults, storage_faults, system_faults)
"""The modules that register kinds."""
LIMIT_S = 240.0
"""A kind that takes longer is ended and has failed."""
KEPT_BYTES = 4000
SHOWN = 8
"""Lines of each kind of trouble."""


def play(kind: Kind, seed: int, folder: Path) -> Row:
    """Play one kind and judge it."""
    begun = time.monotonic()
    times, witness, judgement = 0, "", Judgement()
    problems: list[str] = []
    if kind.needs_root:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # a new network name space has it down
    with Plant(folder, random.Random(f"{seed}:{kind.name}")) as plant:
        try:
            injected = kind.play(plant)
            times, witness = injected.times, injected.witness
            judgement = judge(plant)
            if judgement.passed_at_controller < kind.least_passed:
                problems.append(f"only {judgement.passed_at_controller} parts passed at the controller: nothing was shown")
        except ChaosError as error:
            problems.append(str(error))
        except Exception:  # noqa: BLE001 - whatever it is, the other kinds are played
            problems.append(traceback.format_exc())
        if problems or judgement.problems:
            problems += [f"{boot.log.name}: {boot.said[-KEPT_BYTES:]}" for boot in plant.boots]
    return Row(
        fault=kind.name,
        group=kind.group,
        injected=times,
        witness=witness,
        parts=judgement.parts,
        passed=judgement.outcomes["PASS"],
        rejected=judgement.outcomes["REJECT"],
        uninspected=judgement.outcomes["UNINSPECTED"],
        reasons=dict(judgement.reasons),
        passed_at_controller=judgement.passed_at_controller,
        in_blind=judgement.in_blind,
        unaccounted=judgement.unaccounted,
        false_pass=judgement.false_pass,
        problems=judgement.problems + problems,
        seconds=time.monotonic() - begun,
    )


def in_process(kind: Kind, seed: int, keep: Path | None) -> Row:
    """Play one kind in a process of its own: whatever it does to its name spaces or its memory ends with it."""
    if kind.needs_root and os.geteuid() != 0:
        return Row(fault=kind.name, group=kind.group, skipped="needs root")
    with run_folder(kind.name, keep) as folder:
        command = [sys.executable, str(Path(__file__).parent), "--play", kind.name, "--seed", str(seed), "--folder", folder]
        if kind.needs_root:
            command = ["unshare", "--mount", "--net", *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | {"INSPECTOR_TEST_PARENT": str(os.getpid())})
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return Row(fault=kind.name, group=kind.group, problems=[f"it did not end within {LIMIT_S} s"])
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        result = Path(folder) / "row.json"
        if not result.exists():
            return Row(fault=kind.name, group=kind.group, problems=[f"its process left with code {code}"])
        return Row(**json.loads(result.read_text()))


@contextlib.contextmanager
def run_folder(name: str, keep: Path | None) -> Iterator[str]:
    """A folder for one kind, removed afterwards unless it is to be kept."""
    folder = tempfile.mkdtemp(prefix=f"chaos-{name}-", dir=keep)
    try:
        yield folder
    finally:
        shutil.rmtree(memory_folder(Path(folder)), ignore_errors=True)
        if keep is None:
            shutil.rmtree(folder)


def trouble(row: Row) -> str:
    """What was wrong with a kind."""
    lines = [f"\n{row.fault}:"]
    for texts in (row.false_pass, row.unaccounted, row.problems):
        lines += [f"  {text}" for text in texts[:SHOWN]]
        if len(texts) > SHOWN:
            lines.append(f"  and {len(texts) - SHOWN} more")
    return "\n".join(lines)


def die_with_parent() -> None:
    """However the run ends, nothing that it started outlives it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["INSPECTOR_TEST_PARENT"]):
        sys.exit("the run is gone")


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="KIND", default=[], help="only these kinds")
    parser.add_argument("--seed", type=int, default=1, help="where and when the faults happen")
    parser.add_argument("--subset", action="store_true", help="one kind per group")
    parser.add_argument("--list", action="store_true", help="name the kinds and end")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    parser.add_argument("--markdown", type=Path, help="write it there as a page's table, too")
    parser.add_argument("--keep", type=Path, help="keep the folders of the runs there")
    parser.add_argument("--play", choices=sorted(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        die_with_parent()
        row = play(KINDS[options.play], options.seed, options.folder)
        (options.folder / "row.json").write_text(json.dumps(asdict(row)))
        return 0
    unknown = [name for name in options.only if name not in KINDS]
    if unknown:
        parser.error(f"no such kind: {', '.join(unknown)} (--list names them)")
    kinds = [one for one in KINDS.values() if (not options.only or one.name in options.only) and (not options.subset or one.subset)]
    if options.list:
        for one in kinds:
            print(f"{one.name:28} {one.group:16} {'root ' if one.needs_root else ''}{'subset ' if one.subset else ''}{one.text}")
        return 0
    if simulator_path() is None:
        print("the simulator was not built: no C++ compiler", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing stays behind
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    rows: list[Row] = []
    print(heading(), flush=True)
    for one in kinds:
        rows.append(in_process(one, options.seed, options.keep))
        print(line(rows[-1]), flush=True)
    seconds = time.monotonic() - begun
    bad = [row for row in rows if not row.good]
    skipped = sum(bool(row.skipped) for row in rows)
    print(f"{len(rows) - skipped} kinds in {seconds:.0f} s, seed {options.seed}; {len(bad)} failed, {skipped} skipped")
    for row in bad:
        print(trouble(row))
    if options.json:
        write_json(options.json, rows, options.seed, seconds)
    if options.markdown:
        write_markdown(options.markdown, rows, {name: one.text for name, one in KINDS.items()})
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
