from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.config.station import ChannelConfig
from inspector.contract import requests, wire
from inspector.contract.errors import AddressError, ConfigError
from inspector.contract.records import Action, Event, EventLevel, Outcome, OutputItem, Proposal, View
from inspector.contract.requests import (
    Ack,
    Acknowledge,
    AckState,
    Announce,
    Command,
    CommandName,
    Done,
    Expectation,
    Hello,
    Ping,
    Refusal,
    Refused,
    Replay,
    Replayed,
    ReplayEnd,
    Role,
    Welcome,
)
from inspector.line.channel import Channel
from inspector.line.publisher import Publisher
from inspector.line.settings import Announcing, LineSettings, Liveness
from inspector.line.streams import Streams
from inspector.line.thread import LineThread
from inspector.line.welcome import LineFacts

PATIENCE_S = 20.0
S = 1_000_000_000


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.002)


class Kept:
    def __init__(self) -> None:
        self.items: list[OutputItem] = []

    def offer(self, item: OutputItem) -> bool:
        self.items.append(item)
        return True

    def start(self) -> None: ...

    def stop(self, deadline_s: float) -> bool:
        return True


class Controls:
    """What the commands move."""

    def __init__(self) -> None:
        self.paused = False
        self.reloading = threading.Event()
        self.reloading.set()
        self.error: Exception | None = None

    def pause(self, *, paused: bool) -> None:
        self.paused = paused

    def reload(self) -> str:
        assert self.reloading.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return "threshold is 0.7 now"


