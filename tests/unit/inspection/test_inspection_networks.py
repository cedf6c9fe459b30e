"""Two networks as one: real preprocessing and real reading of results around engines whose arithmetic is a look at a few pixels."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.config.classifier import BilinearNetwork, ClassifierCompile
from inspector.config.detector import CompileRecipe
from inspector.config.network import InputRecipe
from inspector.config.product import ClassifierRules, DetectorRules, Product
from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.contract.records import Box
from inspector.engine.base import Array, EngineLostError
from inspector.engine.classifier import Classifier
from inspector.engine.detector import Detections, Detector
from inspector.engine.null import NullEngine
from inspector.inspection.crops import Crop, surroundings
from inspector.inspection.findings import Findings, Look
from inspector.inspection.networks import Networks, Shown, Sight, open_networks

SIDE = 64
INPUT = InputRecipe(height_px=SIDE, width_px=SIDE)
FINDER = DetectorRecipe(name="finder", classes=("scratch", "dent"), input=INPUT, compile=CompileRecipe(budget_ms=300))
LOOKER = ClassifierRecipe(
    name="looker",
    classes=("good", "scratch", "crack"),
    good="good",
    input=INPUT,
    network=BilinearNetwork(architecture="bilinear", backbone_width=0.125, channels=8),
    compile=ClassifierCompile(budget_ms=200),
)


class Scripted(NullEngine, ABC):
    """Looks at the first pixel; fails where it is told to, at the n-th submission or at its collection."""

    def __init__(self, recipe: DetectorRecipe | ClassifierRecipe, log: list[str] | None = None) -> None:
        super().__init__(recipe)
        self.name = recipe.name
        self.log = [] if log is None else log
        self.started = 0
        self.fails_at_start: dict[int, type[EngineError]] = {}
        self.fails_at_end: dict[int, type[EngineError]] = {}
        self.freed = 0

    @property
    def under_way(self) -> int:
        return len(self._jobs)

    def _start(self, image: np.ndarray) -> tuple[int, int]:  # type: ignore[override]
        self.started += 1
        if self.started in self.fails_at_start:
            raise self.fails_at_start[self.started](f"refused {self.started}")
        self.log.append(f"{self.name} begins {self.started}")
        return self.started, int(image[0, 0, 0])

    def _finish(self, job: tuple[int, int]) -> dict[str, Array]:  # type: ignore[override]
        number, value = job
        self.log.append(f"{self.name} ends {number}")
        if number in self.fails_at_end:
            raise self.fails_at_end[number](f"failed {number}")
        outputs = super()._finish(None)
        self.read(outputs, value)
        return outputs

    @abstractmethod
    def read(self, outputs: dict[str, Array], value: int) -> None:
        """What the network says of an image whose first pixel is that."""

    def _free(self) -> None:
        self.freed += 1


class Finder(Scripted):
    """Two detections: the score tells what it has seen."""

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__(FINDER, log)

    def read(self, outputs: dict[str, Array], value: int) -> None:
        outputs["scores"][0, :2] = (value / 255, value / 510)
        outputs["boxes"][0, :2] = ((8, 8, 16, 24), (40, 40, 48, 48))


class Looker(Scripted):
    """The score of "scratch" tells what it has seen."""

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__(LOOKER, log)

    def read(self, outputs: dict[str, Array], value: int) -> None:
        outputs["scores"][0] = (1 - value / 255, value / 255, 0)
        outputs["label"][0] = value > 127
        outputs["contribution"][:] = 1


class Choice:
    """So many of the detections are shown to the classifier."""

    def __init__(self, crops: int) -> None:
        self.wanted = crops

    def crops(self, found: Detections, width_px: int, height_px: int) -> list[Crop]:
        boxes = found.boxes_px.tolist()[: self.wanted]
        return [surroundings(n, Box(*box), 0.0, width_px, height_px) for n, box in enumerate(boxes)]


def always() -> bool:
    return True


def picture(number: int, crops: tuple[int, int] = (0, 0)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The first pixel of the whole is ``number``, the first ones of the two crops are ``crops``."""
    image = np.full((SIDE, SIDE), 90, np.uint8)
    image[0, 0], image[8, 8], image[40, 40] = number, *crops
    return image


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def finder(log: list[str]) -> Finder:
    return Finder(log)


@pytest.fixture
def looker(log: list[str]) -> Looker:
    return Looker(log)


@pytest.fixture
def make(finder: Finder, looker: Looker) -> Iterator[Callable[[Sight], Networks]]:
    made: list[Networks] = []

    def one(on: Sight) -> Networks:
        made.append(Networks(Detector(finder), Classifier(looker), on))
        return made[-1]

    yield one
    for networks in made:
        networks.close()


def saw(look: Look) -> int:
    return round(float(look.said.scores[1]) * 255)


