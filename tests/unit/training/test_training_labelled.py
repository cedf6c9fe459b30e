from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inspector.contract.errors import DataError, ExitCode
from inspector.surfaces.dataset import write_dataset
from inspector.surfaces.scene import SurfaceGenerator
from inspector.training.labelled import LabelledDataset, read_labelled
from inspector.training.pictures import decode_image

AWKWARD = ("good", "Öl;fleck", "tief, lang", 'rolled "in"', "pitted surface")
CLASSES = ("good", "scratch", "dent")
STEEL = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")


def write_png(path: Path, grey: int = 128, size: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full(size, grey, np.uint8))[1].tobytes())


def write_folder(top: Path, labels: dict[str, str]) -> Path:
    for number, (name, class_name) in enumerate(labels.items()):
        write_png(top / class_name / name, number)
    return top


def write_table(path: Path, labels: dict[str, str], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["image", "class"])
        writer.writerows((f"{class_name}/{name}", class_name) for name, class_name in labels.items())
    return path


def write_json(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]] | None = None) -> Path:
    categories = [{"id": number, "name": name} for number, name in enumerate([*CLASSES, "other"])]
    path.write_text(json.dumps({"images": images, "annotations": annotations or [], "categories": categories}))
    return path


def classes_by_name(dataset: LabelledDataset) -> dict[str, tuple[str, int]]:
    """Class and grey value of each picture."""
    return {
        picture.path.name: (dataset.classes[label], int(image[0, 0]))
        for picture, label, image in zip(dataset.pictures, dataset.labels, dataset.images(), strict=True)
    }


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(AWKWARD), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.sampled_from([0, 2 * 48, 1 << 20]),
    st.integers(1, 4),
)
def test_folder_table_and_json_of_the_same_pictures_give_the_same_labels(
    chosen: list[str], delimiter: str, encoding: str, cache_bytes: int, step: int
) -> None:
    labels = {f"{number}.png": name for number, name in enumerate(chosen)}
    with tempfile.TemporaryDirectory() as kept:
        top = Path(kept)
        folder = write_folder(top / "sorted", labels)
        images = [{"id": number, "file_name": f"{name}/{file}", "image_class": name} for number, (file, name) in enumerate(labels.items())]
        sources = (folder, write_table(folder / "labels.csv", labels, delimiter, encoding), write_json(folder / "labels.json", images))
        read = [read_labelled(source, AWKWARD, every_class=False, cache_bytes=cache_bytes) for source in sources]
        for dataset in read:
            assert classes_by_name(dataset) == {file: (name, number) for number, (file, name) in enumerate(labels.items())}
            assert dataset.counts.tolist() == [chosen.count(name) for name in AWKWARD]
            assert dataset.labels.dtype == dataset.counts.dtype == np.int64
            assert len(dataset) == len(dataset.labels) == len(chosen)
            assert len(dataset.cache) == min(len(chosen), cache_bytes // 48)
            part = dataset.every(step)
            assert isinstance(part, LabelledDataset)
            assert part.labels.tolist() == dataset.labels[::step].tolist()
            assert [image[0, 0] for image in part.images()] == [image[0, 0] for image in dataset.images()][::step]
        (first, second) = read[1:]  # both in the file's order
        assert first.labels.tolist() == second.labels.tolist()


FAULTS = {
    "not_there.png": "no such picture",
    "cut_short.png": "does not decode",
    "no_bytes.png": "is an empty file",
    "twice.png": "is named twice, as 'good' and as 'dent' (line ",
    "again.png": "is named twice, as 'good' (line ",
    "no_class.png": "has no class",
    "misspelt.png": "class 'scrach' is not in the recipe (good, scratch, dent)",
    "win\\dows.png": "write / between folders",
}


def plant(top: Path, fault: str) -> list[tuple[str, str]]:
    """Makes one fault, and tells the rows that name it."""
    if fault not in {"not_there.png", "win\\dows.png"}:
        write_png(top / fault)
    if fault == "cut_short.png":
        (top / fault).write_bytes((top / fault).read_bytes()[:20])
    if fault == "no_bytes.png":
        (top / fault).write_bytes(b"")
    rows = {
        "twice.png": [(fault, "good"), (fault, "dent")],
        "again.png": [(fault, "good"), (f"./{fault}", "good")],
        "no_class.png": [(fault, "")],
        "misspelt.png": [(fault, "scrach")],
    }
    return rows.get(fault, [(fault, "dent")])


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(FAULTS)), unique=True, min_size=1), st.booleans())
@example(sorted(FAULTS), True)
def test_every_fault_is_told_in_one_run_with_its_file(faults: list[str], lacking: bool) -> None:
    with tempfile.TemporaryDirectory() as kept:
        top = Path(kept)
        rows = [("good.png", "good"), ("dent.png", "dent")] + ([] if lacking else [("scratch.png", "scratch")])
        for name, _ in rows:
            write_png(top / name)
        rows += [row for fault in faults for row in plant(top, fault)]
        source = top / "labels.csv"
        with source.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "class"), *rows])
        with pytest.raises(DataError) as caught:
            read_labelled(source, CLASSES)
        first, *lines = str(caught.value).splitlines()
        count = len(faults) + lacking
        assert first == f"{source}: {count} problem{'s' if count > 1 else ''}"
        assert len(lines) == count
        for fault in faults:
            assert sum(fault in line and FAULTS[fault] in line for line in lines) == 1, fault
        assert any("class 'scratch' of the recipe has no picture" in line for line in lines) == lacking
        assert caught.value.exit_code == ExitCode.DATA


