from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.training.classification import Classification, average_precision, evaluate_classification, harmonic_mean, ratio

NAMES = ("good", "dent", "scratch", "stain")


def one_hot(given_classes: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[given_classes]


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Scores that often tie, and labels that often leave a class out."""
    classes, count = draw(st.integers(1, 4)), draw(st.integers(0, 12))
    score = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(-1e308, 1e308)
    rows = draw(st.lists(st.lists(score, min_size=classes, max_size=classes), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(rows, np.float64).reshape(count, classes), np.array(labels, np.int64), NAMES[:classes]


def test_a_small_case_by_hand() -> None:
    scores = one_hot([0, 0, 0, 1, 1, 2, 0], 4)
    result = evaluate_classification(scores, np.array([0, 0, 1, 1, 2, 2, 2]), NAMES, good="good")
    assert result.samples == 7
    assert result.accuracy == pytest.approx(4 / 7)
    assert result.confusion == ((2, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0), (0, 0, 0, 0))
    good, dent, scratch, stain = result.classes
    assert (good.labels, good.named, good.right) == (2, 4, 2)
    assert (good.precision, good.recall, good.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (dent.precision, dent.recall, dent.f1) == (0.5, 0.5, 0.5)
    assert (scratch.precision, scratch.recall, scratch.f1) == (1.0, pytest.approx(1 / 3), 0.5)
    assert (stain.labels, stain.named, stain.precision, stain.recall, stain.f1, stain.ap) == (0, 0, None, None, None, None)
    # Good: four tie at the top, two of them good. Dent: two at the top, one right; the other at the end among seven. Scratch: one, then two of seven.
    assert [row.ap for row in (good, dent, scratch)] == pytest.approx([0.5, (1 / 2 + 2 / 7) / 2, (1 + 2 * 3 / 7) / 3])
    assert result.mean_ap == pytest.approx(np.mean([0.5, (1 / 2 + 2 / 7) / 2, (1 + 6 / 7) / 3]))


def test_the_papers_rates_by_hand() -> None:
    # Five defects (two classes), three good. A defect given another defect's class is still a true positive.
    labels = np.array([1, 1, 2, 2, 2, 0, 0, 0])
    result = evaluate_classification(one_hot([1, 2, 2, 1, 0, 0, 0, 2], 3), labels, NAMES[:3], good="good")
    rates = result.defects
    assert rates is not None
    assert (rates.true_positives, rates.false_positives, rates.true_negatives, rates.false_negatives) == (4, 1, 2, 1)
    assert rates.precision == pytest.approx(4 / 5)
    assert rates.true_positive_rate == pytest.approx(4 / 5)
    assert rates.false_positive_rate == pytest.approx(1 / 3)
    assert rates.false_negative_rate == pytest.approx(1 / 5)
    assert rates.f1 == pytest.approx(4 / 5)


def test_rates_that_nothing_was_measured_for_are_none() -> None:
    only_good = evaluate_classification(one_hot([0, 0], 2), np.array([0, 0]), NAMES[:2], good="good").defects
    assert only_good is not None
    assert only_good.false_positive_rate == 0
    assert (only_good.precision, only_good.true_positive_rate, only_good.false_negative_rate, only_good.f1) == (None,) * 4
    all_missed = evaluate_classification(one_hot([0, 0], 2), np.array([1, 1]), NAMES[:2], good="good").defects
    assert all_missed is not None
    assert (all_missed.true_positive_rate, all_missed.false_negative_rate) == (0, 1)
    assert (all_missed.precision, all_missed.false_positive_rate, all_missed.f1) == (None, None, None)
    nothing = evaluate_classification(np.zeros((0, 2)), np.zeros(0, np.int64), NAMES[:2], good="good")
    assert (nothing.accuracy, nothing.mean_ap) == (None, None)
    assert evaluate_classification(np.zeros((0, 2)), np.array([]), NAMES[:2]).defects is None


def test_the_first_of_equal_scores_is_given() -> None:
    assert evaluate_classification(np.full((1, 3), 1 / 3), np.array([0]), NAMES[:3]).accuracy == 1


def test_average_precision_by_hand() -> None:
    # Right, wrong, wrong, right, right: precision 1 to recall 1/3; 3/5 from there on, for the best precision beyond counts.
    ranked = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    positive = np.array([True, False, False, True, True])
    assert average_precision(ranked, positive) == pytest.approx((1 + 2 * 3 / 5) / 3)
    # Of the tie of two at the top half is right, whichever stands first.
    tied = np.array([0.9, 0.9, 0.1])
    assert average_precision(tied, np.array([True, False, True])) == average_precision(tied, np.array([False, True, True])) == pytest.approx(2 / 3)
    assert average_precision(ranked, np.zeros(5, np.bool_)) is None


@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(drawn: Any, random: Any) -> None:
    scores, labels, names = drawn
    order = list(range(len(labels)))
    random.shuffle(order)
    assert evaluate_classification(scores[order], labels[order], names, names[0]) == evaluate_classification(scores, labels, names, names[0])


@given(samples())
def test_everything_is_counted_once(drawn: Any) -> None:
    scores, labels, names = drawn
    result = evaluate_classification(scores, labels, names, names[-1])
    confusion = np.array(result.confusion)
    assert confusion.sum() == result.samples == len(labels)
    assert [row.labels for row in result.classes] == confusion.sum(1).tolist() == np.bincount(labels, minlength=len(names)).tolist()
    assert [row.named for row in result.classes] == confusion.sum(0).tolist()
    if result.samples:
        assert result.accuracy == sum(row.right for row in result.classes) / result.samples
    rates = result.defects
    assert rates is not None
    assert rates.true_positives + rates.false_positives + rates.true_negatives + rates.false_negatives == result.samples
    assert rates.true_negatives + rates.false_positives == result.classes[-1].labels


@given(samples())
def test_rates_keep_their_range_and_their_sums(drawn: Any) -> None:
    scores, labels, names = drawn
    result = evaluate_classification(scores, labels, names, names[0])
    assert all(0 <= value <= 1 for value in every_rate(result) if value is not None)
    rates = result.defects
    assert rates is not None
    has_defects = bool((labels != 0).any())
    assert (rates.true_positive_rate is None) == (rates.false_negative_rate is None) == (not has_defects)
    if rates.true_positive_rate is not None and rates.false_negative_rate is not None:
        assert rates.true_positive_rate + rates.false_negative_rate == pytest.approx(1)
    if rates.f1 is not None:
        twice = 2 * rates.true_positives
        assert rates.f1 == pytest.approx(twice / (twice + rates.false_positives + rates.false_negatives))


def every_rate(result: Classification) -> list[float | None]:
    rates = result.defects
    assert rates is not None
    of_classes = [value for row in result.classes for value in (row.precision, row.recall, row.f1, row.ap)]
    of_all = [
        result.accuracy,
        result.mean_ap,
        rates.precision,
        rates.true_positive_rate,
        rates.false_positive_rate,
        rates.false_negative_rate,
        rates.f1,
    ]
    return [*of_classes, *of_all]


@given(samples())
def test_two_classes_with_a_good_one_are_the_defects_class_alone(drawn: Any) -> None:
    scores, labels, _ = drawn
    if scores.shape[1] != 2:
        return
    result = evaluate_classification(scores, labels, NAMES[:2], "good")
    defect, rates = result.classes[1], result.defects
    assert rates is not None
    assert (rates.precision, rates.true_positive_rate, rates.f1) == (defect.precision, defect.recall, defect.f1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_a_classifier_that_is_right_has_nothing_but_ones(labels: list[int], seed: int) -> None:
    truth = np.array(labels)
    scores = np.random.default_rng(seed).uniform(0, 0.4, (len(truth), 4))
    scores[np.arange(len(truth)), truth] = 1
    result = evaluate_classification(scores, truth, NAMES)
    assert result.accuracy == result.mean_ap == 1
    present = [row for row in result.classes if row.labels]
    assert all(row.precision == row.recall == row.f1 == row.ap == 1 for row in present)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_average_precision_laws(positive: list[bool], seed: int) -> None:
    truth = np.array(positive)
    scores = np.random.default_rng(seed).integers(0, 5, len(truth)).astype(np.float64)
    area = average_precision(scores, truth)
    if not truth.any():
        assert area is None
        return
    assert area is not None
    # Never below the share of positives: the last threshold takes everything in. Perfect exactly where every positive is above every negative.
    assert truth.mean() <= area + 1e-12
    assert (area == 1) == (truth.all() or scores[truth].min() > scores[~truth].max())
    assert average_precision(np.zeros(len(truth)), truth) == pytest.approx(truth.mean())
    # Only the order counts.
    assert average_precision(np.exp(3 * scores), truth) == area


def test_ratio_and_harmonic_mean_of_nothing_are_none() -> None:
    assert ratio(0, 0) is None
    assert ratio(0, 3) == 0
    assert harmonic_mean(None, 1) is harmonic_mean(1, None) is harmonic_mean(0, 0) is None
    assert harmonic_mean(0, 1) == 0


@pytest.mark.parametrize(
    ("scores", "labels", "names", "good", "told"),
    [
        (np.zeros((2, 3)), np.zeros(2, np.int64), NAMES[:2], None, "scores"),
        (np.zeros((2, 2)), np.zeros(3, np.int64), NAMES[:2], None, "scores"),
        (np.array([[np.nan, 1], [0, np.inf], [0, 0]]), np.zeros(3, np.int64), NAMES[:2], None, "2 samples"),
        (np.zeros((1, 2)), np.array([2]), NAMES[:2], None, "2 classes"),
        (np.zeros((1, 2)), np.array([-1]), NAMES[:2], None, "from -1"),
        (np.zeros((1, 2)), np.array([0.5]), NAMES[:2], None, "whole numbers"),
        (np.zeros((1, 2)), np.array([0]), ("a", "a"), None, "each once"),
        (np.zeros((0, 0)), np.array([], np.int64), (), None, "named"),
        (np.zeros((1, 2)), np.array([0]), NAMES[:2], "stain", "'stain' is not among good, dent"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(scores: Any, labels: Any, names: Any, good: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate_classification(scores, labels, names, good)
