from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from inspector.contract.errors import DataError
from inspector.training.image_labels import RawImage, read_image_labels, told

CLASSES = ("good", "scratch", "dent")


def read(source: Path, problems: list[str], images: Path | None = None, good: str = "good") -> dict[str, str | None]:
    """Class by name of the file."""
    return {item.path.name: item.class_name for item in read_raw(source, problems, images, good)}


def read_raw(source: Path, problems: list[str], images: Path | None = None, good: str = "good") -> list[RawImage]:
    return read_image_labels(source, CLASSES, images, good, problems)


def files(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"")


def coco(folder: Path, images: list[dict[str, Any]], annotations: list[tuple[int, str]] | None = None) -> Path:
    """``annotations``: the image's id and the category."""
    kinds = sorted({kind for _, kind in annotations or []})
    content = {
        "images": images,
        "annotations": [{"image_id": image, "category_id": kinds.index(kind), "bbox": [1, 2, 3, 4]} for image, kind in annotations or []],
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(kinds)],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


def test_a_folder_per_class_is_read_at_any_depth_without_hidden_files_and_what_is_no_picture(tmp_path: Path) -> None:
    files(tmp_path, "scratch/b.PNG", "scratch/a.jpg", "scratch/shift 2/deep/c.tiff", "good/d.bmp", "notes.txt", ".b.png")
    files(tmp_path, "good/Thumbs.db", "good/.hidden.png", "good/.cache/e.png", ".trash/f.png")
    problems: list[str] = []
    assert [(item.path.relative_to(tmp_path).as_posix(), item.class_name) for item in read_raw(tmp_path, problems)] == [
        ("good/d.bmp", "good"),
        ("scratch/a.jpg", "scratch"),
        ("scratch/b.PNG", "scratch"),
        ("scratch/shift 2/deep/c.tiff", "scratch"),
    ]
    assert not problems


