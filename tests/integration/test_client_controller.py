"""Controllers beside the real daemon: what they let pass is compared with the journal, part by part."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from inspector.client.aio import AsyncController
from inspector.client.controller import Controller
from inspector.client.decisions import Cause, Decision, Notice, NoticeKind, State, Update
from inspector.client.station import Options
from inspector.config.keys import ClientKey, KeyRing, write_client_key
from inspector.contract.errors import AddressError
from inspector.contract.requests import Role
from inspector.contract.wire import EventMessage
from inspector.line.access import new_pair

PATIENCE_S = 60.0
Lossy = run_path(str(Path(__file__).resolve().parents[1] / "assets" / "lossy_wire.py"))["Lossy"]
PARTS = 150


class Follower:
    """A controller and all it was told."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.decisions: list[Decision] = []
        self.notices: list[Notice] = []
        self.events: list[str] = []

    def take(self, updates: list[Update]) -> None:
        for update in updates:
            if isinstance(update, Decision):
                self.decisions.append(update)
            elif isinstance(update, Notice):
                self.notices.append(update)
            elif isinstance(update, EventMessage):
                self.events.append(update.name)

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s; {self.controller.state}, {self.kinds()}"
            self.take(self.controller.receive(0.05))

    def kinds(self) -> list[NoticeKind]:
        return [notice.kind for notice in self.notices]

    def died(self) -> bool:
        """Whether a stream that was heard has fallen silent; before the start nothing is heard at all."""
        return any(notice.kind is NoticeKind.DEAD and notice.stream for notice in self.notices)

    def live(self) -> None:
        self.until(lambda: self.controller.state is State.LIVE, "live")

    @property
    def decided(self) -> dict[int, bool]:
        """By part number."""
        return {no: one.passes for one in self.decisions if one.part_no is not None for no in range(one.part_no, (one.to_part_no or one.part_no) + 1)}


@pytest.fixture
def follow(site: Any) -> Iterator[Callable[..., Follower]]:
    made: list[Controller] = []

    def begin(publisher: str = "", **options: Any) -> Follower:
        requests = f"tcp://127.0.0.1:{site.channel_port}"
        made.append(Controller(publisher or f"tcp://127.0.0.1:{site.port}", requests, name="plc", options=Options(**options)))
        return Follower(made[-1])

    yield begin
    for controller in made:
        controller.close()


@pytest.fixture
def lossy(site: Any) -> Iterator[Callable[[float], Any]]:
    made: list[Any] = []

    def begin(loss: float) -> Any:
        made.append(Lossy(site.port, loss))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def logged(site: Any) -> dict[tuple[str, int], bool]:
    """What the journal says passes, by boot and number."""
    with site.read() as journal:
        return {(part.boot_id, part.part_no): part.outcome == "PASS" for part in journal.parts()}


def compare(site: Any, follower: Follower) -> dict[tuple[str, int], bool]:
    """Nothing passed that the journal does not pass."""
    journal = logged(site)
    for one in follower.decisions:
        assert not one.passes or journal[one.boot_id, one.part_no or 0], f"{one} and the journal says otherwise"
    return journal


def test_what_passes_is_what_the_journal_passes(site: Any, follow: Any) -> None:
    site.write(site.camera(rate=50, parts=PARTS), channel='controllers = ["plc"]')
    running, line = site.run(), follow(in_order=True)
    line.until(lambda: PARTS in line.decided, "the last decision")
    assert line.controller.welcome.must_acknowledge
    assert [one.part_no for one in line.decisions] == sorted(one.part_no for one in line.decisions)
    rejected = [one for one in line.decisions if not one.passes]
    assert rejected
    for one in rejected[:-1]:
        line.controller.actuated(one)
    line.controller.failed(rejected[-1], "the gate is stuck")
    line.until(lambda: "actuation_failed" in line.events, "the alarm")
    passed = next(one for one in line.decisions if one.passes)
    assert line.controller.may_pass(passed.part_id)
    assert not line.controller.may_pass(rejected[0].part_id)
    assert not line.controller.may_pass("unheard of")
    assert running.end() == 0
    journal = compare(site, line)
    live_from = min(one.part_no for one in line.decisions if one.cause is Cause.VERDICT and one.passes)
    assert {no: passes for no, passes in line.decided.items() if no >= live_from} == {
        no: passes for (_, no), passes in journal.items() if no >= live_from
    }


