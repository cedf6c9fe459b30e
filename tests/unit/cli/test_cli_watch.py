"""``inspector watch`` as a user runs it, against a real publisher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from inspector.cli.watch import describe, endpoints_of
from inspector.client.decisions import Cause, Notice, NoticeKind, decision
from inspector.contract import wire
from inspector.contract.records import Action, EventLevel, Outcome, Reason

CODE = "import typer; from inspector.cli.watch import watch; app = typer.Typer(); app.command()(watch); app()"


def verdict(seq: int, made: SimpleNamespace, outcome: Outcome = Outcome.PASS, boot_id: str = "b1") -> wire.VerdictMessage:
    return wire.VerdictMessage(
        station="line-1",
        boot_id=boot_id,
        boot_age_ms=1.0,
        stream="top",
        seq=seq,
        part_no=seq,
        part_id=f"P{seq}",
        result_id=f"{boot_id}-{seq}",
        job_id="profile 3",
        is_simulated=True,
        result_state=wire.ResultState.COMPLETED,
        outcome=outcome,
        reason=Reason.LATE if outcome is Outcome.UNINSPECTED else None,
        detail="",
        action=Action.PASS if outcome is Outcome.PASS else Action.REJECT,
        age_ms=8.25,
        remaining_ms=31.0,
        exposure_utc="2026-11-21T04:00:00.000000Z",
        views=(),
        defects=(made.make_defect(), made.make_defect("dent", counted=False)) if outcome is Outcome.REJECT else (),
        product="profile",
        product_version="3",
        engines=(),
        times=made.TIMES,
    )


class Watching:
    """A publisher and the command that follows it."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.process: subprocess.Popen[str] | None = None

    def run(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", CODE, f"tcp://127.0.0.1:{self.port}", "--dead-after-ms", "60000", *options]
        environment = os.environ | {"NO_COLOR": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.socket.poll(20_000)
        self.socket.recv()
        return self.process

    def send(self, *messages: wire.Message) -> None:
        for message in messages:
            self.socket.send_multipart([wire.topic(message.station, message.stream), wire.encode(message)])

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.socket.close()
        self.context.term()


@pytest.fixture
def watching() -> Iterator[Watching]:
    made = Watching()
    yield made
    made.close()


def test_verdicts_gaps_and_restarts_until_ctrl_c(watching: Watching, made: SimpleNamespace) -> None:
    process = watching.run()
    watching.send(verdict(1, made), verdict(2, made, Outcome.REJECT), verdict(5, made, Outcome.UNINSPECTED), verdict(1, made, boot_id="b2"))
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(7)]
    assert "#1 id P1  PASS" in lines[0]
    assert "age 8.2 ms, 31.0 ms left" in lines[0]
    assert "REJECT      reject  scratch 0.90  age" in lines[1], "what did not count is not named"
    assert "GAP  2 messages lost after number 2" in lines[2]
    assert "UNINSPECTED(late)" in lines[3]
    assert "BOOT  the station was started anew (b1 -> b2)" in lines[4]
    assert "top #3 to #4  DO NOT PASS  boot: " in lines[5], "what was lost has no verdict any more"
    assert "#1 id P1  PASS" in lines[6]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "4 verdicts: PASS 2, REJECT 1, UNINSPECTED 1; blind messages 0; messages lost 2 in 1 gaps, 0 repaired; starts of the station 1" in said


def test_json_lines_and_a_count(watching: Watching, made: SimpleNamespace) -> None:
    process = watching.run("--json", "--count", "2")
    watching.send(verdict(1, made), verdict(3, made))
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    told: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
    values = [value for value in told if value["type"] != "decision"]
    assert [value["type"] for value in values] == ["verdict", "notice", "verdict"]
    assert told[1]["type"] == "decision"
    assert (told[1]["part_no"], told[1]["passes"]) == (1, False), "no heartbeat was heard"
    assert values[0]["PartId"] == "P1"
    assert (values[1]["kind"], values[1]["missing"]) == ("gap", 1)


def test_nobody_there_ends_after_the_time_given() -> None:
    command = [sys.executable, "-c", CODE, "tcp://127.0.0.1:9", "--seconds", "0.4"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0
    assert "nothing heard from the station yet" in result.stdout
    assert "0 verdicts" in result.stderr


def test_lines_for_everything_else() -> None:
    common: dict[str, Any] = {"station": "line-1", "boot_id": "b", "boot_age_ms": 1.0, "stream": "top", "seq": 1}
    blind = wire.BlindMessage(**common, from_ms_ago=5.0, to_ms_ago=None, from_utc="A", to_utc=None, cause="camera lost")
    ended = wire.BlindMessage(**common, from_ms_ago=5.0, to_ms_ago=1.0, from_utc="A", to_utc="B", cause="camera lost")
    event = wire.EventMessage(**common, name="camera_lost", level=EventLevel.ERROR, detail="gone", utc="A")
    heartbeat = wire.HeartbeatMessage(
        station="line-1", boot_id="b", boot_age_ms=1.0, stream="top", last_seq=1, inspection_age_ms=1, opened=1, closed=1, pending=0, blind=False
    )
    assert str(describe(blind)) == "top  BLIND  from A and goes on: camera lost"
    assert str(describe(ended)) == "top  BLIND  from A to B: camera lost"
    assert str(describe(event)) == "top  camera_lost  gone"
    assert str(describe(Notice(NoticeKind.DEAD, "line-1", "top", "no heartbeat"))) == "line-1/top  DEAD  no heartbeat"
    assert describe(heartbeat) is None
    where = ("line-1", "b", "top")
    lost = decision(where, part_id=None, part_no=4, to_part_no=6, cause=Cause.GAP, detail="lost")
    assert str(describe(lost)) == "top #4 to #6  DO NOT PASS  gap: lost"
    assert str(describe(decision(where, part_id="A", cause=Cause.BLIND, detail="unseen"))) == "top id A  DO NOT PASS  blind: unseen"
    assert describe(decision(where, part_id="A", cause=Cause.VERDICT, detail="", passes=True)) is None


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("tcp://10.0.0.5:5570", "tcp://10.0.0.5:5570"),
        ("tcp://*:5570", "tcp://127.0.0.1:5570"),
        ("tcp://0.0.0.0:5570", "tcp://127.0.0.1:5570"),
        ("ipc:///run/inspector/verdicts", "ipc:///run/inspector/verdicts"),
    ],
)
def test_endpoints(given: str, endpoint: str) -> None:
    assert endpoints_of(given, None) == (endpoint, None)
    assert endpoints_of("tcp://10.0.0.5:1", given) == ("tcp://10.0.0.5:1", endpoint)


def test_a_station_file_names_its_endpoint(tmp_path: Path) -> None:
    station = tmp_path / "station.toml"
    station.write_text(
        'name = "s"\nproduct = "p.toml"\n[publisher]\nendpoint = "tcp://*:6000"\n[[cameras]]\nname = "top"\nkind = "simulator"\nimages = "i"\n'
    )
    assert endpoints_of(str(station), None) == ("tcp://127.0.0.1:6000", "tcp://127.0.0.1:5571")
    assert endpoints_of(str(station), "tcp://h:1") == ("tcp://127.0.0.1:6000", "tcp://h:1")
    assert endpoints_of("tcp://127.0.0.1:5570", None) == ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5571"), "the defaults belong together"