class Client:
    """A controller's bare socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self.socket.connect(endpoint)
        self.no = itertools.count(1)

    def send(self, kind: type, **fields: Any) -> int:
        no = next(self.no)
        self.socket.send(requests.encode(kind(no=no, **fields)))
        return no

    def receive(self) -> requests.Reply:
        return requests.decode_reply(self.socket.recv())

    def ask(self, kind: type, **fields: Any) -> requests.Reply:
        """The answer; other answers are passed over."""
        no = self.send(kind, **fields)
        while (reply := self.receive()).no != no:
            pass
        return reply

    def hello(self, name: str = "plc") -> Welcome:
        reply = self.ask(Hello, name=name)
        assert isinstance(reply, Welcome)
        return reply

    def raw(self, *frames: bytes) -> Refused:
        self.socket.send_multipart(frames)
        reply = self.receive()
        assert isinstance(reply, Refused)
        return reply

    def replay(self, stream: str, from_seq: int, to_seq: int) -> tuple[list[Replayed], ReplayEnd]:
        no = self.send(Replay, stream=stream, from_seq=from_seq, to_seq=to_seq)
        found: list[Replayed] = []
        while True:
            reply = self.receive()
            assert reply.no == no
            if isinstance(reply, ReplayEnd):
                return found, reply
            assert isinstance(reply, Replayed)
            found.append(reply)


class Station:
    """A line thread, its channel and a subscriber."""

    def __init__(self, **config: Any) -> None:
        self.config = ChannelConfig(endpoint="tcp://127.0.0.1:*", **config)
        self.settings = LineSettings(
            station="s",
            boot_id="boot",
            streams=Streams(["a", "b"]),
            product="p",
            product_version="1",
            uninspected=Action.STOP,
            heartbeat_ms=10,
            announcing=Announcing(part_ids={"a": "trigger_counter", "b": "announced"}, deadline_ns=S),
        )
        self.kept = Kept()
        self.failures: list[BaseException] = []
        self.controls = Controls()
        self.publisher = Publisher("tcp://127.0.0.1:*")
        self.channel = Channel(self.config, LineFacts(self.settings, 120.0), self.controls, self.event, self.failures.append)
        liveness = Liveness(lambda: 1.0, 100.0)
        self.line = LineThread(self.settings, self.publisher, [self.kept], liveness, self.failures.append, audience=self.channel)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.tickets = itertools.count(1)

    def event(self, event: Event) -> None:
        self.line.event(event)

    def start(self) -> None:
        self.line.start()
        self.channel.start(self.line)

    def client(self) -> Client:
        client = Client(self.context, self.channel.endpoint)
        self.sockets.append(client.socket)
        return client

    def subscribe(self) -> zmq.Socket[bytes]:
        """Joined when it returns."""
        wire_socket = self.context.socket(zmq.SUB)
        self.sockets.append(wire_socket)
        wire_socket.setsockopt(zmq.SUBSCRIBE, b"")
        wire_socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        wire_socket.connect(self.publisher.endpoint)
        wire_socket.recv_multipart()
        return wire_socket

    def stop(self) -> None:
        assert self.line.stop(5)
        assert self.channel.stop(5)
        for one in self.sockets:
            one.close(linger=0)
        self.context.term()

    def part(self, outcome: Outcome = Outcome.PASS, stream: str = "a") -> None:
        now_ns, ticket = time.monotonic_ns(), next(self.tickets)
        self.line.open(View(ticket, stream, f"id{ticket}", ticket, ticket, None, ticket, now_ns, now_ns, now_ns + 10 * S))
        self.line.propose(Proposal(ticket, outcome))

    def parts(self, *outcomes: Outcome, stream: str = "a") -> None:
        """Returns when the last one is in the memory."""
        last = self.channel.memory.last_seq(stream)
        for outcome in outcomes:
            self.part(outcome, stream)
        wait_for(lambda: self.channel.memory.last_seq(stream) >= last + len(outcomes), "the verdicts")

    def events(self, name: str) -> list[Event]:
        return [item for item in self.kept.items if isinstance(item, Event) and item.name == name]

    def told(self, name: str, part: str = "") -> Event:
        wait_for(lambda: any(part in event.detail for event in self.events(name)), f"the event {name} {part}")
        return next(event for event in self.events(name) if part in event.detail)

    def alarms(self) -> list[str]:
        return [alarm.name for alarm in self.channel.counts().alarms]

    def counted(self, kind: str, number: int) -> None:
        wait_for(lambda: self.channel.counts().bad.get(kind, 0) >= number, f"{number} {kind}: {self.channel.counts().bad}")


@contextmanager
def running(**config: Any) -> Iterator[Station]:
    station = Station(**config)
    try:
        station.start()
        yield station
    finally:
        station.stop()
    assert not station.failures, station.failures


@pytest.fixture
def station() -> Iterator[Station]:
    with running() as made:
        yield made


@pytest.fixture
def plc(station: Station) -> Client:
    client = station.client()
    client.hello()
    return client


# Hello.


def test_a_welcome_says_all_that_a_controller_must_know(station: Station) -> None:
    station.parts(Outcome.PASS, Outcome.REJECT)
    station.line.event(Event("x", EventLevel.INFO, "d", time.monotonic_ns()))
    wait_for(lambda: station.channel.memory.last_seq("") == 1 and station.line.snapshot().streams["a"].books.closed == 2, "the books")
    welcome = station.client().hello("plc-7")
    assert welcome.streams.keys() == {"a", "b", ""}
    a = welcome.streams["a"]
    assert (a.last_seq, a.opened, a.closed, a.pending, a.blind) == (2, 2, 2, 0, False)
    assert (welcome.streams["b"].last_seq, welcome.streams[""].last_seq) == (0, 1)
    assert (welcome.station, welcome.boot_id, welcome.name, welcome.role) == ("s", "boot", "plc-7", Role.ENGINEER)
    assert (welcome.product, welcome.product_version, welcome.deadline_ms, welcome.uninspected) == ("p", "1", 120.0, Action.STOP)
    assert (welcome.heartbeat_ms, welcome.dead_after_ms) == (10, 40)
    config = station.config
    assert (welcome.present_ms, welcome.repair_ms, welcome.ack_ms) == (config.present_ms, config.repair_ms, config.ack_ms)
    assert (welcome.must_acknowledge, welcome.replay_messages, welcome.paused, welcome.alarms) == (False, 65_536, False, ())


def test_before_hello_nothing_is_done(station: Station) -> None:
    client = station.client()
    for kind, fields in (
        (Ping, {}),
        (Announce, {"stream": "a", "part_id": "1"}),
        (Replay, {"stream": "a", "from_seq": 1, "to_seq": 2}),
        (Acknowledge, {"acks": ()}),
        (Command, {"name": CommandName.PAUSE}),
    ):
        reply = client.ask(kind, **fields)
        assert isinstance(reply, Refused)
        assert reply.code is Refusal.NO_HELLO, kind
    assert not station.controls.paused
    station.told("command", "refused (no_hello)")
    client.hello()
    assert isinstance(client.ask(Ping), Done)


@pytest.mark.parametrize("name", ["a b", "line\nfeed", "-x", "x" * 65])
def test_a_name_that_could_be_taken_for_something_else_is_refused(station: Station, name: str) -> None:
    reply = station.client().ask(Hello, name=name)
    assert isinstance(reply, Refused)
    assert reply.code is Refusal.INVALID


# Announcements go to the line thread and come back from it.


def test_an_announcement_is_answered_by_the_line_thread(station: Station, plc: Client) -> None:
    reply = plc.ask(Announce, stream="nowhere", part_id="p1")
    assert isinstance(reply, Refused)
    assert reply.code is Refusal.INVALID
    assert "nowhere" in reply.detail
    for number in (1, 2):
        done = plc.ask(Announce, stream="b", part_id=f"p{number}", expect=(Expectation(in_ms=5_000.0 * number, encoder=1_000 * number),))
        assert isinstance(done, Done)
        assert done.part_no == number
    again = plc.ask(Announce, stream="b", part_id="p1", expect=(Expectation(in_ms=60_000.0, encoder=90_000),))
    assert isinstance(again, Refused), "it is announced already"


# Replay.


def test_a_replay_gives_the_messages_again_as_they_were_sent(station: Station, plc: Client) -> None:
    wire_socket = station.subscribe()
    station.parts(*[Outcome.PASS] * 50)
    sent: list[bytes] = []
    while len(sent) < 50:
        payload = wire_socket.recv_multipart()[1]
        if isinstance(wire.decode(payload), wire.VerdictMessage):
            sent.append(payload)
    found, end = plc.replay("a", 11, 30)
    assert [bytes(one.message) for one in found] == sent[10:30]
    assert (end.stream, end.from_seq, end.to_seq, end.gone_to) == ("a", 11, 30, 0)
    assert all(0 <= one.age_ms < PATIENCE_S * 1000 for one in found)
    assert found[0].age_ms >= found[-1].age_ms


def test_a_replay_beyond_the_last_message_says_where_it_ended(station: Station, plc: Client) -> None:
    station.parts(*[Outcome.PASS] * 5)
    found, end = plc.replay("a", 4, 900)
    assert (len(found), end.to_seq, end.gone_to) == (2, 5, 0)
    found, end = plc.replay("a", 6, 6)
    assert (len(found), end.to_seq, end.gone_to) == (0, 5, 0)
    found, end = plc.replay("b", 0, 10)
    assert (len(found), end.to_seq, end.gone_to) == (0, 0, 0)


def test_a_long_replay_is_bounded_and_can_be_asked_on(station: Station, plc: Client) -> None:
    station.parts(*[Outcome.PASS] * 1200)
    numbers: list[int] = []
    while len(numbers) < 1200:
        found, end = plc.replay("a", len(numbers) + 1, 1200)
        assert 0 < len(found) <= 512
        numbers += [wire.decode(bytes(one.message)).seq for one in found]  # type: ignore[union-attr]
        assert end.to_seq == numbers[-1]
    assert numbers == list(range(1, 1201))
    wait_for(lambda: station.channel.counts().replayed == 1200, "the count")


def test_what_is_gone_from_memory_is_said_to_be_gone(station: Station, plc: Client) -> None:
    for seq in range(1, station.channel.memory.size + 11):  # the memory, as the line thread fills it
        station.channel.memory.put("b", seq, b'{"n":1}', 0)
    found, end = plc.replay("b", 1, 20)
    assert (len(found), end.to_seq, end.gone_to) == (10, 20, 10)
    found, end = plc.replay("b", 3, 7)
    assert (len(found), end.to_seq, end.gone_to) == (0, 7, 7)


@pytest.mark.parametrize("fields", [{"stream": "c", "from_seq": 1, "to_seq": 2}, {"stream": "a", "from_seq": 3, "to_seq": 2}])
def test_a_replay_that_makes_no_sense(plc: Client, fields: dict[str, Any]) -> None:
    reply = plc.ask(Replay, **fields)
    assert isinstance(reply, Refused)
    assert reply.code is Refusal.INVALID


# Acknowledgements and presence.


def test_a_reject_that_is_not_acknowledged_is_told_and_alarmed_until_somebody_knows() -> None:
    with running(controllers=("plc",), ack_ms=30, present_ms=60_000) as station:
        client = station.client()
        assert client.hello().must_acknowledge
        station.parts(Outcome.PASS, Outcome.REJECT, Outcome.PASS)
        station.told("ack_overdue", "controller plc")
        wait_for(lambda: station.alarms() == ["ack_overdue:plc"], "the alarm")
        state = station.channel.counts().controllers["plc"]
        assert (state.outstanding, state.overdue, state.overdue_in_all) == (1, 1, 1)
        client.send(Acknowledge, acks=(Ack(stream="a", seq=2, state=AckState.RECEIVED),))
        wait_for(lambda: station.channel.counts().controllers["plc"].outstanding == 0, "the late acknowledgement")
        welcome = station.client().hello("boss")
        assert welcome.alarms == ("ack_overdue:plc",), "an alarm stays until it is acknowledged"
        reply = client.ask(Command, name=CommandName.ACKNOWLEDGE_ALARMS)
        assert isinstance(reply, Done)
        assert "ack_overdue:plc" in reply.detail
        assert station.client().hello("boss").alarms == ()


def test_a_reject_that_is_acknowledged_in_time_is_no_alarm() -> None:
    with running(controllers=("plc",), ack_ms=5_000, present_ms=60_000) as station:
        client = station.client()
        client.hello()
        station.parts(*[Outcome.REJECT] * 20)
        client.send(Acknowledge, acks=tuple(Ack(stream="a", seq=seq, state=AckState.ACTUATED) for seq in range(1, 21)))
        wait_for(lambda: station.channel.counts().requests.get("acknowledge"), "the request")
        wait_for(lambda: station.channel.counts().controllers["plc"].outstanding == 0, "the account")
        assert station.channel.counts().controllers["plc"].overdue_in_all == 0
        assert station.alarms() == []


def test_an_acknowledgement_of_nobody_that_is_named_does_not_count() -> None:
    with running(controllers=("plc",), ack_ms=20, present_ms=60_000) as station:
        other = station.client()
        assert not other.hello("other").must_acknowledge
        station.parts(Outcome.REJECT)
        other.send(Acknowledge, acks=(Ack(stream="a", seq=1, state=AckState.RECEIVED),))
        station.told("ack_overdue", "controller plc")


def test_a_part_that_could_not_be_rejected_is_an_alarm() -> None:
    with running(controllers=("plc",), present_ms=60_000) as station:
        client = station.client()
        client.hello()
        station.parts(Outcome.REJECT)
        failed = Ack(stream="a", seq=1, state=AckState.FAILED, detail="no air\npressure")
        client.send(Acknowledge, acks=(failed, failed))
        event = station.told("actuation_failed")
        assert event.level is EventLevel.ERROR
        assert "verdict 1 of a" in event.detail
        assert "no air pressure" in event.detail
        wait_for(lambda: station.alarms() == ["actuation_failed:plc"], "the alarm")
        assert station.channel.counts().controllers["plc"].failed == 1, "told twice is failed once"


@pytest.mark.parametrize(("stream", "seq"), [("a", 5_000), ("nowhere", 1), ("a", 0)])
def test_an_acknowledgement_of_what_was_never_sent_is_refused(station: Station, plc: Client, stream: str, seq: int) -> None:
    reply = plc.ask(Acknowledge, acks=(Ack(stream=stream, seq=seq, state=AckState.RECEIVED),))
    assert isinstance(reply, Refused)
    assert reply.code is Refusal.INVALID


def test_a_controller_that_falls_silent_is_absent_until_it_speaks_again() -> None:
    with running(controllers=("plc",), present_ms=50) as station:
        client = station.client()
        client.hello()
        station.told("controller_present")
        event = station.told("controller_absent", "controller plc")
        assert event.level is EventLevel.ERROR
        wait_for(lambda: station.alarms() == ["controller_absent:plc"], "the alarm")
        assert not station.channel.counts().controllers["plc"].present
        client.ask(Ping)
        wait_for(lambda: station.channel.counts().controllers["plc"].present, "it is there again")


def test_a_controller_that_never_comes_is_absent() -> None:
    with running(controllers=("plc",), present_ms=50) as station:
        station.client().hello("somebody-else")
        station.told("controller_absent", "controller plc")


# Commands.


def test_pause_and_resume_are_done_and_told(station: Station, plc: Client) -> None:
    assert isinstance(plc.ask(Command, name=CommandName.PAUSE), Done)
    assert station.controls.paused
    assert station.client().hello("x").paused
    event = station.told("command", "pause by plc (engineer): done")
    assert event.level is EventLevel.INFO
    assert isinstance(plc.ask(Command, name=CommandName.RESUME), Done)
    assert not station.controls.paused
    station.told("command", "resume by plc")


def test_a_reload_does_not_keep_the_channel_waiting(station: Station, plc: Client) -> None:
    station.controls.reloading.clear()
    no = plc.send(Command, name=CommandName.RELOAD)
    assert isinstance(plc.ask(Ping), Done)
    second = plc.ask(Command, name=CommandName.RELOAD)
    assert isinstance(second, Refused)
    assert second.code is Refusal.TOO_FAST
    station.controls.reloading.set()
    done = plc.receive()
    assert isinstance(done, Done)
    assert (done.no, done.detail) == (no, "threshold is 0.7 now")
    station.told("command", "reload by plc (engineer): done: threshold is 0.7 now")


@pytest.mark.parametrize("error", [ConfigError(["p.toml: name: needs a restart"]), KeyError("name: needs a restart")])
def test_a_reload_that_fails_changes_nothing_and_says_why(station: Station, plc: Client, error: Exception) -> None:
    station.controls.error = error
    reply = plc.ask(Command, name=CommandName.RELOAD)
    assert isinstance(reply, Refused)
    assert "name: needs a restart" in reply.detail
    station.told("command", "refused (invalid)")
    assert isinstance(plc.ask(Ping), Done)


# What nobody should send.


@pytest.mark.parametrize(
    ("frames", "code", "kind"),
    [
        ((b"",), Refusal.UNREADABLE, "unreadable"),
        ((b"{}",), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"hello"',), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"dance","no":1}',), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"hello","no":-1,"name":"x"}',), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"hello","no":1,"name":"x","surprise":1}',), Refusal.UNREADABLE, "unreadable"),
        ((b"\xff\xfe",), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"replay","no":1,"st\xd2eam":"a"}',), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"hello","no":1,"name":"\xd2"}',), Refusal.UNREADABLE, "unreadable"),
        ((b"[" * 16_000,), Refusal.UNREADABLE, "unreadable"),
        ((b'{"x":' * 3_000,), Refusal.UNREADABLE, "unreadable"),
        ((b" " * 20_000,), Refusal.UNREADABLE, "oversized"),
        ((b'{"type":"ping","no":1}', b"more"), Refusal.UNREADABLE, "unreadable"),
        ((b'{"type":"ping","v":2,"no":1,"new":true}',), Refusal.VERSION, "version"),
        ((b'{"type":"ping","v":2,"no":1}',), Refusal.VERSION, "version"),
    ],
)
def test_what_cannot_be_read_is_answered_and_counted(station: Station, frames: tuple[bytes, ...], code: Refusal, kind: str) -> None:
    client = station.client()
    assert client.raw(*frames).code is code
    station.counted(kind, 1)
    assert client.hello(), "the connection goes on"


def test_a_frame_without_end_ends_its_connection_only(station: Station, plc: Client) -> None:
    nasty = station.client()
    nasty.socket.send(b"x" * 200_000)
    assert isinstance(plc.ask(Ping), Done)


def test_a_message_of_very_many_frames_keeps_nobody_waiting(station: Station, plc: Client) -> None:
    nasty = station.client()
    assert nasty.raw(*[b"x"] * 5_000).code is Refusal.UNREADABLE
    assert isinstance(plc.ask(Ping), Done)
    assert nasty.hello()


def test_a_flood_is_refused_counted_and_only_partly_answered() -> None:
    with running(requests_per_s=10) as station:
        client = station.client()
        client.hello()
        for _ in range(400):
            client.send(Ping)
        station.counted("too_fast", 100)
        reply = client.receive()
        while not isinstance(reply, Refused):
            reply = client.receive()
        assert reply.code is Refusal.TOO_FAST
        assert reply.no > 0, "it says which one must be asked again"
        wait_for(lambda: station.channel.counts().unanswered > 0, "refusals are limited, too")


def test_commands_without_end_are_not_events_without_end(station: Station, plc: Client) -> None:
    for _ in range(200):
        plc.send(Command, name=CommandName.PAUSE)
    wait_for(lambda: station.channel.counts().requests.get("command") == 200, "all are taken")
    station.told("command", "refused (too_fast)")
    assert len(station.events("command")) < 40


GOOD = [
    requests.encode(one)
    for one in (
        Hello(no=1, name="x"),
        Ping(no=2),
        Replay(no=3, stream="a", from_seq=1, to_seq=2),
        Announce(no=4, stream="b", part_id="p", expect=(Expectation(in_ms=1.5, encoder=4),)),
        Acknowledge(no=5, acks=(Ack(stream="a", seq=1, state=AckState.FAILED, detail="d"),)),
        Command(no=6, name=CommandName.ACKNOWLEDGE_ALARMS),
    )
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with some bytes changed, left out or doubled."""
    body = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        body = body or bytearray(b"x")
    return bytes(body)


