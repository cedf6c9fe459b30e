"""A million verdicts as fast as they go, to a controller that stalls, reconnects and loses messages on purpose.

    python tests/benchmarks/line_million.py [--parts 1000000] [--seed 7]

One process runs the line as the station does: ledger, flight recorder, publisher, request channel, journal. Part N is REJECT where N is
divisible by 7, UNINSPECTED where it is divisible by 11, else PASS. The other is the controller. At the end every part must be decided, and no
decision to pass may be wrong.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from inspector.client.controller import Controller
from inspector.client.decisions import Decision, Notice, NoticeKind
from inspector.config.station import ChannelConfig, JournalConfig
from inspector.contract.records import Action, Outcome, Proposal, Reason, View
from inspector.contract.wire import Message
from inspector.journal.reader import JournalReader
from inspector.journal.writer import Journal
from inspector.line.access import new_context
from inspector.line.channel import Channel
from inspector.line.publisher import Publisher
from inspector.line.record_file import About
from inspector.line.recorder import FlightRecorder
from inspector.line.settings import LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread
from inspector.line.welcome import LineFacts

WAITING = 512
"""Inputs that may wait in the line thread: the feed is as fast as it is."""
BOOT = "million"


def truth(part_no: int) -> Outcome:
    """How the part ends."""
    if part_no % 7 == 0:
        return Outcome.REJECT
    return Outcome.UNINSPECTED if part_no % 11 == 0 else Outcome.PASS


class NoControls:
    """Commands move nothing here."""

    paused = False

    def pause(self, *, paused: bool) -> None:
        """Nothing."""

    def reload(self) -> str:
        """Nothing."""
        return ""


def fail(error: BaseException) -> None:
    """A thread has failed."""
    raise error


def feed(folder: Path, parts: int) -> None:
    """The station's line, fed as fast as it takes parts."""
    settings = LineSettings("bench", BOOT, Streams(["top"]), "p", "1", Action.REJECT)
    recorder = FlightRecorder(folder, "bench")
    recorder.lock()
    about = {"station": "bench", "boot_id": BOOT, "program": "bench", "started_utc_ns": time.time_ns(), "product": "p", "product_version": "1"}
    recorder.start(About(**about, engines=("e",), uninspected=Action.REJECT))  # type: ignore[arg-type]
    journal = Journal(JournalConfig(path=folder / "journal.sqlite"), station="bench", boot_id=BOOT, on_committed=recorder.committed)
    journal.start()
    context = new_context()
    publisher = Publisher("tcp://127.0.0.1:*", 100_000, context)
    config = ChannelConfig(endpoint="tcp://127.0.0.1:*", controllers=("plc",))
    channel = Channel(config, LineFacts(settings, 60_000), NoControls(), lambda _: None, fail, context)
    line = LineThread(settings, publisher, [journal], Liveness(lambda: 1.0, 1000), fail, recorder, channel)
    line.start()
    channel.start(line)
    print(publisher.endpoint, channel.endpoint, flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    for number in range(1, parts + 1):
        now = time.monotonic_ns()
        line.open(View(number, "top", str(number), number, number, None, number, now, now, now + 60_000_000_000))
        outcome = truth(number)
        line.propose(Proposal(number, outcome, Reason.IMAGE_INVALID if outcome is Outcome.UNINSPECTED else None))
        if number % 256 == 0:
            while len(line._input) > WAITING or journal.state().queued > 50_000:
                time.sleep(0.001)
    while line.snapshot().streams["top"].books.closed < parts:
        time.sleep(0.01)
    print(time.monotonic() - begun, flush=True)
    sys.stdin.readline()
    line.stop(5)
    channel.stop(5)
    context.term()
    journal.stop(30)
    recorder.stop(1)


class Clumsy(Controller):
    """Loses messages on purpose, stalls, and drops its connections."""

    def __init__(self, publisher: str, requests: str, seed: int) -> None:
        super().__init__(publisher, requests, name="plc")
        self._random = random.Random(seed)
        self._publisher = publisher
        self._burst = 0
        self.lost = self.stalls = self.reconnects = 0
        session_take = self._session.take

        def take(message: Message, now_ns: int) -> list[object]:
            if self._burst == 0 and self._random.random() < 2e-5:
                self._burst = self._random.choice([1, 1, 3, 40, 3000])
            if self._burst:
                self._burst -= 1
                self.lost += 1
                return []
            return session_take(message, now_ns)  # type: ignore[return-value]

        self._session.take = take  # type: ignore[method-assign, assignment]

    def misbehave(self) -> None:
        """Now and then."""
        chance = self._random.random()
        if chance < 0.001:
            self.stalls += 1
            time.sleep(self._random.uniform(0.05, 1.0))
        elif chance < 0.0015:
            self.reconnects += 1
            self._sub.disconnect(self._publisher)
            time.sleep(self._random.uniform(0.0, 0.05))
            self._sub.connect(self._publisher)


def main() -> None:
    """Both sides."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--feed", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.feed is not None:
        feed(options.feed, options.parts)
        return
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--feed", name, "--parts", str(options.parts)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        publisher, requests = process.stdout.readline().split()
        decided = bytearray(options.parts + 1)
        causes: Counter[str] = Counter()
        notices: Counter[str] = Counter()
        wrong: list[int] = []
        with Clumsy(publisher, requests, options.seed) as line:
            live = False
            last = time.monotonic()
            while time.monotonic() - last < 20:
                for update in line.receive(0.05):
                    if isinstance(update, Notice):
                        notices[update.kind.value] += 1
                        if update.kind is NoticeKind.LIVE and not live:
                            live = True
                            process.stdin.write("\n")
                            process.stdin.flush()
                    elif isinstance(update, Decision) and update.part_no is not None:
                        last = time.monotonic()
                        for part_no in range(update.part_no, (update.to_part_no or update.part_no) + 1):
                            decided[part_no] += 1
                        causes[f"{'pass' if update.passes else 'do not pass'}: {update.cause.value}"] += (
                            1 + (update.to_part_no or update.part_no) - update.part_no
                        )
                        if update.passes and (truth(update.part_no) is not Outcome.PASS or update.part_id != str(update.part_no)):
                            wrong.append(update.part_no)
                line.misbehave()
                if sum(causes.values()) >= options.parts:
                    break
            lost, stalls, reconnects = line.lost, line.stalls, line.reconnects
            seconds = float(process.stdout.readline())
            process.stdin.write("\n")
            process.stdin.flush()
            process.wait(60)
        with JournalReader(Path(name) / "journal.sqlite") as journal:
            logged = journal.logged(BOOT)
    undecided = options.parts - sum(count > 0 for count in decided[1:])
    twice = sum(count > 1 for count in decided[1:])
    print(f"{options.parts} verdicts in {seconds:.1f} s = {options.parts / seconds:.0f}/s; logged {logged}")
    print(f"on purpose: {lost} messages lost, {stalls} stalls, {reconnects} reconnections")
    print(f"the controller: {dict(causes.most_common())}")
    print(f"notices: {dict(notices.most_common())}")
    print(f"undecided {undecided}, decided twice {twice}, wrong {len(wrong)} {wrong[:5]}")
    sys.exit(1 if undecided or wrong else 0)


if __name__ == "__main__":
    main()
