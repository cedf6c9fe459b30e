from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from inspector.contract.errors import DataError
from inspector.training.curves import draw_losses, draw_precision_recall, read_log
from inspector.training.datasets import Dataset, Picture
from inspector.training.detect import Detections, detect_all, one_by_one, sorted_detections
from inspector.training.evaluate import evaluate_detections
from inspector.training.report import as_json, as_markdown, as_table


def picture(boxes: list[tuple[float, ...]], classes: list[int], ignored: list[bool] | None = None) -> Picture:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Picture(Path("x.png"), 100, 100, array, np.array(classes, np.int64), np.array(ignored or [False] * len(classes), np.bool_))


def dataset(*pictures: Picture, classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    return Dataset(Path("labels.json"), classes, pictures, False, ())


def found(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    return sorted_detections(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))


TRUTH = dataset(picture([(10, 10, 30, 30), (50, 50, 80, 90)], [0, 1]), picture([(0, 0, 100, 100)], [0]), picture([], []))


def test_perfect_detections_are_perfect() -> None:
    perfect = [sorted_detections(p.boxes, np.ones(len(p.boxes)), p.classes) for p in TRUTH.pictures]
    result = evaluate_detections(TRUTH, perfect)
    assert (result.map50, result.map75, result.map) == (1.0, 1.0, 1.0)
    assert [(row.name, row.labels, row.recall, row.best_f1) for row in result.classes] == [("a", 2, 1.0, 1.0), ("b", 1, 1.0, 1.0)]


def test_no_detections_are_worth_nothing() -> None:
    result = evaluate_detections(TRUTH, [found()] * 3)
    assert (result.map50, result.map) == (0.0, 0.0)
    assert [row.recall for row in result.classes] == [0.0, 0.0]


def test_a_known_curve_by_hand() -> None:
    # Class a, four labels; in score order: right, wrong, right, wrong. Precision 1 up to recall 1/4, 2/3 up to 1/2, then none.
    truth = dataset(picture([(0, 0, 20, 20), (30, 0, 50, 20), (60, 0, 80, 20), (0, 60, 20, 80)], [0] * 4), classes=("a",))
    detections = [found(((0, 0, 20, 20), 0.9, 0), ((80, 80, 99, 99), 0.8, 0), ((30, 0, 50, 20), 0.7, 0), ((80, 60, 99, 79), 0.6, 0))]
    (row,) = evaluate_detections(truth, detections).classes
    # 101 points: recall 0 .. 0.25 are 26 of them, 0.26 .. 0.50 are 25.
    assert row.ap50 == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert row.recall == 0.5
    assert row.best_f1 == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert row.best_f1_score == pytest.approx(0.7)


def test_the_iou_threshold_decides() -> None:
    truth = dataset(picture([(0, 0, 100, 100)], [0]), classes=("a",))
    result = evaluate_detections(truth, [found(((0, 0, 100, 62), 0.9, 0))])  # IoU 0.62
    assert result.map50 == 1.0
    assert result.map75 == 0.0
    assert result.map == pytest.approx(3 / 10)  # 0.50, 0.55, 0.60


def test_the_right_place_with_the_wrong_class_is_wrong() -> None:
    truth = dataset(picture([(0, 0, 20, 20)], [0]))
    assert evaluate_detections(truth, [found(((0, 0, 20, 20), 0.9, 1))]).map50 == 0.0


def test_a_second_detection_of_a_defect_is_wrong() -> None:
    truth = dataset(picture([(0, 0, 20, 20), (40, 40, 60, 60)], [0, 0]), classes=("a",))
    twice = [found(((0, 0, 20, 20), 0.9, 0), ((0, 0, 20, 19), 0.8, 0), ((40, 40, 60, 60), 0.7, 0))]
    (row,) = evaluate_detections(truth, twice).classes
    assert row.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_ignored_boxes_are_neither_missed_nor_false() -> None:
    truth = dataset(picture([(0, 0, 20, 20), (40, 40, 60, 60)], [0, 0], [False, True]), classes=("a",))
    met = [found(((40, 40, 60, 60), 0.95, 0), ((0, 0, 20, 20), 0.9, 0))]
    (row,) = evaluate_detections(truth, met).classes
    assert row.labels == 1
    assert row.ap50 == 1.0


def test_a_class_without_labels_does_not_count() -> None:
    truth = dataset(picture([(0, 0, 20, 20)], [0]), classes=("a", "b"))
    result = evaluate_detections(truth, [found(((0, 0, 20, 20), 0.9, 0), ((40, 40, 60, 60), 0.9, 1))])
    assert result.map50 == 1.0
    assert result.classes[1].ap50 is None


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="2 detections for 3 pictures"):
        evaluate_detections(TRUTH, [found()] * 2)
    with pytest.raises(ValueError, match="no labels"):
        evaluate_detections(dataset(picture([], [])), [found()])


def test_detections_are_sorted_and_unused_slots_left_out() -> None:
    result = found(((0, 0, 1, 1), 0.2, 0), ((0, 0, 2, 2), 0.0, 1), ((0, 0, 3, 3), 0.7, 1))
    assert result.scores.tolist() == pytest.approx([0.7, 0.2])
    assert result.classes.tolist() == [1, 0]


def test_detectors_of_one_picture_and_odd_batches_work_alike() -> None:
    sizes: list[int] = []

    def detector(images: list[np.ndarray]) -> list[Detections]:
        sizes.append(len(images))
        return one_by_one(lambda image: (np.array([[0, 0, 1, 1]]), np.array([image.mean() / 255]), np.array([0])))(images)

    images = [np.full((4, 4), 10 * (n + 1), np.uint8) for n in range(7)]
    scores = [float(item.scores[0]) for item in detect_all(detector, iter(images), batch=3)]
    assert sizes == [3, 3, 1]
    assert scores == pytest.approx([10 * (n + 1) / 255 for n in range(7)])


def test_the_table_names_every_class_and_the_mean(tmp_path: Path) -> None:
    truth = dataset(picture([(0, 0, 20, 20)], [0]), classes=("scratch", "dent"))
    result = evaluate_detections(truth, [found(((0, 0, 20, 20), 0.9, 0))])
    console = Console(record=True, width=120, file=(tmp_path / "out").open("w"))
    with console.file:
        console.print(as_table(result, "title"))
    told = console.export_text()
    assert "scratch" in told
    assert "mean" in told
    markdown = as_markdown(result, "title")
    assert "| scratch | 1 | 1.000 | 1.000 |" in markdown
    assert "| dent | 0 | - |" in markdown
    content = json.loads(json.dumps(as_json(result, data="x.json")))
    assert content["data"] == "x.json"
    assert content["map50"] == 1.0
    assert content["classes"][1] == {
        "name": "dent",
        "labels": 0,
        "ap50": None,
        "ap": None,
        "recall": None,
        "best_f1": None,
        "best_f1_score": None,
    }
    draw_precision_recall(result, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="cannot be written"):
        draw_precision_recall(result, tmp_path / "nothing" / "curve.png")


def test_a_log_cut_off_in_its_last_line_is_still_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    line = {"step": 1, "epoch": 0.1, "learning_rate": 1, "rpn_class": 1, "rpn_box": 1, "head_class": 1, "head_box": 1}
    log.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    assert read_log(log) == [line]
    draw_losses(log, tmp_path / "curves.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_log(tmp_path / "nothing.jsonl")
