from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from inspector.training.classification import Classification, evaluate_classification
from inspector.training.classification_report import as_json, as_markdown, as_table, comparison, comparison_table, pointing_table, rows, summary
from inspector.training.localisation import Localisation, Pointed, evaluate_localisation

NAMES = ("good", "dent", "scratch", "stain")
LABELS = np.array([0, 0, 1, 1, 2, 2, 2])


def classified(given: list[int], good: str | None = "good") -> Classification:
    return evaluate_classification(np.eye(4)[given], LABELS, NAMES, good)


PERFECT, FAIR = classified(LABELS.tolist()), classified([0, 0, 0, 1, 1, 2, 0])


def pointed(box: Any, peak: Any, threshold: float = 0.3) -> Localisation:
    true = np.array([(0, 0, 50, 100)])
    pictures = [Pointed(100, 100, 1, true, np.array(box), peak), Pointed(100, 100, 2, np.zeros((0, 4)), None, None)]
    return evaluate_localisation(pictures, NAMES, threshold)


MAPS = {"Grad-CAM": pointed((0, 0, 20, 100), (60, 50)), "contribution": pointed((0, 0, 50, 100), (10, 50))}


def printed(table: Any, path: Path, width: int = 160) -> list[list[str]]:
    """The cells of the table's lines as a terminal shows them."""
    console = Console(record=True, width=width, file=path.open("w"))
    with console.file:
        console.print(table)
    lines = console.export_text().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.split("│")[1 if line.startswith("│") else 0 :]] for line in lines if "│" in line]


def markdown_tables(text: str) -> list[list[list[str]]]:
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


def test_one_method_has_a_row_for_each_class_and_one_for_all() -> None:
    assert rows(FAIR) == [
        ("good", "2", "0.500", "1.000", "0.500", "0.667"),
        ("dent", "2", "0.393", "0.500", "0.500", "0.500"),
        ("scratch", "3", "0.619", "0.333", "1.000", "0.500"),
        ("stain", "0", "-", "-", "-", "-"),
        ("all", "7", "0.504", "0.571", "", ""),
    ]
    assert summary(classified([0] * 7, good=None)) == "7 pictures, accuracy 0.286, mean AP 0.333"
    assert summary(FAIR) == ("7 pictures, accuracy 0.571, mean AP 0.504; defects against good: PR 1.000, TPR 0.600, FPR 0.000, FNR 0.400, F1 0.750")


def test_the_terminal_shows_what_the_rows_say(tmp_path: Path) -> None:
    shown = printed(as_table(FAIR, "bilinear on strip"), tmp_path / "out")
    assert [tuple(line[:6]) for line in shown[1:]] == rows(FAIR)


def test_methods_stand_beside_one_another(tmp_path: Path) -> None:
    without_good = classified(LABELS.tolist(), good=None)
    headings, groups = comparison({"ours": PERFECT, "GLCM + MLP": FAIR, "control": without_good})
    assert headings == ("figure", "class", "labels", "ours", "GLCM + MLP", "control")
    of_ap, of_accuracy, of_rates = groups
    assert of_ap[0] == ("AP", "good", "2", "1.000", "0.500", "1.000")
    assert of_ap[3] == ("AP", "stain", "0", "-", "-", "-")
    assert of_ap[-1] == ("AP", "mean", "7", "1.000", "0.504", "1.000")
    assert of_accuracy[2] == ("accuracy", "scratch", "3", "1.000", "0.333", "1.000")
    assert of_accuracy[-1] == ("accuracy", "all", "7", "1.000", "0.571", "1.000")
    assert [row[1:] for row in of_rates] == [
        ("PR", "7", "1.000", "1.000", "-"),
        ("TPR", "7", "1.000", "0.600", "-"),
        ("FPR", "7", "0.000", "0.000", "-"),
        ("FNR", "7", "0.000", "0.400", "-"),
        ("F1", "7", "1.000", "0.750", "-"),
    ]
    assert {row[0] for row in of_rates} == {"against good"}
    assert len(comparison({"control": without_good})[1]) == 2
    table = comparison_table({"ours": PERFECT, "GLCM + MLP": FAIR}, "strip")
    assert [number for number, row in enumerate(table.rows) if row.style == "bold"] == [4, 9]
    shown = printed(table, tmp_path / "out")
    # Each figure is named once.
    assert [line[0] for line in shown if line[0]] == ["figure", "AP", "accuracy", "against good"]
    assert ["", "scratch", "3", "1.000", "0.333"] in [line[:5] for line in shown]


def test_what_was_not_measured_on_the_same_stands_in_no_table() -> None:
    fewer = evaluate_classification(np.eye(4)[[0, 1]], np.array([0, 1]), NAMES, "good")
    with pytest.raises(ValueError, match="same pictures"):
        comparison({"a": FAIR, "b": fewer})
    with pytest.raises(ValueError, match="same pictures"):
        comparison({"a": FAIR, "b": classified([0] * 7, good="dent")})
    with pytest.raises(ValueError, match="nothing"):
        comparison({})
    with pytest.raises(ValueError, match="same pictures"):
        pointing_table({"a": MAPS["Grad-CAM"], "b": pointed((0, 0, 1, 1), None, threshold=0.5)}, "strip")
    with pytest.raises(ValueError, match="same pictures"):
        pointing_table({"a": MAPS["Grad-CAM"], "b": replace(MAPS["Grad-CAM"], left_out=7)}, "strip")
    with pytest.raises(ValueError, match="nothing"):
        pointing_table({}, "strip")


