"""``inspector evaluate`` of a classifier: its figures, its confusion matrix and where its heat maps point."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inspector.contract.errors import DataError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from inspector.config.network import Precision
    from inspector.config.recipe import ClassifierRecipe
    from inspector.training.classify import Classified
    from inspector.training.labelled import LabelledDataset

SHOWN = 24
"""Pictures on the sheet of heat maps: those that were named wrong, then some of each class."""
BASELINE = "GLCM + MLP"
METHOD_SEED = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """What is evaluated on what."""

    recipe: ClassifierRecipe
    weights: Path
    """Trained weights, or an engine's manifest."""
    compiled: bool
    precision: Precision
    data: Path
    images: Path | None
    baseline_data: Path | None
    """What the texture baseline is trained on; None: it is left out."""


def evaluate_classifier(sources: Sources, stem: Path, every: int) -> None:
    """Prints tables; writes STEM.json and .md, -confusion.png and -heat.png.

    Raises:
        DataError: labels, pictures or weights are wrong, or the folder cannot be written.
        EngineError: the engine cannot be opened, or is another network's.
    """
    from rich.console import Console
    from rich.progress import track

    from inspector.training.classification import evaluate_classification
    from inspector.training.classification_plots import draw_confusion
    from inspector.training.classification_report import as_json, as_markdown, comparison_table, pointing_table, summary
    from inspector.training.classify import MAPS, classify_all, pointed
    from inspector.training.localisation import evaluate_localisation

    recipe = sources.recipe
    dataset = _read(recipe, sources.data, sources.images, every_class=False).every(every)
    learned = None
    if sources.baseline_data is not None:
        # A folder per class holds its pictures; --images is then for the other one.
        images = None if sources.baseline_data.is_dir() else sources.images
        learned = _read(recipe, sources.baseline_data, images, every_class=True)
    with ExitStack() as stack:
        classify = _classifier(sources, stack)
        began = time.perf_counter()
        found = list(track(classify_all(classify, dataset.images()), description="Classifying", total=len(dataset), auto_refresh=False))
        image_ms = (time.perf_counter() - began) / len(dataset) * 1e3
    _check_finite(sources, dataset, found)
    methods = {recipe.name: evaluate_classification(np.stack([one.scores for one in found]), dataset.labels, recipe.classes, recipe.good)}
    if learned is not None:
        methods[BASELINE] = evaluate_classification(_baseline(learned, dataset), dataset.labels, recipe.classes, recipe.good)
    title = f"{recipe.name} on {sources.data.name}"
    console = Console()
    console.print(comparison_table(methods, title))
    for name, result in methods.items():
        console.print(f"{name}: {summary(result)}", highlight=False)
    console.print(f"{image_ms:.0f} ms per picture", highlight=False)
    maps = None
    if any(len(picture.boxes) for picture in dataset.pictures):
        maps = {
            kind.replace("grad_cam", "Grad-CAM"): evaluate_localisation(pointed(dataset, found, kind, recipe.input, recipe.heat_map), recipe.classes)
            for kind in MAPS
        }
        console.print(pointing_table(maps, "where the heat maps point"))
    kind = {"engine": str(sources.weights)} if sources.compiled else {"weights": str(sources.weights), "precision": sources.precision}
    about = {"recipe": recipe.name, **kind, "data": str(sources.data), "image_ms": image_ms}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        values = as_json(methods[recipe.name], maps, **about)
        if BASELINE in methods:
            values["baseline"] = as_json(methods[BASELINE], None, method=BASELINE, data=str(sources.baseline_data))
        Path(f"{stem}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        Path(f"{stem}.md").write_text(as_markdown(methods, title, maps), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{stem.parent}: cannot be written: {error.strerror}") from None
    draw_confusion(methods[recipe.name], Path(f"{stem}-confusion.png"), title)
    _draw_heat(recipe, dataset, found, Path(f"{stem}-heat.png"))
    console.print(f"report: {stem}.json, .md, -confusion.png, -heat.png", highlight=False, soft_wrap=True)


