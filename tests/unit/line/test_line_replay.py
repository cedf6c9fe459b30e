from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.line.replay import REPLAY_MESSAGES, ReplayMemory


def payload(seq: int) -> bytes:
    return b"m%d" % seq


def filled(size: int, last: int) -> ReplayMemory:
    memory = ReplayMemory(["a"], size)
    for seq in range(1, last + 1):
        memory.put("a", seq, payload(seq), seq * 10)
    return memory


@given(
    size=st.integers(1, 12),
    last=st.integers(0, 40),
    from_seq=st.integers(0, 50),
    length=st.integers(0, 50),
    limit=st.integers(1, 50),
)
def test_what_is_asked_for_is_read_or_said_to_be_gone(size: int, last: int, from_seq: int, length: int, limit: int) -> None:
    to_seq = from_seq + length
    span = filled(size, last).read("a", from_seq, to_seq, limit)
    kept = [seq for seq in range(max(from_seq, 1), to_seq + 1) if last - size < seq <= last]
    assert [message[0] for message in span.messages] == kept[:limit]
    assert all(message == (message[0], payload(message[0]), message[0] * 10) for message in span.messages)
    gone = [seq for seq in range(max(from_seq, 1), to_seq + 1) if seq <= last - size]
    assert span.gone_to == (gone[-1] if gone else 0)
    settled = set(gone) | {message[0] for message in span.messages}
    assert settled == set(range(max(from_seq, 1), span.next_seq)), "below next_seq everything is read or gone, and nothing else"


@given(last=st.integers(1, 60), size=st.integers(1, 64), piece=st.integers(1, 9))
def test_a_range_that_is_read_in_pieces_is_read_whole(last: int, size: int, piece: int) -> None:
    memory = filled(size, last)
    found: list[int] = []
    next_seq = 1
    while next_seq <= last:
        span = memory.read("a", next_seq, last, piece)
        assert span.next_seq > next_seq
        found += [message[0] for message in span.messages]
        next_seq = span.next_seq
    assert found == list(range(max(1, last - size + 1), last + 1))


def test_a_writer_that_comes_round_is_noticed() -> None:
    """The reader never gives one message for another, however fast the writer is."""
    memory = ReplayMemory(["a"], 64)
    done = threading.Event()

    def write() -> None:
        for seq in range(1, 60_001):
            memory.put("a", seq, payload(seq), seq)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    try:
        while not done.is_set() or not reads:
            last = memory.last_seq("a")
            begin = max(1, last - 70)
            span = memory.read("a", begin, last, 1000)
            numbers = [message[0] for message in span.messages]
            assert all(message[1] == payload(message[0]) for message in span.messages)
            assert numbers == list(range(span.gone_to + 1 if span.gone_to else begin, span.next_seq))
            reads += 1
    finally:
        writer.join()


def test_a_slot_that_is_overwritten_while_it_is_read() -> None:
    """The last number was read before the writer came round."""
    memory = filled(4, 8)
    ring = memory._rings["a"]
    ring.slots[6 % 4] = (10, payload(10), 100)  # 9 and 10 are written, but ring.last_seq is still 8
    ring.slots[5 % 4] = (9, payload(9), 90)
    span = memory.read("a", 5, 8, 10)
    assert [message[0] for message in span.messages] == [7, 8]
    assert (span.gone_to, span.next_seq) == (6, 9)


def test_streams() -> None:
    memory = ReplayMemory(["a"])
    assert memory.size == REPLAY_MESSAGES == 65_536
    assert memory.streams == ("", "a")
    assert memory.last_seq("b") == 0
    with pytest.raises(KeyError):
        memory.read("b", 1, 2, 3)
    memory.put("b", 1, b"x", 1)
    assert memory.last_seq("b") == 1
    assert memory.read("b", 1, 2, 3).messages == ((1, b"x", 1),)
