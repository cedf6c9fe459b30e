"""The drawing of a part's picture: boxes, labels, and where a classifier looked, beside or below."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector.archive import draw
from inspector.archive.draw import annotate
from inspector.contract.records import Box, Defect, HeatMap

LINES = ["REJECT  part 1", "2026"]
GREY = np.full((120, 320), 90, dtype=np.uint8)


def _heat(*corners: float, name: str = "dent", source: str = "multiscale", values: object = ((0, 0), (0, 1))) -> HeatMap:
    return HeatMap(name, 0.75, source, np.asarray(values, np.float32), Box(*corners))


def _noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def _bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR), np.uint8)


def _header_px(drawn: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> int:
    """Rows above the picture, as a drawing without heat has them."""
    return len(drawn) - len(pixels)


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3), (1000, 1600)])
def test_annotating_leaves_the_surface_uncovered_and_the_input_alone(made: SimpleNamespace, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    before = pixels.copy()
    drawn = annotate(pixels, ["REJECT  part 1", "zweite Zeile: ä"], [])
    assert (pixels == before).all()
    surface = drawn[-shape[0] :]
    expected = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if len(shape) == 2 else cv2.COLOR_RGB2BGR)
    assert (surface == expected).all()


def test_boxes_outside_the_image_and_odd_names_are_drawn_without_complaint(made: SimpleNamespace) -> None:
    defect = msgspec.structs.replace(made.make_defect("Kratzer ä\n"), box_px=msgspec.structs.replace(made.make_defect().box_px, x1=-1e12, y2=1e12))
    assert annotate(GREY, ["x"], [defect, made.make_defect(counted=False)]).shape[1] == 320


@pytest.mark.parametrize("shape", [(200, 200), (200, 200, 3), (300, 120), (240, 320, 3)])
def test_heat_lies_beside_the_untouched_surface(made: SimpleNamespace, shape: tuple[int, ...]) -> None:
    pixels, (height, width) = _noise(*shape), shape[:2]
    drawn = annotate(pixels, LINES, [], [_heat(0, 0, width, height)])
    above = _header_px(annotate(pixels, LINES, []), pixels)
    assert (drawn[above : above + height, :width] == _bgr(pixels)).all(), "no heat on the surface"
    panel = drawn[above : above + height, -width:]
    grey = _bgr(pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8))
    assert (panel[: height // 4, : width // 4] == grey[: height // 4, : width // 4]).all(), "cold places keep the picture's own grey"
    hottest = panel[-height // 4 :, -width // 4 :].astype(int)
    assert (hottest[..., 2] > hottest[..., 0] + 60).all()
    assert drawn.shape[1] > 2 * width
    assert drawn.shape[0] > above + height, "and a line about it"


@pytest.mark.parametrize("shape", [(100, 200), (60, 640, 3)])
def test_heat_of_a_wide_picture_lies_below_it(made: SimpleNamespace, shape: tuple[int, ...]) -> None:
    pixels, (height, width) = _noise(*shape), shape[:2]
    drawn = annotate(pixels, LINES, [], [_heat(0, 0, width, height)])
    above = _header_px(annotate(pixels, LINES, []), pixels)
    assert drawn.shape[1] == width
    assert (drawn[above : above + height] == _bgr(pixels)).all()
    assert (drawn[: above + height] == annotate(pixels, LINES, [])).all()
    gap = 4  # the thinnest pen's
    panel = drawn[above + height + gap :][:height].astype(int)
    assert (panel[-height // 4 :, -width // 4 :, 2] > panel[-height // 4 :, -width // 4 :, 0] + 60).all()


def test_boxes_stay_on_the_first_panel(made: SimpleNamespace) -> None:
    defects = [made.make_defect()]
    without = annotate(GREY, LINES, defects)
    drawn = annotate(GREY, LINES, defects, [_heat(0, 0, 320, 120)])
    assert (drawn[: without.shape[0]] == without).all()
    red = (40, 40, 230)
    assert not (drawn[without.shape[0] :] == red).all(axis=-1).any()


def test_every_map_lies_in_its_own_place_with_an_outline() -> None:
    pixels = np.full((200, 200), 90, np.uint8)
    maps = [_heat(20, 40, 60, 80, values=[[1]]), _heat(120, 140, 180, 180, values=[[1]])]
    panel = annotate(pixels, [], [], maps)[6 : 6 + 200, -200:].astype(int)
    hot = panel[..., 2] > panel[..., 0] + 60
    assert hot[60, 40]
    assert hot[160, 150]
    assert not hot[100:130].any()
    assert not hot[:, :19].any()
    for x1, y1, x2, y2 in ((20, 40, 60, 80), (120, 140, 180, 180)):
        edges = panel[[y2 - 1, (y1 + y2) // 2, (y1 + y2) // 2], [(x1 + x2) // 2, x1, x2 - 1]]
        assert (edges == draw._CYAN).all()
    assert (panel[30:33, 23:26] != 90).any(), "its number above it"


def test_a_parts_number_lies_inside_where_there_is_no_room_above() -> None:
    panel = annotate(np.full((100, 100), 90, np.uint8), [], [], [_heat(0, 0, 50, 50, values=[[0]])])[6:106, -100:]
    assert (panel[3:8, 3:8] == draw._DARK).any()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that were drawn, while they still are."""
    texts: list[str] = []
    put = cv2.putText

    def note(image: NDArray[np.uint8], text: str, *rest: object) -> object:
        texts.append(text)
        return put(image, text, *rest)  # type: ignore[call-overload]

    monkeypatch.setattr(cv2, "putText", note)
    return texts


