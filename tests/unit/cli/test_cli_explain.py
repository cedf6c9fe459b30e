from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from inspector.cli.explain import explain
from inspector.config.recipe import ClassifierRecipe, read_detector_recipe, read_recipe
from inspector.contract.errors import ConfigError, DataError, InspectorError
from inspector.models.bilinear import BilinearClassifier
from inspector.models.multiscale import MultiscaleDetector
from inspector.surfaces.scene import SurfaceGenerator
from inspector.training.checkpoint import load_weights, save_weights
from inspector.training.explain_plots import GAP_PX, OUTLINE

ENGINES = Path(__file__).resolve().parents[3] / "engines"
DEMO = ENGINES / "demo.toml"
TINY = """
name = "{name}"
classes = ["a", "b"]
[input]
height_px = 64
width_px = 64
channels = 3
[network]
backbone = "resnet18"
backbone_width = 0.125
levels = [3, 4]
channels = 16
anchor_sizes_px = [20, 36]
pooling_levels = [3, 4]
canonical_size_px = 28
canonical_level = 3
hidden = 32
pre_nms = 50
proposals = 20
detections = 10
"""

BRIGHT = """
name = "bright"
classes = ["clean", "bright", "third"]
[input]
height_px = 64
width_px = 64
stride_px = 8
channels = {channels}
mean = [127, 127, 127]
std = [64, 64, 64]
[network]
architecture = "bilinear"
backbone = "vgg16"
backbone_width = 0.125
level = 3
streams = 1
trunks = "shared"
channels = 0
[heat_map]
map = "{map}"
threshold = 0.5
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default weights are looked for in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def surface(tmp_path: Path) -> Path:
    """A generated surface with three defects."""
    path = tmp_path / "strip.png"
    cv2.imwrite(str(path), SurfaceGenerator(640, 480, 5, 1.0).render(3).image)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[[str], Path]:
    """Recipes of a small detector of colour pictures, with random weights beside them."""

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(TINY.format(name=name))
        recipe = read_detector_recipe(path)
        torch.manual_seed(1)
        model = MultiscaleDetector(recipe.network, recipe.input, 2)
        (tmp_path / name).mkdir()
        save_weights(tmp_path / name / "weights.safetensors", model.state_dict(), {"classes": '["a", "b"]'})
        return path

    return make


def call(*arguments: str | Path) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("explain")(explain)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InspectorError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_detectors_saliency_lies_on_the_defects(surface: Path, tmp_path: Path) -> None:
    told = call(surface, DEMO, "--weights", ENGINES / "demo" / "weights.safetensors", "--out", tmp_path / "out", "--threads", "1")
    path = tmp_path / "out" / "strip-demo-saliency.png"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert told.startswith(f"{path}: ")
    assert told.count("\n") == 1
    planted = SurfaceGenerator(640, 480, 5, 1.0).render(3).defects
    assert all(f"{defect.kind} 0.9" in told or f"{defect.kind} 1.0" in told for defect in planted)
    drawn = np.asarray(cv2.imread(str(path)))
    assert drawn.shape[1] == 2 * 640 + GAP_PX
    rows, columns = np.nonzero((drawn[-480:, :640] == (40, 40, 230)).all(-1))  # the red boxes
    corners = np.array([defect.box_px for defect in planted])
    assert [columns.min(), rows.min()] == pytest.approx(list(corners[:, :2].min(0)), abs=10)
    assert [columns.max(), rows.max()] == pytest.approx(list(corners[:, 2:].max(0)), abs=10)
    right = drawn[-480:, -640:].astype(int)
    coloured = (right.max(-1) - right.min(-1) > 60) & ~(right == OUTLINE).all(-1)
    near = np.zeros((480, 640), bool)
    for defect in planted:
        x1, y1, x2, y2 = defect.box_px
        assert coloured[y1:y2, x1:x2].mean() > 0.4
        near[max(y1 - 50, 0) : y2 + 50, max(x1 - 50, 0) : x2 + 50] = True
    assert not coloured[~near].any()


def test_where_nothing_is_found_it_says_so_and_draws_nothing(tmp_path: Path) -> None:
    clean = tmp_path / "clean.png"
    cv2.imwrite(str(clean), SurfaceGenerator(640, 480, 5, 1.0).render_clean(3))
    told = call(clean, DEMO, "--weights", ENGINES / "demo" / "weights.safetensors", "--out", tmp_path / "out")
    assert told == f"{clean}: demo finds nothing with a score of 0.3 or more, so there is nothing to explain and to draw\n"
    assert not (tmp_path / "out").exists()


def test_weights_of_the_last_training_come_first(surface: Path, tmp_path: Path) -> None:
    assert call(surface, DEMO).startswith("runs/explain/strip-demo-saliency.png: bulging_powder")  # with the weights beside the recipe
    (tmp_path / "runs" / "demo").mkdir()
    (tmp_path / "runs" / "demo" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"^runs/demo/weights.safetensors: is no safetensors file"):
        call(surface, DEMO)


def test_each_of_several_networks_gets_its_picture(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    picture = tmp_path / "tall.png"
    random = np.random.default_rng(0).integers(0, 256, (300, 100, 3), np.uint8)
    random[..., 0] = 0
    random[..., 2] = 255  # red and green, BGR
    cv2.imwrite(str(picture), random)
    told = call(picture, tiny("first"), tiny("second"), "--out", tmp_path / "out", "--min-score", "0", "--count", "2")
    assert [line.split(":")[0] for line in told.splitlines()] == [str(tmp_path / "out" / f"tall-{name}-saliency.png") for name in ("first", "second")]
    drawn = np.asarray(cv2.imread(str(tmp_path / "out" / "tall-first-saliency.png")))
    left = drawn[-1900:, :640].reshape(-1, 3)
    assert np.median(left[:, 2]) > 250  # the colours of the picture, in their order
    assert np.median(left[:, 0]) < 50


def test_every_problem_is_told_at_once(surface: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    untrained = tmp_path / "untrained.toml"
    untrained.write_text(TINY.format(name="untrained"))
    copy = tmp_path / "copy.toml"
    first = tiny("first")
    shutil.copyfile(first, copy)
    (tmp_path / "broken.toml").write_text("name = 3")
    with pytest.raises(ConfigError) as caught:
        call(tmp_path / "gone.png", untrained, first, copy, tmp_path / "gone.toml", tmp_path / "broken.toml")
    told = "\n".join(caught.value.problems)
    for part in (
        f"{tmp_path / 'gone.png'}: no such picture",
        f"{untrained}: has no weights, neither runs/untrained/weights.safetensors nor {tmp_path / 'untrained' / 'weights.safetensors'}; train it",
        f"{copy}: has the name 'first' of {first}",
        f"{tmp_path / 'gone.toml'}: no such file",
        f"{tmp_path / 'broken.toml'}: name: ",
    ):
        assert part in told
    with pytest.raises(DataError, match=r"untrained\.toml: has no weights"):
        call(surface, untrained)


def test_what_is_no_picture_is_told(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    words = tmp_path / "words.png"
    words.write_text("no picture")
    with pytest.raises(DataError, match=r"words\.png: does not decode as a picture$"):
        call(words, tiny("first"))


def test_weights_that_are_missing_or_anothers_are_told(surface: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    first = tiny("first")
    with pytest.raises(DataError, match=r"gone\.safetensors: no such weights file$"):
        call(surface, first, "--weights", tmp_path / "gone.safetensors")
    with pytest.raises(DataError, match=r"demo/weights\.safetensors: does not fit the recipe's network"):
        call(surface, first, "--weights", ENGINES / "demo" / "weights.safetensors")


def test_weights_go_with_one_recipe(surface: Path, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("explain")(explain)
    result = CliRunner().invoke(app, [str(surface), str(tiny("first")), str(tiny("second")), "--weights", str(tmp_path / "x")])
    assert result.exit_code == 2


def test_a_folder_that_cannot_be_written_is_told(tiny: Callable[[str], Path], surface: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        call(surface, tiny("first"), "--out", surface, "--min-score", "0")


@pytest.fixture
def bright(tmp_path: Path) -> Callable[..., Path]:
    """A classifier whose one feature is how bright a cell is, and that names what has bright cells 'bright'."""

    def make(kind: str = "contribution", channels: int = 1) -> Path:
        path = tmp_path / "bright.toml"
        path.write_text(BRIGHT.format(map=kind, channels=channels))
        recipe = read_recipe(path)
        assert isinstance(recipe, ClassifierRecipe)
        model = BilinearClassifier(recipe.network, recipe.input, 3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            for layer in model.backbones[0].modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight[0, 0, 1, 1] = 1.0
            model.classes.weight[1, 0] = 0.1
            model.classes.bias[0] = 0.5
        (tmp_path / "bright").mkdir(exist_ok=True)
        save_weights(tmp_path / "bright" / "weights.safetensors", model.state_dict(), {"classes": '["clean", "bright", "third"]'})
        return path

    return make


def spot(path: Path, *squares: tuple[int, int, int]) -> Path:
    """A dark picture of 120 x 240 px with bright squares (x, y, side)."""
    picture = np.full((240, 120), 90, np.uint8)
    for x, y, side in squares:
        picture[y : y + side, x : x + side] = 250
    cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize("kind", ["contribution", "grad_cam"])
def test_a_classifiers_maps_lie_on_what_it_names(kind: str, bright: Callable[..., Path], tmp_path: Path) -> None:
    picture = spot(tmp_path / "strip.png", (30, 60, 60), (90, 210, 30))
    told = call(picture, bright(kind), "--out", tmp_path / "out", "--threads", "1")
    path = tmp_path / "out" / "strip-bright-heat.png"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    name = {"contribution": "contribution", "grad_cam": "Grad-CAM"}[kind]
    where = r"x (\d+) to (\d+), y (\d+) to (\d+) px, (.*)% of the picture\n"
    # Five cells of (250 - 127) / 64, squared, a tenth of each: a logit of 1.85 beside 0.5 and 0.
    found = re.fullmatch(rf"{path}: bright 0\.71, the largest of 2 regions of its {name} map at {where}", told)
    assert found is not None, told
    # A cell of the map is 30 px of the picture; the map falls linearly between the middles of cells.
    assert [int(side) for side in found.groups()[:4]] == pytest.approx([30, 90, 60, 120], abs=8)
    assert float(found[5]) == pytest.approx(100 * 60 * 60 / (240 * 120), rel=0.3)
    drawn = np.asarray(cv2.imread(str(path)))
    assert drawn.shape[1] == 3 * 640 + 2 * GAP_PX
    left, *maps = (drawn[-1280:, start : start + 640] for start in (0, 640 + GAP_PX, 2 * (640 + GAP_PX)))
    assert (left.max(-1) == left.min(-1)).all()  # the picture itself, without anything on it
    assert abs(int(left[480, 320, 0]) - 250) < 3
    scale = 640 / 120
    for heat in maps:
        rows, columns = np.nonzero((heat == OUTLINE).all(-1)[:900])  # the upper square's box
        assert [columns.min() / scale, columns.max() / scale] == pytest.approx([30, 90], abs=8)
        assert [rows.min() / scale, rows.max() / scale] == pytest.approx([60, 120], abs=8)
        coloured = (heat.max(-1).astype(int) - heat.min(-1) > 60) & ~(heat == OUTLINE).all(-1)
        assert coloured[round(70 * scale) : round(110 * scale), round(40 * scale) : round(80 * scale)].mean() > 0.95
        assert not coloured[: round(30 * scale)].any()


def test_a_map_that_points_at_nothing_is_said_and_drawn(bright: Callable[..., Path], tmp_path: Path) -> None:
    told = call(spot(tmp_path / "dark.png"), bright(), "--out", tmp_path)
    assert told == f"{tmp_path / 'dark-bright-heat.png'}: clean 0.45, its contribution map points at nothing\n"
    drawn = np.asarray(cv2.imread(str(tmp_path / "dark-bright-heat.png")))
    assert (drawn[-1280:].max(-1) == drawn[-1280:].min(-1)).all()


def test_a_colour_picture_keeps_its_colours(bright: Callable[..., Path], tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    cv2.imwrite(str(picture), np.full((64, 64, 3), (0, 30, 250), np.uint8))  # BGR
    told = call(picture, bright(channels=3), "--out", tmp_path)
    assert "red-bright-heat.png: bright 1.00, the only region of its contribution map at x 0 to 64, y 0 to 64 px, 100.0% of the picture" in told
    drawn = np.asarray(cv2.imread(str(tmp_path / "red-bright-heat.png")))
    assert drawn[-300, 320].tolist() == [0, 30, 250]


def test_a_detector_and_a_classifier_explain_the_same_picture(bright: Callable[..., Path], surface: Path, tmp_path: Path) -> None:
    told = call(surface, DEMO, bright(), "--out", tmp_path / "out")
    assert [line.split(":")[0] for line in told.splitlines()] == [
        str(tmp_path / "out" / f"strip-{name}.png") for name in ("demo-saliency", "bright-heat")
    ]


def test_a_classifiers_weights_that_are_no_use_are_told(bright: Callable[..., Path], surface: Path, tmp_path: Path) -> None:
    recipe = bright()
    with pytest.raises(DataError, match=r"demo/weights\.safetensors: does not fit the recipe's network"):
        call(surface, recipe, "--weights", ENGINES / "demo" / "weights.safetensors")
    path = tmp_path / "bright" / "weights.safetensors"
    weights, about = load_weights(path)
    weights["classes.bias"][0] = float("inf")
    save_weights(path, weights, about)
    with pytest.raises(DataError, match=r"weights\.safetensors: its scores or heat maps of .*strip\.png are not finite; train it again"):
        call(surface, recipe)
    assert not (tmp_path / "runs").exists()