def test_losses_are_repaired(site: Any, follow: Any, lossy: Any) -> None:
    site.write(site.camera(rate=100, parts=400), channel="repair_ms = 2000")
    running, between = site.run(), lossy(0.1)
    line = follow(between.endpoint)
    line.until(lambda: 400 in line.decided, "the last decision")
    assert NoticeKind.REPAIRED in line.kinds()
    assert NoticeKind.LOST not in line.kinds()
    assert between.lost > 10
    assert running.end() == 0
    journal = compare(site, line)
    live_from = min(one.part_no for one in line.decisions if one.passes)
    assert [no for (_, no), passes in journal.items() if no >= live_from and passes] == [no for no, passes in sorted(line.decided.items()) if passes]


def test_a_cut_is_told_and_survived(site: Any, follow: Any, lossy: Any) -> None:
    site.write(site.camera(rate=100))
    running, between = site.run(), lossy(0.0)
    line = follow(between.endpoint)
    line.live()
    line.until(lambda: any(one.passes for one in line.decisions), "a part that passes")
    between.cut = True
    line.until(line.died, "dead")
    last = next(one for one in reversed(line.decisions) if one.passes)
    assert not line.controller.may_pass(last.part_id)
    between.cut = False
    line.live()
    before = len(line.decisions)
    line.until(lambda: any(one.passes for one in line.decisions[before:]), "parts pass again")
    assert running.end() == 0
    compare(site, line)


def test_a_killed_station_and_its_next_start(site: Any, follow: Any) -> None:
    site.write(site.camera(rate=100))
    running, line = site.run(), follow()
    line.until(lambda: sum(one.passes for one in line.decisions) > 20, "parts that pass")
    running.end(signal.SIGKILL)
    line.until(line.died, "dead")
    last = next(one for one in reversed(line.decisions) if one.passes)
    assert not line.controller.may_pass(last.part_id)
    again = site.run()
    line.until(lambda: NoticeKind.BOOT in line.kinds(), "the new boot")
    line.live()
    before = len(line.decisions)
    line.until(lambda: sum(one.passes for one in line.decisions[before:]) > 20, "parts pass again")
    assert again.end() == 0
    compare(site, line)
    assert len({one.boot_id for one in line.decisions}) == 2


def test_a_frozen_station(site: Any, follow: Any) -> None:
    site.write(site.camera(rate=100))
    running, line = site.run(), follow()
    line.until(lambda: any(one.passes for one in line.decisions), "a part that passes")
    os.kill(running.process.pid, signal.SIGSTOP)
    line.until(line.died, "dead")
    assert line.controller.state in {State.DEAD, State.CONNECTING}
    os.kill(running.process.pid, signal.SIGCONT)
    line.until(lambda: line.kinds().count(NoticeKind.LIVE) == 2, "live again")
    before = len(line.decisions)
    line.until(lambda: any(one.passes for one in line.decisions[before:]), "parts pass again")
    assert running.end() == 0
    compare(site, line)


def test_an_announced_part_that_never_appears(site: Any, follow: Any) -> None:
    site.write(site.camera(rate=20))
    running, line = site.run(), follow()
    line.live()
    line.controller.announce("ghost", 5000.0, timeout_ms=100.0)
    line.controller.announce("haste", 0.0, timeout_ms=100.0)
    assert not line.controller.may_pass("ghost")

    def of(part_id: str) -> list[Decision]:
        return [one for one in line.decisions if one.part_id == part_id]

    line.until(lambda: of("ghost") and of("haste"), "both decisions")
    (ghost,) = of("ghost")
    assert ghost.verdict is not None
    assert (ghost.passes, ghost.verdict.reason) == (False, "no_frame")
    assert [(one.passes, one.cause) for one in of("haste")] == [(False, Cause.NO_VERDICT)]
    assert running.end() == 0
    compare(site, line)


