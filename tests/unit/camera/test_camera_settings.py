from __future__ import annotations

import pytest

from inspector.camera.build import simulator_index
from inspector.camera.port import Value
from inspector.camera.settings import optional_settings, said, same, wanted_settings
from inspector.config.station import CameraConfig
from inspector.contract.errors import CameraError


def config(**values: object) -> CameraConfig:
    return CameraConfig.model_validate({"name": "c", "kind": "simulator", **values})


@pytest.mark.parametrize(
    ("wanted", "got", "equal"),
    [
        (150, 150, True),
        (150, 148, False),
        (150.4, 150.0, True),
        (100.0, 98.0, False),
        (100, 100.0, True),
        (0.0, 0.0, True),
        (True, True, True),
        (True, 1, True),
        (True, False, False),
        ("On", "On", True),
        ("On", "Off", False),
        (5.0, "(unreadable: x)", False),
    ],
)
def test_same(wanted: Value, got: Value, *, equal: bool) -> None:
    assert same(wanted, got) is equal


def test_exposure_comes_before_the_rate_that_depends_on_it_and_free_settings_come_last() -> None:
    names = [name for name, _ in wanted_settings(config(trigger="free_run", rate_hz=10, exposure_us=50, width_px=64, settings={"SimLinePadding": 8}))]
    assert names == ["Width", "ExposureTime", "TriggerMode", "AcquisitionFrameRate", "SimLinePadding"]


def test_the_trigger_source_may_be_named_freely_and_is_set_before_the_mode() -> None:
    wanted = wanted_settings(config(trigger="line", settings={"TriggerSource": "Line3", "Gamma": 1.0}))
    assert wanted == [("TriggerSelector", "FrameStart"), ("TriggerSource", "Line3"), ("TriggerMode", "On"), ("Gamma", 1.0)]
    assert ("TriggerSource", "Software") in wanted_settings(config(trigger="software"))
    assert ("SimLineRate", 20.0) in wanted_settings(config(trigger="line", rate_hz=20))


def test_automatic_exposure_and_offsets_are_switched_off_only_where_a_setting_needs_it() -> None:
    assert dict(optional_settings(config())) == {"AcquisitionMode": "Continuous", "ChunkModeActive": True}
    names = {name for name, _ in optional_settings(config(exposure_us=10, gain_db=1, width_px=64, trigger="free_run", rate_hz=5))}
    assert {"ExposureAuto", "GainAuto", "OffsetX", "OffsetY", "AcquisitionFrameRateEnable"} <= names


def test_an_error_is_told_without_source_positions() -> None:
    assert said(ValueError("out of range : OutOfRange thrown (file 'x.cpp', line 3)")) == "out of range"
    assert said(ValueError("")) == "ValueError"


def test_simulated_cameras_are_told_apart_by_serial() -> None:
    assert simulator_index(config()) == 0
    assert simulator_index(config(serial="SIM7")) == 7
    with pytest.raises(CameraError, match="SIM0 to SIM7"):
        simulator_index(config(serial="40012345"))
