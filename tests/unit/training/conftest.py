from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inspector.config.recipe import ClassifierRecipe, DetectorRecipe

SIZE_PX = 64


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Sums in one order: what is computed twice is equal to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def fonts() -> None:
    """The drawing library keeps its fonts' files open from its first text on; that is no leak of the test that draws first."""
    figure = Figure()
    figure.text(0, 0, "x")
    FigureCanvasAgg(figure).draw()


def write_rectangles(folder: Path, count: int = 4, size: int = SIZE_PX) -> Path:
    """Grey noise with one bright (class 'light') or dark ('dark') rectangle per picture, and its COCO json."""
    random = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        picture = random.integers(110, 146, (size, size), np.uint8)
        width, height = (int(random.integers(size // 4, size // 2)) for _ in range(2))
        x, y = int(random.integers(size - width)), int(random.integers(size - height))
        picture[y : y + height, x : x + width] = 255 if number % 2 else 0
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": size, "height": size})
        annotations.append({"id": number, "image_id": number, "category_id": 2 - number % 2, "bbox": [x, y, width, height], "iscrowd": 0})
    path = folder / "labels.json"
    categories = [{"id": 1, "name": "light"}, {"id": 2, "name": "dark"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def rectangles(tmp_path: Path) -> Path:
    return write_rectangles(tmp_path / "rectangles")


def tiny_recipe(**training: Any) -> DetectorRecipe:
    """A network that trains in seconds."""
    values = {
        "name": "tiny",
        "classes": ["light", "dark"],
        "input": {"height_px": SIZE_PX, "width_px": SIZE_PX, "mean": [127, 127, 127], "std": [64, 64, 64]},
        "network": {
            "backbone": "resnet18",
            "backbone_width": 0.125,
            "frozen_stages": 0,
            "levels": [3, 4],
            "channels": 16,
            "anchor_sizes_px": [20, 36],
            "pooling_levels": [3, 4],
            "canonical_size_px": 28,
            "canonical_level": 3,
            "hidden": 32,
            "pre_nms": 50,
            "proposals": 20,
            "detections": 10,
        },
        "training": {
            "learning_rate": 4e-3,
            "weight_decay": 0.0,
            "batch": 4,
            "epochs": 150,
            "warm_up_steps": 10,
            "ema_decay": 0.9,
            "flips": [],
            "train_pre_nms": 50,
            "train_proposals": 20,
            "rpn_samples": 64,
            "roi_samples": 16,
            "pretrained": "none",
            **training,
        },
    }
    return DetectorRecipe.model_validate(values)


@pytest.fixture
def recipe() -> DetectorRecipe:
    return tiny_recipe()


@pytest.fixture
def make_recipe() -> Any:
    return tiny_recipe


@pytest.fixture
def make_rectangles() -> Any:
    return write_rectangles


KINDS = ("plain", "light", "dark")


def write_marks(folder: Path, count: int = 4, size: int = SIZE_PX) -> Path:
    """Grey noise, ``count`` pictures of each class: 'plain', or with a bright ('light') or dark ('dark') square; as a COCO json with image_class."""
    random = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(3 * count):
        kind = KINDS[number % 3]
        picture = random.integers(110, 146, (size, size), np.uint8)
        x, y = (int(random.integers(size * 5 // 8)) for _ in range(2))
        if kind != "plain":
            picture[y : y + size * 3 // 8, x : x + size * 3 // 8] = 255 if kind == "light" else 0
            box = [x, y, size * 3 // 8, size * 3 // 8]
            annotations.append({"id": number, "image_id": number, "category_id": KINDS.index(kind), "bbox": box, "iscrowd": 0})
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": size, "height": size, "image_class": kind})
    path = folder / "marks.json"
    categories = [{"id": index, "name": name} for index, name in enumerate(KINDS) if index]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return write_marks(tmp_path / "marks")


@pytest.fixture
def make_marks() -> Any:
    return write_marks


def tiny_classifier(network: dict[str, Any] | None = None, **training: Any) -> ClassifierRecipe:
    """A classifier that trains in seconds."""
    values = {
        "name": "tiny-classes",
        "classes": KINDS,
        "good": "plain",
        "input": {"height_px": SIZE_PX, "width_px": SIZE_PX, "stride_px": 8, "mean": [127, 127, 127], "std": [64, 64, 64]},
        "network": {
            "architecture": "bilinear",
            "backbone": "vgg16",
            "backbone_width": 0.125,
            "level": 3,
            "streams": 1,
            "channels": 8,
            "positions": "mean",
            **(network or {}),
        },
        "heat_map": {"threshold": 0.5},
        "training": {
            "new_layers": {"epochs": 20, "learning_rate": 1e-2, "batch": 6},
            "all_layers": {"epochs": 20, "learning_rate": 3e-4, "batch": 6},
            "flips": [],
            "pretrained": "none",
            **training,
        },
    }
    return ClassifierRecipe.model_validate(values)


@pytest.fixture
def make_classifier() -> Any:
    return tiny_classifier
