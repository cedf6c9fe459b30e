"""``inspector train``: a detector or a classifier from labelled pictures."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspector.contract.errors import ConfigError, DataError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspector.config.classifier import BilinearNetwork
    from inspector.config.detector import NetworkRecipe
    from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
    from inspector.models.backbones import AnyBackbone
    from inspector.training.class_loop import ClassifierTrainer
    from inspector.training.loop import Trainer
    from inspector.training.stepping import Listener, StepReport

RECIPE_COPY = "recipe.toml"


def train(
    recipe: Annotated[Path, typer.Argument(help="The engine recipe (TOML), as in engines/.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(
            help="Labelled pictures. Detector: a COCO json file or a Pascal VOC folder. Classifier: a folder with a sub-folder per class, "
            "a CSV file (image, class), or a COCO json file.",
            show_default=False,
        ),
    ],
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, if not beside the labels.", show_default=False)] = None,
    run: Annotated[Path | None, typer.Option(help="Folder for what is made. Default: runs/NAME.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's checkpoint.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Time budget; the schedule ends with it.", min=0.01, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.", min=0, show_default=False)] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.", min=0)] = 0,
    backbone: Annotated[Path | None, typer.Option(help="ImageNet weights of the backbone from this file.", show_default=False)] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what --backbone has; its other layers start at random.")] = False,
) -> None:
    """Train a detector or a classifier on your own labelled pictures.

    The run folder gets weights.safetensors (what to evaluate and compile), checkpoint.safetensors, log.jsonl, curves.png and recipe.toml. Ctrl-C ends
    after the step at hand and keeps a checkpoint: the same command with --resume goes on, exit code 130.
    """
    import torch

    from inspector.config.recipe import ClassifierRecipe, read_recipe
    from inspector.training.curves import draw_losses
    from inspector.training.stepping import CHECKPOINT, LOG, WEIGHTS

    chosen = read_recipe(recipe)
    if seed is not None:
        chosen = chosen.model_copy(update={"training": chosen.training.model_copy(update={"seed": seed})})
    folder = run if run is not None else Path("runs") / chosen.name
    _check_folder(folder / CHECKPOINT, resume=resume)
    if backbone is not None and chosen.training.pretrained == "none":
        raise ConfigError([f"{recipe}: training.pretrained: is 'none', yet --backbone names weights; say 'imagenet', or leave the option out"])
    if partial and backbone is None:
        raise typer.BadParameter("--partial goes with --backbone FILE")
    if threads:
        torch.set_num_threads(threads)
    start = _Start(chosen.training.pretrained == "imagenet" and not resume, "imagenet" if backbone is None else str(backbone), partial)
    trainer, told = (
        _classifier(chosen, data, images, minutes, start) if isinstance(chosen, ClassifierRecipe) else _detector(chosen, data, images, minutes, start)
    )
    if resume:
        trainer.resume(folder)
    _prepare_folder(folder, recipe, None if resume else folder / LOG)
    print(f"{chosen.name}: {told}, {trainer.total_steps} steps, {torch.get_num_threads()} threads; {folder}", flush=True)
    if trainer.preparation:
        print(trainer.preparation, flush=True)
    with _stops_on_signals() as stop, _display(trainer.total_steps) as listener:
        complete = trainer.run(folder, stop, listener)
    if (folder / LOG).is_file():  # stopped before the first line, there is none
        draw_losses(folder / LOG, folder / "curves.png")
    if not complete:
        print(f"inspector: stopped at step {trainer.step}; the same command with --resume goes on", file=sys.stderr)
        raise typer.Exit(ExitCode.INTERRUPTED)
    print(f"trained in {trainer.elapsed_s / 60:.1f} min: {folder / WEIGHTS}")


@dataclass(frozen=True, slots=True)
class _Start:
    """The weights that a backbone starts with."""

    pretrained: bool
    source: str
    """``imagenet``, or a file."""
    partial: bool

    def fill(self, backbone: AnyBackbone, network: NetworkRecipe | BilinearNetwork) -> str:
        """Gives a backbone its weights, where it starts with any; what is to be said about it.

        Raises:
            DataError: they cannot be read, or do not fit.
        """
        from inspector.models.weights import load_backbone_weights

        missing = load_backbone_weights(backbone, network, self.source, partial=self.partial) if self.pretrained else []
        return f", {len(missing)} of the backbone's {len(backbone.state_dict())} tensors are not in {self.source}" if missing else ""


def _detector(recipe: DetectorRecipe, data: Path, images: Path | None, minutes: float | None, start: _Start) -> tuple[Trainer, str]:
    """The training of a detector, and what it learns from in words."""
    import torch

    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.datasets import read_dataset
    from inspector.training.loop import Trainer

    dataset = read_dataset(data, recipe.classes, images=images, colour=recipe.input.channels == 3)
    torch.manual_seed(recipe.training.seed)
    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    told = start.fill(model.backbone, recipe.network)
    labels = sum(len(picture.boxes) for picture in dataset.pictures)
    return Trainer(recipe, model, dataset, minutes), f"{len(dataset)} pictures, {labels} labels{told}"


def _classifier(recipe: ClassifierRecipe, data: Path, images: Path | None, minutes: float | None, start: _Start) -> tuple[ClassifierTrainer, str]:
    """The training of a classifier, and what it learns from in words."""
    import torch

    from inspector.models.bilinear import BilinearClassifier
    from inspector.training.class_loop import ClassifierTrainer
    from inspector.training.labelled import read_labelled

    dataset = read_labelled(data, recipe.classes, images=images, colour=recipe.input.channels == 3, good=recipe.good or "good")
    torch.manual_seed(recipe.training.seed)
    model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
    first, *others = model.backbones
    told = start.fill(first, recipe.network)
    for trunk in others:
        trunk.load_state_dict(first.state_dict())
    counts = ", ".join(f"{name} {count}" for name, count in zip(recipe.classes, dataset.counts.tolist(), strict=True))
    return ClassifierTrainer(recipe, model, dataset, minutes), f"{len(dataset)} pictures ({counts}){told}"


def _check_folder(checkpoint: Path, *, resume: bool) -> None:
    """Refuses to resume nothing, and to train over another training.

    Raises:
        DataError: one of the two.
    """
    if resume and not checkpoint.is_file():
        raise DataError(f"{checkpoint}: no such checkpoint; train without --resume, or name the run folder with --run")
    if not resume and checkpoint.exists():
        raise DataError(f"{checkpoint.parent}: holds a training already; add --resume to go on with it, or name another folder with --run")


def _prepare_folder(folder: Path, recipe: Path, old_log: Path | None) -> None:
    """Makes the run folder with a copy of the recipe, and without an earlier training's log.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if old_log is not None:
            old_log.unlink(missing_ok=True)
        if recipe.resolve() != (folder / RECIPE_COPY).resolve():
            shutil.copyfile(recipe, folder / RECIPE_COPY)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}") from None


