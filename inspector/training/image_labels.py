"""One class per picture, from a folder per class, a CSV file or a COCO json, read without looking at the pictures."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from inspector.contract.errors import DataError
from inspector.training.pictures import PICTURE_SUFFIXES
from inspector.training.readers import RawLabel, RawPicture, read_coco

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE_COLUMN, CLASS_COLUMN = "image", "class"
DELIMITERS = (",", ";", "\t")
NAMES_SHOWN = 20
FORMS = "a folder with one sub-folder per class, a CSV file with the columns image and class, or a COCO json file"


@dataclass(frozen=True, slots=True)
class RawImage:
    """One picture and its class as the labels name them, unchecked."""

    path: Path
    class_name: str | None
    """None: the labels do not tell, which is among the problems already."""
    origin: str
    """Where the labels name it, for messages."""
    size_px: tuple[int, int] | None = None
    """(height, width) by the labels; None where they do not say."""
    labels: tuple[RawLabel, ...] = ()
    """Boxes, of a COCO json."""


def read_image_labels(source: Path, classes: Sequence[str], images: Path | None, good: str, problems: list[str]) -> list[RawImage]:
    """The pictures of a source with their classes, in its order (of a folder: classes by name, then pictures by path).

    Args:
        source: a folder is read as one folder per class; a file named ``.json``, or whose first character opens a json object or list, as COCO
            json; any other file as CSV.
        classes: the classes that are known.
        images: folder that the names in a CSV or json are relative to. None: the folder of the CSV; ``images`` beside the json, else its folder.
        good: the class of a COCO picture without annotations, where no picture has an ``image_class``.
        problems: gets a line for everything in the labels that is wrong and that is not left to see in the result.

    Raises:
        DataError: nothing can be read from the source.
    """
    if source.is_dir():
        if images is not None:
            problems.append(f"{images}: no folder of pictures can be named beside {source}, a folder that holds them; leave it out")
        return _read_folders(source, classes, problems)
    if images is not None and not images.is_dir():
        problems.append(f"{images}: no such folder of pictures")
    try:
        with source.open("rb") as file:
            start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file or folder; name {FORMS}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    if not start:
        raise DataError(f"{source}: is empty; name {FORMS}")
    if source.suffix.lower() == ".json" or start.startswith((b"{", b"[")):
        return _read_json(source, classes, images, good, problems)
    return _read_csv(source, source.parent if images is None else images, problems)


def told(names: Sequence[str]) -> str:
    """Names in a line: the first 20, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return "; ".join(names[:NAMES_SHOWN]) + more


def _read_folders(source: Path, classes: Sequence[str], problems: list[str]) -> list[RawImage]:
    """The pictures of a folder with one sub-folder per class."""
    found: list[RawImage] = []
    try:
        entries = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    loose = [path.name for path in entries if not path.is_dir() and path.suffix.lower() in PICTURE_SUFFIXES]
    if loose:
        problems.append(f"{source}: pictures in no class's sub-folder: {told(loose)}; move each to the sub-folder of its class")
        found += [RawImage(source / name, None, name) for name in loose]
    for folder in entries:
        if not folder.is_dir():
            continue
        known = folder.name in classes
        if not known:
            problems.append(f"{folder}: sub-folder that is no class of the recipe ({', '.join(classes)}); rename it, or move it away")
        class_name = folder.name if known else None
        found += [RawImage(path, class_name, path.relative_to(source).as_posix()) for path in _pictures_below(folder, problems)]
    return found


