"""The station's cameras as the daemon has them: their rings, and the supervisors of their processes."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

from inspector.camera.supervisor import CameraSupervisor, Incarnation
from inspector.contract.errors import ConfigError
from inspector.contract.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inspector.config.station import CameraConfig
    from inspector.contract.records import Blind, Event


class Rings:
    """The shared memory of every camera, for as long as anybody in the daemon may hold an image of it.

    Raises:
        ConfigError: the memory cannot be had.
    """

    def __init__(self, cameras: Sequence[CameraConfig]) -> None:
        self.rings: dict[str, Ring] = {}
        self.descriptors: dict[str, int] = {}
        for config in cameras:
            try:
                self.descriptors[config.name] = Ring.create(config.ring_slots, config.max_image_bytes)
                self.rings[config.name] = Ring(self.descriptors[config.name])
            except (OSError, OverflowError) as error:
                self.close(0)
                size = config.ring_slots * config.max_image_bytes
                sentence = f"cameras: {config.name}: its ring of {size} bytes cannot be made ({error}); lower ring_slots or max_image_bytes"
                raise ConfigError([sentence]) from None

    def close(self, _: float) -> bool:
        """Unmap and close; True: nobody held an image any more."""
        clean = True
        for ring in self.rings.values():
            try:
                ring.close()
            except RuntimeError:
                clean = False  # the memory goes with the process
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()
        return clean


class Supervisors:
    """One supervisor per camera. Made before the line runs: its first message says that the station cannot see yet."""

    def __init__(
        self,
        cameras: Sequence[CameraConfig],
        rings: Rings,
        attach: Callable[[str, Incarnation], None],
        on_event: Callable[[Event | Blind], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.by_camera = {
            config.name: CameraSupervisor(
                config,
                rings.rings[config.name],
                rings.descriptors[config.name],
                on_incarnation=partial(attach, config.name),
                on_event=on_event,
                on_failure=on_failure,
            )
            for config in cameras
        }

    def start(self) -> None:
        """Start all of them."""
        for supervisor in self.by_camera.values():
            supervisor.start()

    def stop(self, deadline_s: float) -> bool:
        """Stop all of them at the same time: a camera may take a second to close. True: every process left by itself."""
        clean: list[bool] = []

        def stop_one(supervisor: CameraSupervisor) -> None:
            clean.append(supervisor.stop(deadline_s))

        threads = [threading.Thread(target=stop_one, args=(supervisor,), name="stop", daemon=True) for supervisor in self.by_camera.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline_s + 1.0)
        return len(clean) == len(threads)
