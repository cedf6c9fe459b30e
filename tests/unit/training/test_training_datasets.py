from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector.contract.errors import DataError, ExitCode
from inspector.training.datasets import read_dataset

CLASSES = ("light", "dark")


def coco(folder: Path, annotations: list[dict[str, Any]], images: list[dict[str, Any]] | None = None) -> Path:
    """A json over one 40 x 30 picture, a.png."""
    cv2.imwrite(str(folder / "a.png"), np.zeros((30, 40), np.uint8))
    content = {
        "images": images if images is not None else [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "light"}, {"id": 9, "name": "dark"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


def box(*sides: float, kind: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": kind, "bbox": list(sides), **more}


def test_coco_boxes_classes_and_crowds_are_read(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(1, 2, 10, 20), box(0, 0, 40, 30, kind=9, iscrowd=1)])
    dataset = read_dataset(source, CLASSES)
    (picture,) = dataset.pictures
    assert (picture.height_px, picture.width_px) == (30, 40)
    assert picture.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 40, 30]]
    assert picture.boxes.dtype == np.float32
    assert picture.classes.tolist() == [0, 1]
    assert picture.ignored.tolist() == [False, True]
    assert dataset.image(0).shape == (30, 40)


def test_pictures_beside_the_json_in_images_or_in_a_named_folder_are_found(rectangles: Path, tmp_path: Path) -> None:
    assert len(read_dataset(rectangles, CLASSES)) == 4
    moved = tmp_path / "elsewhere"
    (rectangles.parent / "images").rename(moved)
    assert len(read_dataset(rectangles, CLASSES, images=moved)) == 4
    with pytest.raises(DataError, match="no such picture"):
        read_dataset(rectangles, CLASSES)


def test_a_picture_without_labels_is_kept_as_background(tmp_path: Path) -> None:
    (picture,) = read_dataset(coco(tmp_path, []), CLASSES).pictures
    assert picture.boxes.shape == (0, 4)


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    source = coco(tmp_path, [])
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 40, 3), (10, 20, 200), np.uint8))  # OpenCV writes blue first
    assert read_dataset(source, CLASSES, colour=True).image(0)[0, 0].tolist() == [200, 20, 10]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "gone.png"},
        {"id": 3, "file_name": "broken.png"},
        {"id": 4, "file_name": "b.png", "width": 99, "height": 30},
    ]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((30, 40), np.uint8))
    boxes = [box(5, 5, 0, 4), box(30, 5, 20, 4), box(-9, 5, 20, 4), box(1, 1, 5, 5, kind=9), box(float("nan"), 1, 5, 5)]
    with pytest.raises(DataError) as caught:
        read_dataset(coco(tmp_path, boxes, images), ("light",))
    told = str(caught.value)
    for part in (
        "8 problems",
        "no area",
        "(30, 5) to (50, 9) of labels.json lies outside the picture of 40 x 30 px",
        "(-9, 5)",
        "class 'dark' is not in the recipe (light)",
        "not finite",
        "gone.png: no such picture",
        "broken.png: does not decode",
        "b.png: is 40 x 30 px, its label says 99 x 30",
    ):
        assert part in told, part
    assert caught.value.exit_code == ExitCode.DATA


def test_a_box_one_pixel_out_is_rounding_and_is_cut(tmp_path: Path) -> None:
    (picture,) = read_dataset(coco(tmp_path, [box(-1, 5, 42, 10)]), CLASSES).pictures
    assert picture.boxes.tolist() == [[0, 5, 40, 15]]


def test_very_many_problems_are_counted(tmp_path: Path) -> None:
    source = coco(tmp_path, [box(5, 5, 0, 0) for _ in range(100)])
    with pytest.raises(DataError, match=r"and 60 more"):
        read_dataset(source, CLASSES)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as COCO json"),
        ("[]", "is no COCO json"),
        ('{"images": [], "annotations": [], "categories": []}', "names no pictures"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\]: file_name missing"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}], "categories": []}',
            "image_id 2 is not among the images",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}], "categories": []}',
            "category_id 5 is not among the categories",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 5, "bbox": "x"}], "categories": []}',
            "bbox is not four numbers",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, "x"]}], "categories": []}',
            "bbox is not four numbers",
        ),
    ],
)
def test_broken_json_is_told_with_its_place(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(DataError, match=told):
        read_dataset(path, CLASSES)


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_dataset(tmp_path / "nothing.json", CLASSES)


def voc(folder: Path, name: str, objects: str, filename: str = "a.png") -> None:
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "JPEGImages" / "a.png"), np.zeros((30, 40), np.uint8))
    text = f"<annotation><filename>{filename}</filename><size><width>40</width><height>30</height></size>{objects}</annotation>"
    (folder / "Annotations" / f"{name}.xml").write_text(text)


def voc_object(name: str, x1: str, y1: str, x2: str, y2: str, difficult: int = 0) -> str:
    sides = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path: Path) -> None:
    voc(tmp_path, "a", voc_object("dark", "1", "1", "40", "30") + voc_object("light", "11", "6", "20", "15", difficult=1))
    (picture,) = read_dataset(tmp_path, CLASSES).pictures
    assert picture.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20, 15]]
    assert picture.classes.tolist() == [1, 0]
    assert picture.ignored.tolist() == [False, True]


def test_broken_voc_files_are_all_told(tmp_path: Path) -> None:
    voc(tmp_path, "a", voc_object("dark", "1", "x", "40", "30"))
    voc(tmp_path, "b", "<object></object>")
    (tmp_path / "Annotations" / "c.xml").write_text("<annotation>")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path, CLASSES)
    told = str(caught.value)
    assert "a.xml: object 1" in told
    assert "b.xml: object 1" in told
    assert "c.xml: cannot be read" in told


def test_a_folder_without_labels_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no Annotations/\*\.xml"):
        read_dataset(tmp_path, CLASSES)


def test_beyond_the_cache_pictures_are_decoded_again(rectangles: Path) -> None:
    all_kept = read_dataset(rectangles, CLASSES)
    two_kept = read_dataset(rectangles, CLASSES, cache_bytes=2 * 64 * 64)
    assert len(all_kept.cache) == 4
    assert len(two_kept.cache) == 2
    for first, second in zip(all_kept.images(), two_kept.images(), strict=True):
        np.testing.assert_array_equal(first, second)
    two_kept.pictures[3].path.unlink()
    with pytest.raises(DataError, match="no longer"):
        two_kept.image(3)


def test_every_second_picture_keeps_pictures_and_cache_together(rectangles: Path) -> None:
    whole = read_dataset(rectangles, CLASSES, cache_bytes=3 * 64 * 64)
    half = whole.every(2)
    assert [picture.path for picture in half.pictures] == [whole.pictures[0].path, whole.pictures[2].path]
    np.testing.assert_array_equal(half.image(1), whole.image(2))


@pytest.mark.data
def test_the_real_labels_read_without_a_problem() -> None:
    data = Path(__file__).resolve().parents[4] / "shared" / "data"
    steel = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
    dataset = read_dataset(data / "neu-det" / "val.json", steel)
    assert len(dataset) == 660
    assert sum(len(picture.boxes) for picture in dataset.pictures) == 1517
    sheet = ("zhen_kong", "ca_shang", "zang_wu", "zhe_zhou")
    assert len(read_dataset(data / "alu-sheet-100" / "alu_sheet_coco.json", sheet)) == 100
