from __future__ import annotations

import msgspec
import pytest

from inspector.contract import channel, wire
from inspector.contract.records import Action, Box, Defect, EventLevel, Outcome, Reason, StageTimes


def verdict() -> wire.VerdictMessage:
    return wire.VerdictMessage(
        station="line-1",
        boot_id="b",
        boot_age_ms=1.0,
        stream="top",
        seq=7,
        part_no=5,
        part_id="105",
        result_id="line-1/b/top/5",
        job_id="profile@3",
        is_simulated=True,
        result_state=wire.ResultState.COMPLETED,
        outcome=Outcome.REJECT,
        reason=None,
        detail="",
        action=Action.REJECT,
        age_ms=12.5,
        remaining_ms=87.5,
        exposure_utc="2026-01-01T00:00:00.000000Z",
        views=(),
        defects=(Defect("scratch", 0.9, Box(1, 2, 3, 4), counted=True, source="demo", camera="top"),),
        product="profile",
        product_version="3",
        engines=("abc",),
        times=StageTimes(total_ms=12.5),
    )


def test_a_verdict_comes_back_as_it_was_sent() -> None:
    assert wire.decode(wire.encode(verdict())) == verdict()


def test_names_follow_opc_40100_where_it_has_one() -> None:
    sent = msgspec.json.decode(wire.encode(verdict()))
    assert {"ResultId", "JobId", "PartId", "IsSimulated", "ResultState"} <= set(sent)
    assert sent["type"] == "verdict"
    assert sent["v"] == wire.VERSION


def test_every_message_type_is_told_apart() -> None:
    messages: list[wire.Message] = [
        wire.BlindMessage(
            station="s", boot_id="b", boot_age_ms=1.0, stream="t", seq=1, from_ms_ago=5, to_ms_ago=None, from_utc="x", to_utc=None, cause="start"
        ),
        wire.EventMessage(station="s", boot_id="b", boot_age_ms=1.0, stream="t", seq=2, name="n", level=EventLevel.INFO, detail="", utc="x"),
        wire.HeartbeatMessage(
            station="s", boot_id="b", boot_age_ms=1.0, stream="t", last_seq=2, inspection_age_ms=1, opened=1, closed=1, pending=0, blind=False
        ),
    ]
    for message in messages:
        assert wire.decode(wire.encode(message)) == message


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode(wire.encode(verdict()).replace(b'"REJECT"', b'"MAYBE"'))


def test_camera_messages_fit_a_datagram_and_come_back() -> None:
    record = channel.FrameRecord(
        slot=3, frame_id=2**63, camera_ns=1, received_ns=2, exposure_ns=2, width_px=3, height_px=4, stride_bytes=5, pixel_format="Mono8",
        size_bytes=6, encoder=None, trigger_counter=9, line_status=0, incomplete_before=1,
    )  # fmt: skip
    sent = channel.encode(record)
    assert len(sent) < channel.MAX_MESSAGE_BYTES
    assert channel.decode_message(sent) == record
    command = channel.WriteCommand("UserOutputValue", value=True)
    assert channel.decode_command(channel.encode(command)) == command


def test_only_uninspected_has_reasons_for_the_law() -> None:
    assert {reason.value for reason in Reason} == {
        "no_frame", "incomplete", "image_invalid", "overrun", "late", "camera_lost", "engine_error", "paused", "shutdown", "crashed",
    }  # fmt: skip
