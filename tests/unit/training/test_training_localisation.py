from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.training.localisation import Pointed, covered_share, evaluate_localisation

NAMES = ("dent", "scratch")


def pointed(true: Any, box: Any = None, peak: Any = None, kind: int = 0, size: tuple[int, int] = (100, 200)) -> Pointed:
    """A picture of ``size`` (height, width)."""
    boxes = np.array(true, np.float32).reshape(-1, 4)
    return Pointed(*size, kind, boxes, None if box is None else np.array(box, np.float32), peak)


@st.composite
def boxes(draw: st.DrawFn, at_least: int = 0) -> np.ndarray:
    """Boxes with whole corners within 12 x 9 px (width x height), each with an area."""
    made = []
    for _ in range(draw(st.integers(at_least, 5))):
        x1, y1 = draw(st.integers(0, 11)), draw(st.integers(0, 8))
        made.append((x1, y1, draw(st.integers(x1 + 1, 12)), draw(st.integers(y1 + 1, 9))))
    return np.array(made, np.float32).reshape(-1, 4)


def test_a_small_case_by_hand() -> None:
    result = evaluate_localisation(
        [
            pointed([(0, 0, 100, 100)], box=(0, 0, 100, 100), peak=(50, 50)),  # everything right; half of the picture
            pointed([(0, 0, 20, 50), (100, 0, 200, 100)], box=(100, 0, 200, 40), peak=(30, 10)),  # IoU 0.4 with the second; peak outside both
            pointed([(0, 0, 10, 10)], kind=1),  # no region, no peak
            pointed([], box=(0, 0, 1, 1), peak=(0, 0), kind=1),  # without true boxes
        ],
        NAMES,
    )
    assert (result.threshold, result.left_out) == (0.3, 1)
    dent, scratch = result.classes
    assert (dent.name, dent.pictures, dent.box_hits, dent.peak_hits) == ("dent", 2, 1.0, 0.5)
    assert dent.mean_iou == pytest.approx((1 + 0.4) / 2)
    # The whole picture overlaps by 1/2 both times; of the second the boxes cover 1/20 + 1/2.
    assert (dent.whole_hits, dent.whole_iou) == (1.0, 0.5)
    assert dent.random_hits == pytest.approx((0.5 + 0.55) / 2)
    assert (scratch.pictures, scratch.box_hits, scratch.peak_hits, scratch.mean_iou, scratch.whole_hits) == (1, 0, 0, 0, 0)
    assert (scratch.whole_iou, scratch.random_hits) == (pytest.approx(0.005), pytest.approx(0.005))
    assert (result.mean.name, result.mean.pictures) == ("mean", 3)
    assert (result.mean.box_hits, result.mean.peak_hits, result.mean.mean_iou) == (0.5, 0.25, pytest.approx(0.35))


def test_the_threshold_itself_is_a_hit() -> None:
    one = pointed([(0, 0, 100, 100)], box=(0, 0, 70, 100))
    for threshold, hits in ((0.3, 1), (0.7, 1), (0.7001, 0), (1.0, 0)):
        assert evaluate_localisation([one], NAMES, threshold).classes[0].box_hits == hits
    exact = pointed([(0, 0, 70, 100)], box=(0, 0, 70, 100))
    assert evaluate_localisation([exact], NAMES, 1.0).classes[0].box_hits == 1


@pytest.mark.parametrize(
    ("peak", "met"), [((10, 20), 1), ((9, 20), 0), ((29.9, 20), 1), ((30, 20), 0), ((10, 39.9), 1), ((10, 40), 0), ((10, 19), 0)]
)
def test_a_peak_belongs_to_the_pixels_of_the_box(peak: tuple[float, float], met: int) -> None:
    result = evaluate_localisation([pointed([(10, 20, 30, 40)], peak=peak)], NAMES)
    assert result.classes[0].peak_hits == met


