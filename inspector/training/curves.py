"""Pictures of a training and of an evaluation: loss curves and precision over recall."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from inspector.training.evaluate import Evaluation

NO_LOSSES = frozenset({"step", "epoch", "share_done", "elapsed_s", "step_s", "learning_rate"})
"""Entries of a log line that are no losses."""
SMOOTHING = 0.8
"""Share of a curve's running mean that a new point keeps."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training's log; a last line that was cut off is left out.

    Raises:
        DataError: the log cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def draw_losses(log: Path, picture: Path) -> None:
    """Draws the losses and the learning rate over the epochs, as a PNG. Where a training was resumed, the later lines of a step count.

    Raises:
        DataError: the log cannot be read, or the picture cannot be written.
    """
    by_step = {line["step"]: line for line in read_log(log)}
    lines = [by_step[step] for step in sorted(by_step)]
    figure = Figure(figsize=(9, 6), layout="constrained")
    losses, rates = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    epochs = [line["epoch"] for line in lines]
    for index, name in enumerate(name for name in (lines[0] if lines else ()) if name not in NO_LOSSES):
        values = [line[name] for line in lines]
        losses.plot(epochs, values, color=f"C{index}", alpha=0.25)
        losses.plot(epochs, _smoothed(values), color=f"C{index}", label=name.replace("_", " "))
    losses.set_ylabel("loss")
    losses.set_ylim(bottom=0)
    losses.legend()
    rates.plot(epochs, [line["learning_rate"] for line in lines], color="black")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("epoch")
    save_figure(figure, picture)


def draw_precision_recall(evaluation: Evaluation, picture: Path) -> None:
    """Draws each class's precision over recall at IoU 0.5, as a PNG.

    Raises:
        DataError: the picture cannot be written.
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(evaluation.classes):
        if row.ap50 is not None:
            axes.plot(np.linspace(0, 1, len(row.precision)), row.precision, color=f"C{index}", label=f"{row.name}  AP {row.ap50:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=f"IoU 0.5, mAP {evaluation.map50:.3f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    save_figure(figure, picture)


def _smoothed(values: list[float]) -> list[float]:
    """Running mean."""
    means: list[float] = []
    for value in values:
        means.append(SMOOTHING * means[-1] + (1 - SMOOTHING) * value if means else value)
    return means


def save_figure(figure: Figure, picture: Path) -> None:
    """Writes a PNG without a display.

    Raises:
        DataError: the picture cannot be written.
    """
    try:
        FigureCanvasAgg(figure).print_png(str(picture))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise DataError(f"{picture}: cannot be written: {error.strerror}") from None
