"""The two phases of a classifier's training: what each changes, and that a stop between any two steps changes nothing."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from inspector.config.recipe import ClassifierRecipe
from inspector.contract.errors import DataError
from inspector.engine.preprocess import letterbox
from inspector.models.bilinear import BilinearClassifier
from inspector.training.batches import epoch_indices
from inspector.training.checkpoint import load_trained, load_weights
from inspector.training.class_loop import ClassifierTrainer
from inspector.training.classify import classify_all, torch_classifier
from inspector.training.curves import draw_losses, read_log
from inspector.training.labelled import read_labelled
from inspector.training.optimise import COSINE_END
from inspector.training.stepping import CHECKPOINT, LOG, WEIGHTS, StepReport

NEVER = threading.Event()
NOTHING: dict[str, Any] = {"epochs": 0, "learning_rate": 1e-3, "batch": 6}


def trainer(recipe: ClassifierRecipe, labels: Path, minutes: float | None = None) -> ClassifierTrainer:
    torch.manual_seed(recipe.training.seed)
    model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
    return ClassifierTrainer(recipe, model, read_labelled(labels, recipe.classes), minutes)


def silent(report: StepReport) -> None:
    pass


def state(made: ClassifierTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


class Until:
    """Sets an event when a step is reached."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.event = threading.Event()

    def __call__(self, report: StepReport) -> None:
        if report.step >= self.step:
            self.event.set()


class Asked(threading.Event):
    """Is set from its n-th question on."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def is_set(self) -> bool:
        self.times -= 1
        return self.times < 0


def open_files(folder: Path) -> list[str]:
    """Files of a folder that this process has open, names or none."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return [target for target in found if target.startswith(str(folder))]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("network", [{}, {"backbone": "efficientnet_lite0", "trunks": "shared"}, {"normalise": "sqrt_l2"}], ids=str)