def test_a_class_without_a_picture_is_allowed_where_it_is_said(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"a.png": "good", "b.png": "dent"})
    with pytest.raises(DataError, match=r"1 problem\n.*class 'scratch' of the recipe has no picture"):
        read_labelled(source, CLASSES)
    assert read_labelled(source, CLASSES, every_class=False).counts.tolist() == [1, 0, 1]


def test_a_folder_tells_its_broken_pictures_and_its_wrong_folders_together(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"a.png": "good", "b.png": "scratch", "c.png": "dent", "d.png": "rust"})
    for name in ("good/e.png", "rust/f.png", "loose.png"):
        (source / name).write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        read_labelled(source, CLASSES)
    told = str(caught.value)
    assert "5 problems" in told
    assert "in no class's sub-folder: loose.png" in told
    assert f"{source / 'rust'}: sub-folder that is no class of the recipe (good, scratch, dent)" in told
    for name in ("good/e.png", "rust/f.png", "loose.png"):
        assert f"{source / name}: does not decode" in told


def test_the_same_picture_by_a_link_in_two_classes_is_told(tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"a.png": "good", "b.png": "scratch", "c.png": "dent"})
    (source / "dent" / "d.png").symlink_to(source / "good" / "a.png")
    with pytest.raises(DataError, match=r"named twice, as 'dent' and as 'good' \(dent/d\.png; good/a\.png\)"):
        read_labelled(source, CLASSES)


@pytest.mark.parametrize("kind", ["folder", "table", "json"])
def test_a_source_without_pictures_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    sources = {"folder": tmp_path / "empty", "table": write_table(tmp_path / "a.csv", {}), "json": write_json(tmp_path / "a.json", [])}
    with pytest.raises(DataError, match="names no pictures; name a folder with one sub-folder per class, a CSV file"):
        read_labelled(sources[kind], CLASSES)


def test_a_table_of_broken_rows_alone_tells_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,class\n,good\n")
    with pytest.raises(DataError, match="line 2: names no image"):
        read_labelled(tmp_path / "labels.csv", CLASSES)


