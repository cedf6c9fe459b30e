from __future__ import annotations

import msgspec
import numpy as np
import pytest

from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.base import Array, EngineLostError, Ticket
from inspector.engine.desk import TicketedEngine
from inspector.engine.guard import GuardedEngine, GuardPolicy
from inspector.engine.manifest import Manifest
from inspector.engine.null import null_manifest


class Fragile(TicketedEngine[None]):
    """Fails while told to."""

    def __init__(self, manifest: Manifest, world: World) -> None:
        super().__init__(manifest)
        self.world = world

    def _start(self, image: Array) -> None:
        if self.world.broken == "submit":
            raise EngineError("cannot start")

    def _finish(self, job: None) -> dict[str, Array]:
        if self.world.broken == "collect":
            raise EngineError("CUDA error 700")
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.manifest.outputs}

    def _free(self) -> None:
        self.world.freed += 1
        if self.world.broken:
            raise EngineError("cannot be freed either")


class World:
    """What happens to the engines of a test."""

    def __init__(self, recipe: DetectorRecipe) -> None:
        self.manifest = null_manifest(recipe)
        self.broken = ""
        self.opened = 0
        self.freed = 0
        self.heals = False
        self.openable = True

    def open(self) -> Fragile:
        if not self.openable:
            raise EngineError("no driver")
        self.opened += 1
        if self.opened > 1 and self.heals:
            self.broken = ""
        return Fragile(self.manifest, self)


@pytest.fixture
def world(recipe: DetectorRecipe) -> World:
    return World(recipe)


IMAGE = np.zeros((1, 64, 64), np.uint8)


def _fail(engine: GuardedEngine, times: int, kind: type[EngineError] = EngineError) -> None:
    for _ in range(times):
        with pytest.raises(EngineError) as caught:
            engine.collect(engine.submit(IMAGE))
        assert type(caught.value) is kind


@pytest.mark.parametrize("where", ["submit", "collect"])
def test_failures_in_a_row_open_the_engine_anew_once_and_then_give_it_up(world: World, where: str) -> None:
    engine = GuardedEngine(world.open, GuardPolicy(failures=3))
    world.broken = where
    _fail(engine, 2)
    assert world.opened == 1
    _fail(engine, 1)
    assert (world.opened, world.freed, engine.rebuilds) == (2, 1, 1)
    _fail(engine, 2)
    _fail(engine, 1, EngineLostError)
    _fail(engine, 1, EngineLostError)  # for good
    assert world.opened == 2


def test_an_engine_that_heals_goes_on(world: World) -> None:
    world.heals = True
    engine = GuardedEngine(world.open, GuardPolicy(failures=2))
    world.broken = "collect"
    _fail(engine, 2)
    assert engine.collect(engine.submit(IMAGE))
    assert engine.rebuilds == 1


def test_failures_that_are_not_in_a_row_never_rebuild(world: World) -> None:
    engine = GuardedEngine(world.open, GuardPolicy(failures=2))
    for _ in range(5):
        world.broken = "collect"
        _fail(engine, 1)
        world.broken = ""
        engine.collect(engine.submit(IMAGE))
    assert world.opened == 1


def test_long_health_allows_another_rebuild(world: World) -> None:
    world.heals = True
    engine = GuardedEngine(world.open, GuardPolicy(failures=1, healthy_after=4))
    for rebuilds in (1, 2, 3):
        world.broken = "collect"
        _fail(engine, 1)
        assert engine.rebuilds == rebuilds
        for _ in range(4):
            engine.collect(engine.submit(IMAGE))
    world.broken = "collect"
    _fail(engine, 1)
    world.broken = "collect"
    _fail(engine, 1, EngineLostError)


def test_what_was_in_flight_when_the_engine_was_rebuilt_fails_too(world: World) -> None:
    world.heals = True
    engine = GuardedEngine(world.open, GuardPolicy(failures=1))
    first, second = engine.submit(IMAGE), engine.submit(IMAGE)
    world.broken = "collect"
    with pytest.raises(EngineError, match="CUDA error 700"):
        engine.collect(first)
    with pytest.raises(EngineError, match="opened anew while this image was in flight"):
        engine.collect(second)
    assert engine.collect(engine.submit(IMAGE))


def test_an_engine_that_cannot_be_opened_anew_is_lost(world: World) -> None:
    engine = GuardedEngine(world.open, GuardPolicy(failures=1))
    world.broken, world.openable = "collect", False
    with pytest.raises(EngineLostError, match="cannot be opened anew: no driver"):
        engine.collect(engine.submit(IMAGE))


def test_files_replaced_meanwhile_do_not_slip_in(world: World) -> None:
    engine = GuardedEngine(world.open, GuardPolicy(failures=1))
    told = engine.hash
    world.manifest = msgspec.structs.replace(world.manifest, weights_sha256="other")
    world.broken = "collect"
    with pytest.raises(EngineLostError, match="replaced meanwhile"):
        engine.collect(engine.submit(IMAGE))
    assert engine.hash == told


def test_a_callers_mistakes_are_no_failures_of_the_engine(world: World) -> None:
    engine = GuardedEngine(world.open, GuardPolicy(failures=1))
    with pytest.raises(EngineError, match="was given to an engine for"):
        engine.submit(np.zeros((1, 8, 8), np.uint8))
    tickets = [engine.submit(IMAGE) for _ in range(engine.in_flight)]
    with pytest.raises(EngineError, match="collect one first"):
        engine.submit(IMAGE)
    with pytest.raises(EngineError, match="not in flight"):
        engine.collect(Ticket(99, 0))
    for ticket in tickets:
        engine.collect(ticket)
    assert engine.rebuilds == 0
    engine.close()
    assert world.freed == 1


def test_an_engine_that_does_not_open_at_all_says_so(world: World) -> None:
    world.openable = False
    with pytest.raises(EngineError, match="no driver"):
        GuardedEngine(world.open)
