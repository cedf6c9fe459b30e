"""Two networks, one verdict: what each rule lets pass, what it rejects, and what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.config.product import ClassifierClassRule, ClassifierRules, DetectorRules, Product
from inspector.contract.records import Box, Defect, Outcome
from inspector.engine.classifier import Classification
from inspector.engine.detector import Detections
from inspector.engine.heatmap import NOTHING, HotSpots, Region
from inspector.inspection.crops import Crop
from inspector.inspection.findings import Findings, Look, NetworkFacts, ProductFacts
from inspector.inspection.rules import KEPT_SCORE
from inspector.inspection.verdict import ProductRules

WIDTH, HEIGHT = 200, 100
WHOLE = Box(0, 0, WIDTH, HEIGHT)
DETECTED = ("scratch", "dent", "stain")
KNOWN = ("good", "scratch", "dent")
DEFECTS = ("crack", "scratch", "dent")
VERDICTS = ("either", "agree", "confirm")


def facts(good: str | None = "good") -> ProductFacts:
    classes = KNOWN if good else DEFECTS
    return ProductFacts(NetworkFacts("finder", DETECTED), NetworkFacts("looker", classes, good))


def product(detector: dict[str, Any] | None = None, px_per_mm: float | None = None, **classifier: Any) -> Product:
    return Product(
        name="p",
        version="1",
        deadline_ms=100,
        px_per_mm=px_per_mm,
        detector=DetectorRules(engine=Path("a"), **(detector or {})),
        classifier=ClassifierRules(engine=Path("b"), **classifier),
    )


def detections(*items: tuple[str, float], box: tuple[float, float, float, float] = (20, 20, 40, 30)) -> Detections:
    """Best first; the n-th lies n px further to the right."""
    ordered = sorted(items, key=lambda item: -item[1])
    return Detections(
        np.array([np.add(box, (n, 0, n, 0)) for n in range(len(ordered))], np.float32).reshape(-1, 4),
        np.array([score for _, score in ordered], np.float32),
        np.array([DETECTED.index(name) for name, _ in ordered], np.int32),
        DETECTED,
        0.0,
        0.0,
    )


def said(*scores: float, classes: tuple[str, ...] = KNOWN, spots: HotSpots = NOTHING, heat_box: Box = WHOLE) -> Classification:
    values = np.array(scores, np.float32)
    return Classification(values, int(values.argmax()), classes, np.ones((2, 4), np.float32), heat_box, spots, 0.0, 0.0)


def whole(*scores: float, **more: Any) -> Look:
    return Look(said(*scores, **more), WHOLE)


def crop(detection: int, *scores: float, **more: Any) -> Look:
    return Look(said(*scores, **more), Box(10, 10, 50, 40), detection)


def judge(made: Product, found: Detections, *looks: Look, good: str | None = "good") -> tuple[Outcome, tuple[Defect, ...]]:
    return ProductRules(made, facts(good)).apply(Findings(found, looks, 0.0, 0.0), "top")


def told(defects: Sequence[Defect]) -> list[tuple[str, str, float, bool]]:
    return [(one.source, one.name, round(one.score, 4), one.counted) for one in defects]


GOOD, BAD = whole(0.9, 0.06, 0.04), whole(0.2, 0.7, 0.1)


@pytest.mark.parametrize(
    ("verdict", "detected", "look", "outcome"),
    [
        ("either", 0.9, GOOD, Outcome.REJECT),
        ("either", 0.1, BAD, Outcome.REJECT),
        ("either", 0.1, GOOD, Outcome.PASS),
        ("agree", 0.9, BAD, Outcome.REJECT),
        ("agree", 0.9, GOOD, Outcome.PASS),
        ("agree", 0.1, BAD, Outcome.PASS),
        ("confirm", 0.9, BAD, Outcome.REJECT),
        ("confirm", 0.9, GOOD, Outcome.PASS),
        ("confirm", 0.1, BAD, Outcome.PASS),
    ],
)
def test_the_three_rules_on_the_whole_image(verdict: str, detected: float, look: Look, outcome: Outcome) -> None:
    decided, defects = judge(product(verdict=verdict), detections(("scratch", detected)), look)
    assert decided is outcome
    assert {one.source for one in defects} == {"finder", "looker"}, "raw scores of both are kept whatever is decided"
    assert all(one.camera == "top" for one in defects)


def test_rows_of_both_networks() -> None:
    _, defects = judge(product(), detections(("dent", 0.8), ("stain", 0.2)), whole(0.1, 0.3, 0.6), crop(0, 0.96, 0.03, 0.01))
    assert told(defects) == [
        ("finder", "dent", 0.8, True),
        ("finder", "stain", 0.2, False),
        ("looker", "dent", 0.6, True),
        ("looker", "scratch", 0.3, False),
    ]
    _, defects = judge(product(verdict="agree"), detections(("dent", 0.8), ("stain", 0.2)), whole(0.3, 0.3, 0.4))
    assert not [one for one in defects if one.counted], "one network alone does not reject: nothing counts"
    _, defects = judge(product(verdict="confirm"), detections(("dent", 0.8), ("stain", 0.2)), whole(0.1, 0.3, 0.6))
    assert told([one for one in defects if one.counted]) == [("finder", "dent", 0.8, True)]


def test_where_the_rows_lie() -> None:
    spots = HotSpots((Region(Box(5, 6, 15, 16), 100.0, 1.0), Region(Box(0, 0, 1, 1), 1.0, 0.9)), (7.0, 7.0))
    _, defects = judge(
        product(on="both", px_per_mm=2), detections(), whole(0.0, 0.4, 0.6, spots=spots), crop(0, 0.0, 0.9, 0.1, spots=spots), crop(1, 0.0, 0.7, 0.3)
    )
    assert [(one.name, one.box_px) for one in defects] == [
        ("dent", Box(5, 6, 15, 16)),
        ("scratch", WHOLE),
        ("scratch", Box(15, 16, 25, 26)),
        ("dent", Box(10, 10, 50, 40)),
        ("scratch", Box(10, 10, 50, 40)),
        ("dent", Box(10, 10, 50, 40)),
    ]
    assert defects[0].box_mm == Box(2.5, 3, 7.5, 8)
    assert defects[0].area_mm2 == 25


def test_scores_nobody_would_try_are_left_out_unless_they_count() -> None:
    look = whole(0.93, 0.04, 0.03)
    assert judge(product(), detections(), look)[1] == ()
    outcome, (row,) = judge(product(classes={"dent": ClassifierClassRule(threshold=0.02)}), detections(), look)
    assert outcome is Outcome.REJECT
    assert row.score < KEPT_SCORE


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ({"threshold": 0.7}, Outcome.REJECT),
        ({"threshold": 0.71}, Outcome.PASS),
        ({"threshold": 0.9, "classes": {"scratch": ClassifierClassRule(threshold=0.6)}}, Outcome.REJECT),
        ({"classes": {"scratch": ClassifierClassRule(threshold=0.8)}}, Outcome.PASS),
        ({"classes": {"scratch": ClassifierClassRule(ignore=True)}}, Outcome.PASS),
        ({"classes": {"dent": ClassifierClassRule(ignore=True)}}, Outcome.REJECT),
    ],
)
def test_thresholds_of_classes(rules: dict[str, Any], outcome: Outcome) -> None:
    assert judge(product(**rules), detections(), whole(0.2, float(np.float32(0.7)) + 1e-6, 0.1))[0] is outcome


@pytest.mark.parametrize(
    ("name", "rules", "scores", "confirmed"),
    [
        ("scratch", {}, (0.4, 0.1, 0.5), True),  # whatever it is, it is no good place
        ("scratch", {}, (0.6, 0.4, 0.0), False),
        ("stain", {}, (0.4, 0.1, 0.5), True),
        ("stain", {}, (0.6, 0.2, 0.2), False),
        ("scratch", {"threshold": 0.3}, (0.6, 0.4, 0.0), True),
        ("scratch", {"classes": {"scratch": ClassifierClassRule(threshold=0.3)}}, (0.6, 0.4, 0.0), True),
        ("dent", {"classes": {"scratch": ClassifierClassRule(threshold=0.3)}}, (0.6, 0.4, 0.0), False),
        ("scratch", {"classes": {"scratch": ClassifierClassRule(ignore=True)}}, (1.0, 0.0, 0.0), True),
    ],
)
def test_what_a_classifier_with_a_good_class_confirms(name: str, rules: dict[str, Any], scores: tuple[float, ...], confirmed: bool) -> None:
    made = product(on="detections", verdict="confirm", **rules)
    assert (judge(made, detections((name, 0.9)), crop(0, *scores))[0] is Outcome.REJECT) is confirmed


@pytest.mark.parametrize(
    ("name", "scores", "confirmed"),
    [("scratch", (0.1, 0.6, 0.3), True), ("scratch", (0.6, 0.3, 0.1), False), ("stain", (0.9, 0.05, 0.05), True)],
)
def test_what_a_classifier_without_one_confirms(name: str, scores: tuple[float, ...], confirmed: bool) -> None:
    made = product(on="detections", verdict="confirm")
    look = crop(0, *scores, classes=DEFECTS)
    assert (judge(made, detections((name, 0.9)), look, good=None)[0] is Outcome.REJECT) is confirmed


def test_each_detection_is_confirmed_by_its_own_crop() -> None:
    made = product(on="both", verdict="confirm", max_crops=2)
    found = detections(("scratch", 0.9), ("dent", 0.8), ("stain", 0.7), ("stain", 0.3))
    outcome, defects = judge(made, found, BAD, crop(0, 0.9, 0.1, 0.0), crop(1, 0.1, 0.0, 0.9))
    assert outcome is Outcome.REJECT
    assert [one.counted for one in defects if one.source == "finder"] == [False, True, True, False], "the third was beyond max_crops"
    assert not any(one.counted for one in defects if one.source == "looker")


def test_agreement_is_taken_for_granted_where_no_crop_was_looked_at() -> None:
    made = product(on="detections", verdict="agree", max_crops=1)
    good = crop(0, 0.9, 0.1, 0.0)
    assert judge(made, detections(("scratch", 0.9)), good)[0] is Outcome.PASS
    assert judge(made, detections(("scratch", 0.9), ("dent", 0.3)), good)[0] is Outcome.PASS, "what does not count need not be looked at"
    assert judge(made, detections(("scratch", 0.9), ("dent", 0.8)), good)[0] is Outcome.REJECT
    whole_only = product(on="image", verdict="agree")
    assert judge(whole_only, detections(("scratch", 0.9), ("dent", 0.8)), GOOD)[0] is Outcome.PASS


def test_crops_are_of_what_counts_best_first() -> None:
    rules = ProductRules(product({"threshold": 0.4}, on="detections", max_crops=2, crop_margin=0.5), facts())
    found = detections(("scratch", 0.9), ("dent", 0.3), ("dent", 0.5), ("stain", 0.45), ("stain", 0.42))
    assert rules.crops(found, WIDTH, HEIGHT) == [Crop(0, 10, 10, 50, 40), Crop(1, 11, 10, 51, 40)]
    assert ProductRules(product(on="image"), facts()).crops(found, WIDTH, HEIGHT) == []
    ignoring = ProductRules(product({"classes": {"scratch": {"ignore": True}}}, on="both"), facts())
    assert [one.detection for one in ignoring.crops(found, WIDTH, HEIGHT)] == [1]


def test_heat_maps_are_of_what_is_not_good() -> None:
    rules = ProductRules(product(on="both"), facts())
    hot = crop(1, 0.1, 0.2, 0.7, heat_box=Box(0, 0, 64, 64))
    maps = rules.heat(Findings(detections(), (GOOD, crop(0, 0.8, 0.1, 0.1), hot), 0.0, 0.0))
    assert [(one.name, one.source, one.box_px) for one in maps] == [("dent", "looker", Box(10, 10, 74, 74))]
    assert maps[0].score == pytest.approx(0.7)
    assert maps[0].values is hot.said.heat
    alone = ProductRules(Product(name="p", version="1", deadline_ms=1, detector=DetectorRules(engine=Path("a"))), ProductFacts(facts().detector))
    assert alone.heat(Findings(detections(), (), 0.0, 0.0)) == ()


def test_a_product_without_a_classifier_decides_as_before() -> None:
    made = Product(name="p", version="1", deadline_ms=1, detector=DetectorRules(engine=Path("a")))
    outcome, defects = ProductRules(made, ProductFacts(facts().detector)).apply(Findings(detections(("dent", 0.6)), (), 0.0, 0.0), "top")
    assert outcome is Outcome.REJECT
    assert told(defects) == [("finder", "dent", 0.6, True)]


def test_names_of_all_defects() -> None:
    assert facts().defects == ("scratch", "dent", "stain")
    assert facts(None).defects == ("scratch", "dent", "stain", "crack")


SCORES = st.floats(0, 1, width=32)
DETECTIONS = st.lists(st.tuples(st.sampled_from(DETECTED), SCORES), max_size=6)
SOFTMAX = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any).map(lambda parts: [part / sum(parts) for part in parts])
CLASSES = st.dictionaries(st.sampled_from(("scratch", "dent")), st.builds(ClassifierClassRule, threshold=st.none() | SCORES, ignore=st.booleans()))
RULES = st.fixed_dictionaries(
    {
        "on": st.sampled_from(("image", "detections", "both")),
        "threshold": SCORES,
        "classes": CLASSES,
        "max_crops": st.integers(1, 3),
    }
)


def looks(rules: ProductRules, found: Detections, on: str, scores: list[list[float]], classes: tuple[str, ...]) -> tuple[Look, ...]:
    """What a classifier would have looked at."""
    of_crops = [crop(one.detection, *part, classes=classes) for one, part in zip(rules.crops(found, WIDTH, HEIGHT), scores[1:], strict=False)]
    return (() if on == "detections" else (whole(*scores[0], classes=classes),)) + tuple(of_crops)


@given(DETECTIONS, st.lists(SOFTMAX, min_size=4, max_size=4), RULES, SCORES, st.booleans())
def test_laws(items: list[tuple[str, float]], scores: list[list[float]], rules: dict[str, Any], threshold: float, knows_good: bool) -> None:
    found, good = detections(*items), "good" if knows_good else None
    alone = Product(name="p", version="1", deadline_ms=1, detector=DetectorRules(engine=Path("a"), threshold=threshold))
    detector, _ = ProductRules(alone, ProductFacts(facts().detector)).apply(Findings(found, (), 0.0, 0.0), "top")
    decided: dict[str, Outcome] = {}
    kept = {}
    for verdict in VERDICTS:
        made = ProductRules(product({"threshold": threshold}, verdict=verdict, **rules), facts(good))
        shown = looks(made, found, rules["on"], scores, KNOWN if knows_good else DEFECTS)
        decided[verdict], defects = made.apply(Findings(found, shown, 0.0, 0.0), "top")
        assert (decided[verdict] is Outcome.REJECT) == any(one.counted for one in defects)
        assert good not in {one.name for one in defects}
        kept[verdict] = [(one.source, one.name, one.score, one.box_px) for one in defects]
        counting = [one for one in defects if one.counted and one.source == "looker"]
        assert all(not rules["classes"].get(one.name, ClassifierClassRule()).ignore for one in counting), "an ignored class never counts"
    assert kept["either"] == kept["agree"] == kept["confirm"], "what is kept does not depend on the rule"
    assert kept["either"][: len(found)] == [
        ("finder", name, float(score), Box(*box)) for name, score, box in zip(found.names, found.scores, found.boxes_px.tolist(), strict=True)
    ]
    if detector is Outcome.REJECT:
        assert decided["either"] is Outcome.REJECT, "a second network that may reject never lets more parts pass"
    else:
        assert decided["agree"] is decided["confirm"] is Outcome.PASS, "a second network that must agree never rejects more parts"
    if decided["either"] is Outcome.PASS:
        assert decided["agree"] is Outcome.PASS


@given(DETECTIONS, st.lists(SOFTMAX, min_size=4, max_size=4), RULES, SCORES, st.sampled_from(VERDICTS))
def test_a_higher_threshold_of_the_classifier_rejects_no_more(
    items: list[tuple[str, float]], scores: list[list[float]], rules: dict[str, Any], higher: float, verdict: str
) -> None:
    found, outcomes = detections(*items), []
    for threshold in sorted((rules["threshold"], higher)):
        made = ProductRules(product(verdict=verdict, **(rules | {"threshold": threshold})), facts())
        outcomes.append(made.apply(Findings(found, looks(made, found, rules["on"], scores, KNOWN), 0.0, 0.0), "top")[0])
    assert outcomes != [Outcome.PASS, Outcome.REJECT]


@given(DETECTIONS, st.lists(SOFTMAX, min_size=4, max_size=4), RULES, st.integers(0, 4), st.sampled_from(VERDICTS))
def test_crops_that_were_not_looked_at_let_no_part_pass(
    items: list[tuple[str, float]], scores: list[list[float]], rules: dict[str, Any], seen: int, verdict: str
) -> None:
    """Those beyond ``max_crops``, and those for which there was no time."""
    found = detections(*items)
    made = ProductRules(product(verdict=verdict, **rules), facts())
    shown = looks(made, found, rules["on"], scores, KNOWN)
    all_of_them, _ = made.apply(Findings(found, shown, 0.0, 0.0), "top")
    first = len(shown) and shown[0].detection is None
    fewer, _ = made.apply(Findings(found, shown[: first + seen], 0.0, 0.0), "top")
    if verdict != "either":
        assert (all_of_them, fewer) != (Outcome.REJECT, Outcome.PASS)
    elif any(one.score >= 0.5 for one in made.apply(Findings(found, (), 0.0, 0.0), "top")[1]):
        assert fewer is Outcome.REJECT
