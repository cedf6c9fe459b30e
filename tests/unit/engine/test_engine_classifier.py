from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.base import Array, Engine
from inspector.engine.classifier import Classifier
from inspector.engine.desk import TicketedEngine
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine, null_manifest

CLASSES = ("good", "scratch", "dent")


class Scripted(TicketedEngine[Array]):
    """Answers with given outputs."""

    def __init__(self, recipe: ClassifierRecipe, **outputs: Array) -> None:
        super().__init__(null_manifest(recipe))
        self.outputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.manifest.outputs} | outputs
        self.freed = 0

    def _start(self, image: Array) -> Array:
        return image

    def _finish(self, job: Array) -> dict[str, Array]:
        return {name: value.copy() for name, value in self.outputs.items()}

    def _free(self) -> None:
        self.freed += 1


def _recipe(**heat_map: Any) -> ClassifierRecipe:
    """64x64 px in, maps of 8x8 cells out."""
    return ClassifierRecipe.model_validate(
        {
            "name": "tiny-bilinear",
            "classes": CLASSES,
            "good": "good",
            "input": {"height_px": 64, "width_px": 64},
            "network": {"architecture": "bilinear", "level": 3},
            "heat_map": {"threshold": 0.5} | heat_map,
        }
    )


def _hot(row: int, column: int, value: float = 2.5) -> Array:
    values = np.full((1, 8, 8), -1, np.float32)
    values[0, row, column] = value
    return values


def _scores(*values: float) -> Array:
    return np.array([values], np.float32)


def _label(value: int) -> Array:
    return np.array([value], np.int32)


def test_the_class_its_score_and_where_it_was_seen() -> None:
    engine = Scripted(_recipe(), scores=_scores(0.1, 0.7, 0.2), label=_label(1), contribution=_hot(1, 3))
    with Classifier(engine) as classifier:
        found = classifier.classify(np.zeros((128, 128), np.uint8))  # twice the canvas
    assert (found.name, found.label, found.classes) == ("scratch", 1, CLASSES)
    assert found.score == pytest.approx(0.7)
    assert found.heat.shape == (8, 8)
    assert found.heat[1, 3] == 2.5
    assert found.heat.sum() == 2.5, "what is negative counts as zero"
    assert found.heat.dtype == found.scores.dtype == np.float32
    box = found.heat_box_px
    assert (box.x1, box.y1, box.x2, box.y2) == (0, 0, 128, 128)
    spot = found.spots.regions[0].box_px
    assert (spot.x1, spot.y1, spot.x2, spot.y2) == (48, 16, 64, 32)
    assert found.spots.peak_px == pytest.approx((56, 24))
    assert found.preprocess_ms >= 0
    assert found.engine_ms >= 0
    assert engine.freed == 1


@pytest.mark.parametrize(
    ("image_px", "cells", "box", "spot"),
    [
        ((100, 200), (4, 8), (200, 100), (75, 25, 100, 50)),  # wide: half of the canvas is filling
        ((200, 100), (8, 4), (100, 200), (75, 25, 100, 50)),  # tall
        ((110, 200), (5, 8), (200, 125), (75, 25, 100, 50)),  # 35 rows of the canvas: the fifth row of cells reaches beyond the picture
    ],
)
def test_maps_of_letterboxed_pictures_end_with_the_cells_that_touch_them(
    image_px: tuple[int, int], cells: tuple[int, int], box: tuple[float, float], spot: tuple[float, ...]
) -> None:
    beside = _hot(1, 3)
    beside[0, 7, 7] = 99  # in the filling
    found = Classifier(Scripted(_recipe(), contribution=beside)).classify(np.zeros((*image_px, 3), np.uint8))
    assert found.heat.shape == cells
    assert found.heat.max() == 2.5
    assert (found.heat_box_px.x1, found.heat_box_px.y1) == (0, 0)
    assert (found.heat_box_px.x2, found.heat_box_px.y2) == pytest.approx(box, rel=0.01)  # 200 x 110 px are not quite 64 x 35 px
    one = found.spots.regions[0].box_px
    assert (one.x1, one.y1, one.x2, one.y2) == pytest.approx(spot, rel=0.01)
    assert len(found.spots.regions) == 1


