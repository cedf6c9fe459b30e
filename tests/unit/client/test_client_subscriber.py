"""The subscriber: books in pure form, then over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from inspector.client.subscriber import Follower, Notice, NoticeKind, Subscriber, Update
from inspector.contract import wire
from inspector.contract.errors import AddressError
from inspector.contract.records import EventLevel

MS = 1_000_000


def event(seq: int, boot_id: str = "b1", stream: str = "top") -> wire.EventMessage:
    return wire.EventMessage(
        station="line-1",
        boot_id=boot_id,
        boot_age_ms=1.0,
        stream=stream,
        seq=seq,
        name="e",
        level=EventLevel.INFO,
        detail="",
        utc="2026-01-01T00:00:00Z",
    )


def heartbeat(last_seq: int, boot_id: str = "b1", stream: str = "top") -> wire.HeartbeatMessage:
    return wire.HeartbeatMessage(
        station="line-1",
        boot_id=boot_id,
        boot_age_ms=1.0,
        stream=stream,
        last_seq=last_seq,
        inspection_age_ms=1.0,
        opened=0,
        closed=0,
        pending=0,
        blind=False,
    )


def told(updates: list[Update]) -> list[tuple[str, int]]:
    """Kinds of notices with what is missing."""
    return [(update.kind.value, update.missing) for update in updates if isinstance(update, Notice)]


def follow(*messages: wire.Message) -> list[Update]:
    follower = Follower(0)
    return [update for message in messages for update in follower.take(message, 0)]


def test_a_steady_stream_tells_nothing() -> None:
    messages = [event(5), heartbeat(5), event(6), event(7), heartbeat(7)]
    assert follow(*messages) == messages


def test_a_gap_is_counted() -> None:
    assert told(follow(event(5), event(9))) == [("gap", 3)]


def test_a_heartbeat_shows_that_the_last_message_was_lost() -> None:
    assert told(follow(event(5), heartbeat(7), event(8))) == [("gap", 2)]


def test_what_came_before_us_is_no_gap() -> None:
    assert told(follow(heartbeat(100), event(101))) == []


def test_a_repeated_message_is_told_once() -> None:
    assert follow(event(5), event(6), event(5), event(6)) == [event(5), event(6)]


def test_streams_are_numbered_apart() -> None:
    assert told(follow(event(1), event(50, stream="side"), event(2), event(51, stream="side"))) == []


def test_a_new_boot_is_told_and_numbers_from_one() -> None:
    assert told(follow(event(70), event(1, "b2"), event(2, "b2"))) == [("boot", 0)]
    assert told(follow(event(70), event(4, "b2"))) == [("boot", 0), ("gap", 3)]
    assert told(follow(event(70), heartbeat(0, "b2"))) == [("boot", 0)]


@given(st.sets(st.integers(2, 60)))
def test_every_number_is_received_or_missing(lost: set[int]) -> None:
    updates = follow(*(event(seq) for seq in range(1, 61) if seq not in lost), heartbeat(60))
    assert sum(missing for _, missing in told(updates)) == len(lost)


def test_silence_is_told_once_and_its_end_too() -> None:
    follower = Follower(0, dead_after_ms=130)
    follower.take(heartbeat(0), 0)
    assert follower.tick(130 * MS) == []
    assert told(follower.tick(131 * MS)) == [("dead", 0)]
    assert follower.tick(400 * MS) == []
    assert follower.take(event(1), 410 * MS) == [event(1)], "a verdict is no sign that the inspection lives"
    assert told(follower.take(heartbeat(1), 500 * MS)) == [("alive", 0)]
    assert told(follower.tick(631 * MS)) == [("dead", 0)]


def test_never_having_heard_anything_is_told() -> None:
    follower = Follower(0, dead_after_ms=130)
    assert follower.next_ns() == 130 * MS
    assert told(follower.tick(131 * MS)) == [("dead", 0)]
    assert follower.tick(1000 * MS) == []
    assert follower.next_ns() is None


class Publisher:
    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{self.port}"

    def wait_for_subscriber(self) -> None:
        assert self.socket.poll(10_000)
        self.socket.recv()

    def send(self, message: wire.Message) -> None:
        self.socket.send_multipart([wire.topic(message.station, message.stream), wire.encode(message)])

    def send_raw(self, payload: bytes) -> None:
        self.socket.send_multipart([b"line-1/top", payload])

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    yield made
    made.close()


def collect(subscriber: Subscriber, number: int) -> list[Update]:
    updates: list[Update] = []
    end = time.monotonic() + 20
    while len(updates) < number:
        assert time.monotonic() < end
        updates += subscriber.receive(0.1)
    return updates


def test_messages_arrive_over_a_real_socket(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, dead_after_ms=60_000) as subscriber:
        publisher.wait_for_subscriber()
        sent: list[wire.Message] = [event(seq) for seq in range(1, 501)]
        for message in sent:
            publisher.send(message)
        assert collect(subscriber, 500) == sent


def test_a_topic_chooses(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, b"line-1/side", dead_after_ms=60_000) as subscriber:
        publisher.wait_for_subscriber()
        publisher.send(event(1))
        publisher.send(event(1, stream="side"))
        assert collect(subscriber, 1) == [event(1, stream="side")]


def test_what_cannot_be_read_is_told_and_the_next_is_read(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, dead_after_ms=60_000) as subscriber:
        publisher.wait_for_subscriber()
        publisher.send_raw(b"\xff{")
        publisher.send_raw(b'{"type": "unheard of"}')
        publisher.send(msgspec.structs.replace(event(1), v=99))
        publisher.send(event(1))
        updates = collect(subscriber, 4)
    assert [update.kind for update in updates[:3] if isinstance(update, Notice)] == [NoticeKind.UNREADABLE] * 3
    assert updates[3] == event(1)


def test_heartbeats_that_stop_are_noticed_in_time(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, dead_after_ms=130) as subscriber:
        publisher.wait_for_subscriber()
        publisher.send(heartbeat(0))
        updates: list[Any] = []
        while not any(isinstance(update, wire.HeartbeatMessage) for update in updates):
            updates = subscriber.receive(5.0)
        began = time.monotonic()
        (notice,) = subscriber.receive(10.0)
        assert isinstance(notice, Notice)
        assert notice.kind is NoticeKind.DEAD
        assert time.monotonic() - began < 5.0, "far below the time that receive() was allowed"


def test_a_reader_that_was_slow_blames_nobody(publisher: Publisher) -> None:
    with Subscriber(publisher.endpoint, dead_after_ms=500) as subscriber:
        publisher.wait_for_subscriber()
        publisher.send(heartbeat(0))
        while not subscriber.receive(0.1):
            pass
        subscriber._follower._streams["line-1", "top"].heartbeat_ns = time.monotonic_ns() - 10_000 * MS  # as if we had slept
        publisher.send(heartbeat(0))
        assert subscriber._socket.poll(10_000)
        assert told(subscriber.receive(0.0)) == []


def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(AddressError, match="nonsense"):
        Subscriber("nonsense")
