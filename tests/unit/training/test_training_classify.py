"""Classes and heat maps of whole pictures, from a trained network and from its engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from inspector.compile.build import build_engine
from inspector.compile.export import export_onnx
from inspector.compile.torch_reference import build_model, torch_reference
from inspector.config.recipe import ClassifierRecipe
from inspector.engine.opening import open_engine
from inspector.engine.preprocess import letterbox
from inspector.models.bilinear import BilinearClassifier
from inspector.training.classify import MAPS, Classified, classify_all, engine_classifier, pointed, torch_classifier
from inspector.training.labelled import read_labelled
from inspector.training.localisation import evaluate_localisation


def model_of(recipe: ClassifierRecipe) -> BilinearClassifier:
    model = build_model(recipe, None, seed=2)
    assert isinstance(model, BilinearClassifier)
    torch.nn.init.normal_(model.classes.weight, std=30.0)
    return model


def pictures(*sizes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, size, np.uint8) for size in sizes]


def test_a_picture_gets_the_scores_and_maps_of_its_canvas(make_classifier: Any) -> None:
    recipe = make_classifier()
    model = model_of(recipe)
    images = pictures((64, 64), (50, 200), (300, 100, 3))
    found = torch_classifier(model, "fp32")(images)
    for image, one in zip(images, found, strict=True):
        canvas, geometry = letterbox(image, 64, 64, 1)
        with torch.inference_mode():
            wanted = model.trace(torch.from_numpy(canvas[None]))
        assert one.geometry == geometry
        assert one.label == int(wanted.label[0])
        np.testing.assert_allclose(one.scores, wanted.scores[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(one.maps["grad_cam"], wanted.grad_cam[0].numpy(), atol=1e-5 * float(wanted.grad_cam.max()))
        np.testing.assert_allclose(one.maps["contribution"], wanted.contribution[0].numpy(), atol=1e-5 * float(wanted.contribution.abs().max()))
        assert one.maps["grad_cam"].shape == (8, 8)


def test_bf16_is_of_the_features_alone(make_classifier: Any) -> None:
    model = model_of(make_classifier())
    images = pictures((64, 64), (64, 64))
    exact, low = torch_classifier(model, "fp32")(images), torch_classifier(model, "bf16")(images)
    for one, other in zip(exact, low, strict=True):
        assert other.scores.dtype == np.float32
        assert 0 < np.abs(one.scores - other.scores).max() < 0.05
        assert float(other.scores.sum()) == pytest.approx(1, abs=1e-5)


def test_pictures_are_taken_in_order_and_in_batches() -> None:
    batches: list[int] = []

    def classify(images: Sequence[np.ndarray]) -> list[Classified]:
        batches.append(len(images))
        return [Classified(image.reshape(-1)[:2].astype(np.float32), {}, letterbox(image, 8, 8, 1)[1]) for image in images]

    images = [np.full((4, 4), number, np.uint8) for number in range(7)]
    found = list(classify_all(classify, iter(images), batch=3))
    assert batches == [3, 3, 1]
    assert [one.scores[0] for one in found] == list(range(7))
    assert list(classify_all(classify, iter(()))) == []


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"normalise": "sqrt_l2", "border_cells": 1, "descriptor_scale": 10.0},
        {"backbone": "efficientnet_lite0", "trunks": "shared", "level": 4},
    ],
    ids=str,
)
def test_torch_and_engine_agree(network: dict[str, Any], make_classifier: Any, tmp_path: Path) -> None:
    recipe = make_classifier(network).model_copy(update={"compile": make_classifier().compile.model_copy(update={"threads": 1})})
    model = model_of(recipe)
    canvases = np.stack([letterbox(image, 64, 64, 1)[0] for image in pictures((64, 64), (64, 64))])
    export_onnx(model, recipe, tmp_path / "net.onnx")
    path = build_engine(tmp_path / "net.onnx", torch_reference(model, recipe, canvases), tmp_path)
    images = pictures((64, 64), (40, 90), (120, 70, 3), (64, 33), (9, 64))
    wanted = list(classify_all(torch_classifier(model, "fp32"), iter(images), batch=2))
    with open_engine(path) as engine:
        found = list(classify_all(engine_classifier(engine), iter(images)))
    assert len(found) == len(images)
    for one, other in zip(wanted, found, strict=True):
        assert (one.label, one.geometry) == (other.label, other.geometry)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-3)
        for kind in MAPS:
            assert other.maps[kind].dtype == np.float32
            np.testing.assert_allclose(other.maps[kind], one.maps[kind], atol=1e-3 * float(np.abs(one.maps[kind]).max()))
    assert any((one.maps["contribution"] < 0).any() for one in found)  # signed, as the network says


def planted(recipe: ClassifierRecipe, cells: Sequence[tuple[int, int]], image_px: tuple[int, int]) -> Classified:
    """A classifier's answer whose maps are hot in cells of the 8 x 8 grid: Grad-CAM there, the contribution everywhere else."""
    heat = np.full((8, 8), -1.0, np.float32)
    for cell in cells:
        heat[cell] = 2.0
    _, geometry = letterbox(np.zeros(image_px, np.uint8), 64, 64, 1)
    return Classified(np.eye(3, dtype=np.float32)[1], {"grad_cam": heat, "contribution": -heat}, geometry)


