"""``inspector watch``: follow a station's verdicts, as a controller that only looks on."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from inspector.client.controller import Controller
from inspector.client.decisions import Cause, Decision, Notice, NoticeKind, Update
from inspector.client.station import Options
from inspector.config.base import read_toml
from inspector.config.station import ChannelConfig, PublisherConfig, Station
from inspector.contract import wire
from inspector.contract.records import EventLevel, Outcome

_DEFAULT_ENDPOINT = PublisherConfig().endpoint
_OUTCOME_STYLE = {Outcome.PASS: "green", Outcome.REJECT: "bold red", Outcome.UNINSPECTED: "bold magenta"}
_LEVEL_STYLE = {EventLevel.INFO: "cyan", EventLevel.WARNING: "yellow", EventLevel.ERROR: "bold red"}
_GOOD = {NoticeKind.ALIVE, NoticeKind.LIVE, NoticeKind.REPAIRED}
_WAIT_S = 0.2
_HELLO_S = 2.0
"""Without an answer to hello after so long, it is said that nobody answers."""


def endpoints_of(target: str, requests: str | None) -> tuple[str, str | None]:
    """Publisher and request socket to connect to: ``target`` and ``requests`` themselves, or those of the station file that ``target`` names.

    Raises:
        ConfigError: the station file is wrong.
    """
    publisher, asked = target, requests
    if target.endswith(".toml"):
        station = read_toml(Path(target), Station)
        publisher, asked = station.publisher.endpoint, requests or station.channel.endpoint
    elif target == _DEFAULT_ENDPOINT:
        asked = requests or ChannelConfig().endpoint
    # A station file that asks for any free port does not say which one was found.
    known = asked is not None and not asked.endswith((":*", ":0"))
    return _reachable(publisher), _reachable(asked) if known and asked is not None else None


def _reachable(endpoint: str) -> str:
    # An address to listen on everywhere is none to connect to: on this machine it is the loopback.
    return re.sub(r"^tcp://(\*|0\.0\.0\.0|\[::\])(?=:)", "tcp://127.0.0.1", endpoint)


class Summary:
    """What was seen."""

    def __init__(self) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self._notices: Counter[NoticeKind] = Counter()
        self._missing = self._repaired = self._blind = 0

    @property
    def verdicts(self) -> int:
        """Verdicts so far."""
        return self._outcomes.total()

    def count(self, update: Update) -> None:
        """Take ``update`` into the counts."""
        if isinstance(update, wire.VerdictMessage):
            self._outcomes[update.outcome] += 1
        elif isinstance(update, wire.BlindMessage):
            self._blind += 1
        elif isinstance(update, Notice):
            self._notices[update.kind] += 1
            self._missing += update.missing if update.kind is NoticeKind.GAP else 0
            self._repaired += update.missing if update.kind is NoticeKind.REPAIRED else 0

    def line(self) -> Text:
        """One line for the end."""
        parts = ", ".join(f"{outcome.value} {self._outcomes[outcome]}" for outcome in Outcome)
        said = self._notices
        lost = f"messages lost {self._missing} in {said[NoticeKind.GAP]} gaps, {self._repaired} repaired"
        return Text(
            f"{self.verdicts} verdicts: {parts}; blind messages {self._blind}; {lost}; "
            f"starts of the station {said[NoticeKind.BOOT]}; silences {said[NoticeKind.DEAD]}; unreadable {said[NoticeKind.UNREADABLE]}"
        )


def describe(update: Update) -> Text | None:
    """One line for the terminal; None: not worth one (a heartbeat, a decision that its verdict tells already)."""
    if isinstance(update, wire.VerdictMessage):
        return _verdict(update)
    if isinstance(update, wire.BlindMessage):
        until = "and goes on" if update.to_ms_ago is None else f"to {update.to_utc}"
        return Text.assemble((f"{update.stream}  BLIND", "bold white on red"), f"  from {update.from_utc} {until}: {update.cause}")
    if isinstance(update, wire.EventMessage):
        return Text.assemble(f"{update.stream or update.station}  ", (update.name, _LEVEL_STYLE[update.level]), f"  {update.detail}")
    if isinstance(update, Notice):
        style = "bold green" if update.kind in _GOOD else "bold white on red"
        where = "/".join(name for name in (update.station, update.stream) if name)
        return Text.assemble((f"{where}  {update.kind.value.upper()}".strip(), style), f"  {update.detail}")
    if isinstance(update, Decision) and update.cause not in {Cause.VERDICT, Cause.UNSYNCHRONISED}:
        return _decision(update)
    return None


def _decision(decision: Decision) -> Text:
    numbers = "" if decision.part_no is None else f" #{decision.part_no}"
    numbers += "" if decision.to_part_no is None else f" to #{decision.to_part_no}"
    identity = "" if decision.part_id is None else f" id {decision.part_id}"
    said = "passes" if decision.passes else "DO NOT PASS"
    return Text.assemble(f"{decision.stream}{numbers}{identity}  ", (said, "bold magenta"), f"  {decision.cause.value}: {decision.detail}")


def _verdict(verdict: wire.VerdictMessage) -> Text:
    said = verdict.outcome.value + (f"({verdict.reason.value})" if verdict.reason else "")
    found = ", ".join(f"{defect.name} {defect.score:.2f}" for defect in verdict.defects if defect.counted)
    identity = f"#{verdict.part_no}" + (f" id {verdict.part_id}" if verdict.part_id is not None else "")
    return Text.assemble(
        f"{verdict.exposure_utc}  {verdict.stream} {identity}  ",
        (f"{said:<11}", _OUTCOME_STYLE[verdict.outcome]),
        f" {verdict.action.value}",
        f"  {found}" if found else "",
        f"  {verdict.detail}" if verdict.detail else "",
        f"  age {verdict.age_ms:.1f} ms, {verdict.remaining_ms:.1f} ms left",
    )


class _Printer:
    """What comes, on the terminal or as JSON, until enough was seen."""

    def __init__(self, count: int | None, *, as_json: bool) -> None:
        self.summary = Summary()
        self.note = Console(stderr=True, highlight=False, soft_wrap=True)
        self._console = Console(highlight=False, soft_wrap=True)
        self._count, self._as_json = count, as_json

    @property
    def enough(self) -> bool:
        """Whether ``count`` verdicts were seen."""
        return self._count is not None and self.summary.verdicts >= self._count

    def take(self, updates: list[Update]) -> None:
        """Print ``updates``."""
        for update in updates:
            self.summary.count(update)
            if self._as_json:
                print(msgspec.json.encode(update).decode(), flush=True)
            elif (line := describe(update)) is not None:
                own = isinstance(update, Notice | Decision)  # a message has its own time
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                self._console.print(Text.assemble((f"{now}  ", "dim"), line) if own else line)
            if self.enough:
                return


def watch(
    target: Annotated[str, typer.Argument(help="Publisher's address, or the station file.", metavar="[ENDPOINT|STATION.toml]")] = _DEFAULT_ENDPOINT,
    *,
    requests: Annotated[str | None, typer.Option(help="Request socket's address; a station file says it. Without it no gap is repaired.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key file, where the station asks for one.", exists=True, dir_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line: messages as on the wire, heartbeats too, and notices.")] = False,
    stream: Annotated[str, typer.Option(help="Follow one topic only: STATION/STREAM, or a prefix of it.")] = "",
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many verdicts.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so many seconds.")] = None,
    dead_after_ms: Annotated[float | None, typer.Option(min=1, help="Silence after which a station is called dead; else what it says.")] = None,
) -> None:
    """Follow verdicts, blind intervals and heartbeats until Ctrl-C, then print a summary.

    Gaps and their repair, restarts of the station and missing heartbeats are shown as plainly as verdicts.
    """
    publisher, asked = endpoints_of(target, requests)
    printer = _Printer(count, as_json=as_json)
    begun_s = time.monotonic()
    until_s = begun_s + seconds if seconds is not None else float("inf")
    options = Options(topic=stream, acknowledge=False, dead_after_ms=dead_after_ms)
    try:
        with Controller(publisher, asked, name="watch", key_file=key, options=options) as line:
            printer.note.print(f"following {publisher}; Ctrl-C ends", style="dim")
            if asked is None:
                printer.note.print("no request socket is known (--requests): following only, gaps are shown and not repaired", style="dim")
            doubt = asked is not None
            while time.monotonic() < until_s and not printer.enough:
                printer.take(line.receive(min(_WAIT_S, max(0.0, until_s - time.monotonic()))))
                if doubt and (line.welcome is not None or time.monotonic() - begun_s > _HELLO_S):
                    doubt = False
                    if line.welcome is None:
                        printer.note.print(f"the request socket {asked} does not answer: following only, gaps are not repaired", style="dim")
    except KeyboardInterrupt:
        pass  # the usual way to end this command
    printer.note.print(printer.summary.line())