@given(body=st.one_of(damaged(), st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
@settings(max_examples=400)
def test_nothing_that_is_sent_ends_the_channel(body: bytes) -> None:
    station, client = _SHARED["station"], _SHARED["client"]
    client.socket.send(body)
    no = client.send(Ping)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        reply = client.receive()
        if isinstance(reply, Done) and reply.no == no:
            break
    assert not station.failures


_SHARED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _one_for_all_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    if "nothing_that_is_sent" not in request.node.name:
        yield
        return
    with running() as station:
        client = station.client()
        client.hello()
        _SHARED.update(station=station, client=client)
        yield
        _SHARED.clear()


# Beginning and end.


def test_an_address_that_is_taken_is_told_with_its_key(station: Station) -> None:
    second = Station()
    second.config = ChannelConfig(endpoint=station.channel.endpoint)
    channel = Channel(second.config, LineFacts(second.settings, 1.0), second.controls, second.event, second.failures.append)
    with pytest.raises(AddressError, match=r"channel\.endpoint"):
        channel.bind()
    assert channel.stop(1)
    second.stop()


def test_the_last_answers_still_go_out(station: Station, plc: Client) -> None:
    """An announcement that came just before the stop is answered after the line thread has ended."""
    no = plc.send(Announce, stream="nowhere", part_id="p1")
    wait_for(lambda: station.channel.counts().requests.get("announce"), "it came")
    assert station.line.stop(5)
    assert station.channel.stop(5)
    assert plc.receive().no == no


def test_a_channel_that_fails_says_so(station: Station) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("broken")

    second = Station()
    second.channel = Channel(second.config, LineFacts(second.settings, 1.0), second.controls, broken, second.failures.append)
    second.start()
    try:
        client = second.client()
        client.hello()
        client.send(Command, name=CommandName.PAUSE)
        wait_for(lambda: second.failures, "the failure")
        assert str(second.failures[0]) == "broken"
    finally:
        second.stop()


def test_raw_messages_are_json(station: Station, plc: Client) -> None:
    station.parts(Outcome.PASS)
    no = plc.send(Replay, stream="a", from_seq=1, to_seq=1)
    answer = msgspec.json.decode(plc.socket.recv())
    assert (answer["no"], answer["type"], answer["message"]["type"]) == (no, "replayed", "verdict")
