from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer.testing

from inspector.cli.surfaces import surfaces
from inspector.contract.errors import DataError
from inspector.surfaces.dataset import contact_sheet, write_contact_sheet, write_dataset
from inspector.surfaces.defects import DEFECT_KINDS
from inspector.surfaces.scene import SurfaceGenerator


def test_pictures_and_labels_are_what_the_generator_draws(tmp_path: Path) -> None:
    generator = SurfaceGenerator(160, 120, 6, 0.7)
    assert list(write_dataset(tmp_path, generator, 12)) == list(range(1, 13))

    labels = json.loads((tmp_path / "annotations.json").read_text())
    assert [category["name"] for category in labels["categories"]] == list(DEFECT_KINDS)
    assert [category["id"] for category in labels["categories"]] == list(range(1, 11))
    assert len(labels["images"]) == 12
    for index, entry in enumerate(labels["images"]):
        surface = generator.render(index)
        image = cv2.imread(str(tmp_path / "images" / entry["file_name"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, surface.image)
        assert (entry["width"], entry["height"]) == (160, 120)
        boxes = [(item["category_id"] - 1, item["bbox"]) for item in labels["annotations"] if item["image_id"] == entry["id"]]
        planted = [(DEFECT_KINDS.index(defect.kind), defect.box_px) for defect in surface.defects]
        assert boxes == [(kind, [x1, y1, x2 - x1, y2 - y1]) for kind, (x1, y1, x2, y2) in planted]
    assert len({item["id"] for item in labels["annotations"]}) == len(labels["annotations"]) > 0


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="already holds files"):
        next(write_dataset(tmp_path, SurfaceGenerator(64, 64, 1), 1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/under cannot be written"):
        next(write_dataset(tmp_path / "file" / "under", SurfaceGenerator(64, 64, 1), 1))


def test_the_contact_sheet_shows_each_kind_and_a_clean_surface(tmp_path: Path) -> None:
    sheet = contact_sheet(1, tile_px=(100, 80), columns=4)
    assert sheet.shape == (3 * 98, 400)
    assert (sheet[-98:, -100:] == 255).all()  # eleven tiles on twelve places
    write_contact_sheet(tmp_path / "sheet.png", 1)
    assert (tmp_path / "sheet.png").stat().st_size < 200_000
    with pytest.raises(DataError, match="cannot be written"):
        write_contact_sheet(tmp_path / "absent" / "sheet.png", 1)


def _run(*arguments: str) -> typer.testing.Result:
    app = typer.Typer()
    app.command()(surfaces)
    return typer.testing.CliRunner().invoke(app, arguments)


def test_the_command_writes_a_data_set(tmp_path: Path) -> None:
    target = tmp_path / "set"
    answer = _run(str(target), "--count", "3", "--seed", "4", "--width-px", "64", "--height-px", "48")
    assert answer.exit_code == 0, answer.output
    assert "3 pictures" in answer.output
    assert len(list((target / "images").glob("*.png"))) == 3
    assert len(json.loads((target / "annotations.json").read_text())["images"]) == 3


def test_the_command_writes_the_contact_sheet_alone(tmp_path: Path) -> None:
    answer = _run("--contact-sheet", str(tmp_path / "sheet.png"))
    assert answer.exit_code == 0, answer.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]


def test_the_command_asks_for_a_target() -> None:
    answer = _run()
    assert answer.exit_code == 2
    assert "name a folder" in answer.output
