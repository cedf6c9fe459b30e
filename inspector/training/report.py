"""An evaluation as text: the paper's per-class table for terminals, as Markdown and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from inspector.training.evaluate import Evaluation

HEADINGS = ("class", "labels", "AP@0.5", "AP", "recall", "best F1", "at score")


def rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """The table's cells, class by class, the means last; a dash where a class has no labels."""
    cells = [
        (row.name, str(row.labels), _share(row.ap50), _share(row.ap), _share(row.recall), _share(row.best_f1), _share(row.best_f1_score))
        for row in evaluation.classes
    ]
    total = sum(row.labels for row in evaluation.classes)
    return [*cells, ("mean", str(total), _share(evaluation.map50), _share(evaluation.map), "", "", "")]


def as_table(evaluation: Evaluation, title: str) -> Table:
    """For a terminal."""
    table = Table(title=title, show_footer=False)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if index else "left")
    *classes, mean = rows(evaluation)
    for cells in classes:
        table.add_row(*cells)
    table.add_section()
    table.add_row(*mean, style="bold")
    return table


def as_markdown(evaluation: Evaluation, title: str) -> str:
    """For a document."""
    lines = [
        f"## {title}",
        "",
        f"{evaluation.pictures} pictures; AP is COCO's, over IoU 0.50 to 0.95; mAP at IoU 0.75 is {evaluation.map75:.3f}.",
        "",
    ]
    lines.append("| " + " | ".join(HEADINGS) + " |")
    lines.append("| --- |" + " ---: |" * (len(HEADINGS) - 1))
    lines += ["| " + " | ".join(cells) + " |" for cells in rows(evaluation)]
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


def _share(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"
