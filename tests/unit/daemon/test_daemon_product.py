"""What may be changed while the station runs, and what stands on the verdicts then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.config.station import StationFiles
from inspector.contract import requests, wire
from inspector.contract.errors import AddressError, ConfigError
from inspector.contract.records import Action, Outcome, Reason
from inspector.contract.requests import CommandName, Done, Refused, Welcome
from inspector.daemon.product import ProductControls
from inspector.daemon.station import Daemon
from inspector.engine.base import Array
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine

RECIPE = DetectorRecipe(name="sure", classes=("scratch", "dent"), input=InputRecipe(height_px=64, width_px=64))


class SureEngine(NullEngine):
    """Finds one scratch on every image, score 0.6."""

    def __init__(self) -> None:
        super().__init__(RECIPE)

    def _finish(self, job: object) -> dict[str, Array]:
        outputs = super()._finish(None)
        outputs["scores"][0, 0] = 0.6
        outputs["boxes"][0, 0] = (8, 8, 24, 24)
        return outputs


class Line:
    """A running station, a subscriber and a controller's socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.wire = self.context.socket(zmq.SUB)
        self.wire.setsockopt(zmq.SUBSCRIBE, b"")
        self.asker = self.context.socket(zmq.DEALER)
        for one in (self.wire, self.asker):
            one.setsockopt(zmq.LINGER, 0)
            one.setsockopt(zmq.RCVTIMEO, 20_000)
        self.wire.connect(daemon.contact.publisher.endpoint)
        self.asker.connect(daemon.contact.channel.endpoint)
        self.no = 0

    def ask(self, **request: Any) -> requests.Reply:
        self.no += 1
        self.asker.send_json({"no": self.no, **request})
        return requests.decode_reply(self.asker.recv())

    def command(self, name: CommandName) -> requests.Reply:
        return self.ask(type="command", name=name.value)

    def hello(self) -> Welcome:
        reply = self.ask(type="hello", name="engineer-1")
        assert isinstance(reply, Welcome)
        return reply

    def until(self, condition: Callable[[wire.Message], bool]) -> list[wire.Message]:
        """Every message up to the one that fulfils the condition."""
        found: list[wire.Message] = []
        deadline = time.monotonic() + 30
        while not found or not condition(found[-1]):
            assert time.monotonic() < deadline
            found.append(wire.decode(self.wire.recv_multipart()[1]))
        return found

    def close(self) -> None:
        self.wire.close()
        self.asker.close()
        self.context.term()


@pytest.fixture
def line(files: StationFiles) -> Iterator[Line]:
    daemon = Daemon(files, open_detector=lambda _: Detector(SureEngine()))
    daemon.start()
    one = Line(daemon)
    try:
        one.hello()
        yield one
    finally:
        one.close()
        assert daemon.stop()
    assert daemon.failure is None


def rewrite(files: StationFiles, *changes: tuple[str, str]) -> None:
    path = files.station.product
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def is_verdict(outcome: Outcome) -> Callable[[wire.Message], bool]:
    return lambda one: isinstance(one, wire.VerdictMessage) and one.outcome is outcome


def test_other_rules_count_from_one_image_to_the_next(line: Line, files: StationFiles) -> None:
    """Every verdict carries the version whose rules decided it."""
    messages = line.until(is_verdict(Outcome.REJECT))
    rewrite(files, ('version = "1"', 'version = "2"'), ("threshold = 0.5", "threshold = 0.7"))
    reply = line.command(CommandName.RELOAD)
    assert isinstance(reply, Done), reply
    assert "version 2" in reply.detail
    assert "detector.classes" in reply.detail
    messages += line.until(is_verdict(Outcome.PASS)) + line.until(is_verdict(Outcome.PASS))
    decided = [(one.product_version, one.outcome) for one in messages if isinstance(one, wire.VerdictMessage)]
    assert set(decided) == {("1", Outcome.REJECT), ("2", Outcome.PASS)}
    assert line.hello().product_version == "2"
    events = [one for one in messages if isinstance(one, wire.EventMessage) and one.name == "command"]
    assert any("reload by engineer-1 (engineer): done" in one.detail for one in events)


def test_what_uninspected_acts_as_can_be_changed(line: Line, files: StationFiles) -> None:
    rewrite(files, ('version = "1"', 'version = "2"\nuninspected = "stop"'))
    assert isinstance(line.command(CommandName.RELOAD), Done)
    assert isinstance(line.command(CommandName.PAUSE), Done)
    verdict = line.until(lambda one: isinstance(one, wire.VerdictMessage) and one.reason is Reason.PAUSED)[-1]
    assert isinstance(verdict, wire.VerdictMessage)
    assert verdict.action is Action.STOP
    welcome = line.hello()
    assert (welcome.uninspected, welcome.paused) == (Action.STOP, True)
    assert isinstance(line.command(CommandName.RESUME), Done)
    line.until(is_verdict(Outcome.REJECT))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([('version = "1"', 'version = "2"'), ('name = "plate"', 'name = "bar"')], "name: has changed; this needs a restart"),
        ([('version = "1"', 'version = "2"'), ("deadline_ms = 5000", "deadline_ms = 50")], "deadline_ms: has changed"),
        ([('version = "1"', 'version = "2"'), ("none.json", "other.json")], "detector.engine: has changed"),
        ([("threshold = 0.5", "threshold = 0.7")], "version: give the product another version"),
        ([('version = "1"', 'version = "2"'), ("classes.scratch", "classes.bump")], "detector.classes.bump: the engine has no such class"),
        ([("threshold = 0.5", "threshold = 7")], "detector.classes.scratch.threshold"),
        ([("threshold = 0.5", "threshold = ")], "is not TOML"),
    ],
)
def test_what_cannot_be_swapped_is_refused_by_name(line: Line, files: StationFiles, changes: list[tuple[str, str]], said: str) -> None:
    rewrite(files, *changes)
    reply = line.command(CommandName.RELOAD)
    assert isinstance(reply, Refused)
    assert said in reply.detail
    assert line.hello().product_version == "1"


def test_nothing_new(line: Line) -> None:
    reply = line.command(CommandName.RELOAD)
    assert isinstance(reply, Done)
    assert reply.detail == "nothing has changed"


def test_a_station_that_does_not_run_yet(files: StationFiles) -> None:
    controls = ProductControls(files)
    controls.pause(paused=True)
    assert not controls.paused
    rewrite(files, ('version = "1"', 'version = "2"'))
    with pytest.raises(ConfigError):
        controls.reload()


def test_a_request_port_that_is_taken_is_told_and_nothing_is_left(files: StationFiles, line: Line) -> None:
    station = files.station
    taken = station.channel.model_copy(update={"endpoint": line.daemon.contact.channel.endpoint})
    other = files.model_copy(update={"station": station.model_copy(update={"channel": taken, "state_dir": station.state_dir / "other"})})
    journal = station.journal.model_copy(update={"path": station.state_dir / "other.sqlite"})
    other = other.model_copy(update={"station": other.station.model_copy(update={"journal": journal})})
    daemon = Daemon(other, open_detector=lambda _: Detector(SureEngine()))
    with pytest.raises(AddressError, match=r"channel\.endpoint"):
        daemon.start()
    assert daemon.stop()


def test_boxes_of_the_double_are_what_the_rules_see() -> None:
    with Detector(SureEngine()) as detector:
        found = detector.collect(detector.submit(np.zeros((64, 64), np.uint8)))
    assert found.names == ("scratch",)
    assert found.scores.tolist() == pytest.approx([0.6])