def test_a_table_without_the_class_column_tells_that_alone_and_what_does_not_decode(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("image\na.png\nb.png\n")
    with pytest.raises(DataError) as caught:
        read_labelled(tmp_path / "labels.csv", CLASSES)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "has no column class" in lines[0]
    assert "b.png: does not decode" in lines[1]


def test_boxes_of_known_classes_are_kept_and_ignored_regions_are_not(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    write_png(tmp_path / "b.png")
    boxes = [([1, 2, 3, 4], 1, 0), ([0, 0, 8, 6], 3, 0), ([2, 2, 2, 2], 2, 0), ([0, 0, 8, 6], 1, 1)]
    annotations = [{"image_id": 1, "bbox": box, "category_id": kind, "iscrowd": crowd} for box, kind, crowd in boxes]
    images = [{"id": 1, "file_name": "a.png", "image_class": "scratch"}, {"id": 2, "file_name": "b.png", "image_class": "good"}]
    dataset = read_labelled(write_json(tmp_path / "labels.json", images, annotations), CLASSES, every_class=False)
    first, second = dataset.pictures
    assert first.boxes.tolist() == [[1, 2, 4, 6], [2, 2, 4, 4]]
    assert first.box_classes.tolist() == [1, 2]
    assert (first.height_px, first.width_px, first.label) == (6, 8, 1)
    assert second.boxes.shape == (0, 4)
    for picture in dataset.pictures:
        assert (picture.boxes.dtype, picture.box_classes.dtype) == (np.float32, np.int64)


def test_a_json_tells_broken_labels_boxes_and_pictures_together(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    images = [
        {"id": 1, "file_name": "a.png", "image_class": "scratch", "width": 9, "height": 6},
        {"id": 2, "file_name": "gone.png", "image_class": "rust"},
        {"id": 3, "file_name": "bare.png"},
        {"id": 4},
        {"id": 5, "file_name": "nul\0.png", "image_class": "dent"},
    ]
    annotations = [{"image_id": 1, "bbox": [1, 1, 30, 3], "category_id": 1}, {"image_id": 9, "bbox": [1, 1, 3, 3], "category_id": 1}]
    with pytest.raises(DataError) as caught:
        read_labelled(write_json(tmp_path / "labels.json", images, annotations), CLASSES)
    told = str(caught.value)
    for part in (
        "images[3]: file_name missing",
        "image_id 9 is not among the images",
        "image_class is missing, or is no text, for " + str(tmp_path / "bare.png"),
        f"class 'rust' is not in the recipe (good, scratch, dent): {tmp_path / 'gone.png'} (image 2)",
        "class 'good' of the recipe has no picture",
        "a.png: is 8 x 6 px, its label says 9 x 6",
        "(1, 1) to (31, 4) of labels.json lies outside",
        "gone.png: no such picture",
        "bare.png: no such picture",
        ".png: no such picture",
    ):
        assert part in told, part
    assert "10 problems" in told


def test_generated_surfaces_are_labelled_by_their_defects(tmp_path: Path) -> None:
    generator = SurfaceGenerator(96, 96, seed=5, defect_rate=0.6, max_defects=1, kinds=("scratch", "dent"))
    for _ in write_dataset(tmp_path / "surfaces", generator, 8):
        pass
    dataset = read_labelled(tmp_path / "surfaces" / "annotations.json", CLASSES)
    expected = [generator.render(index).defects for index in range(8)]
    assert [CLASSES[label] for label in dataset.labels] == [defects[0].kind if defects else "good" for defects in expected]
    for picture, defects in zip(dataset.pictures, expected, strict=True):
        assert picture.boxes.tolist() == [list(defect.box_px) for defect in defects]


def test_a_class_in_the_recipe_under_another_name_than_good(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    source = write_json(tmp_path / "labels.json", [{"id": 1, "file_name": "a.png"}])
    with pytest.raises(DataError, match=r"no class 'good' in the recipe \(clean, dent\)"):
        read_labelled(source, ("clean", "dent"), every_class=False)
    assert read_labelled(source, ("clean", "dent"), every_class=False, good="clean").labels.tolist() == [0]


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    cv2.imwrite(str(tmp_path / "good" / "a.png"), np.full((6, 8, 3), (10, 20, 200), np.uint8))  # OpenCV writes blue first
    dataset = read_labelled(tmp_path, ("good",), colour=True)
    assert dataset.image(0)[0, 0].tolist() == [200, 20, 10]


def test_a_picture_that_is_replaced_while_training_is_told(tmp_path: Path) -> None:
    dataset = read_labelled(write_folder(tmp_path, {"a.png": "good", "b.png": "good"}), ("good",), cache_bytes=48)
    assert len(dataset.cache) == 1
    dataset.pictures[1].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png: is no longer a picture"):
        dataset.image(1)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_picture_never_raises(data: st.DataObject) -> None:
    """A png's size stands in bytes 16 to 24: one that claims to be huge is among these."""
    content = bytearray(cv2.imencode(".png", np.zeros((6, 8), np.uint8))[1].tobytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as kept:
        path = Path(kept) / "a.png"
        path.write_bytes(content)
        decoded = decode_image(path, colour=False)
        assert decoded is None or decoded.ndim == 2


def test_a_bitmap_that_claims_to_be_huge_does_not_decode(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.pgm").write_bytes(b"P5 60000 60000 255\n" + bytes(100))
    with pytest.raises(DataError, match=r"a\.pgm: does not decode"):
        read_labelled(tmp_path, ("good",))


@pytest.mark.data
def test_the_real_images_have_their_classes(shared_data: Path) -> None:
    for name, count in (("train", 150), ("val", 110)):
        dataset = read_labelled(shared_data / "neu-det" / f"{name}.json", STEEL)
        assert dataset.counts.tolist() == [count] * 6
        for picture in dataset.pictures:
            assert picture.path.name.startswith(STEEL[picture.label])
            assert len(picture.boxes)
