from __future__ import annotations

from pathlib import Path

import pytest

from inspector.config.station import read_station
from inspector.contract.errors import ConfigError

STATION = """
name = "line-1"
product = "product.toml"
[channel]
announce_by = "{by}"
announce_window_ms = {window}
[[cameras]]
name = "top"
kind = "{kind}"
images = "images"
[cameras.identity]
part_id = "{part_id}"
"""
PRODUCT = """
name = "profile"
version = "1"
deadline_ms = 100
[detector]
engine = "engine.json"
"""


def write(folder: Path, *, by: str = "time_and_encoder", window: float = 20, kind: str = "simulator", part_id: str = "announced") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "engine.json").write_text("{}")
    (folder / "product.toml").write_text(PRODUCT)
    (folder / "station.toml").write_text(STATION.format(by=by, window=window, kind=kind, part_id=part_id))
    return folder / "station.toml"


def test_time_and_encoder_unless_the_station_says_that_one_is_enough(tmp_path: Path) -> None:
    assert read_station(write(tmp_path)).station.channel.announce_by == "time_and_encoder"
    assert read_station(write(tmp_path, by="time", kind="folder")).station.channel.announce_by == "time"
    with pytest.raises(ConfigError, match="announce_by"):
        read_station(write(tmp_path, by="trigger_counter"))


def test_a_window_that_leaves_no_time_for_a_pass_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"channel.announce_window_ms: 50 must be less than half of the product's deadline_ms \(100\)"):
        read_station(write(tmp_path, window=50))
    read_station(write(tmp_path, window=49))
    read_station(write(tmp_path, window=50, part_id="trigger_counter"))


@pytest.mark.parametrize("by", ["time_and_encoder", "encoder"])
def test_a_camera_without_an_encoder_cannot_be_matched_by_it(tmp_path: Path, by: str) -> None:
    with pytest.raises(ConfigError, match=r'cameras.0.identity.part_id: a folder of pictures has no encoder .* set channel.announce_by = "time"'):
        read_station(write(tmp_path, by=by, kind="folder"))
    read_station(write(tmp_path, by=by, kind="folder", part_id="frame"))
