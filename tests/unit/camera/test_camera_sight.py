"""How long the camera's sight is proven, and when it counts as stalled: laws of time, tried without a clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.camera.blindness import Blindness
from inspector.camera.port import Frame
from inspector.camera.sight import Sight
from inspector.config.station import CameraConfig
from inspector.contract.channel import CameraState
from inspector.contract.records import Blind

MS = 1_000_000
S = 1000 * MS


def sight(trigger: str = "line") -> Sight:
    made = Sight(CameraConfig.model_validate({"name": "c", "kind": "simulator", "trigger": trigger, "frame_timeout_s": 1.0}))
    made.started(10 * S)
    return made


def frame(received_ns: int, camera_ns: int = 0) -> Frame:
    return Frame(np.zeros(1, np.uint8), 1, camera_ns, received_ns, 1, 1, 1, "Mono8")


def test_a_frame_proves_sight_up_to_its_exposure() -> None:
    watching = sight()
    watching.frame(frame(21 * S, 5), 20 * S)
    assert watching.seen_ns == 20 * S
    watching.frame(frame(22 * S), 22 * S)  # without the camera's time: it was exposed somewhat before it came
    assert 21 * S < watching.seen_ns < 22 * S


def test_sight_never_goes_back() -> None:
    watching = sight()
    watching.frame(frame(20 * S, 5), 20 * S)
    watching.frame(frame(21 * S, 4), 19 * S)
    assert watching.seen_ns == 20 * S


@pytest.mark.parametrize("camera_ns", [0, 5])
def test_after_a_stall_it_sees_since_the_exposure_that_ended_it(camera_ns: int) -> None:
    watching = sight("free_run")
    assert watching.sees_since_ns == 10 * S
    watching.frame(frame(11 * S, camera_ns), 11 * S)
    assert watching.sees_since_ns == 10 * S, "no stall, no new beginning"
    watching.answered(13 * S, None)
    assert watching.state is CameraState.STALLED
    watching.frame(frame(14 * S, camera_ns), 13 * S + 900 * MS)
    assert 13 * S < watching.sees_since_ns <= 14 * S
    assert watching.sees_since_ns <= watching.seen_ns, "a freeze that follows begins after it"


def test_an_empty_fetch_proves_nothing_until_the_camera_has_answered_after_it() -> None:
    watching = sight()
    watching.empty(15 * S)
    assert watching.seen_ns == 10 * S
    watching.answered(16 * S, None)
    assert 15 * S - 100 * MS < watching.seen_ns < 15 * S


def test_silence_proves_nothing_where_frames_are_due() -> None:
    watching = sight("free_run")
    watching.empty(10 * S + 500 * MS)
    watching.answered(10 * S + 600 * MS, None)
    assert watching.seen_ns == 10 * S
    assert watching.state is CameraState.STREAMING
    watching.answered(11 * S + 100 * MS, None)
    assert watching.state is CameraState.STALLED
    watching.frame(frame(12 * S), 12 * S)
    assert watching.state is CameraState.STREAMING


def test_on_a_line_silence_is_legal_and_counted_triggers_without_frames_are_not() -> None:
    watching = sight()
    watching.answered(100 * S, 5)
    assert watching.state is CameraState.STREAMING
    watching.answered(101 * S, 7)  # one or two may be single losses
    assert watching.state is CameraState.STREAMING
    watching.answered(102 * S, 8)
    assert watching.state is CameraState.STALLED
    seen = watching.seen_ns
    watching.empty(103 * S)
    watching.answered(104 * S, 8)
    assert watching.seen_ns == seen, "a stalled camera proves nothing by silence"


def test_a_software_trigger_that_brings_no_frame_is_a_stall() -> None:
    watching = sight("software")
    watching.answered(50 * S, None)
    assert watching.state is CameraState.STREAMING
    watching.triggered(50 * S)
    watching.answered(50 * S + 900 * MS, None)
    assert watching.state is CameraState.STREAMING
    watching.answered(51 * S + 100 * MS, None)
    assert watching.state is CameraState.STALLED


@pytest.mark.parametrize(("since", "end"), [(10, 50), (20, 50), (21, 21), (45, 45)])
def test_an_interval_ends_where_sight_is_known_to_begin_or_else_now(since: int, end: int) -> None:
    said: list[Blind] = []
    blindness = Blindness("c", said.append)
    blindness.begin(20, "why")
    blindness.end(since, 50)
    assert [blind.to_ns for blind in said] == [None, end]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=30))
def test_blind_intervals_come_in_pairs_and_never_overlap(steps: list[tuple[bool, int]]) -> None:
    said: list[Blind] = []
    blindness = Blindness("c", said.append)
    for begin, at in steps:
        if begin:
            blindness.begin(at, "why")
        else:
            blindness.end(at - 3, at)
    opened = [blind for blind in said if blind.to_ns is None]
    closed = [blind for blind in said if blind.to_ns is not None]
    assert [blind.to_ns is None for blind in said] == [index % 2 == 0 for index in range(len(said))]
    assert [blind.from_ns for blind in closed] == [blind.from_ns for blind in opened[: len(closed)]]
    ends = [0] + [blind.to_ns or 0 for blind in closed]
    assert all(blind.from_ns >= end for blind, end in zip(opened, ends, strict=False))
    assert all(blind.from_ns <= (blind.to_ns or 0) for blind in closed)
    assert blindness.open == (len(opened) > len(closed))


def test_a_stall_without_end_is_hopeless_and_a_pause_of_the_line_is_not() -> None:
    watching = sight()
    watching.frame(frame(20 * S, 5), 20 * S)
    for second in range(1000):
        watching.answered((21 + second) * S, 7)
        assert not watching.hopeless((21 + second) * S), "nothing was triggered: silence is legal"
    watching.answered(1021 * S, 9 + 7)  # the line runs again, and nothing comes
    assert watching.state is CameraState.STALLED
    assert not watching.hopeless(1023 * S)
    watching.answered(1024 * S, 20)
    assert watching.hopeless(1025 * S)
    watching.frame(frame(1026 * S, 5), 1026 * S)
    assert not watching.hopeless(1026 * S)
