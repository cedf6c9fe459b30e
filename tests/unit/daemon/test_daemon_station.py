"""The composition root: the order of things, and what a failure of a part does to the whole."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inspector.config.network import InputRecipe
from inspector.config.recipe import DetectorRecipe
from inspector.contract import wire
from inspector.contract.errors import ConfigError, EngineError, ExitCode
from inspector.contract.records import Event, EventLevel
from inspector.daemon import contact
from inspector.daemon.check import check_classes
from inspector.daemon.station import Daemon
from inspector.engine.base import EngineLostError
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine
from inspector.inspection.findings import NetworkFacts, ProductFacts
from inspector.journal.reader import JournalReader
from inspector.line.publisher import Publisher
from inspector.line.thread import LineThread


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[wire.Message]:
    """All that the publisher ever sends: a subscriber comes too late for the first messages."""
    found: list[wire.Message] = []

    class Recorder(Publisher):
        def send(self, topic: bytes, payload: bytes) -> None:
            found.append(wire.decode(payload))
            super().send(topic, payload)

    monkeypatch.setattr(contact, "Publisher", Recorder)
    return found


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_station_says_that_it_cannot_see_before_anything_else(daemon: Daemon, sent: list[wire.Message]) -> None:
    daemon.start()
    until(lambda: any(isinstance(one, wire.BlindMessage) and one.to_ms_ago is not None for one in list(sent)))
    assert isinstance(sent[0], wire.BlindMessage)
    assert sent[0].to_ms_ago is None
    sees = next(index for index, one in enumerate(sent) if isinstance(one, wire.BlindMessage) and one.to_ms_ago is not None)
    beats = [one for one in sent[:sees] if isinstance(one, wire.HeartbeatMessage)]
    assert beats
    assert all(beat.blind for beat in beats)


def test_a_whole_life(daemon: Daemon, sent: list[wire.Message]) -> None:
    daemon.start()
    until(lambda: sum(isinstance(one, wire.VerdictMessage) for one in list(sent)) >= 10)
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics.port}/healthz", timeout=5) as reply:
        assert json.load(reply)["status"] == "ok"
    assert daemon.failure is None
    assert daemon.stop()
    verdicts = [one for one in sent if isinstance(one, wire.VerdictMessage)]
    books = daemon.line.snapshot().streams["top"].books
    assert books.opened == books.closed == len(verdicts)
    with JournalReader(daemon.files.station.journal.path) as journal:
        assert journal.logged(daemon.boot_id) == len(verdicts)
        assert {event.name for event in journal.events()} >= {"camera_opening", "camera_opened", "camera_streaming", "camera_stopped"}


def test_a_part_that_fails_ends_the_daemon_with_its_code(daemon: Daemon, engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The engine is lost after a while: the line must hear silence, and the service manager a code."""

    def break_it() -> None:
        until(lambda: daemon.failure is None and hasattr(daemon, "intake") and daemon.line.snapshot().streams["top"].books.closed > 3)
        engine.error = EngineLostError("the engine failed 3 times in a row, also after it was opened anew: look at the machine")

    breaker = threading.Thread(target=break_it)
    breaker.start()
    try:
        with caplog.at_level(logging.INFO, logger="inspector"):
            assert daemon.run() == ExitCode.ENGINE
    finally:
        breaker.join()
    assert "the engine failed 3 times in a row" in caplog.text
    with JournalReader(daemon.files.station.journal.path) as journal:
        books = daemon.line.snapshot().streams["top"].books
        assert books.opened == books.closed == journal.logged(daemon.boot_id)


def test_a_defect_of_the_program_ends_it_with_a_trace(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    error = ZeroDivisionError("a defect of the program")
    daemon.fail(error)
    daemon.fail(ValueError("what follows from it"))
    assert daemon.failure is error, "the first failure is the cause"
    assert daemon.run() == ExitCode.FAILURE
    assert "ZeroDivisionError: a defect of the program" in caplog.text


def test_a_stop_that_was_asked_for_during_the_start(files: Any, engine: Any) -> None:
    """The signal comes while the engine is loaded: nothing more is started, and that is no failure."""

    def load(_: Any) -> Detector:
        signal.raise_signal(signal.SIGTERM)
        return Detector(engine)

    one = Daemon(files, open_detector=load)
    assert one.run() == ExitCode.OK
    assert engine.closed == 1
    assert not files.station.state_dir.exists()


@pytest.mark.parametrize("error", [EngineError("the engine is damaged: build it again"), MemoryError()])
def test_a_start_that_fails_leaves_nothing(make_daemon: Any, files: Any, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_line(*_: object) -> None:
        raise error

    monkeypatch.setattr(LineThread, "start", no_line)
    one = make_daemon(_engine())
    with pytest.raises(type(error)):
        one.start()
    assert not [thread for thread in threading.enumerate() if thread.name in {"journal", "line", "intake", "inspection", "archive"}]
    monkeypatch.undo()
    second = make_daemon(_engine())  # the journal's lock is free again
    second.start()
    assert second.stop()


def test_a_state_folder_that_cannot_be_made(files: Any, make_daemon: Any) -> None:
    files.station.state_dir.write_text("a file is in the way")
    with pytest.raises(ConfigError, match=r"state_dir: .* cannot be made: File exists"):
        make_daemon(_engine()).start()


def test_events_before_the_line_runs_go_to_the_log(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon._event(Event("odd", EventLevel.WARNING, "something happened", 1, ""))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", "odd: something happened")]
    with pytest.raises(RuntimeError, match="not started"):
        _ = daemon.line


def test_health_names_what_is_wrong(daemon: Daemon, files: Any, sent: list[wire.Message]) -> None:
    for picture in (files.station.cameras[0].images).iterdir():
        picture.unlink()
    daemon.start()
    until(lambda: any(isinstance(one, wire.EventMessage) and one.name == "camera_lost" for one in list(sent)))
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics.port}/healthz", timeout=5)
    with failed.value as reply:
        checks = json.load(reply)["checks"]
    assert checks["cameras"].startswith("cannot see: top (camera top ")
    assert {name for name, said in checks.items() if said == "ok"} == {"inspection", "ledger", "journal", "alarms"}


def test_every_unknown_class_is_named(files: Any) -> None:
    check_classes(files, ProductFacts(NetworkFacts("double", ("scratch", "dent"))))
    with pytest.raises(ConfigError) as told:
        check_classes(files, ProductFacts(NetworkFacts("double", ("dent", "bump"))))
    assert told.value.problems == (f"{files.station.product}: detector.classes.scratch: the engine has no such class; it has bump, dent",)


def _engine() -> Any:
    return NullEngine(DetectorRecipe(name="double", classes=("scratch", "dent"), input=InputRecipe(height_px=64, width_px=64)))
