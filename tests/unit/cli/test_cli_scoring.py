"""Counted defects against planted ones, by hand and by laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.cli.scoring import MATCH_IOU, FoundBy, Score, found_by, iou, score_parts
from inspector.contract.records import Box, Defect
from inspector.surfaces.scene import PlantedDefect

KINDS = ("scratch", "dent")
SQUARE = (0, 0, 10, 10)


def found(kind: str, box: tuple[float, float, float, float], score: float = 0.9, *, counted: bool = True) -> Defect:
    return Defect(name=kind, score=score, box_px=Box(*box), counted=counted, source="net", camera="top")


def planted(kind: str, box: tuple[int, int, int, int]) -> PlantedDefect:
    return PlantedDefect(kind=kind, box_px=box, contrast=50, area_px=20)


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (SQUARE, 1.0),
        ((0, 0, 10, 5), 0.5),
        ((5, 0, 15, 10), 50 / 150),
        ((2, 2, 4, 4), 4 / 100),
        ((10, 0, 20, 10), 0.0),
        ((30, 30, 40, 40), 0.0),
        ((5, 5, 5, 5), 0.0),
    ],
)
def test_iou_by_hand(other: tuple[int, int, int, int], wanted: float) -> None:
    assert iou(SQUARE, other) == pytest.approx(wanted)
    assert iou(other, SQUARE) == pytest.approx(wanted)


def test_nothing_to_compare() -> None:
    score = score_parts([])
    assert score == Score(0, 0, 0)
    assert score.precision is None
    assert score.recall is None


def test_cases_by_hand() -> None:
    truth = [planted("scratch", SQUARE)]
    cases = [
        ([found("scratch", SQUARE)], truth, Score(1, 1, 1)),
        ([found("dent", SQUARE)], truth, Score(0, 1, 1)),
        ([found("scratch", SQUARE, counted=False)], truth, Score(0, 0, 1)),
        ([found("scratch", (0, 0, 10, 5))], truth, Score(1, 1, 1)),
        ([found("scratch", (0, 0, 10, 4.9))], truth, Score(0, 1, 1)),
        ([found("scratch", SQUARE), found("scratch", (0, 0, 10, 9))], truth, Score(1, 2, 1)),
        ([], truth, Score(0, 0, 1)),
        ([found("scratch", SQUARE)], [], Score(0, 1, 0)),
        # Two defects close together: each finding takes the one it fits best.
        (
            [found("scratch", (0, 0, 10, 10), 0.8), found("scratch", (0, 3, 10, 13), 0.9)],
            [planted("scratch", (0, 0, 10, 10)), planted("scratch", (0, 3, 10, 13))],
            Score(2, 2, 2),
        ),
    ]
    for defects, there, wanted in cases:
        assert score_parts([(defects, there)]) == wanted
    total = score_parts((defects, there) for defects, there, _ in cases)
    assert total == Score(*(sum(getattr(one, name) for *_, one in cases) for name in ("matched", "counted", "planted")))
    assert total.precision == total.matched / total.counted
    assert total.recall == total.matched / total.planted


def test_the_surer_finding_is_matched_first() -> None:
    """Both fit the same planted defect; the order in which they are given does not matter."""
    truth = [planted("scratch", SQUARE)]
    pair = [found("scratch", (0, 0, 10, 8), 0.5), found("scratch", SQUARE, 0.9)]
    assert score_parts([(pair, truth)]) == score_parts([(pair[::-1], truth)]) == Score(1, 2, 1)


boxes = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)).map(
    lambda corner: (corner[0], corner[1], corner[0] + corner[2], corner[1] + corner[3])
)
findings = st.lists(st.builds(found, st.sampled_from(KINDS), boxes, st.floats(0, 1), counted=st.booleans()), max_size=6)
truths = st.lists(st.builds(planted, st.sampled_from(KINDS), boxes), max_size=6)


@given(findings, truths)
def test_laws_of_the_score(defects: list[Defect], truth: list[PlantedDefect]) -> None:
    score = score_parts([(defects, truth)])
    assert score.planted == len(truth)
    assert score.counted == sum(defect.counted for defect in defects)
    assert 0 <= score.matched <= min(score.counted, score.planted)
    for kind in KINDS:  # classes do not meet
        assert score_parts([([one for one in defects if one.name == kind], [one for one in truth if one.kind == kind])]).matched <= score.matched
    apart = [score_parts([([one for one in defects if one.name == kind], [one for one in truth if one.kind == kind])]).matched for kind in KINDS]
    assert sum(apart) == score.matched


@given(truths)
def test_a_perfect_detector(truth: list[PlantedDefect]) -> None:
    score = score_parts([([found(one.kind, one.box_px) for one in truth], truth)])
    assert score.matched == score.planted == score.counted


@given(boxes, boxes)
def test_iou_is_a_share(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    assert 0 <= iou(a, b) <= 1
    assert iou(a, b) == iou(b, a)
    assert (iou(a, b) == 1) == (a == b)
    assert MATCH_IOU < 1


def by(network: str, *, counted: bool = True) -> Defect:
    return Defect(name="dent", score=0.9, box_px=Box(*SQUARE), counted=counted, source=network, camera="top")


def test_what_each_network_found_is_told_by_part() -> None:
    parts = [
        ([by("one"), by("one"), by("two")], True),
        ([by("one"), by("two", counted=False)], True),
        ([by("two")], False),
        ([by("one", counted=False)], True),
        ([], False),
    ]
    assert found_by(("one", "two"), parts) == (FoundBy("one", 2, 1, 2, 0), FoundBy("two", 2, 1, 1, 1))
    unknown = [(defects, None) for defects, _ in parts]
    assert found_by(("one", "two"), unknown) == (FoundBy("one", 2, 1, None, None), FoundBy("two", 2, 1, None, None))