def test_a_peak_must_lie_in_one_box_not_between_two() -> None:
    result = evaluate_localisation([pointed([(0, 0, 10, 10), (20, 20, 30, 30)], peak=(25, 5))], NAMES)
    assert result.classes[0].peak_hits == 0


def test_without_pictures_there_are_no_figures() -> None:
    result = evaluate_localisation([pointed([])] * 2, NAMES)
    assert result.left_out == 2
    assert all(astuple(row)[1:] == (0, None, None, None, None, None, None) for row in (*result.classes, result.mean))


def test_the_mean_is_over_classes_that_have_pictures() -> None:
    right, wrong = pointed([(0, 0, 9, 9)], peak=(1, 1)), pointed([(0, 0, 9, 9)], peak=(50, 50))
    result = evaluate_localisation([right, wrong, wrong, wrong, replace(right, kind=1)], ("dent", "scratch", "stain"))
    assert [row.peak_hits for row in result.classes] == [0.25, 1.0, None]
    assert result.mean.peak_hits == 0.625
    assert result.mean.pictures == 5


@given(boxes())
def test_the_covered_share_is_the_count_of_covered_pixels(drawn: Any) -> None:
    pixels = np.zeros((9, 12), np.bool_)
    for x1, y1, x2, y2 in drawn.astype(int):
        pixels[y1:y2, x1:x2] = True
    assert covered_share(drawn, 9, 12) == pytest.approx(pixels.mean(), abs=1e-15)
    assert covered_share(np.concatenate([drawn, drawn]), 9, 12) == covered_share(drawn, 9, 12)


def test_what_lies_outside_the_picture_is_not_covered() -> None:
    assert covered_share(np.array([(-50, -50, 50.5, 50)]), 100, 101) == pytest.approx(0.25)
    assert covered_share(np.array([(-50, -50, 500, 500)]), 10, 10) == 1


@given(boxes(1))
def test_the_random_control_is_what_all_points_together_meet(true: Any) -> None:
    everywhere = [pointed(true, peak=(x, y), size=(9, 12)) for y in range(9) for x in range(12)]
    found = evaluate_localisation(everywhere, NAMES).classes[0]
    assert found.peak_hits == pytest.approx(found.random_hits)


@given(boxes(1), boxes(1), st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_laws_of_the_box(true: Any, proposed: Any, threshold: float) -> None:
    found = evaluate_localisation([pointed(true, box=proposed[0], size=(9, 12))], NAMES, threshold).classes[0]
    assert found.mean_iou is not None
    assert 0 <= found.mean_iou <= 1
    assert found.box_hits == (found.mean_iou >= np.float32(threshold))
    # A true box is hit by itself; the whole picture as the proposal is its own control.
    own = evaluate_localisation([pointed(true, box=true[-1], size=(9, 12))], NAMES, threshold).classes[0]
    assert (own.box_hits, own.mean_iou) == (1, pytest.approx(1, abs=1e-6))
    whole = evaluate_localisation([pointed(true, box=(0, 0, 12, 9), size=(9, 12))], NAMES, threshold).classes[0]
    assert (whole.box_hits, whole.mean_iou) == (whole.whole_hits, whole.whole_iou)


@pytest.mark.parametrize(
    ("one", "threshold", "told"),
    [
        (pointed([(0, 0, 9, 9)]), 0.0, "threshold"),
        (pointed([(0, 0, 9, 9)]), 1.5, "threshold"),
        (pointed([], kind=2), 0.3, "class 2"),
        (pointed([], kind=-1), 0.3, "class -1"),
        (pointed([(5, 5, 5, 9)]), 0.3, "without area"),
        (pointed([(300, 0, 310, 9)]), 0.3, "without area"),
        (pointed([(0, 0, 9, 9)], box=(0, 0, np.nan, 3)), 0.3, "not finite"),
        (pointed([(0, 0, 9, 9)], peak=(np.inf, 3)), 0.3, "not finite"),
    ],
)
def test_what_cannot_be_counted_is_refused(one: Pointed, threshold: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate_localisation([one], NAMES, threshold)
