"""What a driver's buffer tells, and whether its chunk data are its own."""

from __future__ import annotations

import pytest

from inspector.camera.buffers import BufferReader, ChunkCheck


class NotToldError(Exception):
    """Stands for the binding's errors."""


class Silent:
    """A buffer that tells nothing."""

    def __getattr__(self, name: str) -> object:
        raise NotToldError(name)


class Whole:
    padding_x, image_offset, timestamp_ns = 3, 16, 77

    @staticmethod
    def has_received_larger_payload() -> bool:
        return True

    @staticmethod
    def is_containing_chunk_data() -> bool:
        return True


class OldStyle(Silent):
    num_chunks = 2


def test_what_a_buffer_does_not_tell_is_the_safe_answer() -> None:
    reader = BufferReader((NotToldError,))
    assert (reader.padding(Whole()), reader.offset(Whole()), reader.timestamp_ns(Whole())) == (3, 16, 77)
    assert reader.overflown(Whole())
    assert reader.has_chunks(Whole())
    silent = Silent()
    assert (reader.padding(silent), reader.offset(silent), reader.timestamp_ns(silent)) == (0, 0, 0)
    assert not reader.overflown(silent)
    assert not reader.has_chunks(silent)
    assert reader.has_chunks(OldStyle())
    assert reader.timestamp_ns(Whole()) == 77, "one frame without a stamp says nothing of the next"


@pytest.mark.parametrize("distance", [0, 1, -1, 4711])
def test_one_frame_whose_chunk_data_are_wrong_is_found(distance: int) -> None:
    check = ChunkCheck()
    wrong = {50: 7, 60: -1, 61: 3}
    doubted = [number for number in range(1, 100) if not check.fits(number, 10_000 + number + distance - 10_000 + wrong.get(number, 0))]
    first = [1, 2] if abs(distance) > 1 else []
    assert doubted == [*first, 50, 60, 61]


def test_a_lasting_change_of_the_distance_costs_some_frames_and_a_wrap_none() -> None:
    check = ChunkCheck()
    doubted = [number for number in range(1, 50) if not check.fits(number, number + (5 if number >= 20 else 0))]
    assert doubted == list(range(20, 28))
    check = ChunkCheck()
    total = 0
    ids = [*range(65_500, 65_536), *range(1, 40)]  # 16 bits, skips 0
    for chunk_id, frame_id in enumerate(ids, 65_500):
        total += not check.fits(frame_id, chunk_id)
    assert total == 0


def test_an_overtaken_frame_is_held_to_the_same_distance() -> None:
    check = ChunkCheck()
    ids = [1, 2, 4, 3, 5, 8, 6, 7, 9]
    assert [number for number in ids if not check.fits(number, number + (6 if number == 6 else 0))] == [6]
