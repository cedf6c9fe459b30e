from __future__ import annotations

from pathlib import Path

import pytest

from inspector.config.recipe import read_recipe
from inspector.config.station import read_station
from inspector.contract.errors import ConfigError, ExitCode

STATION = """
name = "line-1"
product = "profile.toml"
[[cameras]]
name = "top"
kind = "folder"
images = "images"
rate_hz = 5
"""
PRODUCT = """
name = "profile"
version = "1"
deadline_ms = 100
[detector]
engine = "engine.json"
"""
RECIPE = """
name = "tiny"
classes = ["a", "b"]
[input]
height_px = 128
width_px = 192
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "engine.json").write_text("{}")
    (tmp_path / "station.toml").write_text(STATION)
    (tmp_path / "profile.toml").write_text(PRODUCT)
    return tmp_path


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_station(path)
    assert caught.value.exit_code is ExitCode.CONFIG == 78
    return str(caught.value)


def test_paths_are_relative_to_the_file_that_names_them(folder: Path) -> None:
    files = read_station(folder / "station.toml")
    assert files.station.cameras[0].images == folder / "images"
    assert files.product.detector.engine == folder / "engine.json"
    assert files.station.journal.path == folder / "state" / "journal.sqlite"


def test_all_problems_of_both_files_are_listed_at_once(folder: Path) -> None:
    (folder / "station.toml").write_text(
        STATION.replace('kind = "folder"', 'kind = "genicam"\nexposure_us = -1') + "[publisher]\nheartbeat_ms = 1\nfoo = 2\n"
    )
    (folder / "profile.toml").write_text(PRODUCT.replace("deadline_ms = 100", "deadline_ms = 0\nspeling = 1"))
    text = problems(folder / "station.toml")
    for needle in (
        "station.toml: cameras.0",
        "publisher.heartbeat_ms",
        "publisher.foo: unknown key",
        "profile.toml: deadline_ms",
        "speling: unknown key",
    ):
        assert needle in text, text


def test_missing_files_are_named_with_their_key(folder: Path) -> None:
    (folder / "engine.json").unlink()
    (folder / "images").rmdir()
    text = problems(folder / "station.toml")
    assert "cameras.0.images: no such file" in text
    assert "detector.engine: no such file" in text


CLASSIFIER = """
[classifier]
engine = "engines/look.json"
"""


def test_a_classifier_s_engine_is_relative_to_the_product_file_too(folder: Path) -> None:
    (folder / "products").mkdir()
    (folder / "station.toml").write_text(STATION.replace("profile.toml", "products/profile.toml"))
    (folder / "products" / "profile.toml").write_text(PRODUCT.replace("engine.json", "../engine.json") + CLASSIFIER)
    text = problems(folder / "station.toml")
    assert f"classifier.engine: no such file: {folder / 'products' / 'engines' / 'look.json'} (make it with `inspector compile`)" in text
    assert "detector.engine" not in text
    (folder / "products" / "engines").mkdir()
    (folder / "products" / "engines" / "look.json").write_text("{}")
    product = read_station(folder / "station.toml").product
    assert product.classifier is not None
    assert product.classifier.engine == folder / "products" / "engines" / "look.json"
    assert (product.classifier.on, product.classifier.verdict, product.classifier.threshold) == ("image", "either", 0.5)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('on = "crops"', "classifier.on"),
        ('verdict = "both"', "classifier.verdict"),
        ("threshold = 1.5", "classifier.threshold"),
        ('map = "saliency"', "classifier.map"),
        ("crop_margin = -1", "classifier.crop_margin"),
        ("max_crops = 0", "classifier.max_crops"),
        ("min_side_px = 3", "classifier.min_side_px: unknown key"),
        ("[classifier.classes.dent]\nmin_side_px = 3", "classifier.classes.dent.min_side_px: unknown key"),
    ],
)
def test_a_wrong_classifier_section_is_told_by_key(folder: Path, line: str, key: str) -> None:
    (folder / "profile.toml").write_text(PRODUCT + CLASSIFIER + line + "\n")
    assert f"profile.toml: {key}" in problems(folder / "station.toml")


def test_a_group_needs_known_cameras_and_an_id_of_the_line(folder: Path) -> None:
    (folder / "profile.toml").write_text(PRODUCT.replace("[detector]", 'views = ["top", "side"]\n[detector]'))
    text = problems(folder / "station.toml")
    assert "views: side: the station has no such camera" in text
    assert "cameras.0.identity.part_id" in text


@pytest.mark.parametrize(
    ("content", "needle"),
    [(None, "no such file"), ("name = ", "is not TOML"), ("[[cameras]]\n", "name: is missing")],
)
def test_an_unusable_station_file_is_told(tmp_path: Path, content: str | None, needle: str) -> None:
    path = tmp_path / "s.toml"
    if content is not None:
        path.write_text(content)
    assert needle in problems(path)


def test_uninspected_never_acts_as_pass(folder: Path) -> None:
    (folder / "profile.toml").write_text(PRODUCT.replace("[detector]", 'uninspected = "pass"\n[detector]'))
    assert "uninspected" in problems(folder / "station.toml")


def test_a_recipe_is_read_and_a_wrong_one_told(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    assert read_recipe(path).network.hidden == 1024
    path.write_text(RECIPE.replace("128", "100").replace('"b"', '"a"') + "[network]\nproposals = 5000\nlevels = [2, 3]\n")
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    text = str(caught.value)
    assert "height_px = 100 is not a multiple of stride_px = 64" in text
    assert "one per level" in text


def test_two_cameras_of_one_name_are_refused(folder: Path) -> None:
    camera = STATION[STATION.index("[[cameras]]") :]
    (folder / "station.toml").write_text(STATION + camera)
    assert "two cameras have the same name" in problems(folder / "station.toml")


def test_an_empty_region_is_refused(folder: Path) -> None:
    (folder / "profile.toml").write_text(PRODUCT + "[[detector.regions]]\nx1_px = 5\ny1_px = 5\nx2_px = 5\ny2_px = 9\n")
    assert "the region is empty" in problems(folder / "station.toml")


def test_the_example_files_miss_nothing_but_the_files_of_a_real_station() -> None:
    station = Path(__file__).resolve().parents[3] / "deploy" / "station.example.toml"
    lines = problems(station).splitlines()
    assert len(lines) == 2
    assert all("no such file" in line for line in lines)