def _read(recipe: ClassifierRecipe, data: Path, images: Path | None, *, every_class: bool) -> LabelledDataset:
    """Labelled pictures, as the recipe takes them."""
    from inspector.training.labelled import GOOD, read_labelled

    return read_labelled(data, recipe.classes, images=images, colour=recipe.input.channels == 3, every_class=every_class, good=recipe.good or GOOD)


def _check_finite(sources: Sources, dataset: LabelledDataset, found: Sequence[Classified]) -> None:
    """Whether there is something to measure.

    Raises:
        DataError: a score or a heat map is not finite.
    """
    for picture, one in zip(dataset.pictures, found, strict=True):
        if not one.finite:
            again = "compile it in fp32" if sources.compiled else "train it again, with a lower learning rate"
            raise DataError(f"{sources.weights}: its scores or heat maps of {picture.path} are not finite; {again}")


def _classifier(sources: Sources, stack: ExitStack) -> Callable[[Sequence[NDArray[np.uint8]]], list[Classified]]:
    """The trained model, or the engine, which ``stack`` closes."""
    from inspector.training.classify import engine_classifier, torch_classifier

    recipe = sources.recipe
    if not sources.compiled:
        from inspector.models.bilinear import BilinearClassifier
        from inspector.training.checkpoint import load_trained

        model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
        load_trained(model, sources.weights, recipe.classes)
        return torch_classifier(model, sources.precision)
    from inspector.config.recipe import ClassifierRecipe
    from inspector.engine.opening import open_engine

    engine = stack.enter_context(open_engine(sources.weights))
    if not isinstance(engine.manifest.recipe, ClassifierRecipe):
        raise EngineError(f"{sources.weights}: is a detector's engine, the recipe is a classifier's: name the classifier's engine")
    if engine.manifest.recipe.classes != recipe.classes:
        raise DataError(
            f"{sources.weights}: was made for the classes {', '.join(engine.manifest.recipe.classes)}, the recipe names {', '.join(recipe.classes)}"
        )
    return engine_classifier(engine)


def _baseline(learned: LabelledDataset, dataset: LabelledDataset) -> NDArray[np.float64]:
    """Scores [n, classes] of the texture baseline."""
    from inspector.training.glcm import GlcmBaseline

    trained = GlcmBaseline.fit(learned.images(), learned.labels, METHOD_SEED, classes=len(learned.classes))
    return trained.scores(dataset.images())


def _draw_heat(recipe: ClassifierRecipe, dataset: LabelledDataset, found: Sequence[Classified], path: Path) -> None:
    """The sheet of heat maps: wrong ones first, then evenly over the others."""
    from inspector.training.classification_plots import Caption, heat_sheet
    from inspector.training.explain_plots import map_on_picture, write_picture

    wrong = [index for index, one in enumerate(found) if one.label != dataset.pictures[index].label]
    right = [index for index, one in enumerate(found) if one.label == dataset.pictures[index].label]
    room = max(0, SHOWN - len(wrong))
    spread = np.unique(np.linspace(0, len(right) - 1, min(room, len(right))).round().astype(int))
    chosen = [*wrong[:SHOWN], *(right[index] for index in spread.tolist())]
    images, maps, captions, boxes = [], [], [], []
    for index in chosen:
        picture, one = dataset.pictures[index], found[index]
        size_px = recipe.input.height_px, recipe.input.width_px
        images.append(dataset.image(index))
        maps.append(map_on_picture(np.maximum(one.maps[recipe.heat_map.map], 0), size_px, one.geometry, (picture.height_px, picture.width_px)))
        captions.append(Caption(picture.path.name, recipe.classes[picture.label], recipe.classes[one.label], float(one.scores[one.label])))
        boxes.append(picture.boxes[picture.box_classes == picture.label])
    write_picture(path, heat_sheet(images, maps, captions, boxes))
