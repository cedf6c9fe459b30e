from __future__ import annotations

import numpy as np
import pytest

from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.base import Array, Ticket
from inspector.engine.desk import TicketedEngine
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine, null_manifest

SLOTS = 5


class Scripted(TicketedEngine[Array]):
    """Answers with given outputs."""

    def __init__(self, recipe: DetectorRecipe, **outputs: Array) -> None:
        super().__init__(null_manifest(recipe))
        self.outputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.manifest.outputs} | {"converged": np.ones(1, np.int32)} | outputs
        self.seen: list[Array] = []
        self.freed = 0

    def _start(self, image: Array) -> Array:
        self.seen.append(image)
        return image

    def _finish(self, job: Array) -> dict[str, Array]:
        return {name: value.copy() for name, value in self.outputs.items()}

    def _free(self) -> None:
        self.freed += 1


def _boxes(*rows: tuple[float, float, float, float]) -> Array:
    boxes = np.zeros((1, SLOTS, 4), np.float32)
    boxes[0, : len(rows)] = rows
    return boxes


def _row(dtype: type, *values: float) -> Array:
    row = np.zeros((1, SLOTS), dtype)
    row[0, : len(values)] = values
    return row


def test_detections_are_in_the_images_own_pixels_and_in_score_order(recipe: DetectorRecipe) -> None:
    engine = Scripted(recipe, boxes=_boxes((0, 0, 32, 16), (8, 8, 64, 32)), scores=_row(np.float32, 0.2, 0.9), classes=_row(np.int32, 1, 0))
    with Detector(engine) as detector:
        found = detector.detect(np.zeros((64, 128), np.uint8))  # on the 64x64 canvas at half its size
    assert found.names == ("dark", "bright")
    assert len(found) == 2
    np.testing.assert_allclose(found.scores, [0.9, 0.2])
    np.testing.assert_allclose(found.boxes_px, [[16, 16, 128, 64], [0, 0, 64, 32]])
    assert found.preprocess_ms >= 0
    assert found.engine_ms >= 0
    with pytest.raises(ValueError, match="read-only"):
        found.scores[0] = 0
    assert engine.freed == 1


def test_an_image_without_a_fixed_point_never_looks_like_a_result(recipe: DetectorRecipe) -> None:
    detector = Detector(Scripted(recipe, converged=np.zeros(1, np.int32)))
    with pytest.raises(EngineError, match=r"did not converge.*nms_steps"):
        detector.detect(np.zeros((10, 10), np.uint8))


@pytest.mark.parametrize(
    "outputs",
    [
        {"scores": _row(np.float32, 0.5), "boxes": _boxes((0, 0, np.nan, 1))},
        {"scores": _row(np.float32, np.nan)},
        {"scores": _row(np.float32, 0.5), "classes": _row(np.int32, 2)},
        {"scores": _row(np.float32, 0.5), "classes": _row(np.int32, -1)},
    ],
)
def test_numbers_that_are_no_detections_are_an_error(recipe: DetectorRecipe, outputs: dict[str, Array]) -> None:
    detector = Detector(Scripted(recipe, **outputs))
    with pytest.raises(EngineError, match="no detections"):
        detector.detect(np.zeros((10, 10), np.uint8))


def test_outputs_of_another_shape_are_an_error(recipe: DetectorRecipe) -> None:
    detector = Detector(Scripted(recipe, scores=np.zeros((1, 3), np.float32)))
    with pytest.raises(EngineError, match=r"output 'scores' is float32 \[1, 3\]"):
        detector.detect(np.zeros((10, 10), np.uint8))


def test_a_missing_output_is_an_error(recipe: DetectorRecipe) -> None:
    engine = Scripted(recipe)
    del engine.outputs["boxes"]
    with pytest.raises(EngineError, match="no output 'boxes'"):
        Detector(engine).detect(np.zeros((10, 10), np.uint8))


def test_two_images_in_flight_keep_their_own_geometry(recipe: DetectorRecipe) -> None:
    engine = Scripted(recipe, boxes=_boxes((0, 0, 32, 32)), scores=_row(np.float32, 1.0))
    detector = Detector(engine)
    first = detector.submit(np.zeros((64, 64), np.uint8))
    second = detector.submit(np.zeros((128, 128), np.uint8))
    assert detector.collect(second).boxes_px[0].tolist() == [0, 0, 64, 64]
    assert detector.collect(first).boxes_px[0].tolist() == [0, 0, 32, 32]


def test_a_ticket_is_collected_once(recipe: DetectorRecipe) -> None:
    detector = Detector(NullEngine(recipe))
    ticket = detector.submit(np.zeros((10, 10), np.uint8))
    detector.collect(ticket)
    with pytest.raises(EngineError, match="not in flight"):
        detector.collect(ticket)
    with pytest.raises(EngineError, match="not in flight"):
        detector.collect(Ticket(77, 0))


def test_what_is_no_picture_is_refused(recipe: DetectorRecipe) -> None:
    with pytest.raises(EngineError, match="must be uint8"):
        Detector(NullEngine(recipe)).submit(np.zeros((10, 10), np.float32))  # type: ignore[arg-type]


def test_a_detector_tells_what_results_carry(recipe: DetectorRecipe) -> None:
    engine = NullEngine(recipe)
    detector = Detector(engine)
    assert (detector.name, detector.classes, detector.budget_ms, detector.in_flight) == ("tiny", ("dark", "bright"), 500.0, 2)
    assert detector.hash == engine.hash
    assert len(detector.hash) == 64
    assert detector.warm_up(2) >= 0