def test_captions_tell_class_score_and_network_of_every_map(written: list[str]) -> None:
    annotate(_noise(300, 500), [], [], [_heat(0, 0, 500, 300, source="bilinear")])
    assert written == ["heat: dent 0.75  bilinear"]
    written.clear()
    annotate(_noise(300, 500), [], [], [_heat(5, 5, 90, 90)])
    assert written == ["1", "heat 1: dent 0.75  multiscale"]
    written.clear()
    annotate(_noise(300, 500), [], [], [_heat(0, 0, 500, 300, source="bilinear"), _heat(5, 5, 9, 9, name="Kr\xe4tze", source="bilinear")])
    assert written == ["2", "heat 1, whole picture: dent 0.75  bilinear", "heat 2: Kr?tze 0.75  bilinear"]


def test_a_caption_that_is_too_long_goes_on_in_the_next_line(written: list[str]) -> None:
    drawn = annotate(_noise(100, 200), [], [], [_heat(0, 0, 200, 100, name="rolled-in_scale", source="bilinear-lite0-2026-11")])
    assert [line.strip() for line in written] == ["heat: rolled-in_scale 0.75", "bilinear-lite0-2026-11"]
    assert drawn.shape[1] == 200


def test_boxes_name_their_network_where_there_is_more_than_one(made: SimpleNamespace, written: list[str]) -> None:
    ours, other = made.make_defect(), msgspec.structs.replace(made.make_defect(), source="bilinear")
    annotate(GREY, [], [ours])
    annotate(GREY, [], [ours], [_heat(0, 0, 320, 120)])
    annotate(GREY, [], [ours, other])
    annotate(GREY, [], [ours], [_heat(0, 0, 320, 120, source="bilinear")])
    boxes = [text for text in written if text.startswith("scratch")]
    named = "scratch 0.90 multiscale"
    assert boxes == ["scratch 0.90", "scratch 0.90", named, "scratch 0.90 bilinear", named]


def _plates(drawn: NDArray[np.uint8]) -> int:
    """Connected dark plates: a label each, unless they touch."""
    return int(cv2.connectedComponents(cv2.inRange(drawn, draw._DARK, draw._DARK))[0]) - 1


def test_labels_of_two_networks_at_one_defect_do_not_hide_each_other(made: SimpleNamespace) -> None:
    pixels = np.full((200, 300), 200, np.uint8)
    defect = msgspec.structs.replace(made.make_defect(), box_px=Box(50, 100, 90, 140))

    def dark(*defects: Defect) -> int:
        return int((annotate(pixels, [], defects) == draw._DARK).all(axis=-1).sum())

    one = dark(defect, msgspec.structs.replace(defect, box_px=Box(50, 180, 90, 190), source="bilinear"))
    both = dark(defect, msgspec.structs.replace(defect, source="bilinear"))
    assert both == pytest.approx(one, rel=0.02)
    many = [msgspec.structs.replace(defect, source=f"network{number}") for number in range(30)]
    assert annotate(pixels, [], many).shape[1] == 300, "a label without a free place is drawn all the same"


def test_a_label_of_two_networks_lies_beside_the_defects_where_there_is_room(made: SimpleNamespace) -> None:
    pixels = np.full((200, 400), 200, np.uint8)
    small, other = (msgspec.structs.replace(made.make_defect(), box_px=box) for box in (Box(100, 90, 124, 110), Box(150, 75, 210, 110)))
    drawn = annotate(pixels, [], [other, small, msgspec.structs.replace(small, source="bilinear")])[-200:]
    for box in (small.box_px, other.box_px):
        inside = drawn[int(box.y1) + 4 : int(box.y2) - 3, int(box.x1) + 4 : int(box.x2) - 3]
        assert (inside == 200).all()


def test_what_did_not_count_and_lies_nowhere_is_left_out(made: SimpleNamespace) -> None:
    pixels = _noise(120, 320)
    whole = msgspec.structs.replace(made.make_defect(counted=False), box_px=Box(0, 0, 320, 120))
    assert (annotate(pixels, [], [whole])[-120:] == _bgr(pixels)).all()
    counted = msgspec.structs.replace(whole, counted=True)
    assert (annotate(pixels, [], [counted])[-120:] != _bgr(pixels)).any()
