"""Who may speak with the real daemon: keys, a key revoked on a live connection, roles, and nonsense on both sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest
import zmq

from inspector.client.controller import Controller
from inspector.client.decisions import Decision, State, Update
from inspector.client.keys import apply
from inspector.contract import requests
from inspector.contract.errors import ExitCode
from inspector.contract.requests import Command, CommandName, Done, Hello, Refusal, Refused, Reply, Welcome
from inspector.journal.reader import JournalReader

FUZZ = SimpleNamespace(**run_path(str(Path(__file__).resolve().parents[1] / "faults" / "fuzz_sockets.py")))
PATIENCE_S = 60.0


class Place:
    """A running station with keys, and those who speak with it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.site = FUZZ.Site(folder, 25.0)
        self.stack = stack
        self.daemon: subprocess.Popen[str] = self.site.run()
        stack.callback(self._end)

    def _end(self) -> None:
        if self.daemon.poll() is None:
            self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(10)

    def controller(self, name: str | None) -> Controller:
        key = None if name is None else self.site.folder / f"{name}.key"
        return self.stack.enter_context(Controller(self.site.endpoint("publisher"), self.site.endpoint("channel"), key_file=key))

    def keys(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "inspector.cli.main", "keys", *arguments, str(self.site.station)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        yield Place(tmp_path, stack)


def until(condition: Callable[[], object], turn: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        turn()
        time.sleep(0.001)


class Ear:
    """A controller and what it was told."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.updates: list[Update] = []

    def listen(self) -> None:
        self.updates += self.controller.receive(0.01)

    @property
    def decisions(self) -> list[Decision]:
        return [one for one in self.updates if isinstance(one, Decision)]


def test_only_those_with_a_good_key_hear_and_are_answered(place: Place) -> None:
    good = Ear(place.controller("plc"))
    others = [Ear(place.controller(name)) for name in (None, "nobody", "gone", "lost")]
    until(lambda: good.controller.state is State.LIVE and len(good.decisions) > 5, good.listen)

    def counted() -> bool:
        for ear in others:
            ear.listen()
        found = place.site.counts()

        def total(where: str, word: str) -> int:
            return sum(n for kind, n in found.items() if kind.startswith(f"inspector_{where}_connections") and f'"{word}"' in kind)

        refused = [total(where, "connections") - total(where, "admitted") for where in ("publisher", "channel")]
        strangers = [total(where, "other_station") for where in ("publisher", "channel")]
        keys = [total("channel", word) for word in ("unknown_key", "revoked_key")]
        return min(strangers) > 0 and min(refused) >= 4 and min(keys) >= 2

    until(counted)
    for ear in others:
        assert ear.controller.welcome is None
        assert ear.decisions == []
    welcome = good.controller.welcome
    assert welcome is not None
    assert (welcome.name, welcome.role.value) == ("plc", "controller")


def test_a_key_revoked_on_a_live_connection_is_out_and_the_others_lose_nothing(place: Place) -> None:
    plc, wall = Ear(place.controller("plc")), Ear(place.controller("wall"))

    def listen() -> None:
        plc.listen()
        wall.listen()

    until(lambda: min(len(plc.decisions), len(wall.decisions)) > 5, listen)
    place.keys("revoke", "wall")
    until(lambda: wall.controller.state is State.DEAD, listen)
    heard = len(wall.decisions)
    mark = len(plc.decisions)
    until(lambda: len(plc.decisions) > mark + 20 and plc.controller.state is State.LIVE, listen)
    assert all(not one.passes for one in wall.decisions[heard:])
    numbers = [no for one in plc.decisions if one.part_no is not None for no in range(one.part_no, (one.to_part_no or one.part_no) + 1)]
    assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
    assert place.stop() == ExitCode.OK
    with JournalReader(place.site.folder / "state" / "journal.sqlite") as journal:
        told = [event for event in journal.events() if event.name == "key_revoked"]
    assert len(told) == 1
    assert "wall" in told[0].detail


class Asker:
    """A raw client of the request socket."""

    def __init__(self, place: Place, name: str) -> None:
        self.context = place.stack.enter_context(zmq.Context())
        self.socket = place.stack.enter_context(self.context.socket(zmq.DEALER))
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        apply(self.socket, place.site.key(name))
        self.socket.connect(place.site.endpoint("channel"))

    def ask(self, request: requests.Request) -> Reply:
        self.socket.send(requests.encode(request))
        return requests.decode_reply(self.socket.recv())


def test_a_role_decides_what_may_be_commanded_and_who_asked_is_told(place: Place) -> None:
    wall, plc = Asker(place, "wall"), Asker(place, "plc")
    for asker, name in ((wall, "wall"), (plc, "plc")):
        welcome = asker.ask(Hello(no=1, name="somebody else"))
        assert isinstance(welcome, Welcome)
        assert welcome.name == name  # the key's, not what it says
    for number, name in enumerate(CommandName, 2):
        refused = wall.ask(Command(no=number, name=name))
        assert isinstance(refused, Refused)
        assert refused.code is Refusal.FORBIDDEN
    assert isinstance(plc.ask(Command(no=2, name=CommandName.PAUSE)), Done)
    assert isinstance(plc.ask(Command(no=3, name=CommandName.RESUME)), Done)
    refused = plc.ask(Command(no=4, name=CommandName.RELOAD))
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.FORBIDDEN
    assert place.stop() == ExitCode.OK
    with JournalReader(place.site.folder / "state" / "journal.sqlite") as journal:
        told = [event.detail for event in journal.events() if event.name == "command"]
    assert sum("by wall (observer): refused (forbidden)" in one for one in told) == len(CommandName)
    assert sum("by plc (controller): done" in one for one in told) == 2


def test_nonsense_on_both_sockets_is_refused_and_counted_and_loses_nothing(place: Place) -> None:
    plc = Ear(place.controller("plc"))
    until(lambda: len(plc.decisions) > 5, plc.listen)
    before = place.site.counts()
    with contextlib.ExitStack() as stack:
        noise = FUZZ.Noise(place.site, 7, list(FUZZ.SHARES), stack)
        while noise.sent.total() < 2000:
            noise.step()
            if noise.sent.total() % 20 == 0:
                plc.listen()

    def grown(word: str) -> int:
        after = place.site.counts()
        return sum(count - before.get(kind, 0) for kind, count in after.items() if word in kind)

    until(lambda: grown("channel_refused") > 200 and grown('channel_connections_total{result="connections"') > 50, plc.listen)
    assert grown("forbidden") > 0
    assert grown("unreadable") > 0
    assert grown('publisher_connections_total{result="connections"') > 50
    mark = len(plc.decisions)
    until(lambda: len(plc.decisions) > mark + 10, plc.listen)
    numbers = sorted(no for one in plc.decisions if one.part_no is not None for no in range(one.part_no, (one.to_part_no or one.part_no) + 1))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert place.stop() == ExitCode.OK
    assert "Traceback" not in place.site.log()


@pytest.mark.parametrize("endpoint", ["publisher", "channel"])
def test_an_open_address_without_keys_does_not_start(endpoint: str, tmp_path: Path) -> None:
    site = FUZZ.Site(tmp_path, 1.0)
    text = site.station.read_text().replace('[access]\nkeys = "keys"\n', "")
    site.station.write_text(text.replace(f"tcp://127.0.0.1:{getattr(site, endpoint)}", f"tcp://*:{getattr(site, endpoint)}"))
    done = subprocess.run(
        [sys.executable, "-m", "inspector.cli.main", "run", str(site.station)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == ExitCode.CONFIG
    assert f"{endpoint}.endpoint" in done.stderr
    assert "access.keys" in done.stderr


def test_no_secret_leaves_its_file(place: Place) -> None:
    plc = Ear(place.controller("plc"))
    until(lambda: len(plc.decisions) > 2, plc.listen)
    secrets = [json.loads(path.read_text())["secret_key"] for path in (*place.site.folder.glob("*.key"), place.site.folder / "keys/station.key")]
    shown = place.site.log() + "".join(str(update) for update in plc.updates) + Path(f"/proc/{place.daemon.pid}/cmdline").read_text()
    assert place.stop() == ExitCode.OK
    for path in (place.site.folder / "state").rglob("*"):
        if path.is_file():
            shown += path.read_bytes().decode("latin-1")
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in shown]
    assert (place.site.folder / "keys/station.key").stat().st_mode & 0o077 == 0
