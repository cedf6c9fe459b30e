"""kill -9 of a real daemon at random instants under load, and the statement of the flight recorder checked part by part.

    python tests/faults/kill_minus_nine.py [--kills 100] [--seed 1] [--rate 200] [--runtime FOLDER] [--csv FILE]

One station: simulated camera, an engine that reads the number on each image and is busy most of the time, journal, recorder, a subscriber. Most
kills come while it inspects; every fifth at a random instant of its start, where it loads, recovers what the one before has left, or opens its
first parts. After each kill:

- every verdict that the subscriber received is in the recorder, the same in every field that both have;
- what the recorder has and the journal did not, and what was open, is in the journal after the next start, once, and nothing else is;
- nothing passed that was exposed in the interval which the next start publishes as blind.

Exit code 1 when any of it does not hold.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

import psutil
import zmq

ASSETS = Path(__file__).resolve().parents[1] / "assets"
sys.path.insert(0, str(ASSETS))

import stamps  # noqa: E402 - beside the other assets

from inspector.camera.simulator.feed import write_feed  # noqa: E402
from inspector.camera.simulator.log import read_trigger_log  # noqa: E402
from inspector.contract.wire import BlindMessage, VerdictMessage, decode  # noqa: E402
from inspector.journal.reader import JournalReader, LoggedPart  # noqa: E402
from inspector.line import record_file as layout  # noqa: E402
from inspector.line.record_file import Recording, read_recording  # noqa: E402

PATIENCE_S = 60.0
ENGINE = "stamp,slow_every=3:12ms"
"""Parts are open at most instants; at 200 parts/s it keeps up."""
CLOCKS_NS = 200_000
"""How far two readings of wall clock minus monotonic clock may differ."""
STATION = """
name = "kill"
product = "product.toml"
state_dir = "state"
runtime_dir = "{runtime}"
[publisher]
endpoint = "ipc://{folder}/pub"
[channel]
endpoint = "ipc://{folder}/channel"
[metrics]
port = 0
[archive]
enabled = false
[[cameras]]
name = "top"
kind = "simulator"
images = "images.feed"
trigger = "line"
rate_hz = {rate}
ring_slots = 64
max_image_bytes = 8192
restart_min_s = 0.1
restart_max_s = 0.2
environment = {{ INSPECTOR_SIM_STATE = "{folder}/line", INSPECTOR_SIM_SEED = "7" }}
[cameras.identity]
part_id = "trigger_counter"
"""
PRODUCT = """
name = "stamped"
version = "1"
deadline_ms = 400
[detector]
engine = "none.json"
""" + "".join(f'[detector.classes."{n}"]\nignore = true\n' for n in range(0, stamps.IMAGES, 2))


class Listener:
    """A subscriber in a thread of its own: all that ever reached it."""

    def __init__(self, endpoint: str) -> None:
        self.verdicts: dict[str, list[VerdictMessage]] = {}
        self.blinds: dict[str, list[BlindMessage]] = {}
        self.boots: list[str] = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._socket.connect(endpoint)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(50):
                message = decode(self._socket.recv_multipart()[-1])
                if message.boot_id not in self.boots:
                    self.boots.append(message.boot_id)
                if isinstance(message, VerdictMessage):
                    self.verdicts.setdefault(message.boot_id, []).append(message)
                elif isinstance(message, BlindMessage):
                    self.blinds.setdefault(message.boot_id, []).append(message)

    def quiet(self) -> None:
        """What was on its way when the publisher died has come."""
        before = -1
        while before != (before := sum(map(len, self.verdicts.values()))):
            time.sleep(0.1)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close(0)
        self._context.term()


@dataclass
class Kill:
    """One kill, and what was found of the boot that it ended."""

    number: int
    when: str
    boot: str = "-"
    received: int = 0
    recorded: int = 0
    in_journal: int = 0
    """Of the recorded ones, at the kill."""
    open: int = 0
    folded: int = 0
    """Of the recorded ones, by the next start."""
    crashed: int = 0
    unheard: int = 0
    """Recorded and not received: do not pass."""
    problems: list[str] = field(default_factory=list)


class Plant:
    """The station's folder, its daemons one after the other, and the books of all of them."""

    def __init__(self, folder: Path, runtime: Path, rate: float) -> None:
        self.folder, self.runtime = folder, runtime
        self.journal = folder / "state" / "journal.sqlite"
        for name in ("line", "logs"):
            (folder / name).mkdir()
        write_feed(folder / "images.feed", (stamps.stamped(n) for n in range(stamps.IMAGES)))
        (folder / "none.json").write_text("{}")
        (folder / "product.toml").write_text(PRODUCT)
        (folder / "station.toml").write_text(STATION.format(folder=folder, runtime=runtime, rate=rate))
        self.listener = Listener(f"ipc://{folder}/pub")
        self.recordings: dict[str, Recording] = {}
        self.kills: list[Kill] = []
        self.start_s = 0.0
        """From the process's beginning to the first verdict, the last time."""
        self.by_boot: dict[str, Kill] = {}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ASSETS / "run_with_engine.py"), ENGINE, str(self.folder / "station.toml")]
        environment = os.environ | {"INSPECTOR_TEST_PARENT": str(os.getpid()), "OMP_NUM_THREADS": "1"}
        with (self.folder / "logs" / f"{len(self.kills) + 1:03d}.txt").open("wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def wait_verdicts(self, daemon: subprocess.Popen[bytes], known: int, number: int) -> None:
        """Until a boot that was not known has said ``number`` verdicts."""
        deadline = time.monotonic() + PATIENCE_S
        while sum(len(self.listener.verdicts.get(boot, ())) for boot in self.listener.boots[known:]) < number:
            if daemon.poll() is not None or time.monotonic() > deadline:
                log = max((self.folder / "logs").iterdir()).read_text()
                raise SystemExit(f"no verdicts (exit code {daemon.poll()}):\n{log}")
            time.sleep(0.001)

    def kill(self, rng: random.Random) -> None:
        known = len(self.listener.boots)
        begun = time.monotonic()
        daemon = self.start()
        kill = Kill(len(self.kills) + 1, "")
        number, seconds, share = rng.randrange(1, 150), rng.uniform(0.0, 0.06), rng.uniform(0.3, 1.1)
        if kill.number % 5 == 0:
            kill.when = f"{1000 * share * self.start_s:.0f} ms after the process began"
            time.sleep(share * self.start_s)
        else:
            kill.when = f"{1000 * seconds:.1f} ms after verdict {number}"
            self.wait_verdicts(daemon, known, 1)
            self.start_s = time.monotonic() - begun
            self.wait_verdicts(daemon, known, number)
            end = time.monotonic() + seconds
            while time.monotonic() < end:  # finer than a sleep
                pass
        children = psutil.Process(daemon.pid).children(recursive=True)
        daemon.send_signal(signal.SIGKILL)
        if daemon.wait() != -signal.SIGKILL:
            kill.problems.append(f"ended by itself: {daemon.returncode}")
        _, alive = psutil.wait_procs(children, 5)
        kill.problems += [f"process {one.pid} outlived its daemon" for one in alive]
        self.listener.quiet()
        self.look(kill)
        self.kills.append(kill)

    def look(self, kill: Kill) -> None:
        """What the recorder has at the kill; of committed parts too."""
        path = self.runtime / "kill.recording"
        if not path.exists():
            return
        recording = read_whole(path, self.folder / "copy.recording")
        boot = recording.about.boot_id
        if recording.damaged_bytes or recording.overwritten:
            kill.problems.append(f"{recording.damaged_bytes} bytes damaged, {recording.overwritten} overwritten")
        if boot in self.recordings:  # killed before it had a file of its own
            before = self.recordings[boot]
            if list(map(layout.encode_closed, recording.closed)) != list(map(layout.encode_closed, before.closed)) or recording.open != before.open:
                kill.problems.append("the recording of the boot before was changed")
            return
        self.recordings[boot] = recording
        self.by_boot[boot] = kill
        kill.boot = boot
        kill.received, kill.recorded, kill.open = len(self.listener.verdicts.get(boot, ())), len(recording.closed), len(recording.open)
        kill.in_journal = len(self.logged(boot))

    def logged(self, boot: str) -> list[LoggedPart]:
        if not self.journal.exists():
            return []
        with JournalReader(self.journal) as journal:
            return [part for part in journal.parts() if part.boot_id == boot]

    def finish(self) -> None:
        """A last start that nobody kills: what the last kill has left is folded; a clean stop."""
        known = len(self.listener.boots)
        daemon = self.start()
        self.wait_verdicts(daemon, known, 20)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(PATIENCE_S)
        if code:
            self.kills[-1].problems.append(f"the last stop: exit code {code}")
        self.listener.quiet()
        self.listener.close()

    def check(self) -> None:
        """The statement, for every boot that was killed."""
        with JournalReader(self.journal) as journal:
            parts: dict[str, list[LoggedPart]] = {}
            for part in journal.parts():
                parts.setdefault(part.boot_id, []).append(part)
            boots = journal.boots()
            blinds = [one for one in journal.blinds() if "started anew" in one.cause]
        images = {int(row["counter"]): int(row["image"]) for row in read_trigger_log(self.folder / "line")}
        for boot, verdicts in self.listener.verdicts.items():
            if verdicts and boot not in self.recordings and boot != boots[-1]:
                self.kills[-1].problems.append(f"boot {boot} was heard and never recorded")
        for boot, recording in self.recordings.items():
            kill = self.by_boot[boot]
            heard, logged = self.listener.verdicts.get(boot, []), parts.get(boot, [])
            kill.problems += [*compare(recording, heard, logged), *check_images(logged, images)]
            kill.crashed = sum(one.reason == "crashed" for one in logged)
            kill.folded = len(logged) - kill.crashed - kill.in_journal
            kill.unheard = len(recording.closed) - len(heard)
        passed = [part.exposure_utc_ns for found in parts.values() for part in found if part.outcome == "PASS"]
        for one in blinds:
            assert one.to_utc_ns is not None
            inside = sum(one.from_utc_ns + CLOCKS_NS < at_ns < one.to_utc_ns - CLOCKS_NS for at_ns in passed)
            if inside:
                self.kills[-1].problems.append(f"{inside} parts passed in the interval that boot {one.boot_id} has published")
        told = {one.boot_id for one in blinds}
        first = next(iter(self.recordings))
        self.kills[-1].problems += [
            f"boot {boot} did not say since when the station was blind" for boot in parts if boot not in told and boot != first
        ]


def read_whole(path: Path, copy: Path) -> Recording:
    """The recording, of parts too that are in the journal."""
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(layout.WORDS_AT + 8 * layout.COMMITTED)
        file.write(struct.pack("<Q", 0))
    return read_recording(copy)


def compare(recording: Recording, heard: list[VerdictMessage], logged: list[LoggedPart]) -> Iterator[str]:
    """What is wrong between the three witnesses of one boot."""
    closed = {(one.stream, one.part_no): one for one in recording.closed}
    in_journal = {(one.stream, one.part_no): one for one in logged}
    still_open = {(one.stream, one.part_no): one for one in recording.open}
    if len(closed) != len(recording.closed) or len(in_journal) != len(logged) or closed.keys() & still_open.keys():
        yield "a part is there twice"
    for said in heard:
        one = closed.get((said.stream, said.part_no))
        if one is None:
            yield f"part {said.part_no} was received and is not recorded"
        elif (said.seq, said.part_id, said.outcome, said.reason, said.action) != (one.seq, one.part_id, one.outcome, one.reason, one.action):
            yield f"part {said.part_no} was received as another verdict than it was recorded"
    if in_journal.keys() != closed.keys() | still_open.keys():
        yield f"in the journal and not recorded, or the reverse: {sorted(in_journal.keys() ^ (closed.keys() | still_open.keys()))}"
    for key, one in closed.items():
        row = in_journal.get(key)
        if row is not None and not same(row, one):
            yield f"part {one.part_no} is in the journal with another content"
    for key, opened in still_open.items():
        row = in_journal.get(key)
        if row is not None and (row.outcome, row.reason, row.seq, row.part_id) != ("UNINSPECTED", "crashed", 0, opened.part_id):
            yield f"part {opened.part_no} was open and is not crashed"


def same(row: LoggedPart, one: object) -> bool:
    """Every field that a journal's row and a recorded part have in common."""
    names = ("stream", "part_no", "seq", "part_id", "outcome", "reason", "detail", "action", "product", "product_version", "engines", "closed_utc_ns")
    counted = [(defect.name, defect.score, defect.counted) for defect in row.defects]
    return all(getattr(row, name) == getattr(one, name) for name in names) and (
        counted == [(defect.name, defect.score, defect.counted) for defect in one.defects]  # type: ignore[attr-defined]
        and [view.frame_no for view in row.views] == [closed.view.frame_no for closed in one.views]  # type: ignore[attr-defined]
    )


def check_images(logged: list[LoggedPart], images: dict[int, int]) -> Iterator[str]:
    """Each verdict is that of the image which the line showed under this part's number."""
    for part in logged:
        if part.part_id is not None and part.outcome in {"PASS", "REJECT"}:
            image = images[int(part.part_id)]
            if part.outcome != ("REJECT" if image % 2 else "PASS") or [one.name for one in part.defects] != [str(image)]:
                yield f"part {part.part_id} has the verdict of another image"


def table(kills: list[Kill]) -> str:
    """Every kill, and the sums."""
    head = ("kill", "when", "received", "recorded", "in the journal", "open", "folded", "crashed", "not received", "problems")
    rows = [
        (one.number, one.when, one.received, one.recorded, one.in_journal, one.open, one.folded, one.crashed, one.unheard, len(one.problems))
        for one in kills
    ]
    sums = ("all", "", *(sum(int(row[at]) for row in rows) for at in range(2, len(head))))
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ("---",) * len(head), *rows, sums)]
    return "\n".join(lines)


def run(folder: Path, runtime: Path, kills: int, seed: int, rate: float) -> list[Kill]:
    """All of it; the kills with what was found."""
    rng = random.Random(seed)
    plant = Plant(folder, runtime, rate)
    try:
        for _ in range(kills):
            plant.kill(rng)
            print(f"{len(plant.kills)}/{kills} {plant.kills[-1].when}: {plant.kills[-1].recorded} recorded", file=sys.stderr, flush=True)
        plant.finish()
    finally:
        plant.listener.close()
    plant.check()
    return plant.kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--runtime", type=Path, help="the runtime directory; a new one in /dev/shm")
    parser.add_argument("--csv", type=Path, help="write the table there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder, tempfile.TemporaryDirectory(prefix="kill-", dir="/dev/shm") as memory:
        kills = run(Path(folder), options.runtime or Path(memory), options.kills, options.seed, options.rate)
    print(table(kills))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(one.name for one in fields(Kill))
            writer.writerows(astuple(one) for one in kills)
    problems = [f"kill {one.number}: {problem}" for one in kills for problem in one.problems]
    print(*problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
