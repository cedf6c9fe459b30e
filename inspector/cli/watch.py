"""``inspector watch``: follow a station's verdicts."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from inspector.client.subscriber import DEAD_AFTER_MS, Notice, NoticeKind, Subscriber, Update
from inspector.config.base import read_toml
from inspector.config.station import PublisherConfig, Station
from inspector.contract import wire
from inspector.contract.records import EventLevel, Outcome

_DEFAULT_ENDPOINT = PublisherConfig().endpoint
_OUTCOME_STYLE = {Outcome.PASS: "green", Outcome.REJECT: "bold red", Outcome.UNINSPECTED: "bold magenta"}
_LEVEL_STYLE = {EventLevel.INFO: "cyan", EventLevel.WARNING: "yellow", EventLevel.ERROR: "bold red"}
_WAIT_S = 0.2


def endpoint_of(target: str) -> str:
    """The address to connect to: ``target`` itself, or that of the station file it names.

    Raises:
        ConfigError: the station file is wrong.
    """
    endpoint = read_toml(Path(target), Station).publisher.endpoint if target.endswith(".toml") else target
    # An address to listen on everywhere is none to connect to: on this machine it is the loopback.
    return re.sub(r"^tcp://(\*|0\.0\.0\.0|\[::\])(?=:)", "tcp://127.0.0.1", endpoint)


class Summary:
    """What was seen."""

    def __init__(self) -> None:
        self._outcomes: Counter[Outcome] = Counter()
        self._notices: Counter[NoticeKind] = Counter()
        self._missing = self._blind = 0

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
            self._missing += update.missing

    def line(self) -> Text:
        """One line for the end."""
        parts = ", ".join(f"{outcome.value} {self._outcomes[outcome]}" for outcome in Outcome)
        said = self._notices
        return Text(
            f"{self.verdicts} verdicts: {parts}; blind messages {self._blind}; messages lost {self._missing} in {said[NoticeKind.GAP]} gaps; "
            f"starts of the station {said[NoticeKind.BOOT]}; silences {said[NoticeKind.DEAD]}; unreadable {said[NoticeKind.UNREADABLE]}"
        )


def describe(update: Update) -> Text | None:
    """One line for the terminal; None: not worth one (a heartbeat)."""
    if isinstance(update, wire.VerdictMessage):
        return _verdict(update)
    if isinstance(update, wire.BlindMessage):
        until = "and goes on" if update.to_ms_ago is None else f"to {update.to_utc}"
        return Text.assemble((f"{update.stream}  BLIND", "bold white on red"), f"  from {update.from_utc} {until}: {update.cause}")
    if isinstance(update, wire.EventMessage):
        return Text.assemble(f"{update.stream or update.station}  ", (update.name, _LEVEL_STYLE[update.level]), f"  {update.detail}")
    if isinstance(update, Notice):
        style = "bold green" if update.kind is NoticeKind.ALIVE else "bold white on red"
        where = "/".join(name for name in (update.station, update.stream) if name)
        return Text.assemble((f"{where}  {update.kind.value.upper()}".strip(), style), f"  {update.detail}")
    return None


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


def watch(
    target: Annotated[str, typer.Argument(help="Publisher's address, or the station file.", metavar="[ENDPOINT|STATION.toml]")] = _DEFAULT_ENDPOINT,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line: messages as on the wire, heartbeats too, and notices.")] = False,
    stream: Annotated[str, typer.Option(help="Follow one topic only: STATION/STREAM, or a prefix of it.")] = "",
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many verdicts.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so many seconds.")] = None,
    dead_after_ms: Annotated[float, typer.Option(min=1, help="Silence after which a station is called dead.")] = DEAD_AFTER_MS,
) -> None:
    """Follow verdicts, blind intervals and heartbeats until Ctrl-C, then print a summary.

    Gaps in the numbering, restarts of the station and missing heartbeats are shown as plainly as verdicts.
    """
    endpoint = endpoint_of(target)
    console, summary = Console(highlight=False, soft_wrap=True), Summary()
    note = Console(stderr=True, highlight=False, soft_wrap=True)
    until_s = time.monotonic() + seconds if seconds is not None else float("inf")
    try:
        with Subscriber(endpoint, stream.encode(), dead_after_ms=dead_after_ms) as subscriber:
            note.print(f"following {endpoint}; Ctrl-C ends", style="dim")
            while time.monotonic() < until_s and (count is None or summary.verdicts < count):
                for update in subscriber.receive(min(_WAIT_S, max(0.0, until_s - time.monotonic()))):
                    summary.count(update)
                    if as_json:
                        print(msgspec.json.encode(update).decode(), flush=True)
                    elif (line := describe(update)) is not None:
                        console.print(line)
                    if count is not None and summary.verdicts >= count:
                        break
    except KeyboardInterrupt:
        pass  # the usual way to end this command
    note.print(summary.line())
