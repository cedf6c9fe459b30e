"""The real camera process under its supervisor: frames through ring and socket, faults that kill, and what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from inspector.camera.simulator import simulator_path
from inspector.camera.simulator.log import read_call_log, read_trigger_log
from inspector.camera.simulator.nodes import Fault
from inspector.camera.supervisor import CameraSupervisor, Incarnation
from inspector.config.station import CameraConfig
from inspector.contract.channel import (
    CameraCommand,
    CameraMessage,
    CameraState,
    EndRecord,
    FrameRecord,
    OpenedRecord,
    StatusRecord,
    TriggerCommand,
    WriteCommand,
    decode_message,
)
from inspector.contract.records import Blind, Event
from inspector.contract.ring import Ring

WIDTH, HEIGHT = 64, 48


class Station:
    """A supervisor, and a thread that reads as the intake does."""

    def __init__(self, config: CameraConfig, folder: Path, *, slots: int = 16, slot_bytes: int = WIDTH * HEIGHT, raise_at: str = "") -> None:
        self.folder = folder
        self.ring_fd = Ring.create(slots, slot_bytes)
        self.ring = Ring(self.ring_fd)
        self.records: list[CameraMessage] = []
        self.told: list[Event | Blind] = []
        self.failures: list[BaseException] = []
        self.raise_at = raise_at
        self.sums: dict[int, int] = {}
        self.keep: set[int] = set()
        self.keeping = False
        self.reading = threading.Event()
        self.reading.set()
        self.changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.supervisor = CameraSupervisor(config, self.ring, self.ring_fd, on_incarnation=self._read, on_event=self._tell, on_failure=self._fail)
        self.supervisor.start()

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self.failures.append(error)
            self.changed.notify_all()

    def _tell(self, event: Event | Blind) -> None:
        with self.changed:
            self.told.append(event)
            self.changed.notify_all()
        if isinstance(event, Event) and event.name == self.raise_at:
            raise RuntimeError(f"no ear for {event.name}")

    def _read(self, incarnation: Incarnation) -> None:
        if self.raise_at == "incarnation":
            raise RuntimeError("no hand for it")
        thread = threading.Thread(target=self._loop, args=(incarnation,))
        self._threads.append(thread)
        thread.start()

    def _loop(self, incarnation: Incarnation) -> None:
        while self.reading.wait() and (message := incarnation.receive()):
            record = decode_message(message)
            if isinstance(record, FrameRecord) and record.slot >= 0:
                self.sums[record.trigger_counter or 0] = int(self.ring.pixels(record.slot, record.size_bytes).sum())
                if self.keeping:
                    self.keep.add(record.slot)
                else:
                    self.ring.release(record.slot)
            with self.changed:
                self.records.append(record)
                self.changed.notify_all()
        incarnation.channel.close()
        incarnation.drained(self.keep)

    def until(self, holds: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, timeout_s), f"{what}: {self.told}"

    def frames(self) -> list[FrameRecord]:
        return [record for record in self.records if isinstance(record, FrameRecord)]

    def counters(self) -> set[int]:
        return {record.trigger_counter or 0 for record in self.frames()}

    def names(self) -> list[str]:
        return [event.name for event in self.told if isinstance(event, Event)]

    def blinds(self) -> list[Blind]:
        return [event for event in self.told if isinstance(event, Blind) and event.to_ns is not None]

    def unexplained(self) -> dict[int, int]:
        """Triggers that neither arrived nor lie in a blind interval, with their faults."""
        got = self.counters()
        return {
            int(record["counter"]): int(record["faults"])
            for record in read_trigger_log(self.folder)
            if int(record["counter"]) not in got and not any(blind.from_ns <= record["host_ns"] <= (blind.to_ns or 0) for blind in self.blinds())
        }

    def child(self) -> psutil.Process:
        (child,) = psutil.Process().children()
        return child

    def stop(self, deadline_s: float = 5.0) -> bool:
        self.reading.set()
        graceful = self.supervisor.stop(deadline_s)
        for thread in self._threads:
            thread.join(5)
        self.ring.close()
        os.close(self.ring_fd)
        return graceful


Start = Callable[..., Station]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    if simulator_path() is None:
        assert shutil.which("g++") is None, "there is a compiler, and yet the simulator was not built"
        pytest.skip("the simulator needs a C++ compiler")
    stations: list[Station] = []

    def make(*, faults: str = "", limit: int = 0, slots: int = 16, slot_bytes: int = WIDTH * HEIGHT, raise_at: str = "", **values: object) -> Station:
        given = {
            "name": "c",
            "kind": "simulator",
            "width_px": WIDTH,
            "height_px": HEIGHT,
            "rate_hz": 200.0,
            "restart_min_s": 0.02,
            "heartbeat_s": 2.0,
            "settings": {"SimTriggerLimit": limit},
            "environment": {"INSPECTOR_SIM_STATE": str(tmp_path), "INSPECTOR_SIM_FAULTS": faults},
            **values,
        }
        stations.append(Station(CameraConfig.model_validate(given), tmp_path, slots=slots, slot_bytes=slot_bytes, raise_at=raise_at))
        return stations[-1]

    yield make
    for station in stations:
        if station.ring_fd >= 0:
            station.stop()


def finish(station: Station) -> bool:
    graceful = station.stop()
    station.ring_fd = -1
    return graceful


def close(station: Station) -> None:
    """What is left to close after the supervisor was stopped."""
    for thread in station._threads:
        thread.join(5)
    station.ring.close()
    os.close(station.ring_fd)
    station.ring_fd = -1


def last_counter(station: Station, counter: int) -> Callable[[], bool]:
    return lambda: any((record.trigger_counter or 0) >= counter for record in station.frames())


def test_every_frame_arrives_with_its_pixels_and_the_process_leaves_when_told(start: Start) -> None:
    station = start(limit=100)
    station.until(last_counter(station, 100), "100 frames")
    assert [record.trigger_counter for record in station.frames()] == list(range(1, 101))
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    assert station.sums == {count: int(((xx + yy + count) & 255).sum()) for count in range(1, 101)}
    assert station.supervisor.state is CameraState.STREAMING
    assert finish(station)
    opened = station.records[0]
    assert isinstance(opened, OpenedRecord)
    assert (opened.serial, opened.simulated, opened.width_px, opened.settings["SimTriggerLimit"]) == ("SIM0", True, WIDTH, "100")
    end = station.records[-1]
    assert isinstance(end, EndRecord)
    assert end.cause == ""
    statuses = [record for record in station.records if isinstance(record, StatusRecord)]
    assert (statuses[-1].state, statuses[-1].triggers) == (CameraState.STOPPED, 100)
    assert station.names() == ["camera_opening", "camera_streaming", "camera_stopped"]
    (blind,) = station.blinds()
    assert blind.to_ns is not None
    assert blind.to_ns <= read_trigger_log(station.folder)["host_ns"][0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("crash_at=40", "SIGSEGV"), ("lost_at=40:100ms", "is lost"), ("hang_at=40", "did not answer for 0.6 s and was killed")],
)
def test_a_camera_that_dies_hangs_or_is_lost_comes_back_and_the_gap_is_blind(start: Start, fault: str, words: str) -> None:
    station = start(faults=fault, limit=600, heartbeat_s=0.6 if "hang" in fault else 2.0)
    station.until(lambda: station.names().count("camera_streaming") == 2, "streaming again")
    seen = len(station.frames())
    station.until(lambda: len(station.frames()) >= seen + 10, "frames of the second life")
    assert station.supervisor.send(WriteCommand("SimTriggerLimit", 1))
    assert finish(station)
    assert station.unexplained() == {}
    flags = {int(record["faults"]) for record in read_trigger_log(station.folder)}
    assert int(Fault[fault.partition("_")[0].upper()]) in flags
    assert any(words in event.detail for event in station.told if isinstance(event, Event))
    assert set(range(1, 40)) <= station.counters()
    assert station.counters().isdisjoint({40})


def test_lost_frames_are_counted_one_by_one_and_are_not_blind(start: Start) -> None:
    station = start(faults="drop_every=7,incomplete_at=30x2", limit=60)
    station.until(last_counter(station, 60), "60 triggers")
    station.until(lambda: isinstance(station.records[-1], StatusRecord), "a status after the last frame")
    assert finish(station)
    assert set(range(1, 61)) - station.counters() == {7, 14, 21, 28, 35, 42, 49, 56, 30, 31}
    told = [record.incomplete_before for record in station.records if isinstance(record, FrameRecord | StatusRecord)]
    assert sum(told) == 2
    assert len(station.blinds()) == 1


def test_without_a_free_slot_the_record_comes_without_an_image(start: Start) -> None:
    station = start(limit=40, slots=4)
    station.keeping = True
    station.until(last_counter(station, 40), "40 frames")
    slots = [record.slot for record in station.frames()]
    assert slots == [0, 1, 2, 3] + [-1] * 36
    station.keeping = False
    for slot in station.keep:
        station.ring.release(slot)
    station.keep = set()
    assert finish(station)


def test_slots_of_a_dead_process_are_freed_but_for_those_still_held(start: Start) -> None:
    station = start(slots=8)
    station.keeping = True
    station.until(lambda: len(station.keep) == 2 or len(station.frames()) > 2, "two frames kept")
    station.keeping = False
    kept = set(station.keep)
    station.child().kill()
    station.until(lambda: station.names().count("camera_streaming") == 2, "streaming again")
    before = len(station.frames())
    station.until(lambda: len(station.frames()) > before + 30, "frames around the kept slots")
    later = {record.slot for record in station.frames()[before:]}
    assert later.isdisjoint(kept)
    assert kept
    for slot in kept:
        station.ring.release(slot)
    assert finish(station)


def test_an_image_that_does_not_fit_the_slot_is_told_without_bytes(start: Start) -> None:
    station = start(limit=5, slot_bytes=WIDTH * HEIGHT - 1)
    station.until(last_counter(station, 5), "five frames")
    assert {(record.size_bytes, record.width_px) for record in station.frames()} == {(0, WIDTH)}
    assert all(record.slot >= 0 for record in station.frames())


def test_a_daemon_that_does_not_read_costs_records_that_are_counted(start: Start) -> None:
    station = start(limit=1500, rate_hz=3000.0, slots=4, exposure_us=10, settings={"SimNominalExposure": 10, "SimTriggerLimit": 1500})
    station.until(lambda: bool(station.frames()), "the first frame")
    station.reading.clear()
    until = time.monotonic() + 5
    while station.ring.unsent == 0 and time.monotonic() < until:
        time.sleep(0.01)
    assert station.ring.unsent > 0
    station.reading.set()
    unsent = station.ring.unsent
    assert finish(station)
    assert len(station.frames()) + unsent <= 1500


def test_killed_from_outside_it_leaves_nothing_behind_and_returns(start: Start) -> None:
    station = start()
    station.until(lambda: len(station.frames()) >= 5, "frames")
    first = station.child()
    descriptors = psutil.Process().num_fds()
    station.child().send_signal(signal.SIGKILL)
    station.until(lambda: station.names().count("camera_streaming") >= 2, "streaming again")
    assert station.child().pid != first.pid
    assert psutil.Process().num_fds() == descriptors
    assert not any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children())
    assert any("SIGKILL" in blind.cause for blind in station.blinds())
    assert finish(station)
    assert psutil.Process().children() == []


def test_a_frozen_process_is_killed_and_a_short_freeze_is_only_blind(start: Start) -> None:
    station = start(heartbeat_s=1.0)
    station.until(lambda: len(station.frames()) >= 5, "frames")
    child = station.child()
    child.suspend()
    try:
        station.until(lambda: "camera_stalled" in station.names(), "noticed")
    finally:
        child.resume()
    station.until(lambda: len(station.blinds()) == 2, "sight again")
    assert station.child().pid == child.pid
    station.child().suspend()
    station.until(lambda: station.names().count("camera_streaming") >= 3, "a new life")
    assert station.child().pid != child.pid
    assert finish(station)


def test_signals_of_the_terminal_do_not_reach_the_camera(start: Start) -> None:
    station = start(limit=0)
    station.until(lambda: len(station.frames()) >= 5, "frames")
    for number in (signal.SIGINT, signal.SIGTERM):
        station.child().send_signal(number)
    before = len(station.frames())
    station.until(lambda: len(station.frames()) > before + 20, "it goes on")
    assert station.names().count("camera_opening") == 1


def test_software_triggers_and_writes_go_through_and_refusals_are_events(start: Start) -> None:
    station = start(trigger="software")
    station.until(lambda: "camera_streaming" in station.names(), "streaming")
    for count in range(1, 4):
        assert station.supervisor.send(TriggerCommand())
        station.until(lambda count=count: len(station.frames()) == count, "one frame each")  # type: ignore[misc]
    assert station.supervisor.send(WriteCommand("UserOutputValue", value=True))
    assert station.supervisor.send(WriteCommand("Width", 32))
    station.until(lambda: "camera_refused" in station.names(), "told")
    assert station.supervisor.send(TriggerCommand())
    station.until(lambda: len(station.frames()) == 4, "still alive")
    assert station.frames()[-1].line_status == 2


def test_an_output_that_is_not_taken_over_is_told_and_the_camera_lives_on(start: Start, tmp_path: Path) -> None:
    station = start(trigger="software", faults="output_stuck_at=2")
    station.until(lambda: "camera_streaming" in station.names(), "streaming")
    assert station.supervisor.send(WriteCommand("UserOutputValue", value=True))
    assert station.supervisor.send(WriteCommand("UserOutputValue", value=False))
    station.until(lambda: "camera_refused" in station.names(), "told")
    (told,) = [event.detail for event in station.told if isinstance(event, Event) and event.name == "camera_refused"]
    assert "UserOutputValue: False was written, True is read back" in told
    assert [call.kind for call in read_call_log(tmp_path)] == ["output_stuck"]
    assert station.supervisor.send(TriggerCommand())
    station.until(lambda: len(station.frames()) == 1, "still alive")
    assert station.frames()[0].line_status == 2


def test_a_camera_that_falls_silent_is_opened_again(start: Start, tmp_path: Path) -> None:
    station = start(faults="lost_silent_at=20", frame_timeout_s=0.3, limit=0)
    station.until(lambda: "camera_lost" in station.names(), "given up")
    (told,) = [event.detail for event in station.told if isinstance(event, Event) and event.name == "camera_lost"]
    assert "answers, but sends no frames" in told
    seen = len(station.frames())
    station.until(lambda: len(station.frames()) > seen + 20, "frames again")
    assert any(Fault.LOST_SILENT & Fault(int(row["faults"])) for row in read_trigger_log(tmp_path))


def test_an_absent_camera_is_told_once_and_tried_on(start: Start) -> None:
    station = start(kind="folder", images=Path("/nowhere/pictures"), settings={})
    until = time.monotonic() + 8
    while station.ring.generation < 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert station.ring.generation >= 3
    finish(station)
    assert station.names()[:2] == ["camera_opening", "camera_lost"]
    assert set(station.names()[2:]) <= {"camera_stopped"}
    lost = next(event for event in station.told if isinstance(event, Event) and event.name == "camera_lost")
    assert "/nowhere/pictures: no images there" in lost.detail
    assert station.blinds() == []
    assert len([event for event in station.told if isinstance(event, Blind)]) == 1


def test_a_hanging_process_does_not_delay_the_stop_beyond_its_deadline(start: Start) -> None:
    station = start(faults="hang_at=10", limit=20, heartbeat_s=30.0)
    station.until(lambda: len(station.frames()) >= 9, "nine frames")
    until = time.monotonic() + 5
    while read_trigger_log(station.folder).size < 10 and time.monotonic() < until:
        time.sleep(0.01)
    begun = time.monotonic()
    station.reading.set()
    assert not station.supervisor.stop(0.3)
    assert time.monotonic() - begun < 2.0
    close(station)


def fill_commands(station: Station) -> None:
    """Until the process, which does not read, can be sent no more."""
    sent = 0
    while station.supervisor.send(WriteCommand("UserOutputValue", value=True)):
        sent += 1
        assert sent < 100_000


@pytest.mark.parametrize("heartbeat_s", [30.0, 1.5])
def test_a_hung_process_with_a_full_command_socket_does_not_delay_the_stop(start: Start, heartbeat_s: float) -> None:
    station = start(heartbeat_s=heartbeat_s)
    station.until(lambda: len(station.frames()) >= 5, "frames")
    child = station.child()
    child.suspend()
    try:
        fill_commands(station)
        begun = time.monotonic()
        graceful = station.supervisor.stop(0.5 if heartbeat_s > 10 else 5.0)
        assert time.monotonic() - begun < (1.5 if heartbeat_s > 10 else 4.0)
    finally:
        if child.is_running():
            child.kill()
    assert not graceful
    assert station.failures == []
    close(station)


def test_a_stop_that_finds_no_room_is_sent_again_until_the_process_reads(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    station = start(heartbeat_s=30.0)
    station.until(lambda: len(station.frames()) >= 5, "frames")
    child = station.child()
    refused = threading.Semaphore(0)
    send = station.supervisor.send

    def watched(command: CameraCommand) -> bool:
        sent = send(command)
        if not sent:
            refused.release()
        return sent

    child.suspend()
    try:
        fill_commands(station)
        monkeypatch.setattr(station.supervisor, "send", watched)
        graceful: list[bool] = []
        stopper = threading.Thread(target=lambda: graceful.append(station.supervisor.stop(10.0)))
        stopper.start()
        tries = [refused.acquire(timeout=5) for _ in range(3)]
        child.resume()
        stopper.join(15)
    finally:
        if child.is_running():
            child.kill()
    assert tries == [True] * 3
    assert graceful == [True]
    close(station)


def assert_failed(station: Station, kind: type[Exception], words: str) -> None:
    """The supervision ended by an error: nothing lives on, and nobody can believe that the camera sees."""
    station.until(lambda: bool(station.failures), "the failure is told")
    station.supervisor._thread.join(5)
    assert psutil.Process().children() == []
    (error,) = station.failures
    assert isinstance(error, kind)
    assert words in str(error)
    assert station.supervisor.state is CameraState.LOST
    assert [event for event in station.told if isinstance(event, Blind)][-1].to_ns is None
    lost = [event for event in station.told if isinstance(event, Event) and event.name == "camera_lost"][-1]
    assert lost.detail == f"the supervision of the camera failed, restart the daemon: {kind.__name__}: {error}"
    begun = time.monotonic()
    station.stop()
    station.ring_fd = -1
    assert time.monotonic() - begun < 2.0


def no_more(*_: object, **__: object) -> None:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize("name", ["os.pidfd_open", "socket.socketpair", "socket.socket.dup"])
def test_without_descriptors_the_supervision_fails_aloud(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(name, no_more)
    assert_failed(start(), OSError, "Too many open files")


def test_without_descriptors_for_the_next_life_the_supervision_fails_aloud(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    station = start()
    station.until(lambda: len(station.frames()) >= 5, "frames")
    monkeypatch.setattr("socket.socketpair", no_more)
    station.child().kill()
    assert_failed(station, OSError, "Too many open files")


def test_an_environment_that_no_process_can_have_is_told(start: Start) -> None:
    assert_failed(start(kind="folder", images=Path("/nowhere"), settings={}, environment={"A": "a\0b"}), ValueError, "null byte")


@pytest.mark.parametrize("raise_at", ["incarnation", "camera_opening", "camera_streaming"])
def test_a_callback_that_raises_ends_the_supervision_aloud(start: Start, raise_at: str) -> None:
    assert_failed(start(raise_at=raise_at), RuntimeError, "no ")


def test_a_failure_while_it_sees_is_blind_from_the_last_proven_sight(start: Start) -> None:
    station = start(raise_at="camera_refused")
    station.until(lambda: len(station.frames()) >= 5, "frames")
    assert station.supervisor.send(WriteCommand("Width", 32))
    assert_failed(station, RuntimeError, "no ear for camera_refused")
    (blind,) = [event for event in station.told if isinstance(event, Blind) and event.to_ns is None][1:]
    triggers = read_trigger_log(station.folder)
    missing = [int(record["host_ns"]) for record in triggers if int(record["counter"]) not in station.counters()]
    assert all(host_ns >= blind.from_ns for host_ns in missing)
    assert blind.from_ns > int(triggers["host_ns"][0])


def test_what_cannot_be_told_does_not_hide_the_first_error(start: Start) -> None:
    station = start(raise_at="camera_lost")
    station.until(lambda: len(station.frames()) >= 5, "frames")
    station.child().kill()
    assert_failed(station, RuntimeError, "no ear for camera_lost")
    assert station.failures[0].__notes__ == ["nor could it be told: RuntimeError: no ear for camera_lost"]


def test_a_death_by_a_signal_without_a_name_is_told_by_its_number(start: Start) -> None:
    station = start()
    station.until(lambda: len(station.frames()) >= 5, "frames")
    station.child().send_signal(40)
    station.until(lambda: station.names().count("camera_streaming") == 2, "streaming again")
    assert finish(station)
    assert any(event.detail == "the camera process died by signal 40" for event in station.told if isinstance(event, Event))
    assert station.failures == []


def test_a_free_running_camera_that_falls_silent_is_stalled_and_blind(start: Start) -> None:
    station = start(faults="stall_at=20:700ms", trigger="free_run", rate_hz=100.0, frame_timeout_s=0.2)
    station.until(lambda: len(station.blinds()) == 2, "the stall is over")
    assert "camera_stalled" in station.names()
    assert finish(station)
    stalled = [record for record in read_trigger_log(station.folder) if record["faults"] == int(Fault.STALL)]
    inside = [record for record in stalled if int(record["counter"]) in station.unexplained()]
    assert len(stalled) > 50
    assert inside == []


def test_the_camera_process_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from inspector.camera.supervisor import CameraSupervisor
from inspector.config.station import CameraConfig
from inspector.contract.ring import Ring
import threading
images = Path(sys.argv[1])
fd = Ring.create(4, 4096)
streaming = threading.Event()
def tell(event):
    if getattr(event, "name", "") == "camera_streaming":
        streaming.set()
config = CameraConfig(name="c", kind="folder", images=images)
supervisor = CameraSupervisor(config, Ring(fd), fd, on_incarnation=lambda i: None, on_event=tell, on_failure=lambda error: None)
supervisor.start()
streaming.wait(20)
import psutil
print(psutil.Process().children()[0].pid, flush=True)
threading.Event().wait()  # until it is killed
"""
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    import cv2  # noqa: PLC0415

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        camera = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        camera.wait(timeout=5)
    assert not camera.is_running()
