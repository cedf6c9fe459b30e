"""How good a classifier is: average precision per class, the confusion matrix, and the paper's rates of good and defect.

All of it is counting. A rate whose denominator is zero is None: it was not measured, and is neither 0 nor 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class against the rest."""

    name: str
    labels: int
    """Samples of this class."""
    named: int
    """Samples that were given this class, rightly or not."""
    right: int
    """Samples of this class that were given it."""
    precision: float | None
    """right / named, 0..1; None: nothing was given this class."""
    recall: float | None
    """right / labels, 0..1: the class's accuracy; None: the class has no samples."""
    f1: float | None
    """Harmonic mean of the two; None where one of them is, or where both are 0."""
    ap: float | None
    """Average precision (:func:`average_precision`), 0..1; None: the class has no samples."""


@dataclass(frozen=True, slots=True)
class DefectFigures:
    """Good against defect, whatever the defect's class (Zhou et al. 2019, equations 7 to 11). A positive is a defect."""

    good: str
    """The class that is no defect."""
    true_positives: int
    """Defects given any defect class, be it another one."""
    false_positives: int
    """Good samples given a defect class: what is rejected for nothing."""
    true_negatives: int
    """Good samples given the good class."""
    false_negatives: int
    """Defects given the good class: what slips through."""

    @property
    def precision(self) -> float | None:
        """Equation 7: PR = TP / (TP + FP)."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def true_positive_rate(self) -> float | None:
        """Equation 8: TPR = TP / (TP + FN), the recall."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float | None:
        """Equation 9: FPR = FP / (FP + TN)."""
        return ratio(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def false_negative_rate(self) -> float | None:
        """Equation 10: FNR = FN / (TP + FN)."""
        return ratio(self.false_negatives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float | None:
        """Equation 11: F1 = 2 PR TPR / (PR + TPR)."""
        return harmonic_mean(self.precision, self.true_positive_rate)


@dataclass(frozen=True, slots=True)
class Classification:
    """How good a classifier is on labelled samples."""

    samples: int
    accuracy: float | None
    """Share of the samples that were given their own class, 0..1; None: there are no samples."""
    mean_ap: float | None
    """Mean of the classes' ``ap``, over those with samples; None: there are no samples."""
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts ``[true][given]``."""
    defects: DefectFigures | None
    """None where no class is the good one."""


def evaluate_classification(scores: NDArray[Any], labels: NDArray[Any], classes: Sequence[str], good: str | None = None) -> Classification:
    """Counts what a classifier got right. A sample is given the class of its highest score, the first one where several are equal.

    Args:
        scores: float [n, classes], such as soft-max gives them: the higher, the surer. Average precision looks only at the order within a column.
        labels: int [n], the true classes, 0-based.
        classes: names, in the order of the columns.
        good: the name of the class that is no defect; None: every class is a defect.

    Raises:
        ValueError: shapes do not fit each other, a score is not finite, a label is outside the classes, a class is named twice, or ``good`` is none.
    """
    values, truth = _checked(scores, labels, classes)
    if good is not None and good not in classes:
        raise ValueError(f"the good class {good!r} is not among {', '.join(classes)}")
    given = values.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truth, given), 1)
    figures = tuple(_class_figures(name, confusion, number, values[:, number], truth == number) for number, name in enumerate(classes))
    measured = [one.ap for one in figures if one.ap is not None]
    return Classification(
        samples=len(truth),
        accuracy=ratio(int(confusion.trace()), len(truth)),
        mean_ap=float(np.mean(measured)) if measured else None,
        classes=figures,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        defects=None if good is None else _defect_figures(good, confusion, list(classes).index(good)),
    )


def average_precision(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float | None:
    """Area under precision over recall, at every recall that is reached, each recall with the best precision at it or beyond (VOC 2010).

    Samples of equal score come in together: the order in which they were given changes nothing, and where all scores are equal the area is the share
    of positive samples.

    Args:
        scores: float [n], finite.
        positive: bool [n], which samples are of the class.

    Returns:
        0..1; None where no sample is positive.
    """
    total = int(positive.sum())
    if not total:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    # The last place of each run of equal scores: only there could a threshold lie.
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    precision = hits[ends] / (ends + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # In whole hits, divided once: a perfect ranking is 1 to the last bit.
    return float((np.diff(hits[ends], prepend=0) * best).sum() / total)


def ratio(part: int, whole: int) -> float | None:
    """``part / whole``; None where the whole is nothing."""
    return part / whole if whole else None


def harmonic_mean(first: float | None, second: float | None) -> float | None:
    """2ab / (a + b); None where one is None or both are 0."""
    if first is None or second is None or first + second == 0:
        return None
    return 2 * first * second / (first + second)


def _class_figures(name: str, confusion: NDArray[np.int64], number: int, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> ClassFigures:
    """One class from the confusion matrix and its column of scores."""
    right, labels, named = int(confusion[number, number]), int(confusion[number].sum()), int(confusion[:, number].sum())
    precision, recall = ratio(right, named), ratio(right, labels)
    return ClassFigures(name, labels, named, right, precision, recall, harmonic_mean(precision, recall), average_precision(scores, positive))


def _defect_figures(good: str, confusion: NDArray[np.int64], number: int) -> DefectFigures:
    """The confusion matrix with all defect classes taken together."""
    true_negatives = int(confusion[number, number])
    false_positives = int(confusion[number].sum()) - true_negatives
    false_negatives = int(confusion[:, number].sum()) - true_negatives
    true_positives = int(confusion.sum()) - true_negatives - false_positives - false_negatives
    return DefectFigures(good, true_positives, false_positives, true_negatives, false_negatives)


def _checked(scores: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores and labels in one type each, or ValueError."""
    values, given = np.asarray(scores, np.float64), np.asarray(labels)
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"the classes must be named, each once; they are {list(classes)}")
    if given.ndim != 1 or values.shape != (len(given), len(classes)):
        raise ValueError(f"scores {values.shape} for labels {given.shape} and {len(classes)} classes; they must be [samples, classes] and [samples]")
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, they are {given.dtype}")
    if not np.isfinite(values).all():
        raise ValueError(f"scores of {int((~np.isfinite(values)).any(axis=1).sum())} samples are not finite")
    if given.size and (given.min() < 0 or given.max() >= len(classes)):
        raise ValueError(f"labels run from {given.min()} to {given.max()}, there are {len(classes)} classes")
    return values, given.astype(np.int64)