@contextmanager
def _stops_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of ending the process in the middle of a step."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _display(total_steps: int) -> Iterator[Listener]:
    """A progress bar on a terminal, a line per report elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not sys.stdout.isatty():
        yield lambda report: print(_line(report, total_steps), flush=True)
        return
    columns = (TextColumn("epoch {task.fields[epoch]:.2f}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn())
    # Drawn anew with each report; a refreshing thread would outlive the bar for a moment.
    with Progress(*columns, TextColumn("{task.fields[told]}"), auto_refresh=False) as progress:
        task = progress.add_task("training", total=1.0, epoch=0.0, told="")

        def show(report: StepReport) -> None:
            progress.update(task, completed=report.share_done, epoch=report.epoch, told=f"{_losses(report)}  {_remaining(report)}", refresh=True)

        yield show


def _line(report: StepReport, total_steps: int) -> str:
    """One report as a line."""
    return f"step {report.step}/{total_steps} epoch {report.epoch:.2f}  {_losses(report)}  {report.step_s:.2f} s/step  {_remaining(report)}"


def _losses(report: StepReport) -> str:
    """Each by its name."""
    return "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in report.losses.items())


def _remaining(report: StepReport) -> str:
    """Time to the end, in minutes."""
    return f"{report.remaining_s / 60:.1f} min left"
