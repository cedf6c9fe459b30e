from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.contract.errors import DataError
from inspector.training.classification import evaluate_classification
from inspector.training.classification_plots import GAP_PX, OUTLINE, TILE_PX, Caption, draw_confusion, heat_sheet

RIGHT, WRONG = Caption("1.png", "dent", "dent", 0.9), Caption("2.png", "dent", "scratch", 0.6)
NO_BOXES = np.zeros((0, 4), np.float32)


def noise(height: int = TILE_PX, width: int = TILE_PX, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def one(image: np.ndarray, heat: np.ndarray, caption: Caption = RIGHT, boxes: np.ndarray = NO_BOXES) -> np.ndarray:
    return heat_sheet([image], [heat.astype(np.float32)], [caption], [boxes])


def is_grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray((pixels == pixels[..., :1]).all(axis=-1))


def test_cold_places_stay_the_pictures_own_grey_and_hot_ones_are_coloured() -> None:
    image, heat = noise(), np.zeros((TILE_PX, TILE_PX))
    heat[:, TILE_PX // 2 :] = 7e-4
    surface = one(image, heat)[:TILE_PX, :TILE_PX]
    cold, hot = surface[:, : TILE_PX // 2], surface[:, TILE_PX // 2 :]
    assert np.array_equal(cold, np.repeat(image[:, : TILE_PX // 2, None], 3, axis=2))
    assert not is_grey(hot).any()


def test_the_unit_of_a_map_does_not_matter_and_what_is_negative_is_cold() -> None:
    image, heat = noise(), np.random.default_rng(1).random((7, 9))
    assert np.array_equal(one(image, heat), one(image, heat * 2.0**20))
    for nothing in (np.zeros((7, 9)), -heat):
        assert is_grey(one(image, nothing)).all()


def test_a_map_of_any_size_lies_over_the_whole_picture() -> None:
    heat = np.zeros((2, 4))
    heat[1, 3] = 1
    surface = one(np.full((100, 200), 90, np.uint8), heat)[:TILE_PX, :TILE_PX]
    rows, columns = np.nonzero(~is_grey(surface))
    # The picture, twice as wide as high, stands in the middle of its tile.
    assert (rows.max(), columns.max()) == (TILE_PX * 3 // 4 - 1, TILE_PX - 1)
    assert rows.min() > TILE_PX // 2 - TILE_PX // 4
    assert columns.min() > TILE_PX // 2


def test_true_boxes_are_outlined_where_they_are() -> None:
    half = np.full((TILE_PX // 2, TILE_PX // 2), 90, np.uint8)
    boxes = np.array([(10, 20, 40, 30), (0, 0, TILE_PX // 2, TILE_PX // 2)])
    surface = one(half, np.zeros((3, 3)), boxes=boxes)[:TILE_PX, :TILE_PX]
    outline = (surface == OUTLINE).all(axis=2)
    expected = np.zeros_like(outline)
    for x1, y1, x2, y2 in 2 * boxes:
        expected[[y1, y2 - 1], x1:x2] = True
        expected[y1:y2, [x1, x2 - 1]] = True
    assert np.array_equal(outline, expected)


def caption_colours(sheet: np.ndarray) -> np.ndarray:
    """The pixels below the picture that are not paper."""
    below = sheet[TILE_PX:].reshape(-1, 3)
    return np.asarray(below[(below != 255).any(axis=1)]).astype(int)


def test_captions_are_black_and_those_of_wrong_ones_red() -> None:
    image, heat = noise(), np.ones((4, 4))
    right, wrong = caption_colours(one(image, heat, RIGHT)), caption_colours(one(image, heat, WRONG))
    assert len(right) > 100
    assert (right == right[:, :1]).all()
    assert len(wrong) > 100
    assert (wrong[:, 2] > wrong[:, 0]).all()
    assert WRONG.lines == ("2.png", "is dent", "named scratch 0.600")


def test_a_long_caption_is_cut_to_its_picture() -> None:
    long = Caption("folder/" * 40 + "1.png", "dent", "dent", 1.0)
    sheet = one(noise(), np.ones((4, 4)), long)
    assert sheet.shape[1] == TILE_PX + GAP_PX
    assert (sheet[:, TILE_PX + 2 :] == 255).all()


def test_pictures_of_all_sizes_and_colours_stand_in_rows() -> None:
    images = [noise(30, 40), noise(400, 300), np.repeat(noise(50, 50)[..., None], 3, axis=2), noise(1, 500), noise(20, 20)]
    sheet = heat_sheet(images, [np.ones((5, 5), np.float32)] * 5, [RIGHT] * 5, [NO_BOXES] * 5, columns=2)
    tile = one(images[0], np.ones((5, 5)))
    height, width = tile.shape[:2]
    assert sheet.dtype == np.uint8
    assert sheet.shape == (3 * height, 2 * width, 3)
    assert np.array_equal(sheet[:height, :width], tile)
    assert np.array_equal(sheet[height : 2 * height, :width], one(images[2], np.ones((5, 5))))
    assert (sheet[-height:, width:] == 255).all()
    assert heat_sheet(images[:1], [np.ones((5, 5), np.float32)], [RIGHT], [NO_BOXES], columns=9).shape == tile.shape


def test_what_cannot_be_drawn_is_refused() -> None:
    image, heat = noise(8, 8), np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="0 pictures"):
        heat_sheet([], [], [], [])
    with pytest.raises(ValueError, match="2 pictures, 1 maps"):
        heat_sheet([image] * 2, [heat], [RIGHT] * 2, [NO_BOXES] * 2)
    with pytest.raises(ValueError, match="not finite"):
        one(image, np.full((2, 2), np.nan))


def test_the_confusion_matrix_is_a_picture(tmp_path: Path) -> None:
    result = evaluate_classification(np.eye(3)[[0, 1, 1]], np.array([0, 1, 0]), ("dent", "scratch", "stain"))
    path = tmp_path / "confusion.png"
    draw_confusion(result, path, "on strip")
    drawn = cv2.imread(str(path))
    assert drawn is not None
    # Dark blue only where a whole class is: one cell of nine; the other cells with counts are paler.
    dark = ((drawn[..., 0] > 90) & (drawn[..., 2] < 30)).mean()
    assert 0.02 < dark < 0.15
    with pytest.raises(DataError, match="cannot be written"):
        draw_confusion(result, tmp_path / "nothing" / "confusion.png", "on strip")