def test_folders_that_are_no_class_and_pictures_outside_of_the_folders_are_told_and_still_looked_at(tmp_path: Path) -> None:
    files(tmp_path, "scrach/a.png", "loose.png", "good/b.png")
    (tmp_path / "empty").mkdir()
    problems: list[str] = []
    assert read(tmp_path, problems) == {"a.png": None, "loose.png": None, "b.png": "good"}
    assert len(problems) == 3
    for part in (f"{tmp_path}: pictures in no class's sub-folder: loose.png", f"{tmp_path / 'empty'}: ", f"{tmp_path / 'scrach'}: "):
        assert any(line.startswith(part) for line in problems), part
    assert "good, scratch, dent" in problems[-1]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    files(tmp_path, "elsewhere/a.png")
    top = tmp_path / "top"
    (top / "dent").mkdir(parents=True)
    (top / "dent" / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("round", "and round"):  # all ways through both of them would never end
        (top / "dent" / name).symlink_to(top / "dent")
    (top / "dent" / "gone.png").symlink_to(tmp_path / "nothing")
    problems: list[str] = []
    assert [(item.path.name, item.class_name) for item in read_raw(top, problems)] == [("gone.png", "dent"), ("a.png", "dent")]
    assert not problems


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """One whose path is longer than the system takes: not even root reads it."""
    files(tmp_path, "dent/a.png")
    name = "x" * 250
    opened = [os.open(tmp_path / "dent", os.O_RDONLY)]
    try:
        for _ in range(20):
            os.mkdir(name, dir_fd=opened[-1])
            opened.append(os.open(name, os.O_RDONLY, dir_fd=opened[-1]))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    problems: list[str] = []
    assert read(tmp_path, problems) == {"a.png": "dent"}
    assert len(problems) == 1
    assert problems[0].startswith(str(tmp_path / "dent" / name))
    assert "cannot be read" in problems[0]


def test_a_folder_of_pictures_cannot_be_named_beside_a_folder(tmp_path: Path) -> None:
    files(tmp_path, "good/b.png")
    problems: list[str] = []
    read(tmp_path, problems, tmp_path / "images")
    assert "leave it out" in problems[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_are_read_with_each_delimiter_with_and_without_mark(tmp_path: Path, delimiter: str, mark: bytes, end: str) -> None:
    rows = [["Class", "shift", "image "], ["good", "1", "a.png"], [], ["scratch", "", f'"süd{delimiter} b.png"'], ["", "", ""]]
    path = tmp_path / "labels.csv"
    path.write_bytes(mark + end.join(delimiter.join(row) for row in rows).encode())
    problems: list[str] = []
    found = read_raw(path, problems)
    assert [(item.path, item.class_name, item.origin) for item in found] == [
        (tmp_path / "a.png", "good", "line 2"),
        (tmp_path / f"süd{delimiter} b.png", "scratch", "line 4"),
    ]
    assert not problems


def test_quotes_are_a_table_s_own(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('"class";"image"\n"good"; "a; b.png"\n')
    problems: list[str] = []
    assert read(path, problems) == {"a; b.png": "good"}
    assert not problems


def test_a_table_of_a_folder_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,class\nstrip/a.png,good\n")
    problems: list[str] = []
    assert read_raw(path, problems, tmp_path)[0].path == tmp_path / "strip" / "a.png"
    assert not problems
    assert read_raw(path, problems, tmp_path / "nowhere")[0].path == tmp_path / "nowhere" / "strip" / "a.png"
    assert problems == [f"{tmp_path / 'nowhere'}: no such folder of pictures"]


def test_broken_rows_are_all_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('image,class\na.png,good\nb.png\n,dent\nc, d.png,dent\ne.png,dent,,\nf.png, \n"g.png,dent\n')
    problems: list[str] = []
    assert read(path, problems) == {"a.png": "good", "b.png": None, "e.png": "dent", "f.png": None}
    for line, part in zip(
        problems,
        ("line 3: b.png: has no class", "line 4: names no image", "line 5: has 3 cells", "line 7: f.png: has no class", "after line 7"),
        strict=True,
    ):
        assert line.startswith(str(path))
        assert part in line


def test_a_table_without_classes_still_names_its_pictures(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("image,label\na.png,good\nb.png,dent\n")
    problems: list[str] = []
    assert read(path, problems) == {"a.png": None, "b.png": None}
    assert len(problems) == 1
    assert "has no column class" in problems[0]
    assert "image, label" in problems[0]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"file,class\na.png,good\n", "no column image; its first line must be 'image,class' \\(it has: file, class\\)"),
        (b"a.png good\n", "no column image and no column class"),
        (b"image,image,class\n", "the column image twice"),
        ("image,class\nä.png,good\n".encode("latin-1"), "no UTF-8 text"),
        ("image,class\na.png,good\n".encode("utf-16"), "no UTF-8 text"),
        (b"{", "cannot be read as COCO json"),
        (b"[1, 2]", "is no COCO json"),
    ],
)
def test_what_cannot_be_read_at_all_is_told(tmp_path: Path, content: bytes, part: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=part):
        read(path, [])


def test_a_source_that_is_not_there_is_told_with_the_three_forms(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or folder; name a folder with one sub-folder per class, a CSV file .* or a COCO json file"):
        read(tmp_path / "labels.csv", [])


def test_a_json_tells_the_class_of_each_image_and_its_boxes(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.png", "image_class": "good"},
        {"id": "1", "file_name": "b.png", "image_class": " dent ", "width": 9, "height": 7},
    ]
    problems: list[str] = []
    first, second = read_raw(coco(tmp_path, images, [(1, "scratch")]), problems)
    assert not problems
    assert (first.class_name, second.class_name) == ("good", "dent")
    assert (first.size_px, second.size_px) == (None, (7, 9))
    assert [label.box for label in first.labels] == [(1, 2, 4, 6)]


def test_images_of_which_some_have_no_class_are_told_by_name(tmp_path: Path) -> None:
    classes: list[Any] = ["good", None, "", 3, "dent"]
    images = [{"id": number, "file_name": f"{number}.png", "image_class": name} for number, name in enumerate(classes)]
    problems: list[str] = []
    found = read(coco(tmp_path, [*images, {"id": 5, "file_name": "5.png"}], [(1, "dent")]), problems)
    assert found == {"0.png": "good", "1.png": None, "2.png": None, "3.png": None, "4.png": "dent", "5.png": None}
    (line,) = problems
    assert "image_class is missing" in line
    assert all(f"{number}.png" in line for number in (1, 2, 3, 5))
    assert not any(f"{number}.png" in line for number in (0, 4))


def test_without_image_class_the_annotations_tell(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(4)]
    problems: list[str] = []
    source = coco(tmp_path, images, [(1, "dent"), (1, "dent"), (2, "scratch")])
    assert read(source, problems) == {"0.png": "good", "1.png": "dent", "2.png": "scratch", "3.png": "good"}
    assert not problems
    assert read(source, problems, good="scratch")["0.png"] == "scratch"
    assert not problems


def test_annotations_that_do_not_tell_one_class_are_told_with_the_mend(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(3)]
    problems: list[str] = []
    source = coco(tmp_path, images, [(1, "dent"), (1, "scratch"), (2, "scratch")])
    assert read(source, problems, good="clean") == {"0.png": None, "1.png": None, "2.png": "scratch"}
    mixed, bare = problems
    assert "several categories" in mixed
    assert "1.png (dent, scratch)" in mixed
    assert "no class 'clean' in the recipe (good, scratch, dent)" in bare
    assert "0.png" in bare
    assert all("give every entry of images its image_class" in line for line in problems)


def test_two_images_of_one_id_and_ids_that_are_none_are_told(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}, {"id": [2], "file_name": "c.png"}]
    problems: list[str] = []
    assert read(coco(tmp_path, images), problems) == {"a.png": "good"}
    assert any("a.png and b.png have the same id 1" in line for line in problems)
    assert any("images[2]: id must be a number" in line for line in problems)


def test_a_json_is_known_by_its_content_or_its_name(tmp_path: Path) -> None:
    source = coco(tmp_path, [{"id": 1, "file_name": "a.png"}])
    plain = source.rename(tmp_path / "labels.txt")
    plain.write_bytes(b"\xef\xbb\xbf\n" + plain.read_bytes())
    assert read(plain, []) == {"a.png": "good"}
    table = tmp_path / "table.json"
    table.write_text("image,class\na.png,good\n")
    with pytest.raises(DataError, match="cannot be read as COCO json"):
        read(table, [])


def test_many_names_are_counted() -> None:
    assert told(["a", "b"]) == "a; b"
    names = [f"{number}.png" for number in range(25)]
    assert told(names) == "; ".join(names[:20]) + " and 5 more"