def test_each_of_two_pictures_in_flight_keeps_its_own_geometry() -> None:
    classifier = Classifier(Scripted(_recipe(), contribution=_hot(1, 3)))
    first = classifier.submit(np.zeros((64, 64), np.uint8))
    second = classifier.submit(np.zeros((20, 320), np.uint8))
    assert classifier.collect(second).heat.shape == (1, 8)
    assert classifier.collect(first).heat_box_px.x2 == 64


def test_the_arrays_are_read_only() -> None:
    found = Classifier(Scripted(_recipe(), contribution=_hot(1, 3))).classify(np.zeros((64, 64), np.uint8))
    for array in (found.scores, found.heat):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_recipe_says_which_map_is_given_out_unless_the_caller_does() -> None:
    maps = {"contribution": _hot(1, 3), "grad_cam": _hot(5, 6)}
    image = np.zeros((64, 64), np.uint8)
    assert Classifier(Scripted(_recipe(), **maps)).classify(image).heat[1, 3] > 0
    assert Classifier(Scripted(_recipe(map="grad_cam"), **maps)).classify(image).heat[5, 6] > 0
    assert Classifier(Scripted(_recipe(map="grad_cam"), **maps), "contribution").classify(image).heat[1, 3] > 0


def test_the_recipe_says_what_is_too_small() -> None:
    found = Classifier(Scripted(_recipe(min_area_px=65), contribution=_hot(1, 3))).classify(np.zeros((64, 64), np.uint8))
    assert found.spots.regions == ()


@pytest.mark.parametrize(
    "outputs",
    [
        {"scores": _scores(0.1, np.nan, 0.2)},
        {"scores": _scores(0.1, np.inf, 0.2)},
        {"label": _label(3)},
        {"label": _label(-1)},
        {"contribution": _hot(1, 3, np.nan)},
        {"contribution": _hot(1, 3, -np.inf)},
    ],
)
def test_numbers_that_are_no_classification_are_an_error(outputs: dict[str, Array]) -> None:
    with pytest.raises(EngineError, match=r"no classification.*compile it again"):
        Classifier(Scripted(_recipe(), **outputs)).classify(np.zeros((10, 10), np.uint8))


def test_the_map_that_nobody_asked_for_is_not_looked_at() -> None:
    found = Classifier(Scripted(_recipe(), grad_cam=_hot(1, 3, np.nan))).classify(np.zeros((10, 10), np.uint8))
    assert found.spots.regions == ()


def test_outputs_of_another_shape_or_missing_are_an_error() -> None:
    with pytest.raises(EngineError, match=r"output 'contribution' is float32 \[1, 4, 4\]"):
        Classifier(Scripted(_recipe(), contribution=np.zeros((1, 4, 4), np.float32))).classify(np.zeros((10, 10), np.uint8))
    engine = Scripted(_recipe())
    del engine.outputs["label"]
    with pytest.raises(EngineError, match="no output 'label'"):
        Classifier(engine).classify(np.zeros((10, 10), np.uint8))


def test_what_is_no_picture_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match=r"tiny-bilinear was given .*must be uint8"):
        Classifier(NullEngine(_recipe())).submit(np.zeros((10, 10), np.float32))


def test_a_detectors_engine_is_no_classifier_and_the_reverse(recipe: DetectorRecipe) -> None:
    detector, classifier = NullEngine(recipe), NullEngine(_recipe())
    with pytest.raises(EngineError, match=r"'tiny' is no classifier: name one .* architecture = \"bilinear\""):
        Classifier(detector)
    with pytest.raises(EngineError, match=r"'tiny-bilinear' is no detector: name one .* architecture = \"multiscale\""):
        Detector(classifier)


def test_a_classifier_tells_what_results_carry() -> None:
    engine: Engine = NullEngine(_recipe())
    classifier = Classifier(engine)
    assert (classifier.name, classifier.classes, classifier.good, classifier.in_flight) == ("tiny-bilinear", CLASSES, "good", 2)
    assert classifier.hash == engine.hash
    assert classifier.budget_ms == engine.budget_ms
    assert classifier.warm_up(2) >= 0
    ungood = _recipe().model_copy(update={"good": None})
    assert Classifier(NullEngine(ungood)).good is None
    classifier.close()
    with pytest.raises(EngineError, match="closed"):
        classifier.classify(np.zeros((64, 64), np.uint8))
