from __future__ import annotations

import numpy as np
import pytest

from inspector.config.product import ClassRule, DetectorRules, Product, Region, ValidityRules
from inspector.contract.records import Box, Defect, Outcome
from inspector.engine.detector import Detections
from inspector.inspection.findings import Findings, NetworkFacts, ProductFacts
from inspector.inspection.validity import ValidityGate
from inspector.inspection.verdict import ProductRules

MS = 1_000_000


def product(px_per_mm: float | None = None, **rules: object) -> Product:
    return Product(name="p", version="1", deadline_ms=100, px_per_mm=px_per_mm, detector=DetectorRules(engine="engine", **rules))  # type: ignore[arg-type]


def found(*items: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    return Detections(
        np.array([box for _, _, box in items], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in items], np.float32),
        np.array([label for label, _, _ in items], np.int32),
        ("dent", "scratch"),
        0.0,
        0.0,
    )


def judge(made: Product, detections: Detections) -> tuple[Outcome, tuple[Defect, ...]]:
    """What a detector alone decides."""
    rules = ProductRules(made, ProductFacts(NetworkFacts("net", detections.classes)))
    assert rules.crops(detections, 100, 100) == []
    return rules.apply(Findings(detections, (), 0.0, 0.0), "top")


@pytest.mark.parametrize(
    ("rules", "counts"),
    [
        ({}, True),
        ({"threshold": 0.75}, True),
        ({"threshold": 0.76}, False),
        ({"threshold": 0.9, "classes": {"dent": ClassRule(threshold=0.5)}}, True),
        ({"classes": {"dent": ClassRule(threshold=0.8)}}, False),
        ({"classes": {"dent": ClassRule(ignore=True)}}, False),
        ({"classes": {"scratch": ClassRule(ignore=True)}}, True),
        ({"min_side_px": 20}, True),
        ({"min_side_px": 20.5}, False),
        ({"min_side_px": 50, "classes": {"dent": ClassRule(min_side_px=0)}}, True),
        ({"regions": (Region(x1_px=15, y1_px=5, x2_px=30, y2_px=20),)}, True),
        ({"regions": (Region(x1_px=21, y1_px=0, x2_px=30, y2_px=20),)}, False),
        ({"regions": (Region(x1_px=0, y1_px=0, x2_px=1, y2_px=1), Region(x1_px=20, y1_px=10, x2_px=30, y2_px=20))}, True),
    ],
)
def test_what_counts(rules: dict[str, object], counts: bool) -> None:
    outcome, (defect,) = judge(product(None, **rules), found((0, 0.75, (10, 5, 30, 15))))
    assert defect.counted is counts
    assert outcome is (Outcome.REJECT if counts else Outcome.PASS)
    assert defect.score == 0.75, "the raw score is kept"


def test_a_defect_has_its_place_in_mm() -> None:
    _, (defect,) = judge(product(px_per_mm=2), found((1, 0.9, (10, 4, 30, 14))))
    assert (defect.name, defect.source, defect.camera) == ("scratch", "net", "top")
    assert defect.box_mm == Box(5, 2, 15, 7)
    assert defect.area_mm2 == 50
    _, (without,) = judge(product(), found((1, 0.9, (10, 4, 30, 14))))
    assert (without.box_mm, without.area_mm2) == (None, None)


def test_nothing_found_passes() -> None:
    assert judge(product(), found()) == (Outcome.PASS, ())


def grey(value: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    noise = np.random.default_rng(seed).integers(0, 3, (96, 128))
    return (noise + value).clip(0, 255).astype(np.uint8)


def test_an_ordinary_image_is_valid() -> None:
    gate = ValidityGate(ValidityRules())
    assert gate.check("a", grey(100)) == ""
    assert gate.check("b", grey(100)) == "", "another camera's image"


def test_black_and_saturated_have_their_limits() -> None:
    gate = ValidityGate(ValidityRules(black_below=20, saturated_level=200, saturated_share=0.25))
    assert "black" in gate.check("a", grey(10))
    assert gate.check("a", grey(30)) == ""
    image = grey(100)
    image[:40] = 220
    assert "saturated" in gate.check("a", image)
    image[20:40] = 100
    assert gate.check("a", image) == ""


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_frozen_is_byte_by_byte(padding: int, channels: int) -> None:
    gate = ValidityGate(ValidityRules())
    rows = np.random.default_rng(1).integers(50, 150, (20, 30 * channels + padding), dtype=np.uint8)

    def image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        cut = rows[:, : 30 * channels]
        return cut if channels == 1 else np.ndarray((20, 30, 3), np.uint8, buffer=rows, strides=(rows.strides[0], 3, 1))

    assert gate.check("a", image()) == ""
    if padding:
        rows[:, -1] += 1  # what lies between the rows is no part of the image
    assert "frozen" in gate.check("a", image())
    assert "frozen" in gate.check("a", image())
    rows[19, 30 * channels - 1] ^= 1
    assert gate.check("a", image()) == ""
    assert ValidityGate(ValidityRules(frozen=False)).check("a", image()) == ""


def test_a_stale_image_is_told_from_a_new_one_as_long_as_it_is_kept() -> None:
    random = np.random.default_rng(2)
    images = [random.integers(50, 150, (20, 30), dtype=np.uint8) for _ in range(12)]
    gate = ValidityGate(ValidityRules())
    assert [gate.check("a", image) for image in images] == [""] * 12
    assert "5 images before" in gate.check("a", images[7])
    assert "frozen" in gate.check("a", images[11])
    assert gate.check("b", images[7]) == "", "another camera's"
    assert gate.check("a", images[3]) == "", "so far back nothing is kept"
    assert gate.check("a", images[7][:10]) == "", "of another size"
    assert gate.check("a", images[7]) == ""


def test_large_images_are_not_all_kept() -> None:
    gate = ValidityGate(ValidityRules(black_below=0))
    images = [np.full((4096, 6000), level, np.uint8) for level in range(4)]
    assert [gate.check("a", image) for image in images] == [""] * 4
    assert "2 images before" in gate.check("a", images[2])
    assert gate.check("a", images[1]) == "", "two of 24.6 MB fit into 64 MiB"


def test_every_colour_of_a_bayer_pattern_is_sampled() -> None:
    image = np.full((70, 70), 10, np.uint8)
    image[1::2, 1::2] = 255
    assert "saturated" in ValidityGate(ValidityRules(saturated_share=0.2)).check("a", image)
