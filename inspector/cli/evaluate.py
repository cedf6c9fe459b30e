"""``inspector evaluate``: how good a detector or a classifier is on labelled pictures."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspector.config.recipe import DetectorRecipe
    from inspector.training.detect import Detector


def evaluate(
    recipe: Annotated[Path, typer.Argument(help="The engine recipe (TOML) the weights were trained with.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Labelled pictures, as `inspector train` takes them.", show_default=False)],
    weights: Annotated[Path | None, typer.Option(help="Trained weights. Default: runs/NAME/weights.safetensors.", show_default=False)] = None,
    engine: Annotated[Path | None, typer.Option(help="A compiled engine (its manifest) instead of weights.", show_default=False)] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, if not beside the labels.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: beside the weights or the engine.", show_default=False)] = None,
    baseline_data: Annotated[
        Path | None,
        typer.Option(help="Classifier: train the paper's texture baseline (GLCM + MLP) on these labels and show it beside.", show_default=False),
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option(help="Of trunk and head; a compiled engine has its own.")] = "fp32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.", min=0)] = 0,
    every: Annotated[int, typer.Option(help="Use every n-th picture only, for a quick look.", min=1)] = 1,
) -> None:
    """Evaluate trained weights, or a compiled engine.

    A detector: COCO mAP, AP at IoU 0.5, and a table by class; writes evaluation-DATA.json, .md and .png (precision over recall).
    A classifier: average precision by class, confusion matrix, defects against good, and where its heat maps point if the labels have boxes;
    writes evaluation-DATA.json, .md, -confusion.png and -heat.png.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from inspector.cli.evaluate_classifier import Sources, evaluate_classifier
    from inspector.config.recipe import ClassifierRecipe, read_recipe
    from inspector.training.curves import draw_precision_recall
    from inspector.training.datasets import read_dataset
    from inspector.training.detect import detect_all
    from inspector.training.evaluate import evaluate_detections
    from inspector.training.report import as_json, as_markdown, as_table

    chosen = read_recipe(recipe)
    if engine is not None and weights is not None:
        raise typer.BadParameter("name --weights or --engine, not both")
    source = engine or weights or Path("runs") / chosen.name / "weights.safetensors"
    if threads:
        torch.set_num_threads(threads)
    stem = _stem(out or (source if source.is_dir() else source.parent), data)
    if isinstance(chosen, ClassifierRecipe):
        evaluate_classifier(Sources(chosen, source, engine is not None, precision, data, images, baseline_data), stem, every)
        return
    if baseline_data is not None:
        raise typer.BadParameter("--baseline-data is for classifiers")
    dataset = read_dataset(data, chosen.classes, images=images, colour=chosen.input.channels == 3).every(every)
    if not any((~picture.ignored).any() for picture in dataset.pictures):
        raise DataError(f"{data}: has no labels to evaluate against")
    with ExitStack() as stack:
        detector = _trained(chosen, source, precision) if engine is None else stack.enter_context(_compiled(chosen, source))
        began = time.perf_counter()
        found = list(track(detect_all(detector, dataset.images()), description="Detecting", total=len(dataset), auto_refresh=False))
        image_ms = (time.perf_counter() - began) / len(dataset) * 1e3
    result = evaluate_detections(dataset, found)
    title = f"{chosen.name} on {data.name}"
    console = Console()
    console.print(as_table(result, title))
    console.print(
        f"mAP@0.5 {result.map50:.3f}, mAP@0.75 {result.map75:.3f}, COCO mAP {result.map:.3f}; {image_ms:.0f} ms per picture", highlight=False
    )
    kind = {"weights": str(source), "precision": precision} if engine is None else {"engine": str(source)}
    about = {"recipe": chosen.name, **kind, "data": str(data), "image_ms": image_ms}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{stem}.json").write_text(json.dumps(as_json(result, **about), indent=1) + "\n", encoding="utf-8")
        Path(f"{stem}.md").write_text(as_markdown(result, title), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{stem.parent}: cannot be written: {error.strerror}") from None
    draw_precision_recall(result, Path(f"{stem}.png"))
    console.print(f"report: {stem}.json, .md, .png", highlight=False, soft_wrap=True)


def _stem(folder: Path, data: Path) -> Path:
    """What the files of the report begin with; a name's own dots stay in it."""
    return folder / f"evaluation-{data.resolve().name if data.is_dir() else data.stem}"


@contextmanager
def _compiled(recipe: DetectorRecipe, engine: Path) -> Iterator[Detector]:
    """The detector of a compiled engine.

    Raises:
        EngineError: the engine cannot be opened.
        DataError: it is of other classes.
    """
    from inspector.engine.opening import engine_detect
    from inspector.training.detect import one_by_one

    with engine_detect(engine) as detect:
        if detect.classes != recipe.classes:
            raise DataError(f"{engine}: was made for the classes {', '.join(detect.classes)}, the recipe names {', '.join(recipe.classes)}")
        yield one_by_one(detect)


def _trained(recipe: DetectorRecipe, weights: Path, precision: Literal["fp32", "bf16"]) -> Detector:
    """The torch detector of a recipe with trained weights.

    Raises:
        DataError: the weights are missing, damaged, of another architecture, or of other classes.
    """
    import torch

    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.checkpoint import load_trained
    from inspector.training.detect import torch_detector

    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    load_trained(model.to(memory_format=torch.channels_last), weights, recipe.classes)  # type: ignore[call-overload]
    return torch_detector(model, precision)
