from __future__ import annotations

from itertools import count

from inspector.contract.channel import FrameRecord
from inspector.contract.records import Reason
from inspector.inspection.views import Seen, ViewMaker


def record(encoder: int) -> FrameRecord:
    return FrameRecord(
        slot=0,
        frame_id=7,
        camera_ns=1,
        received_ns=60,
        exposure_ns=50,
        width_px=4,
        height_px=4,
        stride_bytes=4,
        pixel_format="Mono8",
        size_bytes=16,
        encoder=encoder,
        trigger_counter=3,
        line_status=None,
        incomplete_before=0,
    )


def test_where_parts_are_announced_a_frame_has_no_id_of_its_own_but_all_that_it_can_be_known_by() -> None:
    maker = ViewMaker("top", "announced", 100, count(1))
    (lost,) = maker.lost([3], [Reason.NO_FRAME], (0, 50), 60)
    assert (lost.part_id, lost.trigger_counter) == (None, 3)
    for _ in range(2):  # a belt that stands still tells the second one's part no less than the first one's: by its time
        seen = Seen()
        maker.own(seen, record(1000), 7, 50, 60, None, repeated=False)
        assert seen.view is not None
        assert (seen.view.part_id, seen.view.encoder, seen.view.trigger_counter, seen.view.exposure_ns) == (None, 1000, 3, 50)
        assert seen.events == []
