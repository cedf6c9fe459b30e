"""Writes generated surfaces to a folder: PNG pictures and one COCO label file, the form that training reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from inspector.contract.errors import DataError
from inspector.surfaces.defects import DEFECT_KINDS
from inspector.surfaces.scene import SurfaceGenerator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES_FOLDER = "images"
LABELS_FILE = "annotations.json"


def write_dataset(folder: Path, generator: SurfaceGenerator, count: int) -> Iterator[int]:
    """Writes ``count`` pictures (``images/000000.png`` ...) and ``annotations.json``.

    Category ids are 1..10 in the order of ``DEFECT_KINDS``, boxes are ``[x, y, width, height]`` in pixels. Clean
    surfaces are listed without annotations.

    Yields:
        The number of pictures written so far, after each. The label file is written last, when all are there.

    Raises:
        DataError: ``folder`` already holds files, or cannot be written.
    """
    _prepare(folder)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        surface = generator.render(index)
        name = f"{index:06d}.png"
        _write_png(folder / IMAGES_FOLDER / name, surface.image)
        images.append({"id": index + 1, "file_name": name, "width": generator.width_px, "height": generator.height_px})
        for defect in surface.defects:
            x1, y1, x2, y2 = defect.box_px
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": DEFECT_KINDS.index(defect.kind) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
        yield index + 1
    labels = {
        "info": {"description": f"generated surfaces, seed {generator.seed}, defect rate {generator.defect_rate}"},
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(DEFECT_KINDS, start=1)],
        "images": images,
        "annotations": annotations,
    }
    try:
        (folder / LABELS_FILE).write_text(json.dumps(labels), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder / LABELS_FILE} cannot be written: {error.strerror}") from error


def contact_sheet(seed: int, kinds: Iterable[str] = DEFECT_KINDS, tile_px: tuple[int, int] = (208, 156), columns: int = 4) -> NDArray[np.uint8]:
    """One named example of each kind on a small surface, and a clean one, as a grey picture.

    Args:
        seed: of the surfaces.
        kinds: what to show, in this order.
        tile_px: width and height of each surface.
        columns: tiles side by side.

    Returns:
        uint8 ``[rows * (tile height + caption), columns * tile width]``.
    """
    width_px, height_px = tile_px
    caption_px = 18
    tiles = []
    for number, kind in enumerate((*kinds, "")):
        # Rendered large and cut out, so that the defects have the size that they have on a 640x480 picture.
        generator = SurfaceGenerator(640, 480, seed, 1.0 if kind else 0.0, max_defects=1, kinds=(kind,) if kind else DEFECT_KINDS)
        surface = generator.render(number)
        x1, y1, x2, y2 = surface.defects[0].box_px if surface.defects else (0, 0, width_px, height_px)
        left = min(max((x1 + x2 - width_px) // 2, 0), generator.width_px - width_px)
        top = min(max((y1 + y2 - height_px) // 2, 0), generator.height_px - height_px)
        tile = np.full((height_px + caption_px, width_px), 255, np.uint8)
        tile[caption_px:] = surface.image[top : top + height_px, left : left + width_px] // 8 * 8  # fewer levels: a smaller file
        cv2.putText(tile, kind or "clean", (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)
        tiles.append(tile)
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return np.vstack(rows)


def write_contact_sheet(path: Path, seed: int) -> None:
    """Writes ``contact_sheet`` as a PNG.

    Raises:
        DataError: the file cannot be written.
    """
    _write_png(path, contact_sheet(seed))


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} already holds files: name a new or empty folder")
        (folder / IMAGES_FOLDER).mkdir()
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from error


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    encoded, data = cv2.imencode(".png", image)
    if not encoded:
        raise DataError(f"{path} cannot be encoded as PNG")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