def test_heat_maps_stand_beside_the_controls(tmp_path: Path) -> None:
    shown = printed(pointing_table(MAPS, "strip"), tmp_path / "out")
    assert shown[0][:6] == ["figure", "class", "pictures", "Grad-CAM", "contribution", "control"]
    assert [line[0] for line in shown if line[0]] == ["figure", "box hits", "peak hits", "mean IoU"]
    dents = [line[2:6] for line in shown if line[1] == "dent"]
    assert dents == [["1", "1.000", "1.000", "1.000"], ["1", "0.000", "1.000", "0.500"], ["1", "0.400", "1.000", "0.500"]]
    assert next(line[2:6] for line in shown if line[1] == "stain") == ["0", "-", "-", "-"]
    assert [line[2:6] for line in shown if line[1] == "mean"] == dents


def test_tables_fit_a_terminal_of_80_columns_and_cut_no_word(tmp_path: Path) -> None:
    names = ("rolled-in_scale", "pitted_surface", "crazing")
    result = evaluate_classification(np.eye(3)[[0, 1, 2]], np.arange(3), names, "crazing")
    pictures = [Pointed(100, 100, kind, np.array([(0, 0, 50, 100)]), np.array((0, 0, 20, 100)), (1, 2)) for kind in range(3)]
    maps = dict.fromkeys(("Grad-CAM", "contribution"), evaluate_localisation(pictures, names, 0.3))
    methods = {"bilinear-dvgg16": result, "GLCM + MLP": result}
    for table in (pointing_table(maps, "where the heat maps point"), comparison_table(methods, "strip"), as_table(result, "strip")):
        shown = printed(table, tmp_path / "out", width=80)
        assert {"rolled-in_scale", "pitted_surface"} <= {cell for line in shown for cell in line}
    long = evaluate_classification(np.eye(2)[[0, 1]], np.arange(2), ("a" * 90, "b"))
    shown = printed(as_table(long, "strip"), tmp_path / "out", width=80)
    assert "".join(line[0] for line in shown).count("a") >= 90  # folded over several lines


def test_markdown_of_one_method_and_of_several() -> None:
    alone = as_markdown({"ours": FAIR}, "strip")
    assert alone.startswith(f"## strip\n\nours: {summary(FAIR)}.\n\n| class | labels |")
    ((headings, _, *cells),) = markdown_tables(alone)
    assert headings == ["class", "labels", "AP", "accuracy", "precision", "F1"]
    assert [tuple(row) for row in cells] == rows(FAIR)

    several = as_markdown({"ours": PERFECT, "GLCM + MLP": FAIR}, "strip", MAPS)
    assert f"- GLCM + MLP: {summary(FAIR)}." in several
    assert "1 pictures without true boxes are left out" in several
    assert "overlaps a true one with an IoU of 0.3 or more" in several
    methods, maps = markdown_tables(several)
    assert methods[0] == ["figure", "class", "labels", "ours", "GLCM + MLP"]
    assert ["accuracy", "all", "7", "1.000", "0.571"] in methods
    assert ["against good", "FNR", "7", "0.000", "0.400"] in methods
    assert ["peak hits", "mean", "1", "0.000", "1.000", "0.500"] in maps
    assert all(len(row) == len(table[0]) for table in (methods, maps) for row in table)


def test_json_says_everything_and_null_where_nothing_was_measured() -> None:
    content = json.loads(json.dumps(as_json(FAIR, MAPS, recipe="x", data="y.json")))
    assert list(content)[:2] == ["recipe", "data"]
    assert content["samples"] == 7
    assert content["accuracy"] == FAIR.accuracy
    assert content["mean_ap"] == FAIR.mean_ap
    assert content["confusion"] == [[2, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    assert content["classes"][2]["name"] == "scratch"
    assert content["classes"][2]["recall"] == pytest.approx(1 / 3)
    assert content["classes"][3] == {
        "name": "stain",
        "labels": 0,
        "named": 0,
        "right": 0,
        "precision": None,
        "recall": None,
        "f1": None,
        "ap": None,
    }
    assert content["defects"] == {
        "good": "good",
        "true_positives": 3,
        "false_positives": 0,
        "true_negatives": 2,
        "false_negatives": 2,
        "precision": 1.0,
        "true_positive_rate": 0.6,
        "false_positive_rate": 0.0,
        "false_negative_rate": 0.4,
        "f1": pytest.approx(0.75),
    }
    assert content["maps"]["Grad-CAM"]["left_out"] == 1
    assert content["maps"]["contribution"]["mean"]["peak_hits"] == 1.0
    assert content["maps"]["contribution"]["classes"][3]["mean_iou"] is None
    plain = as_json(classified([0] * 7, good=None))
    assert plain["defects"] is None
    assert "maps" not in plain
