"""Label files: COCO json and Pascal VOC folders, read into one plain structure without looking at the pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.contract.errors import DataError


@dataclass(frozen=True, slots=True)
class RawLabel:
    """One labelled box, unchecked."""

    name: str
    """How the label file names it, for messages."""
    class_name: str
    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2), px."""
    ignored: bool
    origin: str
    """The label file's name."""


@dataclass(frozen=True, slots=True)
class RawPicture:
    """One picture as the labels name it, unchecked."""

    path: Path
    name: str
    """How the label file names it, for messages."""
    size_px: tuple[int, int] | None
    """(height, width) by the labels; None where they do not say."""
    labels: tuple[RawLabel, ...]
    image_class: object = None
    """The class of the whole picture, as a COCO json gives it in ``image_class``; None: it does not."""


def read_coco(source: Path, images: Path | None, problems: list[str]) -> list[RawPicture]:
    """The pictures of a COCO detection json, in its order.

    Args:
        source: the json file. Boxes are (x, y, width, height), px; ``iscrowd`` marks ignored regions.
        images: folder of the pictures; None: ``images`` beside the file if that is a folder, else the file's folder.
        problems: gets a line for every broken entry; it is left out of the result.

    Raises:
        DataError: the file cannot be read or is no COCO json.
    """
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{source}: cannot be read as COCO json: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        raise DataError(f"{source}: is no COCO json: it needs the lists images, annotations and categories")
    if images is None:
        beside = source.parent / "images"
        images = beside if beside.is_dir() else source.parent
    names = {entry["id"]: str(entry["name"]) for entry in _entries(content, "categories", ("id", "name"), source, problems)}
    pictures: dict[float | str, dict[str, Any]] = {}
    for entry in _entries(content, "images", ("id", "file_name"), source, problems):
        first = pictures.setdefault(entry["id"], entry)
        if first is not entry:
            problems.append(f"{source}: images: {first['file_name']} and {entry['file_name']} have the same id {entry['id']}")
    labels: dict[Any, list[RawLabel]] = {key: [] for key in pictures}
    for number, entry in enumerate(_entries(content, "annotations", ("image_id", "category_id", "bbox"), source, problems)):
        where = f"annotation {entry.get('id', f'number {number}')}"
        box = _numbers(entry["bbox"])
        if box is None:
            problems.append(f"{source}: {where}: bbox is not four numbers")
        elif entry["image_id"] not in pictures:
            problems.append(f"{source}: {where}: image_id {entry['image_id']} is not among the images")
        elif entry["category_id"] not in names:
            problems.append(f"{source}: {where}: category_id {entry['category_id']} is not among the categories")
        else:
            x, y, width, height = box
            corners = (x, y, x + width, y + height)
            labels[entry["image_id"]].append(RawLabel(where, names[entry["category_id"]], corners, bool(entry.get("iscrowd", 0)), source.name))
    return [
        RawPicture(
            path=images / str(entry["file_name"]),
            name=f"image {key}",
            size_px=_size(entry.get("height"), entry.get("width")),
            labels=tuple(labels[key]),
            image_class=entry.get("image_class"),
        )
        for key, entry in pictures.items()
    ]


def read_voc(source: Path, images: Path | None, problems: list[str]) -> list[RawPicture]:
    """The pictures of a Pascal VOC folder, in the order of their label files' names.

    Args:
        source: folder with ``Annotations/*.xml`` (or the xml files themselves). VOC counts pixels from 1 and includes the last one, so
            (xmin, ymin, xmax, ymax) is the box from xmin - 1 to xmax. ``difficult`` marks ignored boxes.
        images: folder of the pictures; None: ``JPEGImages`` or ``images`` in the folder, else the folder itself.
        problems: gets a line for every broken file or object; it is left out of the result.

    Raises:
        DataError: there are no label files.
    """
    annotations = source / "Annotations" if (source / "Annotations").is_dir() else source
    if images is None:
        images = next((source / name for name in ("JPEGImages", "images") if (source / name).is_dir()), source)
    files = sorted(annotations.glob("*.xml"))
    if not files:
        raise DataError(f"{source}: has no Annotations/*.xml; name a Pascal VOC folder or a COCO json file")
    pictures = []
    for file in files:
        try:
            root = ET.parse(file).getroot()  # noqa: S314 (as above)
        except (OSError, ET.ParseError) as error:
            problems.append(f"{file}: cannot be read as a Pascal VOC label: {error}")
            continue
        labels = []
        for number, item in enumerate(root.iter("object"), start=1):
            where = f"object {number}"
            corners = _numbers([item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])
            name = item.findtext("name")
            if corners is None or not name:
                problems.append(f"{file}: {where}: needs a name and a bndbox of four numbers")
                continue
            x1, y1, x2, y2 = corners
            ignored = (item.findtext("difficult") or "0").strip() == "1"
            labels.append(RawLabel(where, name.strip(), (x1 - 1, y1 - 1, x2, y2), ignored, file.name))
        path = images / (root.findtext("filename") or f"{file.stem}.jpg").strip()
        pictures.append(RawPicture(path, file.name, _size(root.findtext("size/height"), root.findtext("size/width")), tuple(labels)))
    return pictures


def _entries(content: dict[str, Any], name: str, keys: tuple[str, ...], source: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The entries of one list that are objects with all of ``keys``; a line in ``problems`` for each other."""
    good = []
    for number, entry in enumerate(content[name]):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            problems.append(f"{source}: {name}[{number}]: {', '.join(missing)} missing")
        elif wrong := [key for key in keys if key.endswith("id") and not isinstance(entry[key], int | float | str)]:
            problems.append(f"{source}: {name}[{number}]: {', '.join(wrong)} must be a number or a text")
        else:
            good.append(entry)
    return good


def _numbers(values: Any) -> tuple[float, float, float, float] | None:  # noqa: ANN401 (parsed json or xml text)
    """Four numbers, or None."""
    if not isinstance(values, list) or len(values) != 4:
        return None
    try:
        a, b, c, d = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return a, b, c, d


def _size(height: Any, width: Any) -> tuple[int, int] | None:  # noqa: ANN401 (parsed json or xml text)
    """(height, width), or None where the label gives none or zero (some tools write 0)."""
    try:
        size = int(height), int(width)
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None
