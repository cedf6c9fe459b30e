from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspector.config.detector import TrainingRecipe
from inspector.config.network import VariantRecipe
from inspector.training.augment import areas, augment, cropped, flipped, turned, with_contrast
from inspector.training.batches import BatchSource
from inspector.training.datasets import read_dataset


def marked(box: tuple[int, int, int, int], height: int = 20, width: int = 30) -> np.ndarray:
    image = np.zeros((height, width), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def mark_of(image: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(image)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("vertical", [False, True])
def test_a_flip_moves_the_box_with_the_defect(horizontal: bool, vertical: bool) -> None:
    box = (2, 3, 9, 8)
    image, boxes = flipped(marked(box), np.array([box], np.float32), horizontal=horizontal, vertical=vertical)
    assert boxes[0].tolist() == mark_of(image)


@given(st.integers(0, 1000))
def test_augmented_boxes_stay_on_their_defect(seed: int) -> None:
    training = TrainingRecipe(smallest_crop=0.5)
    box = (8, 6, 20, 15)
    image, boxes = augment(marked(box), np.array([box], np.float32), training, np.random.default_rng(seed))
    if areas(boxes)[0] > 0:
        assert boxes[0].tolist() == mark_of(image)
    else:
        assert not image.any()


def test_contrast_turns_about_the_mean_and_is_cut_to_bytes() -> None:
    image = np.array([[50, 100, 150]], np.uint8)
    assert with_contrast(image, 2.0, 0.0).tolist() == [[0, 100, 200]]
    assert with_contrast(image, 1.0, 120.0).tolist() == [[170, 220, 255]]
    assert with_contrast(image, 1.0, -60.0).tolist() == [[0, 40, 90]]


def test_a_crop_cuts_boxes_at_its_border() -> None:
    image, boxes = cropped(np.zeros((20, 30), np.uint8), np.array([[0, 0, 10, 10], [20, 15, 30, 20]], np.float32), (5, 5, 15, 20))
    assert image.shape == (15, 10)
    assert boxes.tolist() == [[0, 0, 5, 5], [10, 10, 10, 15]]


def test_without_augmentation_nothing_changes() -> None:
    image, boxes = marked((1, 2, 3, 4)), np.array([[1, 2, 3, 4]], np.float32)
    same_image, same_boxes = augment(image, boxes, TrainingRecipe(flips=()), np.random.default_rng(0))
    np.testing.assert_array_equal(same_image, image)
    np.testing.assert_array_equal(same_boxes, boxes)


@pytest.mark.parametrize("quarters", range(4))
def test_boxes_follow_quarter_turns(quarters: int) -> None:
    image, box = marked((3, 5, 9, 6)), np.array([[3, 5, 9, 6]], np.float32)
    found, boxes = turned(image, box, quarters)
    rows, columns = np.nonzero(found)
    np.testing.assert_array_equal(boxes[0], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    np.testing.assert_array_equal(found, np.rot90(image, quarters))


def test_the_mean_level_and_the_gain_are_drawn_from_their_ranges_and_some_pictures_are_left() -> None:
    image = np.random.default_rng(0).integers(110, 131, (20, 30), dtype=np.uint8)
    training = VariantRecipe(flips=(), mean_levels=(80, 160), gains=(0.5, 2.0), unchanged_share=0.25)
    random = np.random.default_rng(1)
    found = [augment(image, np.empty((0, 4), np.float32), training, random)[0] for _ in range(400)]
    changed = [one for one in found if not np.array_equal(one, image)]
    assert 0.65 < len(changed) / 400 < 0.85
    means = np.array([one.mean() for one in changed])
    gains = np.array([one.std() for one in changed]) / image.std()
    assert 79 < means.min() < 90
    assert 150 < means.max() < 161
    assert 0.45 < gains.min() < 0.6
    assert 1.7 < gains.max() < 2.1
    assert abs(np.median(gains) - 1) < 0.15


def test_ranges_rise() -> None:
    for wrong in ({"mean_levels": (9, 8)}, {"gains": (2, 1)}, {"gains": (0, 1)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VariantRecipe.model_validate(wrong)


def test_a_batch_depends_on_seed_and_step_alone(rectangles: Path, make_recipe: Any) -> None:
    recipe = make_recipe(batch=3, flips=["horizontal"], contrast=0.3, smallest_crop=0.7)
    dataset = read_dataset(rectangles, recipe.classes)
    first, second = (BatchSource(dataset, recipe.input, recipe.training) for _ in range(2))
    second.batch(0)
    assert torch.equal(first.batch(5).images, second.batch(5).images)
    other = BatchSource(dataset, recipe.input, make_recipe(batch=3, contrast=0.3, seed=1).training)
    assert not torch.equal(first.batch(5).images, other.batch(5).images)


def test_each_epoch_sees_every_picture_once_in_a_new_order(rectangles: Path, make_recipe: Any) -> None:
    recipe = make_recipe(batch=3)
    source = BatchSource(read_dataset(rectangles, recipe.classes), recipe.input, recipe.training)
    seen = [index for step in range(8) for index in source.indices(step)]  # six epochs of four pictures
    epochs = [seen[start : start + 4] for start in range(0, 24, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert source.steps_per_epoch == 4 / 3


def test_targets_lie_on_the_scaled_canvas(rectangles: Path, make_recipe: Any) -> None:
    recipe = make_recipe(scales=[2.0])
    dataset = read_dataset(rectangles, recipe.classes)
    batch = BatchSource(dataset, recipe.input, recipe.training).batch(0)
    assert batch.images.shape == (4, 1, 128, 128)
    for image, targets in zip(batch.images, batch.targets, strict=True):
        marks = image[0] > 200 if targets.classes[0] == 1 else image[0] < 60
        rows, columns = torch.nonzero(marks, as_tuple=True)
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        torch.testing.assert_close(targets.boxes[0], found.float(), atol=1.5, rtol=0)


def test_canvas_sizes_are_whole_strides_of_the_backbone(rectangles: Path, make_recipe: Any) -> None:
    recipe = make_recipe()
    source = BatchSource(read_dataset(rectangles, recipe.classes), recipe.input, recipe.training)
    assert source.canvas_size(1.0) == (64, 64)
    assert source.canvas_size(1.4) == (96, 96)
    assert source.canvas_size(0.01) == (32, 32)


def test_a_defect_mostly_cropped_away_is_ignored(rectangles: Path, make_recipe: Any) -> None:
    recipe = make_recipe(smallest_crop=0.3, batch=4)
    source = BatchSource(read_dataset(rectangles, recipe.classes), recipe.input, recipe.training)
    batches = [source.batch(step) for step in range(20)]
    true = sum(len(targets.boxes) for batch in batches for targets in batch.targets)
    ignored = sum(len(targets.ignored) for batch in batches for targets in batch.targets)
    assert true > 0
    assert ignored > 0
    assert true + ignored < 80  # some lie wholly outside
