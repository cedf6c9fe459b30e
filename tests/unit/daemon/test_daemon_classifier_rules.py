"""A product with a classifier: what is checked before the start, what can be changed while it runs, and what stands on the verdicts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inspector.config.classifier import BilinearNetwork, ClassifierCompile
from inspector.config.network import InputRecipe
from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
from inspector.config.station import StationFiles, read_station
from inspector.contract.errors import ConfigError, EngineError
from inspector.contract.records import Action
from inspector.daemon import check
from inspector.daemon.check import check_classes, check_station
from inspector.daemon.loading import load_engines
from inspector.daemon.product import ProductControls
from inspector.daemon.station import Daemon
from inspector.engine.base import Array
from inspector.engine.classifier import Classifier
from inspector.engine.detector import Detector
from inspector.engine.null import NullEngine
from inspector.inspection.findings import NetworkFacts, ProductFacts
from inspector.inspection.networks import Networks
from inspector.inspection.verdict import ProductRules
from inspector.journal.reader import JournalReader

INPUT = InputRecipe(height_px=64, width_px=64)
FINDER = DetectorRecipe(name="finder", classes=("scratch", "dent"), input=INPUT)
LOOKER = ClassifierRecipe(
    name="looker",
    classes=("good", "scratch", "crack"),
    good="good",
    input=INPUT,
    network=BilinearNetwork(architecture="bilinear", backbone_width=0.125, channels=8),
    compile=ClassifierCompile(budget_ms=250),
)
FACTS = ProductFacts(NetworkFacts("finder", FINDER.classes), NetworkFacts("looker", LOOKER.classes, "good"))
SECTION = """
[classifier]
engine = "none.json"
on = "both"
verdict = "agree"
threshold = 0.5
[classifier.classes.crack]
threshold = 0.9
"""


class LookerEngine(NullEngine):
    """Sees a crack, score 0.75, on everything; closing is counted."""

    def __init__(self) -> None:
        super().__init__(LOOKER)
        self.closed = 0

    def _finish(self, job: object) -> dict[str, Array]:
        outputs = super()._finish(None)
        outputs["scores"][0] = (0.25, 0, 0.75)
        outputs["label"][0] = 2
        return outputs

    def close(self) -> None:
        self.closed += 1
        super().close()


def networks(on: Any = "both") -> Networks:
    return Networks(Detector(NullEngine(FINDER)), Classifier(LookerEngine()), on)


@pytest.fixture
def both(files: StationFiles, tmp_path: Path) -> StationFiles:
    """The station of this folder with a classifier."""
    product = files.station.product
    product.write_text(product.read_text() + SECTION)
    return read_station(tmp_path / "station.toml")


def rewrite(files: StationFiles, *changes: tuple[str, str]) -> StationFiles:
    path = files.station.product
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return read_station(path.with_name("station.toml"))


def test_classes_that_the_classifier_has_not_are_told_with_the_detector_s(both: StationFiles) -> None:
    check_classes(both, FACTS)
    with pytest.raises(ConfigError) as told:
        check_classes(both, ProductFacts(NetworkFacts("finder", ("dent",)), NetworkFacts("looker", ("good", "bump"), "good")))
    assert told.value.problems == (
        f"{both.station.product}: detector.classes.scratch: the engine has no such class; it has dent",
        f"{both.station.product}: classifier.classes.crack: the engine has no such class; it has bump, good",
    )


def test_the_good_class_has_no_rule(both: StationFiles) -> None:
    with pytest.raises(ConfigError, match=r"classifier\.classes\.good: .* remove this rule"):
        check_classes(rewrite(both, ("classes.crack", "classes.good")), FACTS)


@pytest.mark.parametrize(
    ("on", "verdict", "refused"),
    [
        ("image", "either", True),
        ("image", "agree", True),
        ("image", "confirm", False),
        ("both", "either", True),
        ("both", "agree", True),
        ("both", "confirm", False),
        ("detections", "either", False),
        ("detections", "agree", False),
        ("detections", "confirm", False),
    ],
)
def test_a_classifier_that_knows_no_good_part_cannot_judge_whole_images(both: StationFiles, on: str, verdict: str, refused: bool) -> None:
    files = rewrite(both, ('on = "both"', f'on = "{on}"'), ('verdict = "agree"', f'verdict = "{verdict}"'))
    check_classes(files, FACTS)
    knows_none = ProductFacts(FACTS.detector, NetworkFacts("looker", LOOKER.classes))
    if not refused:
        check_classes(files, knows_none)
        return
    with pytest.raises(ConfigError) as told:
        check_classes(files, knows_none)
    (problem,) = told.value.problems
    assert problem.startswith(f"{files.station.product}: classifier.verdict: '{verdict}' with on = '{on}' would find a defect on every part")


def test_check_tells_of_both_engines(both: StationFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    made = networks()
    monkeypatch.setattr(check, "open_networks", lambda _: made)
    lines = check_station(both)
    assert [line for line in lines if line.startswith(("detector", "classifier", "the classifier"))] == [
        f"detector finder ({made.hashes[0][:12]}), budget 1000 ms, classes scratch, dent",
        f"classifier looker ({made.hashes[1][:12]}), budget 250 ms, classes good, scratch, crack",
        "the classifier is shown: both; verdict: agree",
    ]


class Inspected:
    """What a reload moves."""

    paused = False

    def __init__(self) -> None:
        self.rules: list[ProductRules] = []

    def use(self, rules: ProductRules, told: Any) -> None:
        self.rules.append(rules)
        told()


def controls(files: StationFiles) -> tuple[ProductControls, Inspected, list[tuple[str, Action]]]:
    made, inspected, told = ProductControls(files), Inspected(), []  # type: ignore[var-annotated]
    made.attach(inspected, FACTS, [lambda version, action: told.append((version, action))])  # type: ignore[arg-type]
    return made, inspected, told


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("threshold = 0.5\n[classifier.classes.crack]", "threshold = 0.6\n[classifier.classes.crack]"), "classifier.threshold"),
        (("threshold = 0.9", "ignore = true"), "classifier.classes"),
        (('verdict = "agree"', 'verdict = "confirm"'), "classifier.verdict"),
        (('on = "both"', 'on = "both"\ncrop_margin = 1'), "classifier.crop_margin"),
        (('on = "both"', 'on = "both"\nmax_crops = 9'), "classifier.max_crops"),
    ],
)
def test_what_can_be_changed_between_two_images(both: StationFiles, change: tuple[str, str], key: str) -> None:
    made, inspected, told = controls(both)
    rewrite(both, ('version = "1"', 'version = "2"'), change)
    assert made.reload() == f"version 2 from the next image on; changed: version, {key}"
    assert len(inspected.rules) == 1
    assert told == [("2", Action.REJECT)]
    assert made.reload() == "nothing has changed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((SECTION, ""), "classifier: has changed; this needs a restart"),
        (('[classifier]\nengine = "none.json"', '[classifier]\nengine = "other.json"'), "classifier.engine: has changed; this needs a restart"),
        (('on = "both"', 'on = "image"'), "classifier.on: has changed; this needs a restart"),
        (('on = "both"', 'on = "both"\nmap = "grad_cam"'), "classifier.map: has changed; this needs a restart"),
        (("classes.crack", "classes.bump"), "classifier.classes.bump: the engine has no such class"),
    ],
)
def test_what_needs_a_restart_or_is_wrong_is_refused(both: StationFiles, change: tuple[str, str], said: str) -> None:
    made, inspected, told = controls(both)
    path = both.station.product
    path.write_text(path.read_text().replace('version = "1"', 'version = "2"').replace(*change))
    with pytest.raises(ConfigError) as refused:
        made.reload()
    assert [one for one in refused.value.problems if one.startswith(f"{path}: {said}")], refused.value.problems
    assert len(refused.value.problems) == 1
    assert (inspected.rules, told) == ([], [])


def test_a_classifier_is_not_added_while_the_station_runs(files: StationFiles) -> None:
    made = controls(files)[0]
    path = files.station.product
    path.write_text(path.read_text().replace('version = "1"', 'version = "2"') + SECTION)
    with pytest.raises(ConfigError) as refused:
        made.reload()
    assert refused.value.problems == (f"{path}: classifier: has changed; this needs a restart of the station",)


@pytest.fixture
def looker() -> LookerEngine:
    return LookerEngine()


@pytest.fixture
def daemon(both: StationFiles, engine: Any, looker: LookerEngine) -> Iterator[Daemon]:
    one = Daemon(both, open_detector=lambda _: Detector(engine), open_classifier=lambda _, kind: Classifier(looker, kind))
    yield one
    assert one.stop()
    assert one.failure is None


def test_a_whole_life_with_two_networks(daemon: Daemon, engine: Any, looker: LookerEngine) -> None:
    daemon.start()
    deadline = time.monotonic() + 30
    while daemon.line.snapshot().streams["top"].books.closed < 5:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert daemon.stop()
    assert (engine.closed, looker.closed) == (1, 1)
    with JournalReader(daemon.files.station.journal.path) as journal:
        parts = list(journal.parts())
        assert not [event for event in journal.events() if event.level == "error"]
    for part in parts:
        assert part.engines == (engine.hash, looker.hash)
        if part.outcome == "PASS":
            assert [(row.source, row.name, row.counted) for row in part.defects] == [("looker", "crack", False)], "the detector does not agree"
    assert "PASS" in {part.outcome for part in parts}


def test_a_classifier_that_does_not_fit_leaves_nothing(both: StationFiles, engine: Any) -> None:
    def refuse(*_: object) -> Classifier:
        raise EngineError("the classifier is damaged: compile it again")

    one = Daemon(both, open_detector=lambda _: Detector(engine), open_classifier=refuse)
    with pytest.raises(EngineError, match="the classifier is damaged"):
        one.start()
    assert engine.closed == 1
    assert not both.station.state_dir.exists()


def test_engines_that_do_not_warm_up_are_closed() -> None:
    class Cold(LookerEngine):
        def _finish(self, job: object) -> dict[str, Array]:
            raise EngineError("cold")

    cold, finder = Cold(), NullEngine(FINDER)
    with pytest.raises(EngineError, match="cold"):
        load_engines(lambda: Networks(Detector(finder), Classifier(cold)), lambda: False)
    assert cold.closed == 1
