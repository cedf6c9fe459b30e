"""A camera's clock on the host's, with and without reading the camera's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.camera.clock import ClockMap, Reading

MS = 1_000_000
S = 1000 * MS


class Clock:
    """A camera's clock: ahead of the host's by ``ahead_ns``, read in one millisecond of which a tenth is before the instant."""

    def __init__(self, ahead_ns: int = 7_000 * S, unit_ns: int = 1) -> None:
        self.ahead_ns, self.unit_ns, self.now_ns, self.readings = ahead_ns, unit_ns, 0, 0

    def at(self, host_ns: int) -> int:
        return host_ns + self.ahead_ns

    def read(self) -> Reading | None:
        self.readings += 1
        return Reading(self.now_ns - MS // 10, self.at(self.now_ns) // self.unit_ns, self.now_ns + 9 * MS // 10)


def test_the_clock_map_takes_the_least_delay() -> None:
    clock = ClockMap()
    offset = 123_456 * MS
    delays = [9, 5, 7, 3, 8, 4]
    exposures = [clock.to_host(index * 10 * MS + 1, index * 10 * MS + 1 + offset + delay * MS) for index, delay in enumerate(delays)]
    assert exposures[3] == 30 * MS + 1 + offset + 3 * MS
    assert exposures[5] - exposures[3] == 20 * MS, "once the least delay is known, distances are the camera's own"
    assert clock.to_host(0, 77) == 77
    assert clock.to_host(0, 77, 70) == 70, "it may have waited since then"
    assert clock.to_host(0, 77, 80) == 77


def test_the_clock_map_follows_drift_and_survives_a_reset() -> None:
    clock = ClockMap(window_ns=1000 * MS)
    for index in range(1, 1000):
        camera_ns = index * 10 * MS
        host_ns = camera_ns + camera_ns // 5_000  # 200 ppm
        error = clock.to_host(camera_ns, host_ns + 2 * MS) - host_ns
        assert 0 <= error <= 2 * MS + 1
        assert error >= 2 * MS - 2 * 1000 * MS // 5_000 - 10 * MS // 5_000
    assert clock.restarts == 0
    assert clock.to_host(1, 20_000 * MS) == 20_000 * MS
    assert clock.restarts == 1


@given(st.lists(st.tuples(st.integers(1, 5 * S), st.integers(0, 30 * S)), min_size=1, max_size=40))
def test_with_a_clock_that_is_read_every_exposure_is_known_however_late_its_frame_is(frames: list[tuple[int, int]]) -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    clock.now_ns = exposed_ns = 100 * S
    made.refresh(clock.now_ns)
    for step_ns, delay_ns in frames:
        exposed_ns += step_ns
        clock.now_ns = max(clock.now_ns, exposed_ns + delay_ns)
        made.refresh(clock.now_ns)
        found_ns = made.to_host(clock.at(exposed_ns), clock.now_ns)
        assert exposed_ns <= found_ns <= min(exposed_ns + 2 * MS, clock.now_ns), "to the length of a reading, and never before it was exposed"
    assert made.restarts == 0
    assert made.reads


def test_the_first_frame_alone_hides_its_own_delay_where_the_clock_cannot_be_read() -> None:
    assert ClockMap(lambda: None).to_host(7_100 * S, 101_500 * MS) == 101_500 * MS
    assert ClockMap().to_host(7_100 * S, 101_500 * MS) == 101_500 * MS


@pytest.mark.parametrize("jump_ns", [-3600 * S, -2 * S, 2 * S, 3600 * S])
def test_a_clock_that_was_set_is_read_again_and_even_its_first_late_frame_is_known(jump_ns: int) -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    clock.now_ns = 100 * S
    made.refresh(clock.now_ns)
    clock.now_ns = 100 * S + 10 * MS
    made.to_host(clock.at(clock.now_ns), clock.now_ns)
    clock.ahead_ns += jump_ns
    clock.now_ns = 102 * S  # the first frame since, 1.5 s on its way
    made.refresh(clock.now_ns)
    assert made.restarts == 1
    assert 0 <= made.to_host(clock.at(100_500 * MS), clock.now_ns) - 100_500 * MS <= 2 * MS


def test_a_clock_set_between_two_readings_is_found_by_the_first_frame_that_contradicts_it() -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    clock.now_ns = 100 * S
    made.refresh(clock.now_ns)
    made.to_host(clock.at(clock.now_ns), clock.now_ns)
    for jump_ns in (-50 * S, 50 * S):
        clock.ahead_ns += jump_ns
        clock.now_ns += 500 * MS
        assert 0 <= made.to_host(clock.at(clock.now_ns - 300 * MS), clock.now_ns) - (clock.now_ns - 300 * MS) <= 2 * MS
    assert made.restarts == 2


def test_a_frame_that_overtakes_many_does_not_set_the_clock_back() -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    clock.now_ns = 100 * S
    made.refresh(clock.now_ns)
    made.to_host(clock.at(100 * S), 100 * S + 5 * MS)
    assert abs(made.to_host(clock.at(97 * S), 100 * S + 6 * MS) - 97 * S) <= 2 * MS
    assert made.restarts == 0


@pytest.mark.parametrize("stamp", [1, 2**62, 7_000 * S + 200 * S])
def test_a_stamp_that_no_frame_can_have_is_not_believed_and_changes_nothing(stamp: int) -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    clock.now_ns = 100 * S
    made.refresh(clock.now_ns)
    made.to_host(clock.at(100 * S), 100 * S + 5 * MS)
    assert made.to_host(stamp, 100 * S + 20 * MS) == 100 * S + 20 * MS
    assert abs(made.to_host(clock.at(100 * S + 20 * MS), 100 * S + 40 * MS) - 100 * S - 20 * MS) <= 2 * MS
    assert made.reads


@pytest.mark.parametrize("unit_ns", [8, 1000])
def test_a_clock_that_does_not_count_nanoseconds_is_not_read_any_more(unit_ns: int) -> None:
    clock = Clock(unit_ns=unit_ns)
    made = ClockMap(clock.read)
    for second in range(100, 110):
        clock.now_ns = second * S
        made.refresh(clock.now_ns)
        made.to_host(clock.at(clock.now_ns), clock.now_ns + 5 * MS)
    assert not made.reads
    asked = clock.readings
    made.refresh(200 * S)
    assert clock.readings == asked
    assert made.to_host(clock.at(200 * S), 200 * S + 9 * MS) <= 200 * S + 9 * MS


def test_it_is_read_once_a_second() -> None:
    clock = Clock()
    made = ClockMap(clock.read)
    for tenth in range(100):
        clock.now_ns = 100 * S + tenth * 100 * MS
        made.refresh(clock.now_ns)
    assert 9 <= clock.readings <= 11
