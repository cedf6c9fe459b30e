from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inspector.surfaces.defects import DEFECT_KINDS
from inspector.surfaces.scene import CHANGE_LEVELS, SurfaceGenerator

SIZES = ((640, 480), (320, 240), (200, 200), (64, 48))

DIGEST = """
import hashlib
from inspector.surfaces.scene import SurfaceGenerator
generator = SurfaceGenerator(320, 240, 5, 1.0)
digest = hashlib.sha256()
for index in (9, 3, 0):
    surface = generator.render(index)
    digest.update(surface.image.tobytes() + repr(surface.defects).encode())
print(digest.hexdigest())
"""


@settings(max_examples=80)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 2**40), size=st.sampled_from(SIZES), kind=st.sampled_from(DEFECT_KINDS))
@example(seed=0, index=0, size=(1280, 960), kind="scratch")
def test_the_box_is_the_tightest_box_around_the_changed_pixels(seed: int, index: int, size: tuple[int, int], kind: str) -> None:
    generator = SurfaceGenerator(*size, seed, 1.0, max_defects=1, kinds=(kind,))
    surface = generator.render(index)

    (defect,) = surface.defects
    change = np.abs(surface.image.astype(int) - generator.render_clean(index).astype(int))
    rows, columns = np.nonzero(change > CHANGE_LEVELS)
    assert defect.kind == kind
    assert defect.box_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert defect.area_px == rows.size
    assert defect.contrast == change.max()


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 10_000))
def test_several_defects_keep_apart_and_each_box_is_tight(seed: int, index: int) -> None:
    generator = SurfaceGenerator(640, 480, seed, 1.0, max_defects=6)
    surface = generator.render(index)
    left_over = np.abs(surface.image.astype(int) - generator.render_clean(index).astype(int)) > CHANGE_LEVELS

    assert 1 <= len(surface.defects) <= 6
    for defect in surface.defects:
        x1, y1, x2, y2 = defect.box_px
        inside = left_over[y1:y2, x1:x2]
        assert inside.sum() == defect.area_px
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        left_over[y1:y2, x1:x2] = False  # a second defect in this box would now miss its pixels
    assert not left_over.any()


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_depends_on_seed_and_index_alone(size: tuple[int, int]) -> None:
    forward = [SurfaceGenerator(*size, 5, 0.5).render(index) for index in range(6)]
    generator = SurfaceGenerator(*size, 5, 0.5)
    backward = [generator.render(index) for index in reversed(range(6))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(generator.render, range(6)))

    for one, two, three in zip(forward, backward, threaded, strict=True):
        assert one.defects == two.defects == three.defects
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.image, three.image)


def test_another_process_draws_the_same_bytes() -> None:
    generator = SurfaceGenerator(320, 240, 5, 1.0)
    digest = hashlib.sha256()
    for index in (9, 3, 0):
        surface = generator.render(index)
        digest.update(surface.image.tobytes() + repr(surface.defects).encode())

    answer = subprocess.run([sys.executable, "-c", DIGEST], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == digest.hexdigest()


def test_seeds_and_indices_give_different_pictures() -> None:
    pictures = [SurfaceGenerator(160, 120, seed, 0.0).render(index).image.tobytes() for seed in range(4) for index in range(8)]
    assert len(set(pictures)) == len(pictures)


def test_a_picture_can_be_of_one_kind_and_still_have_several_defects() -> None:
    generator = SurfaceGenerator(640, 480, 21, 1.0, max_defects=4, one_kind=True)
    surfaces = [generator.render(index) for index in range(200)]
    assert all(len({defect.kind for defect in surface.defects}) == 1 for surface in surfaces)
    assert {surface.defects[0].kind for surface in surfaces} == set(DEFECT_KINDS)
    assert {len(surface.defects) for surface in surfaces} == {1, 2, 3, 4}


def test_every_kind_occurs_about_equally_often() -> None:
    generator = SurfaceGenerator(640, 480, 21, 1.0)
    kinds = [defect.kind for index in range(400) for defect in generator.render(index).defects]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in DEFECT_KINDS}
    assert min(shares.values()) > 0.05
    assert max(shares.values()) < 0.17


def test_the_share_of_defective_pictures_is_the_rate() -> None:
    generator = SurfaceGenerator(160, 120, 2, 0.3)
    defective = sum(bool(generator.render(index).defects) for index in range(1000))
    assert 250 < defective < 350


def test_clean_pictures_are_clean() -> None:
    generator = SurfaceGenerator(320, 240, 3, 0.0)
    for index in range(20):
        surface = generator.render(index)
        assert surface.defects == ()
        np.testing.assert_array_equal(surface.image, generator.render_clean(index))


def test_the_picture_is_an_exposed_grey_image_that_can_be_sent() -> None:
    for index in range(30):
        surface = SurfaceGenerator(640, 480, 4, 0.5).render(index)
        assert surface.image.shape == (480, 640)
        assert surface.image.dtype == np.uint8
        assert surface.image.flags.c_contiguous
        assert 60 < surface.image.mean() < 200
        assert surface.image.std() > 2


def test_defects_are_visible() -> None:
    generator = SurfaceGenerator(640, 480, 8, 1.0)
    for index in range(60):
        for defect in generator.render(index).defects:
            assert defect.contrast >= 30, defect


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"width_px": 40}, "too small"),
        ({"seed": -1}, "seed"),
        ({"defect_rate": 1.1}, "defect_rate"),
        ({"max_defects": 0}, "max_defects"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("rust",)}, "rust"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], complaint: str) -> None:
    settings_: dict[str, object] = {"width_px": 64, "height_px": 64, "seed": 1, "defect_rate": 0.5}
    with pytest.raises(ValueError, match=complaint):
        SurfaceGenerator(**{**settings_, **arguments})  # type: ignore[arg-type]


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="index"):
        SurfaceGenerator(64, 64, 1).render(-1)


def test_surfaces_need_no_torch() -> None:
    code = "import sys; import inspector.surfaces.dataset; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
