from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from inspector.compile.ensure import ensure_built
from inspector.compile.export import weights_sha256
from inspector.compile.network import read_network
from inspector.compile.reference import SUFFIX, load_reference
from inspector.compile.torch_reference import build_model
from inspector.config.recipe import ClassifierRecipe, read_recipe
from inspector.engine.classifier import Classifier
from inspector.engine.opening import open_engine
from inspector.surfaces.defects import DEFECT_KINDS
from inspector.surfaces.scene import SurfaceGenerator
from inspector.training.checkpoint import load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINES = Path(__file__).resolve().parents[3] / "engines"
RECIPE = ENGINES / "demo-classifier.toml"
ONNX = ENGINES / "demo" / "demo-classifier.onnx"
WEIGHTS = ENGINES / "demo" / "demo-classifier.weights.safetensors"
SEED = 431
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifier]:
    with open_engine(ensure_built(ONNX, tmp_path_factory.mktemp("engine"))) as engine:
        yield Classifier(engine)


def test_clean_surfaces_are_called_good(classifier: Classifier) -> None:
    generator = SurfaceGenerator(640, 480, SEED, 0.0)
    for index in range(20):
        found = classifier.classify(generator.render(index).image)
        assert found.name == classifier.good
        assert found.scores[1:].max() < THRESHOLD


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_planted_defects_are_named_and_pointed_at(classifier: Classifier, kind: str) -> None:
    generator = SurfaceGenerator(640, 480, SEED, 1.0, max_defects=1, kinds=(kind,))
    named = pointed = 0
    for index in range(5):
        surface = generator.render(index)
        found = classifier.classify(surface.image)
        assert found.scores[1:].max() >= THRESHOLD
        assert found.spots.peak_px is not None
        (x, y), (x1, y1, x2, y2) = found.spots.peak_px, surface.defects[0].box_px
        named += found.name == kind
        pointed += x1 <= x <= x2 and y1 <= y <= y2
    assert named >= 4
    assert pointed >= 4


def test_what_lies_beside_each_other_is_one_network() -> None:
    recipe = read_recipe(RECIPE)
    assert isinstance(recipe, ClassifierRecipe)
    assert recipe.classes == (recipe.good, *DEFECT_KINDS)
    assert read_network(ONNX).recipe == recipe
    assert weights_sha256(build_model(recipe, WEIGHTS)) == load_reference(ONNX.with_name(recipe.name + SUFFIX)).weights_sha256


def test_the_last_layer_is_centred_for_the_maps() -> None:
    weights, _ = load_weights(WEIGHTS)
    for name in ("classes.weight", "classes.bias"):
        torch.testing.assert_close(weights[name].mean(0), torch.zeros_like(weights[name][0]), atol=1e-6, rtol=0)
