from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.config.recipe import DetectorRecipe, read_detector_recipe
from inspector.contract.errors import DataError
from inspector.models.multiscale import MultiscaleDetector
from inspector.training.checkpoint import load_model, load_weights
from inspector.training.curves import draw_losses, read_log
from inspector.training.datasets import read_dataset
from inspector.training.detect import detect_all, torch_detector
from inspector.training.evaluate import evaluate_detections
from inspector.training.loop import Trainer
from inspector.training.optimise import MovingAverage, rate_factor
from inspector.training.stepping import CHECKPOINT, LOG, WEIGHTS, StepReport

NEVER = threading.Event()


def trainer(recipe: DetectorRecipe, labels: Path, minutes: float | None = None) -> Trainer:
    torch.manual_seed(recipe.training.seed)
    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    return Trainer(recipe, model, read_dataset(labels, recipe.classes), minutes)


def silent(report: StepReport) -> None:
    pass


class Until:
    """Sets an event when a step is reached."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.event = threading.Event()

    def __call__(self, report: StepReport) -> None:
        if report.step >= self.step:
            self.event.set()


def test_a_tiny_network_learns_four_pictures_by_heart(recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    made = trainer(recipe, rectangles)
    assert made.run(tmp_path, NEVER, silent)
    fresh = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    about = load_model(fresh, tmp_path / WEIGHTS)
    assert json.loads(about["classes"]) == ["light", "dark"]
    dataset = read_dataset(rectangles, recipe.classes)
    result = evaluate_detections(dataset, list(detect_all(torch_detector(fresh), dataset.images())))
    assert result.map50 > 0.9
    lines = read_log(tmp_path / LOG)
    assert lines[-1]["step"] == made.total_steps
    assert lines[-1]["share_done"] == 1.0
    assert sum(lines[-1][name] for name in ("rpn_class", "head_class")) < 0.5 * sum(lines[0][name] for name in ("rpn_class", "head_class"))
    draw_losses(tmp_path / LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_resumed_training_ends_with_the_same_bits(optimiser: str, make_recipe: Any, rectangles: Path, tmp_path: Path) -> None:
    chosen = make_recipe(optimiser=optimiser, learning_rate=1e-3, epochs=30, flips=["horizontal"], contrast=0.2, scales=[1.0, 1.5])
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert trainer(chosen, rectangles).run(tmp_path / "whole", NEVER, silent)
    stopped = Until(20)
    first = trainer(chosen, rectangles)
    assert not first.run(tmp_path / "parts", stopped.event, stopped)
    assert first.step == 20
    torch.manual_seed(99)  # nothing may depend on where the global generator stands
    second = trainer(chosen, rectangles)
    second.resume(tmp_path / "parts")
    assert second.step == 20
    assert second.run(tmp_path / "parts", NEVER, silent)
    for file in (WEIGHTS, CHECKPOINT):
        whole, parts = load_weights(tmp_path / "whole" / file)[0], load_weights(tmp_path / "parts" / file)[0]
        assert whole.keys() == parts.keys()
        assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_what_was_trained_with_max_pooling_is_run_with_max_pooling(recipe: DetectorRecipe, rectangles: Path) -> None:
    max_recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"pooling": "max"})})
    made = trainer(max_recipe, rectangles)
    assert torch.isfinite(made.train_step(made.source.batch(0)).total())
    align = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    with torch.inference_mode():
        found = made.model.eval().trace(made.source.batch(0).images)
        regions = found.regions.unbind(0)
        assert torch.equal(found.pooled, made.model.pool(found.maps, regions))
        assert not torch.allclose(found.pooled, align.pool(found.maps, regions), atol=1e-3)


def test_training_in_bfloat16_keeps_float32_weights_and_learns(make_recipe: Any, rectangles: Path, tmp_path: Path) -> None:
    made = trainer(make_recipe(precision="bf16", epochs=40), rectangles)
    first = made.train_step(made.source.batch(0)).total()
    made.run(tmp_path, NEVER, silent)
    last = made.train_step(made.source.batch(0)).total()
    assert last < 0.6 * first
    assert {tensor.dtype for tensor in made.model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


def test_frozen_stages_do_not_move(make_recipe: Any, rectangles: Path) -> None:
    recipe = make_recipe()
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"frozen_stages": 2})})
    made = trainer(recipe, rectangles)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.train_step(made.source.batch(0))
    after = made.model.state_dict()
    assert torch.equal(before["backbone.conv1.weight"], after["backbone.conv1.weight"])
    assert not torch.equal(before["detection.classes.weight"], after["detection.classes.weight"])
    norms = [name for name in before if "running_" in name]
    assert norms
    assert all(torch.equal(before[name], after[name]) for name in norms)


def test_a_time_budget_ends_the_training(recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    made = trainer(recipe, rectangles, minutes=0.005)
    assert made.run(tmp_path, NEVER, silent)
    assert 0 < made.step < made.total_steps
    assert made.elapsed_s >= 0.3


def test_a_stop_before_the_first_step_still_leaves_a_checkpoint(recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    assert not trainer(recipe, rectangles).run(tmp_path, stop, silent)
    again = trainer(recipe, rectangles)
    again.resume(tmp_path)
    assert again.step == 0


def test_a_loss_that_is_not_finite_stops_with_the_mend(recipe: DetectorRecipe, rectangles: Path) -> None:
    made = trainer(recipe, rectangles)
    with torch.no_grad():
        made.model.detection.classes.weight.fill_(float("nan"))
    with pytest.raises(DataError, match=r"lower training\.learning_rate"):
        made.train_step(made.source.batch(0))


def test_a_checkpoint_of_another_recipe_or_file_is_refused(make_recipe: Any, recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    made = trainer(recipe, rectangles)
    made.train_step(made.source.batch(0))
    made.save(tmp_path)
    with pytest.raises(DataError, match="the recipe or the data changed"):
        trainer(make_recipe(learning_rate=1e-5), rectangles).resume(tmp_path)
    wider = recipe.model_copy(update={"network": recipe.network.model_copy(update={"hidden": 48})})
    with pytest.raises(DataError, match="is no checkpoint of this recipe"):
        trainer(wider, rectangles).resume(tmp_path)
    with pytest.raises(DataError, match="does not fit the recipe's network"):
        load_model(MultiscaleDetector(wider.network, wider.input, 2), tmp_path / WEIGHTS)
    (tmp_path / CHECKPOINT).write_bytes(b"nothing of use")
    with pytest.raises(DataError, match="damaged"):
        trainer(recipe, rectangles).resume(tmp_path)
    with pytest.raises(DataError, match="no such weights file"):
        load_weights(tmp_path / "nothing.safetensors")


def test_weights_have_the_permissions_of_any_other_file(recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    trainer(recipe, rectangles).save(tmp_path)
    assert {(tmp_path / name).stat().st_mode for name in (WEIGHTS, CHECKPOINT, "ordinary")} == {(tmp_path / "ordinary").stat().st_mode}


def test_a_folder_that_cannot_be_written_is_told(recipe: DetectorRecipe, rectangles: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        trainer(recipe, rectangles).save(tmp_path / "nothing")


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(make_recipe: Any) -> None:
    cosine = make_recipe(warm_up_steps=10).training
    assert rate_factor(cosine, 0, 0.0) == pytest.approx(0.1)
    assert rate_factor(cosine, 9, 0.0) == pytest.approx(1.0)
    assert rate_factor(cosine, 50, 0.5) == pytest.approx(0.505)
    assert rate_factor(cosine, 99, 1.0) == pytest.approx(0.01)
    constant = make_recipe(schedule="constant", warm_up_steps=0).training
    assert {rate_factor(constant, step, step / 100) for step in range(100)} == {1.0}


def test_the_backbone_learns_at_its_own_rate(make_recipe: Any, rectangles: Path) -> None:
    made = trainer(make_recipe(backbone_learning_rate=1e-5, warm_up_steps=0), rectangles)
    made.train_step(made.source.batch(0))
    assert [group["lr"] for group in made.optimiser.param_groups] == [pytest.approx(1e-5), pytest.approx(4e-3)]


def test_the_moving_average_follows_slowly(recipe: DetectorRecipe) -> None:
    model = MultiscaleDetector(recipe.network, recipe.input, 2)
    average = MovingAverage(model, 0.9)
    name = "detection.classes.bias"
    with torch.no_grad():
        model.detection.classes.bias.fill_(1.0)
    average.update(step=10_000)
    assert average.model.state_dict()[name].tolist() == pytest.approx([0.1] * 3)
    average.update(step=0)  # early steps forget the start at once
    assert average.model.state_dict()[name].tolist() == pytest.approx([0.91] * 3)


def test_the_paper_s_recipe_is_the_paper_s() -> None:
    paper = read_detector_recipe(Path(__file__).resolve().parents[3] / "engines" / "multiscale-paper.toml")
    told = paper.training
    assert (told.optimiser, told.learning_rate, told.momentum, told.weight_decay) == ("sgd", 0.001, 0.9, 0.0005)
    assert (told.batch, told.epochs, told.schedule, told.flips) == (1, 50, "constant", ("horizontal", "vertical", "both"))
    assert min(paper.input.height_px, paper.input.width_px) == 960
    assert paper.network.pooling == "max"
    assert paper.network.box_output == "per_class"
