from __future__ import annotations

import os

from inspector.camera.pulse import Pulse
from inspector.contract.channel import CameraState


def test_both_sides_see_the_same_page_and_reset_forgets() -> None:
    descriptor = Pulse.create()
    writer, reader = Pulse(descriptor), Pulse(descriptor)
    os.close(descriptor)
    assert (reader.beat_ns, reader.seen_ns, reader.streaming_ns, reader.state, reader.cause) == (0, 0, 0, CameraState.OPENING, "")
    writer.beat_ns, writer.seen_ns, writer.streaming_ns = 2**62, 5, 7
    writer.state = CameraState.LOST
    writer.cause = "the cable is out: " + "ä" * 2000
    assert (reader.beat_ns, reader.seen_ns, reader.streaming_ns, reader.state) == (2**62, 5, 7, CameraState.LOST)
    assert reader.cause.startswith("the cable is out: ää")
    writer.cause = "short"
    assert reader.cause == "short"
    reader.reset()
    assert (writer.beat_ns, writer.seen_ns, writer.streaming_ns, writer.state, writer.cause) == (0, 0, 0, CameraState.OPENING, "")
    writer.close()
    reader.close()
