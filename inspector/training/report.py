"""An evaluation of a detector as text: the paper's per-class table for terminals, as Markdown and as JSON; and what tables are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.training.evaluate import Evaluation

HEADINGS = ("class", "labels", "AP@0.5", "AP", "recall", "best F1", "at score")


def rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The table's cells, class by class, the means last; a dash where a class has no labels."""
    cells = [
        (row.name, str(row.labels), share(row.ap50), share(row.ap), share(row.recall), share(row.best_f1), share(row.best_f1_score))
        for row in evaluation.classes
    ]
    total = sum(row.labels for row in evaluation.classes)
    return [*cells, ("mean", str(total), share(evaluation.map50), share(evaluation.map), "", "", "")]


def as_table(evaluation: Evaluation, title: str) -> Table:
    """For a terminal."""
    return terminal_table(title, HEADINGS, rows(evaluation))


def as_markdown(evaluation: Evaluation, title: str) -> str:
    """For a document."""
    lines = [
        f"## {title}",
        "",
        f"{evaluation.pictures} pictures; AP is COCO's, over IoU 0.50 to 0.95; mAP at IoU 0.75 is {evaluation.map75:.3f}.",
        "",
        *markdown_lines(HEADINGS, rows(evaluation)),
    ]
    return "\n".join(lines) + "\n"


def as_json(evaluation: Evaluation, **about: object) -> dict[str, Any]:
    """For a program; ``about`` (what was evaluated on what) comes first."""
    classes = [
        {
            "name": row.name,
            "labels": row.labels,
            "ap50": row.ap50,
            "ap": row.ap,
            "recall": row.recall,
            "best_f1": row.best_f1,
            "best_f1_score": row.best_f1_score,
        }
        for row in evaluation.classes
    ]
    means = {"pictures": evaluation.pictures, "map50": evaluation.map50, "map75": evaluation.map75, "map": evaluation.map}
    return {**about, **means, "classes": classes}


def terminal_table(title: str, headings: Sequence[str], cells: Sequence[Sequence[str]], *, over_all: bool = True) -> Table:
    """A table for a terminal; with ``over_all`` its last row stands apart, for it sums up the others. Words that are too long for it are folded."""
    table = Table(title=title, show_footer=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in cells[:-1] if over_all else cells:
        table.add_row(*row)
    if over_all:
        table.add_section()
        table.add_row(*cells[-1], style="bold")
    return table


def markdown_lines(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1), *("| " + " | ".join(row) + " |" for row in cells)]


def share(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"
