from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.compile.parity import Found, check_parity, compare_detections, compare_tensors, iou_matrix, match, used
from inspector.compile.reference import Reference
from inspector.config.detector import CompileRecipe
from inspector.contract.errors import EngineError

LIMITS = CompileRecipe()
BOXES = np.array([[[0, 0, 100, 100], [200, 0, 300, 50], [0, 200, 40, 240]]], np.float32)
SCORES = np.array([[0.9, 0.6, 0.35]], np.float32)
CLASSES = np.array([[0, 1, 0]], np.int32)


def reference(scores: Any = SCORES, **inner: Any) -> Reference:
    canvases = np.zeros((len(scores), 1, 4, 4), np.uint8)
    return Reference("torch 0", "", canvases, {"boxes": BOXES, "scores": np.asarray(scores, np.float32), "classes": CLASSES}, inner)


def outputs(boxes: Any = BOXES, scores: Any = SCORES, classes: Any = CLASSES) -> list[dict[str, Any]]:
    return [{"boxes": np.asarray(boxes, np.float32), "scores": np.asarray(scores, np.float32), "classes": np.asarray(classes, np.int32)}]


def test_the_same_detections_in_another_order_are_parity() -> None:
    order = [2, 0, 1]
    parity = compare_detections(reference(), outputs(BOXES[:, order], SCORES[:, order], CLASSES[:, order]), LIMITS)
    assert (parity.matched, parity.detections, parity.max_score_difference, parity.max_box_difference_px) == (1.0, 3, 0.0, 0.0)
    assert parity.proven_by == "detections"
    check_parity("x", parity, LIMITS)


def test_small_differences_are_measured() -> None:
    parity = compare_detections(reference(), outputs(BOXES + np.float32(0.5), SCORES - np.float32(0.04)), LIMITS)
    assert parity.matched == 1.0
    assert parity.max_box_difference_px == pytest.approx(0.5)
    assert parity.max_score_difference == pytest.approx(0.04, abs=1e-6)
    check_parity("x", parity, LIMITS)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"boxes": BOXES + np.float32(10)}, "match"),
        ({"classes": [[1, 1, 0]]}, "match"),
        ({"scores": [[0.9, 0.6, 0.0]]}, "match"),
        ({"scores": [[0.9, 0.5, 0.35]]}, "scores differ by up to 0.100"),
    ],
    ids=["moved", "other class", "lost", "other score"],
)
def test_what_is_not_parity_is_refused_in_one_sentence(changed: dict[str, Any], told: str) -> None:
    parity = compare_detections(reference(), outputs(**changed), LIMITS)
    with pytest.raises(EngineError, match=told) as caught:
        check_parity("x", parity, LIMITS)
    assert "no engine was written for 'x'" in str(caught.value)


def test_what_only_the_engine_finds_counts_too() -> None:
    parity = compare_detections(reference([[0.9, 0.6, 0.0]]), outputs(), LIMITS)
    assert parity.detections == 2
    assert parity.matched == pytest.approx(2 / 3)


def test_a_detection_that_crosses_the_score_limit_is_still_met() -> None:
    parity = compare_detections(reference([[0.9, 0.6, 0.301]]), outputs(scores=[[0.9, 0.6, 0.299]]), LIMITS)
    assert parity.matched == 1.0


def test_nothing_found_proves_nothing() -> None:
    with pytest.raises(EngineError, match=r"proves no parity: give images with defects by --images.*--allow-untrained"):
        compare_detections(reference([[0.2, 0.1, 0.0]]), outputs(scores=[[0.2, 0.1, 0.0]]), LIMITS)


def _tensors(shift: float = 0.0, logit: float = 0.0) -> dict[str, Any]:
    regions = BOXES[0] + np.float32(shift)
    logits = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]], np.float32) + np.array([logit, 0, 0], np.float32)
    return {"regions": regions[None], "class_logits": logits, "rpn_logits_3": np.array([[0.1, -0.4 + logit, 0.2]], np.float32)}


def _stored() -> Reference:
    return reference([[0.1, 0.1, 0.1]], **{name: value[None] for name, value in _tensors().items()})


def test_an_untrained_network_is_compared_by_its_tensors() -> None:
    shuffled = _tensors()
    order = [1, 2, 0]
    shuffled["regions"], shuffled["class_logits"] = shuffled["regions"][:, order], shuffled["class_logits"][order]
    parity = compare_tensors(_stored(), [shuffled], [_tensors()], LIMITS)
    assert (parity.proven_by, parity.matched, parity.detections, parity.trunk_relative_error) == ("tensors", 1.0, 3, 0.0)
    check_parity("x", parity, LIMITS)


def test_a_trunk_that_says_something_else_is_refused() -> None:
    parity = compare_tensors(_stored(), [_tensors()], [_tensors(logit=0.1)], LIMITS)
    assert parity.trunk_relative_error == pytest.approx(0.25)
    with pytest.raises(EngineError, match=r"trunk's logits differ by up to 25\.0%"):
        check_parity("x", parity, LIMITS)
    with pytest.raises(EngineError, match="of 3 regions match"):
        check_parity("x", compare_tensors(_stored(), [_tensors(shift=30)], [_tensors()], LIMITS), LIMITS)


def test_bf16_may_differ_by_what_is_bf16s_own() -> None:
    parity = compare_tensors(_stored(), [_tensors()], [_tensors(logit=0.02)], LIMITS)
    with pytest.raises(EngineError, match="trunk"):
        check_parity("x", parity, LIMITS)
    check_parity("x", parity, LIMITS.model_copy(update={"precision": "bf16"}))


def test_used_slots_come_best_first() -> None:
    found = used(BOXES[0], np.array([0.0, 0.3, 0.7], np.float32), CLASSES[0])
    assert found.scores.tolist() == pytest.approx([0.7, 0.3])
    assert found.classes.tolist() == [0, 1]


boxes_strategy = st.lists(
    st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 30)] * 2, st.integers(0, 1)).map(lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3], t[4])),
    max_size=12,
)


def _found(rows: list[tuple[int, ...]]) -> Found:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Found(table[:, :4], np.ones(len(table), np.float32), table[:, 4].astype(np.int32))


@given(boxes_strategy, boxes_strategy)
def test_pairs_are_one_to_one_of_one_class_and_overlap_enough(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> None:
    a, b = _found(first), _found(second)
    pairs = match(a, b, 0.5)
    assert len(set(pairs.wanted.tolist())) == len(pairs.wanted) == len(pairs.given) == len(set(pairs.given.tolist()))
    overlaps = iou_matrix(a.boxes, b.boxes)
    for i, j in zip(pairs.wanted, pairs.given, strict=True):
        assert a.classes[i] == b.classes[j]
        assert overlaps[i, j] >= 0.5


@given(boxes_strategy)
def test_everything_meets_itself(rows: list[tuple[int, ...]]) -> None:
    found = _found(rows)
    assert len(match(found, found, 0.9).wanted) == len(rows)


def test_a_parity_fits_into_json() -> None:
    parity = compare_detections(reference(), outputs(), LIMITS)
    assert msgspec.json.decode(msgspec.json.encode(parity))["matched"] == 1.0
