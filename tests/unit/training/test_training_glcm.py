from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.training.classification import evaluate_classification
from inspector.training.glcm import FEATURES, PROPERTIES, GlcmBaseline, texture_features


def textures(count: int, seed: int, size: int = 24) -> tuple[list[np.ndarray], np.ndarray]:
    """Grey pictures of three textures with the same grey levels on average: noise (0), stripes along x (1) and along y (2)."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = []
    for label in labels:
        wave = 127 + 60 * np.sin(np.arange(size) * random.uniform(1.0, 1.4) + random.uniform(0, 6))
        noise = random.normal(0, 42 if label == 0 else 10, (size, size))
        ground = {0: np.full((size, size), 127.0), 1: np.tile(wave[:, None], (1, size)), 2: np.tile(wave, (size, 1))}[int(label)]
        images.append(np.clip(ground + noise, 0, 255).astype(np.uint8))
    return images, labels


def test_features_by_hand() -> None:
    # Columns 0 1 0 1 ...: an odd way to the side, straight or diagonally, every pair differs by one level of two, an even way or down none does.
    checks = np.tile(np.array([0, 255], np.uint8), (8, 4))
    (row,) = texture_features([checks], levels=2).reshape(1, len(PROPERTIES), 3, 4)
    contrast, homogeneity, correlation, squares = (row[PROPERTIES.index(name)] for name in ("contrast", "homogeneity", "correlation", "ASM"))
    assert contrast[0].tolist() == [1, 1, 0, 1]  # along, diagonally, down, diagonally
    assert contrast[1].tolist() == contrast[2].tolist() == [0, 1, 0, 1]  # 2 px diagonally are 1 to the side and 1 down, 4 px are 3 and 3
    assert homogeneity[0].tolist() == [0.5, 0.5, 1, 0.5]
    assert correlation[0] == pytest.approx([-1, -1, 1, -1])
    assert squares[0].tolist() == [0.5] * 4


def test_every_grey_level_falls_into_one_of_the_reduced_ones() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for levels in (2, 32, 100, 256):
        reduced = ramp.astype(int) * levels // 256
        assert (reduced.min(), reduced.max()) == (0, levels - 1)
        assert texture_features([ramp], levels)[0, 0] == pytest.approx((np.diff(reduced, axis=1) ** 2).mean())


def test_features_of_any_picture_are_finite() -> None:
    odd = [np.zeros((1, 1), np.uint8), np.full((9, 9), 255, np.uint8), np.zeros((3, 40), np.uint8)]
    found = texture_features(odd)
    assert found.shape == (3, FEATURES)
    assert np.isfinite(found).all()
    assert texture_features([]).shape == (0, FEATURES)


def test_the_size_of_a_picture_and_the_direction_of_looking_do_not_count() -> None:
    stripes = np.tile(np.array([0, 100, 200, 250], np.uint8), (40, 10))
    small, large, turned = texture_features([stripes, np.tile(stripes, (10, 10)), stripes[::-1, ::-1]])
    assert large == pytest.approx(small, rel=0.05, abs=0.05)
    assert turned == pytest.approx(small)


def test_colour_is_looked_at_as_grey() -> None:
    grey = textures(1, 0)[0][0]
    assert np.array_equal(texture_features([np.repeat(grey[..., None], 3, axis=2)]), texture_features([grey]))


def test_it_tells_textures_apart_that_it_has_not_seen() -> None:
    images, labels = textures(60, 1)
    unseen, truth = textures(60, 2)
    baseline = GlcmBaseline.fit(iter(images), labels, 0, classes=3)
    scores = baseline.scores(iter(unseen))
    assert scores.shape == (60, 3)
    assert scores.sum(axis=1) == pytest.approx(1)
    standardised = baseline.network[0].transform(texture_features(images))
    assert standardised.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert standardised.std(axis=0) == pytest.approx(1)
    accuracy = evaluate_classification(scores, truth, ("noise", "along x", "along y")).accuracy
    assert accuracy is not None
    assert accuracy >= 0.95


def test_the_seed_alone_decides() -> None:
    images, labels = textures(18, 3)
    first, again, other = (GlcmBaseline.fit(images, labels, seed, classes=3).scores(images) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_class_without_pictures_has_score_0() -> None:
    images, labels = textures(18, 4)
    present = labels != 1
    kept = [image for image, keep in zip(images, present, strict=True) if keep]
    scores = GlcmBaseline.fit(kept, labels[present], 0, classes=5).scores(images)
    assert scores.shape == (18, 5)
    assert not scores[:, [1, 3, 4]].any()
    assert scores.sum(axis=1) == pytest.approx(1)
    assert (scores[present].argmax(axis=1) == labels[present]).mean() >= 0.9
    assert GlcmBaseline.fit(kept, labels[present], 0, classes=5).scores([]).shape == (0, 5)


def test_pictures_that_cannot_be_told_apart_end_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspector.training.glcm.MAX_EPOCHS", 3)
    images, labels = textures(9, 5)
    assert GlcmBaseline.fit(images, labels, 0, classes=3).network[-1].n_iter_ == 3


@pytest.mark.parametrize(
    ("count", "labels", "classes", "levels", "told"),
    [
        (2, [0, 1, 0], 2, 32, "2 pictures for 3 labels"),
        (0, [], 2, 32, "at least two classes"),
        (3, [1, 1, 1], 2, 32, "at least two classes"),
        (3, [0, 1, 2], 2, 32, "from 0 to 2"),
        (3, [0, 1, -1], 2, 32, "from -1"),
        (3, [0, 1, 1], 2, 1, "1 grey levels"),
        (3, [0, 1, 1], 2, 257, "257 grey levels"),
    ],
)
def test_what_cannot_be_trained_is_refused(count: int, labels: list[int], classes: int, levels: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        GlcmBaseline.fit(textures(count, 6)[0], np.array(labels), 0, classes=classes, levels=levels)


@pytest.mark.data
def test_on_real_strip(shared_data: Path) -> None:
    folder = shared_data / "neu-det"
    names = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")

    def read(split: str) -> tuple[list[np.ndarray], np.ndarray]:
        entries = json.loads((folder / f"{split}.json").read_text())["images"][::6]
        pictures = [cv2.imread(str(folder / "images" / entry["file_name"]), cv2.IMREAD_GRAYSCALE) for entry in entries]
        return pictures, np.array([names.index(entry["image_class"]) for entry in entries])

    images, labels = read("train")
    unseen, truth = read("val")
    result = evaluate_classification(GlcmBaseline.fit(images, labels, 0, classes=6).scores(unseen), truth, names)
    assert result.samples == 110
    assert result.accuracy is not None
    assert result.accuracy >= 0.88