def values(found: Findings) -> tuple[int, list[tuple[int | None, int]]]:
    """The first pixels that the detector and the classifier's looks have seen."""
    return round(float(found.detections.scores[0]) * 255), [(look.detection, saw(look)) for look in found.looks]


@pytest.mark.parametrize(
    ("on", "looks"),
    [
        ("image", [(None, 200)]),
        ("detections", [(0, 11), (1, 22)]),
        ("both", [(None, 200), (0, 11), (1, 22)]),
    ],
)
def test_what_the_classifier_is_shown(make: Any, on: Sight, looks: list[tuple[int | None, int]]) -> None:
    networks = make(on)
    found = networks.collect(networks.submit(picture(200, (11, 22))), Choice(2), always)
    assert values(found) == (200, looks)
    areas = {look.detection: look.area_px for look in found.looks}
    assert areas.get(None, Box(0, 0, 64, 64)) == Box(0, 0, 64, 64)
    assert areas.get(0, Box(8, 8, 16, 24)) == Box(8, 8, 16, 24)
    assert found.preprocess_ms > 0
    assert found.engine_ms > 0


def test_both_begin_before_either_is_waited_for(make: Any, log: list[str]) -> None:
    networks = make("both")
    first, second = networks.submit(picture(10)), networks.submit(picture(20))
    assert log == ["finder begins 1", "looker begins 1", "finder begins 2", "looker begins 2"]
    log.clear()
    assert values(networks.collect(first, Choice(2), always))[0] == 10
    # The next image keeps one of the classifier's two places all the time.
    assert log == ["finder ends 1", "looker ends 1", "looker begins 3", "looker ends 3", "looker begins 4", "looker ends 4"]
    assert values(networks.collect(second, Choice(0), always)) == (20, [(None, 20)])


def test_a_detector_alone(finder: Finder) -> None:
    with Networks(Detector(finder)) as networks:
        assert values(networks.collect(networks.submit(picture(77)), Choice(2), always)) == (77, [])
        assert networks.budget_ms == 300
        assert networks.hashes == (finder.hash,)
        assert networks.facts.classifier is None


def test_who_they_are(make: Any, finder: Finder, looker: Looker) -> None:
    networks = make("image")
    assert (networks.facts.detector.name, networks.facts.detector.classes) == ("finder", ("scratch", "dent"))
    assert networks.facts.classifier is not None
    assert (networks.facts.classifier.name, networks.facts.classifier.good) == ("looker", "good")
    assert networks.facts.defects == ("scratch", "dent", "crack")
    assert networks.hashes == (finder.hash, looker.hash)
    assert networks.in_flight == 2
    assert networks.warm_up() >= 0
    assert (finder.started, looker.started) == (3, 3)


@pytest.mark.parametrize(("on", "budget_ms"), [("image", 500), ("detections", 500), ("both", 700)])
def test_the_budget_is_the_longest_time_between_two_signs_of_life(make: Any, on: Sight, budget_ms: float) -> None:
    assert make(on).budget_ms == budget_ms


def test_no_crop_is_shown_when_it_is_too_late(make: Any, looker: Looker) -> None:
    networks, turns = make("both"), iter((True, False))
    found = networks.collect(networks.submit(picture(200, (11, 22))), Choice(2), lambda: next(turns))
    assert values(found) == (200, [(None, 200), (0, 11)])
    assert looker.started == 2


def fail(engine: Scripted, where: str, number: int, kind: type[EngineError] = EngineError) -> None:
    (engine.fails_at_start if where == "start" else engine.fails_at_end)[number] = kind


@pytest.mark.parametrize("kind", [EngineError, EngineLostError])
@pytest.mark.parametrize(
    ("who", "where", "number"),
    [("finder", "start", 2), ("finder", "end", 2), ("looker", "start", 2), ("looker", "end", 2), ("looker", "start", 4), ("looker", "end", 4)],
)
def test_a_failure_fails_its_image_and_no_other(
    make: Any, finder: Finder, looker: Looker, who: str, where: str, number: int, kind: type[EngineError]
) -> None:
    """The second image's whole is the classifier's second, and its crop the fourth."""
    networks, engine = make("both"), finder if who == "finder" else looker
    fail(engine, where, number, kind)
    first = networks.submit(picture(10, (11, 12)))
    with pytest.raises(kind) as told:  # noqa: PT012 - it fails at the one or at the other
        second = networks.submit(picture(20, (21, 22)))
        assert values(networks.collect(first, Choice(1), always)) == (10, [(None, 10), (0, 11)])
        networks.collect(second, Choice(1), always)
    text = f"{'refused' if where == 'start' else 'failed'} {number}"
    assert str(told.value) == (text if kind is EngineLostError else f"{who}: {text}"), "a lost engine names itself"
    if where == "start" and number == 2:
        assert values(networks.collect(first, Choice(1), always)) == (10, [(None, 10), (0, 11)])
    assert (finder.under_way, looker.under_way) == (0, 0), "nothing waits for somebody who never comes"
    third = networks.submit(picture(30, (31, 32)))
    assert values(networks.collect(third, Choice(1), always)) == (30, [(None, 30), (0, 31)])


