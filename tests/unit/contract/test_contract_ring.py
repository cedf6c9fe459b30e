from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inspector.contract.ring import Ring


@pytest.fixture
def fd() -> Iterator[int]:
    descriptor = Ring.create(4, 10_000)
    yield descriptor
    os.close(descriptor)


def test_pixels_written_by_one_side_are_read_by_the_other(fd: int) -> None:
    with Ring(fd) as camera, Ring(fd) as daemon:
        slot = camera.claim()
        camera.pixels(slot, 3)[:] = (1, 2, 255)
        assert daemon.filled == 0
        camera.fill(slot)
        assert daemon.filled == 1
        assert daemon.pixels(slot, 3).tolist() == [1, 2, 255]


def test_slots_of_a_dead_writer_are_freed_unless_they_are_held(fd: int) -> None:
    with Ring(fd) as camera, Ring(fd) as daemon:
        first, second = camera.claim(), None
        camera.fill(first)
        second = camera.claim()
        camera.fill(second)
        assert daemon.release_unknown({first}) == 1
        assert daemon.filled == 1
        daemon.release(first)
        assert daemon.filled == 0


def test_every_incarnation_maps_the_same_memory_and_has_its_own_number(fd: int) -> None:
    with Ring(fd) as daemon:
        assert [daemon.next_generation(), daemon.next_generation()] == [1, 2]
        with Ring(fd) as camera:
            assert camera.generation == 2
            camera.count_unsent()
            camera.count_unsent()
        assert daemon.unsent == 2


def test_a_slot_beyond_the_ring_or_too_large_an_image_is_refused(fd: int) -> None:
    with Ring(fd) as ring:
        for slot, size in ((4, 1), (-1, 1), (0, 10_001)):
            with pytest.raises(ValueError, match="4 slots of 10000 bytes"):
                ring.pixels(slot, size)


def test_what_is_no_ring_is_refused() -> None:
    fd = os.memfd_create("other")
    try:
        with pytest.raises(ValueError, match="shorter than its header"):
            Ring(fd)
        os.ftruncate(fd, 1 << 16)
        with pytest.raises(ValueError, match="first word"):
            Ring(fd)
    finally:
        os.close(fd)
    with pytest.raises(ValueError, match="at least one slot"):
        Ring.create(0, 1)


def test_an_image_kept_beyond_the_end_is_told(fd: int) -> None:
    ring = Ring(fd)
    image = ring.pixels(0, 5)
    with pytest.raises(RuntimeError, match="kept beyond"):
        ring.close()
    del image


@given(st.lists(st.sampled_from(["write", "read"]), max_size=60), st.integers(1, 5))
def test_no_image_is_overwritten_before_its_release(steps: list[str], slots: int) -> None:
    fd = Ring.create(slots, 8)
    written = 0
    queue: list[tuple[int, int]] = []
    with Ring(fd) as camera, Ring(fd) as daemon:
        for step in steps:
            if step == "write":
                written += 1
                slot = camera.claim()
                assert (slot == -1) == (len(queue) == slots)
                if slot >= 0:
                    camera.pixels(slot, 1)[0] = written % 256
                    camera.fill(slot)
                    queue.append((slot, written % 256))
            elif queue:
                slot, value = queue.pop(0)
                assert daemon.pixels(slot, 1)[0] == value
                daemon.release(slot)
            assert daemon.filled == len(queue)
    os.close(fd)


def test_a_full_ring_refuses_and_a_released_slot_is_used_again(fd: int) -> None:
    with Ring(fd) as camera, Ring(fd) as daemon:
        for expected in range(4):
            assert camera.claim() == expected
            camera.fill(expected)
        assert camera.claim() == -1
        daemon.release(2)
        assert camera.claim() == 2