def _pictures_below(top: Path, problems: list[str]) -> Iterator[Path]:
    """The picture files of a folder and all below it, in order of their paths; hidden ones are passed over."""
    seen: set[str] = set()

    def failed(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {error.strerror}")

    # Links to folders are followed (pictures are seldom copied to be sorted), each folder once, so that a link to one above ends.
    for folder, below, files in os.walk(top, onerror=failed, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = () if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(files) if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES)
        seen.add(real)


def _read_csv(source: Path, folder: Path, problems: list[str]) -> list[RawImage]:
    """The rows of a CSV file with the columns ``image`` and ``class``; commas, semicolons or tabs, UTF-8 with or without byte order mark."""
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{source}: is no UTF-8 text; save the table as 'CSV UTF-8', or name {FORMS}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    delimiter, header = _header(text)
    twice = sorted({name for name in (IMAGE_COLUMN, CLASS_COLUMN) if header.count(name) > 1})
    missing = [name for name in (IMAGE_COLUMN, CLASS_COLUMN) if name not in header]
    if twice or IMAGE_COLUMN in missing:
        wrong = f"has the column {' and '.join(twice)} twice" if twice else f"has no column {' and no column '.join(missing)}"
        raise DataError(f"{source}: {wrong}; its first line must be 'image,class' (it has: {', '.join(header)[:200]})")
    if missing:
        problems.append(f"{source}: has no column {CLASS_COLUMN}; its first line must be 'image,class' (it has: {', '.join(header)[:200]})")
    found: list[RawImage] = []
    number = 0
    try:
        for number, cells in islice(_cells(text, delimiter), 1, None):
            where = f"line {number}"
            row = dict(zip(header, cells, strict=False))
            name, class_name = row.get(IMAGE_COLUMN), row.get(CLASS_COLUMN)
            if any(cells[len(header) :]):
                told_cells = f"has {len(cells)} cells, the first line {len(header)}"
                problems.append(f"{source}: {where}: {told_cells}; put a name that holds {delimiter!r} in quotes")
                continue
            if not name:
                problems.append(f"{source}: {where}: names no image")
                continue
            if not class_name and not missing:
                problems.append(f"{source}: {where}: {name}: has no class")
            found.append(RawImage(folder / name, class_name or None, where))
    except csv.Error as error:
        problems.append(f"{source}: cannot be read as CSV after line {number}: {error}; is a quote left open?")
    return found


def _header(text: str) -> tuple[str, list[str]]:
    """The delimiter that finds most of the two columns, and the names of all columns."""
    best: tuple[str, list[str]] = (DELIMITERS[0], [])
    score = (-1, 0)
    for delimiter in DELIMITERS:
        try:
            _, names = next(_cells(text, delimiter), (0, []))
        except csv.Error:  # the quotes are another delimiter's
            continue
        names = [name.lower() for name in names]
        found = len({IMAGE_COLUMN, CLASS_COLUMN} & set(names)), len(names)
        if found > score:
            best, score = (delimiter, names), found
    return best


def _cells(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield reader.line_num, cells


def _read_json(source: Path, classes: Sequence[str], images: Path | None, good: str, problems: list[str]) -> list[RawImage]:
    """The pictures of a COCO json, each with its ``image_class``; where no picture has one, with the class that its annotations tell."""
    pictures = read_coco(source, images, problems)
    given = any(picture.image_class is not None for picture in pictures)
    names = [_given_class(picture) if given else _told_class(picture, good, classes) for picture in pictures]
    unlabelled = [picture for picture, name in zip(pictures, names, strict=True) if name is None]
    mend = "give every entry of images its image_class, or leave the picture out"
    if given and unlabelled:
        problems.append(f"{source}: image_class is missing, or is no text, for {told([str(picture.path) for picture in unlabelled])}; {mend}")
    elif unlabelled:
        mixed = [f"{picture.path} ({', '.join(_kinds(picture))})" for picture in unlabelled if picture.labels]
        bare = [str(picture.path) for picture in unlabelled if not picture.labels]
        if mixed:
            problems.append(f"{source}: no image_class, and annotations of several categories, for {told(mixed)}; {mend}")
        if bare:
            problems.append(
                f"{source}: no image_class and no annotations for {told(bare)}, and no class {good!r} in the recipe ({', '.join(classes)}); "
                f"name the class of pictures without a defect, or {mend}"
            )
    return [RawImage(picture.path, name, picture.name, picture.size_px, picture.labels) for picture, name in zip(pictures, names, strict=True)]


def _kinds(picture: RawPicture) -> list[str]:
    """The categories of its annotations, regions of ``iscrowd`` included: they too show what is on the picture."""
    return sorted({label.class_name for label in picture.labels})


def _given_class(picture: RawPicture) -> str | None:
    """The picture's own class."""
    return picture.image_class.strip() or None if isinstance(picture.image_class, str) else None


def _told_class(picture: RawPicture, good: str, classes: Sequence[str]) -> str | None:
    """The class that its annotations tell."""
    kinds = _kinds(picture)
    if not kinds:
        return good if good in classes else None
    return kinds[0] if len(kinds) == 1 else None