@pytest.mark.parametrize(
    ("first", "second", "raised"),
    [(EngineError, EngineError, EngineError), (EngineError, EngineLostError, EngineLostError), (EngineLostError, EngineError, EngineLostError)],
)
def test_of_two_failures_the_lost_engine_is_told(
    make: Any, finder: Finder, looker: Looker, first: type[EngineError], second: type[EngineError], raised: type[EngineError]
) -> None:
    networks = make("image")
    fail(finder, "end", 1, first)
    fail(looker, "end", 1, second)
    shown = networks.submit(picture(10))
    with pytest.raises(EngineError) as told:
        networks.collect(shown, Choice(0), always)
    assert type(told.value) is raised
    assert (finder.under_way, looker.under_way) == (0, 0)


FAILURES = st.sets(st.integers(1, 24))


@given(st.sampled_from(("image", "detections", "both")), st.integers(0, 2), st.lists(st.booleans(), max_size=24), st.tuples(*[FAILURES] * 4))
def test_every_image_gets_its_own_result_or_none(on: Sight, crops: int, steps: list[bool], failures: tuple[set[int], ...]) -> None:
    """Whatever fails, at most two images under way, collected in their order."""
    finder, looker = Finder(), Looker()
    for engine, starts, ends in ((finder, *failures[:2]), (looker, *failures[2:])):
        engine.fails_at_start = dict.fromkeys(starts, EngineError)
        engine.fails_at_end = dict.fromkeys(ends, EngineError)
    networks = Networks(Detector(finder), Classifier(looker), on)
    under_way: deque[tuple[int, Shown]] = deque()
    told: list[str] = []

    def collect() -> None:
        number, shown = under_way.popleft()
        try:
            found = networks.collect(shown, Choice(crops), always)
        except EngineError as error:
            told.append(str(error))
            return
        looks: list[tuple[int | None, int]] = [(None, number)] if on != "detections" else []
        looks += [(n, number + n + 1) for n in range(crops)] if on != "image" else []
        assert values(found) == (number, looks)

    for number, submits in enumerate(steps):
        if submits and len(under_way) < networks.in_flight:
            image = 100 + 4 * number
            try:
                under_way.append((image, networks.submit(picture(image, (image + 1, image + 2)))))
            except EngineError as error:
                told.append(str(error))
        elif under_way:
            collect()
    while under_way:
        collect()
    assert (finder.under_way, looker.under_way) == (0, 0)
    assert not [one for one in told if not re.fullmatch(r"(finder|looker): (refused|failed) \d+", one)], "nobody found an engine full"
    networks.close()


def product(tmp_path: Path, **classifier: Any) -> Product:
    rules = ClassifierRules(engine=tmp_path / "b", **classifier) if classifier else None
    return Product(name="p", version="1", deadline_ms=1, detector=DetectorRules(engine=tmp_path / "a"), classifier=rules)


def test_opening_a_product_s_networks(tmp_path: Path, finder: Finder, looker: Looker) -> None:
    asked: list[Any] = []

    def detector(path: Path) -> Detector:
        asked.append(path)
        return Detector(finder)

    def classifier(path: Path, map_kind: Any) -> Classifier:
        asked.append((path, map_kind))
        return Classifier(looker, map_kind)

    with open_networks(product(tmp_path, map="grad_cam", on="both"), detector, classifier) as networks:
        assert asked == [tmp_path / "a", (tmp_path / "b", "grad_cam")]
        assert networks.budget_ms == 700
    assert (finder.freed, looker.freed) == (1, 1)
    with open_networks(product(tmp_path), lambda _: Detector(Finder()), classifier) as networks:
        assert networks.facts.classifier is None


def test_an_engine_of_the_wrong_kind_leaves_none_open(tmp_path: Path, finder: Finder) -> None:
    def classifier(_: Path, map_kind: Any) -> Classifier:
        return Classifier(Finder(), map_kind)

    with pytest.raises(EngineError, match=r"finder.* is no classifier"):
        open_networks(product(tmp_path, on="both"), lambda _: Detector(finder), classifier)
    assert finder.freed == 1


def test_the_second_is_closed_when_the_first_cannot_be(finder: Finder, looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise EngineError("the device could not be freed")

    networks = Networks(Detector(finder), Classifier(looker))
    monkeypatch.setattr(finder, "_free", broken)
    with pytest.raises(EngineError):
        networks.close()
    assert looker.freed == 1
    networks.close()
