"""The commands train and evaluate on a classifier's recipe: what they write, and what they refuse before anything is trained."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from inspector.cli.evaluate import evaluate
from inspector.cli.main import main
from inspector.cli.train import train
from inspector.config.recipe import Recipe
from inspector.contract.errors import DataError, EngineError, ExitCode, InspectorError
from inspector.engine import opening
from inspector.engine.manifest import encode_manifest
from inspector.engine.null import NullEngine, null_manifest
from inspector.models.bilinear import BilinearClassifier
from inspector.models.multiscale import MultiscaleDetector
from inspector.training.checkpoint import load_trained, load_weights, save_weights
from inspector.training.labelled import read_labelled

QUICK = {"epochs": 2, "learning_rate": 1e-3, "batch": 6}
RUN_FILES = {"checkpoint.safetensors", "curves.png", "log.jsonl", "recipe.toml", "weights.safetensors"}


def call(*arguments: str | Path) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InspectorError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def as_toml(recipe: Recipe, path: Path) -> Path:
    def table(name: str, values: dict[str, Any]) -> list[str]:
        plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
        below = [line for key, value in values.items() if isinstance(value, dict) for line in table(f"{name}.{key}" if name else key, value)]
        return ([f"[{name}]"] if name else []) + plain + below

    path.write_text("\n".join(table("", recipe.model_dump(mode="json", exclude_none=True))) + "\n")
    return path


@pytest.fixture
def recipe_file(make_classifier: Any, tmp_path: Path) -> Path:
    return as_toml(make_classifier(new_layers=QUICK, all_layers=QUICK), tmp_path / "tiny.toml")


@pytest.fixture
def trained(recipe_file: Path, make_classifier: Any, tmp_path: Path) -> Path:
    """Weights that name every picture 'light'."""
    recipe = make_classifier()
    torch.manual_seed(0)
    model = BilinearClassifier(recipe.network, recipe.input, 3)
    torch.nn.init.normal_(model.classes.weight)
    with torch.no_grad():
        model.classes.bias[1] = 100.0
    path = tmp_path / "trained" / "weights.safetensors"
    path.parent.mkdir()
    save_weights(path, model.state_dict(), {"recipe": recipe.name, "classes": json.dumps(recipe.classes)})
    return path


def sorted_into_folders(labels: Path, folder: Path) -> Path:
    for entry in json.loads(labels.read_text())["images"]:
        (folder / entry["image_class"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(labels.parent / "images" / entry["file_name"], folder / entry["image_class"] / entry["file_name"])
    return folder


def as_csv(labels: Path) -> Path:
    path = labels.parent / "marks.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "class"))
        rows.writerows((f"images/{entry['file_name']}", entry["image_class"]) for entry in json.loads(labels.read_text())["images"])
    return path


def test_train_then_evaluate_leaves_weights_curves_and_report(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    recipe, run = as_toml(make_classifier(), tmp_path / "tiny.toml"), tmp_path / "run"
    told = call("train", recipe, "--data", marks, "--run", run, "--threads", "1")
    assert "tiny-classes: 12 pictures (plain 4, light 4, dark 4), 80 steps, 1 threads" in told
    assert "first the features of 12 pictures, computed once" in told
    assert "step 80/80 epoch 40.00  loss 0." in told
    assert {path.name for path in run.iterdir()} == RUN_FILES
    told = call("evaluate", run / "recipe.toml", "--data", marks, "--weights", run / "weights.safetensors", "--baseline-data", marks)
    assert "tiny-classes: 12 pictures, accuracy 1.000, mean AP 1.000; defects against plain: PR 1.000, TPR 1.000, FPR 0.000" in " ".join(told.split())
    assert "GLCM + MLP: 12 pictures" in told
    assert "where the heat maps point" in told
    assert "…" not in told
    assert {path.name for path in run.iterdir()} - RUN_FILES == {f"evaluation-marks{end}" for end in (".json", ".md", "-confusion.png", "-heat.png")}
    content = json.loads((run / "evaluation-marks.json").read_text())
    assert {name: content[name] for name in ("recipe", "weights", "precision", "data", "samples", "accuracy")} == {
        "recipe": "tiny-classes",
        "weights": str(run / "weights.safetensors"),
        "precision": "fp32",
        "data": str(marks),
        "samples": 12,
        "accuracy": 1.0,
    }
    assert content["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert content["defects"]["true_positives"] == 8
    assert content["baseline"]["method"] == "GLCM + MLP"
    assert content["baseline"]["samples"] == 12
    assert {name: one["left_out"] for name, one in content["maps"].items()} == {"Grad-CAM": 4, "contribution": 4}
    assert content["maps"]["contribution"]["mean"]["peak_hits"] > 0.8
    markdown = (run / "evaluation-marks.md").read_text()
    assert "| figure | class | labels | tiny-classes | GLCM + MLP |" in markdown
    assert "### Where the heat map points" in markdown
    confusion, heat = (np.asarray(cv2.imread(str(run / f"evaluation-marks-{kind}.png"))) for kind in ("confusion", "heat"))
    assert confusion.size > 0
    assert heat.shape[1] > 6 * 224  # six pictures in a row


@pytest.mark.parametrize("form", ["folders", "csv", "coco"])
def test_each_form_of_labels_trains_the_same(form: str, recipe_file: Path, marks: Path, tmp_path: Path) -> None:
    data = {"folders": sorted_into_folders(marks, tmp_path / "classes"), "csv": as_csv(marks), "coco": marks}[form]
    assert "12 pictures (plain 4, light 4, dark 4), 8 steps" in call("train", recipe_file, "--data", data, "--run", tmp_path / "run")
    told = call("evaluate", recipe_file, "--data", data, "--weights", tmp_path / "run" / "weights.safetensors")
    assert ("where the heat maps point" in told) == (form == "coco")  # only COCO tells where
    stem = {"folders": "classes", "csv": "marks", "coco": "marks"}[form]
    content = json.loads((tmp_path / "run" / f"evaluation-{stem}.json").read_text())
    assert content["samples"] == 12
    assert ("maps" in content) == (form == "coco")
    assert "baseline" not in content


def test_a_report_is_named_as_its_data_dots_and_all(recipe_file: Path, trained: Path, marks: Path, tmp_path: Path, monkeypatch: Any) -> None:
    dotted = marks.with_name("marks.v2.json")
    marks.rename(dotted)
    call("evaluate", recipe_file, "--data", dotted, "--weights", trained, "--out", tmp_path / "out", "--every", "4")
    assert json.loads((tmp_path / "out" / "evaluation-marks.v2.json").read_text())["samples"] == 3
    folder = sorted_into_folders(dotted, tmp_path / "strip.7")
    monkeypatch.chdir(folder)
    call("evaluate", recipe_file, "--data", ".", "--weights", trained, "--out", tmp_path / "out")
    ends = (".json", ".md", "-confusion.png", "-heat.png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"evaluation-{name}{end}" for name in ("marks.v2", "strip.7") for end in ends}


def test_the_baseline_may_have_labels_of_another_form(recipe_file: Path, trained: Path, marks: Path, tmp_path: Path) -> None:
    folders = sorted_into_folders(marks, tmp_path / "classes")
    moved = tmp_path / "labels" / "val.json"
    moved.parent.mkdir()
    marks.rename(moved)
    arguments = ("--data", moved, "--images", marks.parent / "images", "--weights", trained, "--baseline-data", folders)
    assert "GLCM + MLP: 12 pictures" in call("evaluate", recipe_file, *arguments)


def test_an_evaluation_may_lack_a_class_but_its_baseline_may_not(recipe_file: Path, trained: Path, marks: Path, tmp_path: Path) -> None:
    content = json.loads(marks.read_text())
    fewer = marks.with_name("fewer.json")
    fewer.write_text(json.dumps({**content, "images": [one for one in content["images"] if one["image_class"] == "light"], "annotations": []}))
    told = call("evaluate", recipe_file, "--data", fewer, "--weights", trained)
    assert "4 pictures, accuracy 1.000, mean AP 1.000" in told
    assert "where the heat maps point" not in told
    with pytest.raises(DataError, match="class 'dark' of the recipe has no picture"):
        call("evaluate", recipe_file, "--data", marks, "--weights", trained, "--baseline-data", fewer)


def told_by_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str]]:
    """The exit code and the lines of the real command."""
    monkeypatch.setattr(sys, "argv", ["inspector", *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err.splitlines()


def broken_coco(marks: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    content = json.loads(marks.read_text())
    images = marks.parent / "images"
    (images / "0.png").unlink()
    (images / "1.png").write_text("no picture")
    (images / "2.png").write_bytes(b"")
    content["images"] = [one for one in content["images"] if one["image_class"] != "dark" or one["id"] == 2]
    content["images"][2]["image_class"] = "drak"
    content["images"][4]["width"] = 3
    del content["images"][5]["image_class"]
    known = {one["id"] for one in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in known]
    content["annotations"][-1]["bbox"] = [1, 1, 0, 5]
    marks.write_text(json.dumps(content))
    return marks, [
        "class 'drak' is not in the recipe (plain, light, dark): ",
        "2.png",
        "class 'dark' of the recipe has no picture",
        f"{images / '0.png'}: no such picture",
        f"{images / '1.png'}: does not decode as a picture",
        f"{images / '2.png'}: is an empty file",
        f"{images / '4.png'}: ",
        "image_class is missing, or is no text, for ",
        "has no area",
    ]


def broken_csv(marks: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    path = as_csv(marks)
    lines = path.read_text().splitlines()
    images = marks.parent / "images"
    (images / "3.png").write_text("no picture")
    lines = [line for line in lines if not line.endswith("dark")]
    lines += ["images/gone.png,light", "images/1.png,light", "images/2.png,scratch", "images/5.png,", ",light"]
    path.write_text("\n".join(lines) + "\n")
    return path, [
        f"{images / 'gone.png'}: no such picture",
        f"{images / '3.png'}: does not decode as a picture",
        f"{images / '1.png'}: is named twice, as 'light'",
        "class 'scratch' is not in the recipe (plain, light, dark): ",
        "images/5.png: has no class",
        "names no image",
        "class 'dark' of the recipe has no picture",
    ]


def broken_folders(marks: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    folder = sorted_into_folders(marks, tmp_path / "classes")
    (folder / "dark").rename(folder / "drak")
    (folder / "light" / "1.png").write_text("no picture")
    (folder / "drak" / "2.png").write_bytes(b"")
    shutil.copy(folder / "plain" / "0.png", folder / "loose.png")
    return folder, [
        f"{folder / 'drak'}: sub-folder that is no class of the recipe (plain, light, dark)",
        f"{folder / 'light' / '1.png'}: does not decode as a picture",
        f"{folder / 'drak' / '2.png'}: is an empty file",
        "pictures in no class's sub-folder: loose.png",
        "class 'dark' of the recipe has no picture",
    ]


@pytest.mark.parametrize("broken", [broken_coco, broken_csv, broken_folders])
def test_everything_wrong_with_the_labels_is_told_at_once_before_anything_is_trained(
    broken: Any, recipe_file: Path, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, wanted = broken(marks, tmp_path)
    code, lines = told_by_main(monkeypatch, capsys, "train", recipe_file, "--data", data, "--run", tmp_path / "run")
    assert code == ExitCode.DATA == 65
    assert all(line.startswith("inspector: ") for line in lines)
    assert lines[0] == f"inspector: {data}: {len(lines) - 1} problems"
    for part in wanted:
        assert any(part in line for line in lines[1:]), part
    assert not (tmp_path / "run").exists()


def test_of_many_problems_the_first_40_are_shown_and_all_are_counted(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.csv"
    path.write_text("image;class\n" + "".join(f"{number}.png;{name}\n" for number, name in enumerate(["plain", "light", "dark"] * 20)))
    code, lines = told_by_main(monkeypatch, capsys, "train", recipe_file, "--data", path, "--run", tmp_path / "run")
    assert code == 65
    assert lines[0].endswith("many.csv: 60 problems")
    assert lines[-1] == "inspector: ... and 20 more"
    assert len(lines) == 42


def test_a_run_folder_is_not_trained_over_and_goes_on(recipe_file: Path, marks: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such checkpoint"):
        call("train", recipe_file, "--data", marks, "--run", tmp_path / "run", "--resume")
    call("train", recipe_file, "--data", marks, "--run", tmp_path / "run")
    with pytest.raises(DataError, match="holds a training already"):
        call("train", recipe_file, "--data", marks, "--run", tmp_path / "run")
    assert "trained in" in call("train", recipe_file, "--data", marks, "--run", tmp_path / "run", "--resume")


def test_the_seed_may_be_named(recipe_file: Path, make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    told = as_toml(make_classifier(new_layers=QUICK, all_layers=QUICK, seed=5), tmp_path / "five.toml")
    arguments: dict[str, tuple[str | Path, ...]] = {"recipe": (told,), "option": (recipe_file, "--seed", "5"), "none": (recipe_file,)}
    found = {}
    for name, given in arguments.items():
        call("train", *given, "--data", marks, "--run", tmp_path / name, "--threads", "1")
        found[name] = load_weights(tmp_path / name / "weights.safetensors")[0]
    assert all(torch.equal(tensor, found["option"][name]) for name, tensor in found["recipe"].items())
    assert not any(torch.equal(tensor, found["option"][name]) for name, tensor in found["none"].items())
    with pytest.raises(DataError, match="the recipe or the data changed"):
        call("train", recipe_file, "--data", marks, "--run", tmp_path / "option", "--resume")
    call("train", recipe_file, "--seed", "5", "--data", marks, "--run", tmp_path / "option", "--resume")


def test_weights_with_some_of_the_backbone_s_layers_are_taken_if_asked_for(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    network = {"backbone": "efficientnet_lite0", "backbone_width": 1.0, "level": 3}
    recipe = make_classifier(network, pretrained="imagenet", all_layers={**QUICK, "epochs": 0}, new_layers=QUICK)
    path = as_toml(recipe, tmp_path / "lite.toml")
    torch.manual_seed(7)
    whole = BilinearClassifier(recipe.network, recipe.input, 3).backbones[0].state_dict()
    some = {name: tensor for name, tensor in whole.items() if name.startswith("stem.")}
    save_weights(tmp_path / "some.safetensors", some, {})
    given = ("train", path, "--data", marks, "--run", tmp_path / "run", "--backbone", tmp_path / "some.safetensors")
    with pytest.raises(DataError, match="tensors are missing"):
        call(*given)
    assert not (tmp_path / "run").exists()
    told = call(*given, "--partial")
    assert f"{len(whole) - len(some)} of the backbone's {len(whole)} tensors are not in {tmp_path / 'some.safetensors'}" in " ".join(told.split())
    found = load_weights(tmp_path / "run" / "weights.safetensors")[0]
    for trunk in ("trunks.0.", "trunks.1."):
        assert all(torch.equal(found[trunk + name], tensor) for name, tensor in some.items())
    assert all(torch.equal(found[f"trunks.0.{name}"], found[f"trunks.1.{name}"]) for name in whole)
    save_weights(tmp_path / "some.safetensors", {"nothing": torch.zeros(1)}, {})
    with pytest.raises(DataError, match="belong to another network"):
        call(*given[:-4], "--run", tmp_path / "other", "--backbone", tmp_path / "some.safetensors", "--partial")


def test_partial_goes_with_a_file(recipe_file: Path, marks: Path) -> None:
    app = typer.Typer()
    app.command("train")(train)
    assert CliRunner().invoke(app, [str(recipe_file), "--data", str(marks), "--partial"]).exit_code == ExitCode.USAGE


def test_a_stop_while_the_features_are_computed_is_no_failure(
    recipe_file: Path, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        def __enter__(self) -> Any:
            event = threading.Event()
            event.set()
            return event

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr("inspector.cli.train._stops_on_signals", Stopped)
    app = typer.Typer()
    app.command("train")(train)
    result = CliRunner().invoke(app, [str(recipe_file), "--data", str(marks), "--run", str(tmp_path / "run")])
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "stopped at step 0; the same command with --resume goes on" in result.output
    monkeypatch.undo()
    assert "trained in" in call("train", recipe_file, "--data", marks, "--run", tmp_path / "run", "--resume")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES


def detector_weights(recipe: Any, path: Path) -> Path:
    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    save_weights(path, model.state_dict(), {"recipe": recipe.name, "classes": json.dumps(recipe.classes)})
    return path


def test_weights_of_the_other_kind_of_network_are_one_clear_sentence(
    recipe_file: Path, trained: Path, recipe: Any, marks: Path, rectangles: Path, tmp_path: Path
) -> None:
    wrong = detector_weights(recipe, tmp_path / "detector.safetensors")
    told = r"does not fit the recipe's network \(it is of the recipe '{}'; tensors: .*\); name weights that were trained with this recipe$"
    with pytest.raises(DataError, match=told.format("tiny")) as caught:
        call("evaluate", recipe_file, "--data", marks, "--weights", wrong)
    assert len(str(caught.value)) < 400
    detector = as_toml(recipe, tmp_path / "detector.toml")
    with pytest.raises(DataError, match=told.format("tiny-classes")):
        call("evaluate", detector, "--data", rectangles, "--weights", trained)
    with pytest.raises(DataError, match="no such weights file"):
        call("evaluate", recipe_file, "--data", marks, "--weights", tmp_path / "nothing.safetensors")


def test_engines_of_the_other_kind_of_network_are_one_clear_sentence(
    recipe_file: Path, make_classifier: Any, recipe: Any, marks: Path, rectangles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "some.engine.json"
    manifest.write_bytes(encode_manifest(null_manifest(recipe)))
    monkeypatch.setattr(opening, "open_engine", lambda path: NullEngine(recipe))
    with pytest.raises(EngineError, match=r"some\.engine\.json: is a detector's engine, the recipe is a classifier's"):
        call("evaluate", recipe_file, "--data", marks, "--engine", manifest)
    monkeypatch.setattr(opening, "open_engine", lambda path: NullEngine(make_classifier()))
    with pytest.raises(EngineError, match="engine 'tiny-classes' is no detector"):
        call("evaluate", as_toml(recipe, tmp_path / "detector.toml"), "--data", rectangles, "--engine", manifest)


def test_an_engine_is_evaluated_by_the_same_code(
    recipe_file: Path, make_classifier: Any, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "tiny-classes.engine.json"
    manifest.write_bytes(encode_manifest(null_manifest(make_classifier())))
    monkeypatch.setattr(opening, "open_engine", lambda path: NullEngine(make_classifier()))
    call("evaluate", recipe_file, "--data", marks, "--engine", manifest)
    content = json.loads((tmp_path / "evaluation-marks.json").read_text())
    assert content["engine"] == str(manifest)
    assert "weights" not in content
    assert content["samples"] == 12
    turned = as_toml(make_classifier().model_copy(update={"classes": ("dark", "light", "plain")}), tmp_path / "turned.toml")
    with pytest.raises(DataError, match="was made for the classes plain, light, dark, the recipe names dark, light, plain"):
        call("evaluate", turned, "--data", marks, "--engine", manifest)


def test_scores_that_are_no_numbers_are_told_with_the_picture(recipe_file: Path, trained: Path, marks: Path) -> None:
    weights, about = load_weights(trained)
    weights["classes.bias"][0] = float("nan")
    save_weights(trained, weights, about)
    with pytest.raises(DataError, match=r"weights\.safetensors: its scores or heat maps of .*0\.png are not finite"):
        call("evaluate", recipe_file, "--data", marks, "--weights", trained)


def test_a_detector_has_no_texture_baseline(recipe: Any, rectangles: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("evaluate")(evaluate)
    arguments = [as_toml(recipe, tmp_path / "detector.toml"), "--data", rectangles, "--baseline-data", rectangles]
    assert CliRunner().invoke(app, [str(argument) for argument in arguments]).exit_code == ExitCode.USAGE


def test_the_sheet_shows_what_was_named_wrong_first(recipe_file: Path, trained: Path, make_marks: Any, tmp_path: Path) -> None:
    many = make_marks(tmp_path / "many", count=10)
    told = call("evaluate", recipe_file, "--data", many, "--weights", trained)
    assert "accuracy 0.333" in told
    sheet = np.asarray(cv2.imread(str(trained.parent / "evaluation-marks-heat.png")))
    assert sheet.shape[0] == pytest.approx(4 * sheet.shape[1] / 6, rel=0.3)  # 24 of the 30 pictures, six in a row
    tiles = [tile for row in np.array_split(sheet, 4) for tile in np.array_split(row, 6, axis=1)]
    red = [bool((tile == (0, 0, 220)).all(-1).any()) for tile in tiles]  # the captions of wrong ones
    assert red == [True] * 20 + [False] * 4


def test_a_report_that_cannot_be_written_is_told(recipe_file: Path, trained: Path, marks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file: cannot be written: File exists$"):
        call("evaluate", recipe_file, "--data", marks, "--weights", trained, "--out", tmp_path / "file")


def test_what_was_trained_is_what_the_weights_file_holds(recipe_file: Path, make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    call("train", recipe_file, "--data", marks, "--run", tmp_path / "run")
    recipe = make_classifier()
    model = BilinearClassifier(recipe.network, recipe.input, 3)
    load_trained(model, tmp_path / "run" / "weights.safetensors", recipe.classes)
    assert read_labelled(marks, recipe.classes).counts.tolist() == [4, 4, 4]
    with pytest.raises(DataError, match="was trained for the classes plain, light, dark"):
        load_trained(model, tmp_path / "run" / "weights.safetensors", ("plain", "light", "other"))