def test_asyncio(site: Any) -> None:
    site.write(site.camera(rate=50, parts=PARTS))
    running = site.run()
    decisions: list[Decision] = []
    ticks = 0

    async def follow() -> None:
        nonlocal ticks

        async def count() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        counting = asyncio.create_task(count())
        requests = f"tcp://127.0.0.1:{site.channel_port}"
        async with AsyncController(f"tcp://127.0.0.1:{site.port}", requests, name="plc") as line:
            async with asyncio.timeout(PATIENCE_S):
                while not any(one.part_no == PARTS for one in decisions):
                    decisions.extend(one for one in await line.receive(0.2) if isinstance(one, Decision))
            passed = next(one for one in reversed(decisions) if one.passes)
            assert line.may_pass(passed.part_id or "")
            waiting = asyncio.create_task(line.receive(PATIENCE_S))
            await asyncio.sleep(0)
            waiting.cancel()
            assert isinstance(await line.receive(0.2), list), "a wait that was cancelled leaves nothing behind"
        counting.cancel()

    asyncio.run(follow())
    assert ticks > 10, "others run meanwhile"
    assert running.end() == 0
    journal = logged(site)
    live_from = min(one.part_no or 0 for one in decisions if one.passes)
    assert all(one.passes == journal[one.boot_id, one.part_no or 0] for one in decisions if (one.part_no or 0) >= live_from)


def test_addresses_that_are_none() -> None:
    with pytest.raises(AddressError, match="nonsense"):
        Controller("tcp://127.0.0.1:1", "nonsense")


def test_keys(site: Any) -> None:
    site.write(site.camera(rate=100), extra='[access]\nkeys = "keys"')

    def keys(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "inspector.cli.main", "keys", *arguments], check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S)

    for name in ("plc", "other"):
        keys("new", name, str(site.station), "--role", "controller", "--to", str(site.folder / f"{name}.key"))
    running = site.run()
    addresses = (f"tcp://127.0.0.1:{site.port}", f"tcp://127.0.0.1:{site.channel_port}")
    with (
        Controller(*addresses, key_file=site.folder / "plc.key") as with_key,
        Controller(*addresses, name="nobody") as without,
        Controller(*addresses, key_file=site.folder / "other.key") as other,
    ):
        line, nobody, second = Follower(with_key), Follower(without), Follower(other)
        line.until(lambda: sum(one.passes for one in line.decisions) > 20, "parts that pass")
        assert with_key.welcome is not None
        assert with_key.welcome.name == "plc"
        nobody.take(without.receive(0.2))
        assert without.state is State.CONNECTING
        assert nobody.decisions == []
        second.live()
        keys("revoke", "plc", str(site.station))
        line.until(line.died, "the revoked controller hears nothing any more")
        last = next(one for one in reversed(line.decisions) if one.passes)
        assert not with_key.may_pass(last.part_id or "")
        before = len(line.decisions)
        seen = len(second.decisions)
        second.until(lambda: sum(one.passes for one in second.decisions[seen:]) > 20, "parts still pass for the other")
        line.take(with_key.receive(0.1))
        assert not any(one.passes for one in line.decisions[before:])
    assert running.end() == 0


def test_a_key_that_becomes_known_later_is_let_in_without_a_new_start(site: Any) -> None:
    site.write(site.camera(rate=50), extra='[access]\nkeys = "keys"')
    ring = KeyRing(site.folder / "keys")
    ring.make(new_pair())
    pair = new_pair()
    write_client_key(site.folder / "plc.key", ClientKey("test", "plc", Role.CONTROLLER, pair, ring.station().public))
    running = site.run()
    with Controller(f"tcp://127.0.0.1:{site.port}", f"tcp://127.0.0.1:{site.channel_port}", key_file=site.folder / "plc.key") as controller:
        line = Follower(controller)
        line.until(lambda: NoticeKind.DEAD in line.kinds(), "it hears nothing")
        line.take(controller.receive(0.3))
        assert controller.state is State.CONNECTING
        ring.add("plc", Role.CONTROLLER, pair.public)
        line.until(lambda: any(one.passes for one in line.decisions), "parts pass")
    assert running.end() == 0
