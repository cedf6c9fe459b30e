"""The answer to hello: what a controller must know of the station before it trusts a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inspector.contract.requests import StreamInfo, Welcome

if TYPE_CHECKING:
    from inspector.config.keys import Person
    from inspector.config.station import ChannelConfig
    from inspector.contract.records import Action
    from inspector.line.askers import Neighbour
    from inspector.line.commands import Controls
    from inspector.line.controllers import Controllers
    from inspector.line.replay import ReplayMemory
    from inspector.line.settings import LineSettings, LineSnapshot


@dataclass(frozen=True, slots=True)
class LineFacts:
    """What does not change by itself."""

    settings: LineSettings
    deadline_ms: float
    """Exposure to verdict."""

    @property
    def dead_after_ms(self) -> float:
        """Silence after which a controller must take the station for dead: three heartbeats, and what one may be late."""
        return 3 * self.settings.heartbeat_ms + 10


class Welcomes:
    """Makes them. ``use`` may be called from any thread."""

    def __init__(self, config: ChannelConfig, facts: LineFacts, controls: Controls, memory: ReplayMemory, controllers: Controllers) -> None:
        self._config, self._facts, self._controls, self._memory, self._controllers = config, facts, controls, memory, controllers

    def use(self, product_version: str, uninspected: Action) -> None:
        """The product's rules have changed."""
        settings = replace(self._facts.settings, product_version=product_version, uninspected=uninspected)
        self._facts = replace(self._facts, settings=settings)

    def welcome(self, line: LineSnapshot, person: Person | Neighbour, no: int) -> Welcome:
        """The answer to the hello number ``no`` of ``person``."""
        config, facts = self._config, self._facts
        settings, memory = facts.settings, self._memory
        streams = {
            name: StreamInfo(
                last_seq=memory.last_seq(name),
                opened=state.books.opened,
                closed=state.books.closed,
                pending=state.books.pending,
                blind=state.blind,
            )
            for name, state in line.streams.items()
        }
        streams[""] = StreamInfo(last_seq=memory.last_seq(""), opened=0, closed=0, pending=0, blind=False)
        return Welcome(
            no=no,
            station=settings.station,
            boot_id=settings.boot_id,
            name=person.name,
            role=person.role,
            product=settings.product,
            product_version=settings.product_version,
            deadline_ms=facts.deadline_ms,
            uninspected=settings.uninspected,
            streams=streams,
            heartbeat_ms=settings.heartbeat_ms,
            dead_after_ms=facts.dead_after_ms,
            present_ms=config.present_ms,
            repair_ms=config.repair_ms,
            ack_ms=config.ack_ms,
            must_acknowledge=person.name in config.controllers,
            replay_messages=memory.size,
            paused=self._controls.paused,
            alarms=tuple(alarm.name for alarm in self._controllers.alarms()),
        )
