from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from inspector.cli.evaluate import evaluate
from inspector.cli.train import _display, train
from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import ConfigError, DataError, EngineError, ExitCode, InspectorError
from inspector.engine import opening
from inspector.engine.manifest import encode_manifest
from inspector.engine.null import NullEngine, null_manifest
from inspector.training.stepping import StepReport


def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    made.command("train")(train)
    made.command("evaluate")(evaluate)
    return made


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app(), [str(argument) for argument in arguments])
    if isinstance(result.exception, InspectorError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def as_toml(recipe: DetectorRecipe, path: Path) -> Path:
    def text(value: Any) -> str:
        return json.dumps(value)

    parts = recipe.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {text(value)}" for key, value in parts.items() if not isinstance(value, dict)]
    for section, values in parts.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{key} = {text(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def recipe_file(make_recipe: Any, tmp_path: Path) -> Path:
    return as_toml(make_recipe(epochs=5), tmp_path / "tiny.toml")


def test_train_then_evaluate_leaves_weights_curves_and_report(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = call("train", recipe_file, "--data", rectangles, "--run", run, "--threads", "1")
    assert "4 pictures, 4 labels, 5 steps, 1 threads" in told
    assert "trained in" in told
    assert {path.name for path in run.iterdir()} == {"checkpoint.safetensors", "curves.png", "log.jsonl", "recipe.toml", "weights.safetensors"}
    told = call("evaluate", run / "recipe.toml", "--data", rectangles, "--weights", run / "weights.safetensors")
    assert "light" in told
    assert "mAP@0.5" in told
    content = json.loads((run / "evaluation-labels.json").read_text())
    assert content["pictures"] == 4
    assert content["recipe"] == "tiny"
    assert "| light |" in (run / "evaluation-labels.md").read_text()
    assert (run / "evaluation-labels.png").is_file()
    told = call("evaluate", recipe_file, "--data", rectangles, "--weights", run / "weights.safetensors", "--every", "2", "--out", tmp_path / "quick")
    assert json.loads((tmp_path / "quick" / "evaluation-labels.json").read_text())["pictures"] == 2


def test_a_run_folder_is_not_trained_over(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run")
    with pytest.raises(DataError, match="holds a training already"):
        call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run")
    assert "trained in" in call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run", "--resume")


def test_resuming_nothing_is_told(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such checkpoint"):
        call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run", "--resume")
    assert not (tmp_path / "run").exists()


def test_backbone_weights_for_a_recipe_without_them_are_refused(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pretrained"):
        call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run", "--backbone", tmp_path / "x.safetensors")


def test_bad_labels_stop_it_before_anything_is_written(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    content = json.loads(rectangles.read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 0]
    rectangles.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no area"):
        call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_are_refused(recipe_file: Path, make_recipe: Any, rectangles: Path, tmp_path: Path) -> None:
    call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run")
    turned = as_toml(make_recipe().model_copy(update={"classes": ("dark", "light")}), tmp_path / "turned.toml")
    with pytest.raises(DataError, match="was trained for the classes light, dark"):
        call("evaluate", turned, "--data", rectangles, "--weights", tmp_path / "run" / "weights.safetensors")


def test_pictures_without_any_label_cannot_be_evaluated(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    call("train", recipe_file, "--data", rectangles, "--run", tmp_path / "run")
    content = json.loads(rectangles.read_text())
    rectangles.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match="no labels"):
        call("evaluate", recipe_file, "--data", rectangles, "--weights", tmp_path / "run" / "weights.safetensors")


def test_a_compiled_engine_is_evaluated_by_the_same_code(
    recipe_file: Path, make_recipe: Any, rectangles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "tiny.engine.json"
    manifest.write_bytes(encode_manifest(null_manifest(make_recipe())))
    with pytest.raises(EngineError, match="computes nothing"):
        call("evaluate", recipe_file, "--data", rectangles, "--engine", manifest)
    monkeypatch.setattr(opening, "open_engine", lambda path: NullEngine(make_recipe()))
    call("evaluate", recipe_file, "--data", rectangles, "--engine", manifest)
    content = json.loads((tmp_path / "evaluation-labels.json").read_text())
    assert content["engine"] == str(manifest)
    assert content["map50"] == 0.0
    turned = as_toml(make_recipe().model_copy(update={"classes": ("dark", "light")}), tmp_path / "turned.toml")
    with pytest.raises(DataError, match="was made for the classes light, dark"):
        call("evaluate", turned, "--data", rectangles, "--engine", manifest)


def test_weights_and_an_engine_together_are_a_usage_error(recipe_file: Path, rectangles: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", recipe_file, "--data", rectangles, "--engine", tmp_path / "a", "--weights", tmp_path / "b"]
    assert CliRunner().invoke(app(), [str(argument) for argument in arguments]).exit_code == ExitCode.USAGE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_losses_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    with _display(100) as listener:
        listener(StepReport(50, 1.25, 0.5, 120.0, 0.5, 1e-3, {"rpn_class": 0.1, "rpn_box": 0.2, "head_class": 0.3, "head_box": 0.4}))
    told = terminal.getvalue()
    for part in ("epoch 1.25", "50 %", "rpn class 0.100  rpn box 0.200  head class 0.300  head box 0.400", "2.0 min left"):
        assert part in told


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(make_recipe: Any, rectangles: Path, tmp_path: Path) -> None:
    recipe = as_toml(make_recipe(epochs=100_000), tmp_path / "long.toml")
    script = "import typer; from inspector.cli.train import train; typer.run(train)"
    command = [sys.executable, "-c", script, str(recipe), "--data", str(rectangles), "--run", str(tmp_path / "run"), "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 20/"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "--resume goes on" in told
    assert {"checkpoint.safetensors", "weights.safetensors", "curves.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
