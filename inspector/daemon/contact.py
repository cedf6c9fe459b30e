"""The station's contact with the line: publisher, request channel and, where there are keys, the gatekeeper, in one ZeroMQ context."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from inspector.config.keys import KeyRing
from inspector.daemon.product import ProductControls
from inspector.line.access import Gatekeeper, new_context
from inspector.line.channel import Channel
from inspector.line.publisher import Publisher
from inspector.line.settings import Announcing, LineSettings
from inspector.line.streams import Streams
from inspector.line.welcome import LineFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from inspector.config.station import StationFiles
    from inspector.contract.records import Event
    from inspector.inspection.findings import ProductFacts
    from inspector.inspection.pipeline import Inspection
    from inspector.line.thread import LineThread


def line_settings(files: StationFiles, boot_id: str, engines: tuple[str, ...]) -> LineSettings:
    """What stands on the station's messages; ``engines``: hashes of those that decide."""
    station, product = files.station, files.product
    return LineSettings(
        station=station.name,
        boot_id=boot_id,
        streams=Streams([camera.name for camera in station.cameras], product.views),
        product=product.name,
        product_version=product.version,
        uninspected=product.uninspected,
        engines=engines,
        heartbeat_ms=station.publisher.heartbeat_ms,
        announcing=Announcing(
            part_ids={camera.name: camera.identity.part_id for camera in station.cameras},
            by=station.channel.announce_by,
            deadline_ns=int(product.deadline_ms * 1e6),
            window_ns=int(station.channel.announce_window_ms * 1e6),
            encoder_window=station.channel.announce_encoder_window,
            timeout_ns=int(station.channel.announce_timeout_ms * 1e6),
        ),
    )


class Contact:
    """Made before the line thread, which gets ``publisher`` and ``channel``; started after it, stopped after it.

    Args:
        files: station file and product recipe.
        settings: of the line thread.
        on_event: takes the channel's events, from any thread.
        on_failure: takes the error that ended the channel's thread.

    Raises:
        ConfigError: the station's keys cannot be read.
    """

    def __init__(
        self, files: StationFiles, settings: LineSettings, on_event: Callable[[Event], None], on_failure: Callable[[BaseException], None]
    ) -> None:
        station = files.station
        ring = None if station.access.keys is None else KeyRing(station.access.keys)
        keys = None if ring is None else ring.station()
        self._context = new_context()
        try:
            gatekeeper = None if ring is None else Gatekeeper(self._context, ring)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.publisher = Publisher(station.publisher.endpoint, station.publisher.high_water_mark, self._context, keys)
        self._controls = ProductControls(files)
        facts = LineFacts(settings, files.product.deadline_ms)
        self.channel = Channel(station.channel, facts, self._controls, on_event, on_failure, self._context, keys, gatekeeper)

    def start(self, line: LineThread, inspection: Inspection, networks: ProductFacts) -> None:
        """Serve requests. The line thread and the inspection run.

        Raises:
            AddressError: ``channel.endpoint`` cannot be bound.
        """
        self._controls.attach(inspection, networks, (line.use, self.channel.use))
        self.channel.start(line)

    def stop(self, deadline_s: float) -> bool:
        """Send the last answers, close. Stop the line thread first. True: nothing was left behind."""
        until = time.monotonic() + deadline_s
        stopped = self.channel.stop(deadline_s)
        # It waits for sockets that are still open: those of a line thread that hangs.
        closing = threading.Thread(target=self._context.term, name="contact-close", daemon=True)
        closing.start()
        closing.join(max(0.02, until - time.monotonic()))
        return stopped and not closing.is_alive()