def test_a_tiny_classifier_learns_its_pictures_by_heart(network: dict[str, Any], make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    recipe = make_classifier(network)
    made = trainer(recipe, marks)
    assert made.total_steps == 80
    assert made.run(tmp_path, NEVER, silent)
    fresh = BilinearClassifier(recipe.network, recipe.input, 3)
    load_trained(fresh, tmp_path / WEIGHTS, recipe.classes)
    dataset = read_labelled(marks, recipe.classes)
    found = list(classify_all(torch_classifier(fresh, "fp32"), dataset.images()))
    assert [one.label for one in found] == dataset.labels.tolist()
    lines = read_log(tmp_path / LOG)
    assert [line["step"] for line in lines] == [20, 40, 60, 80]
    assert [line["epoch"] for line in lines] == [10, 20, 30, 40]
    assert lines[-1]["share_done"] == 1.0
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["error"] < 0.2
    # Each line tells the rate of its own phase, the one at the boundary too.
    assert [line["learning_rate"] for line in lines] == [1e-2, 1e-2, 3e-4, 3e-4]
    draw_losses(tmp_path / LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_phase_one_trains_the_new_layers_and_no_trunk(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(all_layers=NOTHING), marks)
    before = state(made)
    assert {id(one) for group in made.optimiser.param_groups for one in group["params"]} == {id(one) for one in made.model.new_parameters()}
    assert made.run(tmp_path, NEVER, silent)
    assert made.step == made.total_steps == 40
    assert changed(before, state(made)) == {name for name in before if not name.startswith("trunks.")}


def test_phase_two_trains_every_layer_but_the_frozen_stages(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(new_layers=NOTHING, frozen_stages=2), marks)
    frozen = {f"trunks.{trunk}.features.{layer}.{kind}" for trunk in (0, 1) for layer in (0, 2, 5, 7) for kind in ("weight", "bias")}
    before = state(made)
    assert frozen < before.keys()
    assert made.run(tmp_path, NEVER, silent)
    assert made.step == made.total_steps == 40
    assert changed(before, state(made)) == before.keys() - frozen
    assert not made.model.trunks_are_equal()  # each has learned with its own 1x1 convolution


def test_without_a_phase_one_no_features_are_kept(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    with no_file_above(0):  # nothing at all could be written
        made = trainer(make_classifier(new_layers=NOTHING), marks)
        made.take_step(made.prepare(0))
    made = trainer(make_classifier(), marks)
    with no_file_above(100_000), pytest.raises(DataError, match=r"has no room for the features of phase one, 0\.000197 GB \(File too large\)"):
        made.run(tmp_path, NEVER, silent)
    assert not list(tmp_path.glob("*.safetensors"))
    assert not open_files(tmp_path)


def test_a_residual_trunk_keeps_its_normalisation(make_classifier: Any, marks: Path) -> None:
    made = trainer(make_classifier({"backbone": "resnet18"}, new_layers=NOTHING), marks)
    before = state(made)
    made.take_step(made.prepare(0))
    made.take_step(made.prepare(1))
    moved = changed(before, state(made))
    assert {name for name in moved if ".bn" in name or "downsample.1" in name} == set()
    assert "trunks.0.layer1.0.conv1.weight" in moved


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize(("epochs", "where"), [(20, "in phase one"), (10, "between them"), (5, "in phase two")], ids=str)
def test_a_resumed_training_ends_with_the_same_bits(
    epochs: int, where: str, ema_decay: float, make_classifier: Any, marks: Path, tmp_path: Path
) -> None:
    recipe = make_classifier(
        new_layers={"epochs": epochs, "learning_rate": 1e-2, "batch": 6, "schedule": "cosine"},
        all_layers={"epochs": 10, "learning_rate": 1e-3, "batch": 5, "weight_decay": 0.1},
        cached_variants=3,
        flips=["horizontal", "both"],
        contrast=0.2,
        smallest_crop=0.8,
        dropout=0.3,
        ema_decay=ema_decay,
    )
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert trainer(recipe, marks).run(tmp_path / "whole", NEVER, silent)
    stopped = Until(20)
    first = trainer(recipe, marks)
    assert not first.run(tmp_path / "parts", stopped.event, stopped)
    assert (first.step, first.first_phase) == (20, where == "in phase one")
    torch.manual_seed(99)  # nothing may depend on where the global generator stands, nor on the weights before resuming
    model = BilinearClassifier(recipe.network, recipe.input, 3)
    second = ClassifierTrainer(recipe, model, read_labelled(marks, recipe.classes))
    second.resume(tmp_path / "parts")
    assert (second.step, second.first_phase) == (20, where == "in phase one")
    assert second.run(tmp_path / "parts", NEVER, silent)
    for file in (WEIGHTS, CHECKPOINT):
        whole, parts = load_weights(tmp_path / "whole" / file)[0], load_weights(tmp_path / "parts" / file)[0]
        assert whole.keys() == parts.keys()
        assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert any(name.startswith("average.") for name in load_weights(tmp_path / "parts" / CHECKPOINT)[0]) == bool(ema_decay)


def test_a_finished_training_resumes_to_what_it_is(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    recipe = make_classifier(all_layers=NOTHING, ema_decay=0.9)
    assert trainer(recipe, marks).run(tmp_path, NEVER, silent)
    before = load_weights(tmp_path / WEIGHTS)[0]
    again = trainer(recipe, marks)
    again.resume(tmp_path)
    assert again.run(tmp_path, NEVER, silent)
    assert again.step == 40
    assert not changed(before, load_weights(tmp_path / WEIGHTS)[0])


def test_a_stop_while_the_features_are_computed_leaves_a_checkpoint(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    recipe = make_classifier(cached_variants=3, flips=["vertical"], all_layers=NOTHING)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert trainer(recipe, marks).run(tmp_path / "whole", NEVER, silent)
    first = trainer(recipe, marks)
    before = state(first)
    assert not first.run(tmp_path / "parts", Asked(1), silent)  # after the first of three variants
    assert (first.step, first.elapsed_s) == (0, 0.0)
    assert not changed(before, load_weights(tmp_path / "parts" / WEIGHTS)[0])
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [CHECKPOINT, WEIGHTS]
    second = trainer(recipe, marks)
    second.resume(tmp_path / "parts")
    assert second.run(tmp_path / "parts", NEVER, silent)
    whole, parts = (load_weights(tmp_path / name / WEIGHTS)[0] for name in ("whole", "parts"))
    assert not changed(whole, parts)


@pytest.mark.parametrize(("left_out", "phase"), [("all_layers", "new_layers"), ("new_layers", "all_layers")])
def test_a_loss_that_is_not_finite_stops_with_the_mend(left_out: str, phase: str, make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(**{left_out: NOTHING}), marks)
    with torch.no_grad():
        made.model.classes.bias.fill_(float("nan"))
    before = state(made)
    with pytest.raises(DataError, match=rf"^step 0: the loss is nan; lower training\.{phase}\.learning_rate$"):
        made.run(tmp_path, NEVER, silent)
    assert made.step == 0
    assert changed(before, state(made)) == {"classes.bias"}  # not equal to itself; all else is
    assert not list(tmp_path.glob("*.safetensors"))
    assert not open_files(tmp_path)


def test_the_features_are_gone_when_the_training_ends(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(), marks)
    seen: dict[int, list[str]] = {}
    made.run(tmp_path, NEVER, lambda report: seen.update({report.step: open_files(tmp_path)}))
    assert [bool(seen[step]) for step in (20, 40, 60, 80)] == [True, False, False, False]  # phase two needs them no more
    assert not open_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"marks", CHECKPOINT, WEIGHTS, LOG}


def test_a_time_budget_ends_the_training(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(new_layers={"epochs": 1e6, "learning_rate": 1e-4, "batch": 6}), marks, minutes=0.02)
    assert made.run(tmp_path, NEVER, silent)
    assert 0 < made.step < made.total_steps
    assert made.elapsed_s >= 0.02 * 60
    assert made.share_done == 1.0


def test_a_time_budget_that_the_features_use_up_is_told(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(cached_variants=2), marks, minutes=1e-9)
    with pytest.raises(DataError, match=r"before the first step \(12 pictures in 2 variants each\): give --minutes more"):
        made.run(tmp_path, NEVER, silent)
    assert not open_files(tmp_path)


def test_features_count_once_in_the_time(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    steps: list[float] = []
    made = trainer(make_classifier(new_layers={"epochs": 10, "learning_rate": 1e-3, "batch": 6}, all_layers=NOTHING), marks)
    made.run(tmp_path, NEVER, lambda report: steps.append(report.step_s))
    assert made.elapsed_s > 20 * steps[0]
    again = trainer(make_classifier(new_layers={"epochs": 20, "learning_rate": 1e-3, "batch": 6}, all_layers=NOTHING), marks)
    again.step, again.elapsed_s = 20, 0.0  # as after resuming
    steps.clear()
    again.run(tmp_path, NEVER, lambda report: steps.append(report.step_s))
    assert again.elapsed_s == pytest.approx(20 * steps[0])


def test_the_share_done_weighs_steps_by_what_they_cost(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(cached_variants=4, frozen_stages=1), marks)
    shares: list[float] = []
    made.run(tmp_path, NEVER, lambda report: shares.append(report.share_done))
    assert shares == sorted(shares)
    features, first, second = 4 * 12, 0.02 * 20 * 12, 3.0 * 20 * 12 * 2
    total = features + first + second
    assert shares == pytest.approx([(features + first / 2) / total, (features + first) / total, (features + first + second / 2) / total, 1.0])
    assert shares[-1] == 1.0
    with_steps = [trainer(make_classifier(**phases), marks) for phases in ({}, {"cached_variants": 3}, {"new_layers": NOTHING})]
    assert [one.preparation for one in with_steps] == [
        "first the features of 12 pictures, computed once",
        "first the features of 12 pictures in 3 variants each, computed once",
        None,
    ]


def test_both_phases_left_out_is_refused(make_classifier: Any) -> None:
    with pytest.raises(ValidationError, match="are both 0: nothing would be trained"):
        make_classifier(new_layers=NOTHING, all_layers=NOTHING)


def test_a_phase_that_is_not_left_out_has_a_step(make_classifier: Any, marks: Path) -> None:
    little = {"epochs": 1e-6, "learning_rate": 1e-3, "batch": 64}
    made = trainer(make_classifier(new_layers=little, all_layers=little), marks)
    assert made.total_steps == 2
    assert made.first_phase


def test_the_first_kept_variant_is_the_picture_the_others_are_as_the_recipe_says(make_classifier: Any, marks: Path) -> None:
    made = trainer(make_classifier(cached_variants=8, flips=["horizontal"]), marks)
    kinds = []
    for index, image in enumerate(made.dataset.images()):
        canvas = letterbox(image, 64, 64, 1)[0]
        assert np.array_equal(made._variant(0, index), canvas)
        for variant in range(1, 8):
            found = made._variant(variant, index)
            assert np.array_equal(found, made._variant(variant, index))
            mirrored = np.array_equal(found, canvas[..., ::-1])
            assert mirrored or np.array_equal(found, canvas)
            kinds.append(mirrored)
    assert 0.3 < np.mean(kinds) < 0.7
    changes = {"cached_variants": 4, "flips": [], "contrast": 0.3, "brightness": 20.0, "smallest_crop": 0.7}
    one, same, other = (trainer(make_classifier(**changes, seed=seed), marks) for seed in (1, 1, 2))
    seen = [one._variant(variant, index) for variant in range(4) for index in range(12)]
    assert len({image.tobytes() for image in seen}) == len(seen)
    assert all(np.array_equal(image, same._variant(*divmod(number, 12))) for number, image in enumerate(seen))
    assert [number for number, image in enumerate(seen) if np.array_equal(image, other._variant(*divmod(number, 12)))] == list(range(12))


def test_each_epoch_shows_each_picture_once_in_any_of_its_variants(
    make_classifier: Any, marks: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = trainer(make_classifier(cached_variants=3, contrast=0.3, brightness=40.0), marks)
    made._compute_features(tmp_path, NEVER)
    request.addfinalizer(made._close_cache)
    cache = made._cache
    assert cache is not None
    kept = {cache.maps([variant], [index])[0].numpy().tobytes(): (variant, index) for variant in range(3) for index in range(12)}
    assert len(kept) == 36
    seen = []
    for step in range(20):
        batch = made.prepare(step)
        assert batch.images is None
        (maps,) = batch.maps  # of both trunks, whose weights are equal
        shown = [kept[one.numpy().tobytes()] for one in maps]
        assert batch.labels.tolist() == [made.dataset.pictures[index].label for _, index in shown]
        assert [index for _, index in shown] == epoch_indices(0, 12, 6, step)
        seen += shown
    for epoch in range(10):
        assert sorted(index for _, index in seen[12 * epoch : 12 * (epoch + 1)]) == list(range(12))
    assert {variant for variant, _ in seen} == {0, 1, 2}


def test_phase_two_varies_anew_in_every_step(make_classifier: Any, marks: Path) -> None:
    made = trainer(make_classifier(new_layers=NOTHING, contrast=0.5), marks)
    batch = made.prepare(3)
    assert batch.images is not None
    assert (batch.images.dtype, tuple(batch.images.shape), list(batch.maps)) == (torch.uint8, (6, 1, 64, 64), [])
    again, later = made.prepare(3), made.prepare(5)
    assert again.images is not None
    assert later.images is not None
    assert torch.equal(batch.images, again.images)
    known = {image.numpy().tobytes() for image in batch.images}
    assert not any(image.numpy().tobytes() in known for image in later.images)


def test_phase_two_begins_with_an_epoch_of_its_own(make_classifier: Any, marks: Path) -> None:
    made = trainer(make_classifier(new_layers={"epochs": 0.4, "learning_rate": 1e-3, "batch": 5}), marks)
    whole = sorted(letterbox(image, 64, 64, 1)[0].tobytes() for image in made.dataset.images())
    seen: list[bytes] = []
    for step in (1, 2):
        images = made.prepare(step).images
        assert images is not None
        seen += [image.numpy().tobytes() for image in images]
    assert sorted(seen) == whole


def test_each_phase_has_a_schedule_of_its_own(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    recipe = make_classifier(
        new_layers={"epochs": 20, "learning_rate": 1e-2, "batch": 6, "schedule": "cosine"},
        all_layers={"epochs": 20, "learning_rate": 1e-4, "batch": 6, "schedule": "cosine", "warm_up_steps": 4},
    )
    made = trainer(recipe, marks)
    rates: list[float] = []
    made._compute_features(tmp_path, NEVER)  # closed at the end of phase one
    for step in range(80):
        made.take_step(made.prepare(step))
        rates.append(made.place()[1])
    assert [rates[0], rates[40], rates[41]] == pytest.approx([1e-2, 1e-4 / 4, 1e-4 / 2], rel=0.01)
    for phase, rate in ((rates[:40], 1e-2), (rates[40:], 1e-4)):
        assert phase[20] == pytest.approx(rate * (1 + COSINE_END) / 2)
        assert phase[4:] == sorted(phase[4:], reverse=True)
        assert phase[-1] == pytest.approx(COSINE_END * rate, rel=0.2)


def test_dropout_and_label_smoothing_reach_the_loss(make_classifier: Any, marks: Path) -> None:
    plain, dropping, smoothing = (
        trainer(make_classifier(new_layers=NOTHING, **more), marks) for more in ({}, {"dropout": 0.5}, {"label_smoothing": 0.2})
    )
    for made in (plain, dropping, smoothing):
        torch.manual_seed(0)
        torch.nn.init.normal_(made.model.classes.weight, std=100.0)
    losses = [float(made.take_step(made.prepare(0))[0]) for made in (plain, dropping, smoothing)]
    assert len({round(loss, 5) for loss in losses}) == 3


def test_the_moving_average_is_of_phase_two_and_is_what_is_kept(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(ema_decay=0.9), marks)
    assert made.average is None
    assert made.run(tmp_path, NEVER, silent)
    kept, trained = load_weights(tmp_path / WEIGHTS)[0], made.model.state_dict()
    assert changed(trained, kept) == trained.keys()
    checkpoint = load_weights(tmp_path / CHECKPOINT)[0]
    assert all(torch.equal(checkpoint[f"model.{name}"], tensor) for name, tensor in trained.items())
    averages = {name: checkpoint[f"average.{name}"] for name in kept}
    assert all(torch.equal(averages[name], tensor) for name, tensor in kept.items() if not name.startswith("classes."))
    for name in ("classes.weight", "classes.bias"):  # the same soft-max, centred
        torch.testing.assert_close(kept[name], averages[name] - averages[name].mean(0, keepdim=True))
        assert not torch.equal(kept[name], averages[name])


def test_the_moving_average_soon_forgets_the_start_of_phase_two(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(ema_decay=0.9, new_layers={"epochs": 1, "learning_rate": 1e-3, "batch": 6}), marks)
    made._compute_features(tmp_path, NEVER)
    for step in range(2):
        made.take_step(made.prepare(step))
    assert made.average is not None
    before = state(made)
    made.take_step(made.prepare(2))
    for name, tensor in made.average.model.state_dict().items():
        torch.testing.assert_close(tensor, 0.1 * before[name] + 0.9 * made.model.state_dict()[name])


def test_training_in_bfloat16_keeps_float32_weights_and_learns(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    made = trainer(make_classifier(precision="bf16", new_layers=NOTHING), marks)
    made.run(tmp_path, NEVER, silent)
    lines = read_log(tmp_path / LOG)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert {tensor.dtype for tensor in made.model.state_dict().values()} == {torch.float32}


def test_a_checkpoint_of_another_recipe_or_file_is_refused(make_classifier: Any, make_marks: Any, marks: Path, tmp_path: Path) -> None:
    recipe = make_classifier()
    with pytest.raises(DataError, match="is no checkpoint that can be read"):
        trainer(recipe, marks).resume(tmp_path)
    trainer(recipe, marks).save(tmp_path)
    trainer(recipe, marks).resume(tmp_path)
    for other in (make_classifier(dropout=0.1), make_classifier({"channels": 16}), make_classifier(seed=1)):
        with pytest.raises(DataError, match="the recipe or the data changed"):
            trainer(other, marks).resume(tmp_path)
    with pytest.raises(DataError, match="the recipe or the data changed"):
        trainer(recipe, make_marks(tmp_path / "more", count=5)).resume(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / CHECKPOINT)
    with pytest.raises(DataError, match=r"is no checkpoint that can be read \('state'\)"):
        trainer(recipe, marks).resume(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"nothing of use")
    with pytest.raises(DataError, match="is no checkpoint that can be read"):
        trainer(recipe, marks).resume(tmp_path)


def test_the_weights_say_what_they_are(make_classifier: Any, marks: Path, tmp_path: Path) -> None:
    trainer(make_classifier(), marks).save(tmp_path)
    about = load_weights(tmp_path / WEIGHTS)[1]
    assert (about["recipe"], json.loads(about["classes"]), about["step"]) == ("tiny-classes", ["plain", "light", "dark"], "0")