def test_where_a_map_points_is_measured_in_the_picture(make_classifier: Any, tmp_path: Path) -> None:
    recipe = make_classifier()
    # A picture of 128 x 64 px fills the left half of the canvas: a cell is 16 px of the picture.
    cv2.imwrite(str(tmp_path / "tall.png"), np.zeros((128, 64), np.uint8))
    cv2.imwrite(str(tmp_path / "plain.png"), np.zeros((64, 64), np.uint8))
    boxes = [([16, 32, 32, 16], 1, 1), ([0, 100, 20, 20], 2, 1)]
    content = {
        "images": [
            {"id": 1, "file_name": "tall.png", "width": 64, "height": 128, "image_class": "light"},
            {"id": 2, "file_name": "plain.png", "width": 64, "height": 64, "image_class": "plain"},
        ],
        "annotations": [{"id": n, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": 0} for n, (box, kind, image) in enumerate(boxes)],
        "categories": [{"id": 1, "name": "light"}, {"id": 2, "name": "dark"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    dataset = read_labelled(tmp_path / "labels.json", recipe.classes, every_class=False)
    found = [planted(recipe, [(2, 1), (2, 2)], (128, 64)), planted(recipe, [], (64, 64))]
    points = pointed(dataset, found, "grad_cam", recipe.input, recipe.heat_map)
    first, second = points
    assert (first.height_px, first.width_px, first.kind) == (128, 64, 1)
    assert first.true_boxes.tolist() == [[16, 32, 48, 48]]  # the box of the picture's own class
    assert first.peak == pytest.approx((24, 40))
    assert first.box is not None
    assert list(first.box) == pytest.approx([16, 32, 48, 48], abs=8)  # the map falls linearly between cells
    assert (second.true_boxes.shape, second.box, second.peak) == ((0, 4), None, None)
    result = evaluate_localisation(points, recipe.classes)
    assert (result.left_out, result.mean.pictures, result.mean.box_hits, result.mean.peak_hits) == (1, 1, 1.0, 1.0)
    wrong = evaluate_localisation(pointed(dataset, found, "contribution", recipe.input, recipe.heat_map), recipe.classes)
    assert (wrong.mean.box_hits, wrong.mean.peak_hits) == (0.0, 0.0)


def test_a_map_without_a_region_that_is_large_enough_has_no_box(make_classifier: Any, marks: Path) -> None:
    recipe = make_classifier()
    dataset = read_labelled(marks, recipe.classes).every(12)
    rule = recipe.heat_map.model_copy(update={"min_area_px": 64.0 * 64.0})
    (one,) = pointed(dataset, [planted(recipe, [(4, 4)], (64, 64))], "grad_cam", recipe.input, rule)
    assert one.box is None
    assert one.peak == pytest.approx((36, 36))


def test_one_answer_is_needed_for_each_picture(make_classifier: Any, marks: Path) -> None:
    recipe = make_classifier()
    dataset = read_labelled(marks, recipe.classes)
    one = planted(recipe, [], (64, 64))
    with pytest.raises(ValueError, match="zip"):
        pointed(dataset, [replace(one)] * 3, "grad_cam", recipe.input, recipe.heat_map)
