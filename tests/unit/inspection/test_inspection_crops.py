"""Crops lie in the image, hold the detection and its margin as far as the image reaches, and are never too small to show anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.contract.records import Box
from inspector.inspection.crops import LEAST_PX, surroundings

SIZES = st.integers(1, 300)


@given(SIZES, SIZES, st.tuples(*[st.floats(0, 1, width=32)] * 4), st.floats(0, 4))
def test_laws(width: int, height: int, shares: tuple[float, float, float, float], margin: float) -> None:
    x1, x2 = sorted(np.float32(share) * np.float32(width) for share in shares[:2])
    y1, y2 = sorted(np.float32(share) * np.float32(height) for share in shares[2:])
    box = Box(float(x1), float(y1), float(x2), float(y2))
    crop = surroundings(7, box, margin, width, height)
    assert crop.detection == 7
    assert crop.box_px == Box(crop.left, crop.top, crop.right, crop.bottom)
    grow = margin * max(box.x2 - box.x1, box.y2 - box.y1)
    for first, last, low, high, size in ((crop.left, crop.right, box.x1, box.x2, width), (crop.top, crop.bottom, box.y1, box.y2, height)):
        assert 0 <= first < last <= size
        assert last - first >= min(LEAST_PX, size)
        assert first <= max(0, low - grow) + 1e-9
        assert last >= min(size, high + grow) - 1e-9
        assert last - first <= max(LEAST_PX, high - low + 2 * grow) + 2 + 1e-9, "no more than was asked for"


@pytest.mark.parametrize(
    ("box", "margin", "edges"),
    [
        (Box(40, 30, 60, 40), 0.5, (30, 20, 70, 50)),
        (Box(40.5, 30.5, 60.5, 40.5), 0, (40, 30, 61, 41)),
        (Box(0, 0, 20, 10), 1, (0, 0, 40, 30)),
        (Box(100, 80, 100, 80), 0.5, (92, 72, 100, 80)),
        (Box(50, 40, 52, 42), 0, (47, 37, 55, 45)),
    ],
    ids=["inside", "whole pixels", "at a corner", "nothing at the far corner", "tiny"],
)
def test_examples(box: Box, margin: float, edges: tuple[int, int, int, int]) -> None:
    crop = surroundings(0, box, margin, 100, 80)
    assert (crop.left, crop.top, crop.right, crop.bottom) == edges
