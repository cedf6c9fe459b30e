"""An evaluation of a classifier as text: a table by class, several methods or heat maps beside one another, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from inspector.training.report import markdown_lines, share, terminal_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inspector.training.classification import Classification, DefectFigures
    from inspector.training.localisation import Localisation, PointingFigures

HEADINGS = ("class", "labels", "AP", "accuracy", "precision", "F1")
"""Of one method's table. The accuracy of a class is its recall: the share of its pictures that were given it."""
CONTROL = "control"
"""The column beside the heat maps: what :func:`pointing_note` says."""

OVER_ALL = ("mean", "all")
"""Names of last rows."""

Cells = list[tuple[str, ...]]
"""Rows of one figure, class by class; the last one is over all classes."""
Figure = Callable[["PointingFigures"], "float | None"]


def rows(result: Classification) -> Cells:
    """One method's cells, class by class; last the mean AP and the accuracy over all pictures. A dash where nothing was measured."""
    cells = [(row.name, str(row.labels), share(row.ap), share(row.recall), share(row.precision), share(row.f1)) for row in result.classes]
    return [*cells, ("all", str(result.samples), share(result.mean_ap), share(result.accuracy), "", "")]


def summary(result: Classification) -> str:
    """One line: what is measured over all classes, and good against defect where one class is good."""
    line = f"{result.samples} pictures, accuracy {share(result.accuracy)}, mean AP {share(result.mean_ap)}"
    if result.defects is None:
        return line
    return f"{line}; defects against {result.defects.good}: " + ", ".join(f"{name} {value}" for name, value in _rates(result.defects))


def as_table(result: Classification, title: str) -> Table:
    """One method, for a terminal; :func:`summary` belongs below it."""
    return terminal_table(title, HEADINGS, rows(result))


def comparison(methods: Mapping[str, Classification]) -> tuple[tuple[str, ...], list[Cells]]:
    """Methods beside one another: the headings, and for each figure its rows.

    Args:
        methods: at least one, by the name of its column.

    Raises:
        ValueError: there is no method, or they were not measured on the same classes with as many pictures each.
    """
    results = list(methods.values())
    _same([(row.name, row.labels) for row in result.classes] for result in results)
    first = results[0]
    groups: list[Cells] = []
    for figure, over_all, values, totals in (
        ("AP", "mean", [[row.ap for row in one.classes] for one in results], [one.mean_ap for one in results]),
        ("accuracy", "all", [[row.recall for row in one.classes] for one in results], [one.accuracy for one in results]),
    ):
        cells = [
            (figure, row.name, str(row.labels), *map(share, of_class)) for row, of_class in zip(first.classes, zip(*values, strict=True), strict=True)
        ]
        groups.append([*cells, (figure, over_all, str(first.samples), *map(share, totals))])
    judged = [one.defects for one in results if one.defects is not None]
    if judged:
        _same(one.good for one in judged)
        of_each = [None if one.defects is None else _rates(one.defects) for one in results]
        groups.append([
            (f"against {judged[0].good}", name, str(first.samples), *("-" if rates is None else rates[number][1] for rates in of_each))
            for number, (name, _) in enumerate(_rates(judged[0]))
        ])  # fmt: skip
    return ("figure", "class", "labels", *methods), groups


def comparison_table(methods: Mapping[str, Classification], title: str) -> Table:
    """Methods beside one another, for a terminal.

    Raises:
        ValueError: as :func:`comparison`.
    """
    return _grouped_table(title, *comparison(methods))


def pointing(maps: Mapping[str, Localisation]) -> tuple[tuple[str, ...], list[Cells]]:
    """Heat maps beside one another and beside the control: the headings, and for each figure its rows.

    The control of peaks is a random point, of boxes the whole picture.

    Args:
        maps: at least one, by the name of its column.

    Raises:
        ValueError: there is no map, or they were not measured on the same pictures with the same threshold.
    """
    results = list(maps.values())
    _same([(one.threshold, one.left_out), *map(_measured_on, one.classes)] for one in results)
    by_class = list(zip(*((*one.classes, one.mean) for one in results), strict=True))

    def group(figure: str, of_map: Figure, of_control: Figure) -> Cells:
        return [(figure, row[0].name, str(row[0].pictures), *(share(of_map(one)) for one in row), share(of_control(row[0]))) for row in by_class]

    groups = [
        group("box hits", lambda one: one.box_hits, lambda one: one.whole_hits),
        group("peak hits", lambda one: one.peak_hits, lambda one: one.random_hits),
        group("mean IoU", lambda one: one.mean_iou, lambda one: one.whole_iou),
    ]
    return ("figure", "class", "pictures", *maps, CONTROL), groups


def pointing_note(maps: Mapping[str, Localisation]) -> str:
    """What the figures of :func:`pointing` count."""
    threshold = next(iter(maps.values())).threshold
    return (
        f"A box hits that overlaps a true one with an IoU of {threshold:g} or more, a peak that lies in one. "
        "Control: the whole picture as the box, a random point as the peak."
    )


def pointing_table(maps: Mapping[str, Localisation], title: str) -> Table:
    """Heat maps beside one another, for a terminal.

    Raises:
        ValueError: as :func:`pointing`.
    """
    table = _grouped_table(title, *pointing(maps))
    table.caption, table.caption_justify = pointing_note(maps), "left"
    return table


def as_markdown(methods: Mapping[str, Classification], title: str, maps: Mapping[str, Localisation] | None = None) -> str:
    """For a document: one method's table, or several beside one another; then where the maps point.

    Raises:
        ValueError: as :func:`comparison` and :func:`pointing`.
    """
    headings, groups = comparison(methods)
    single = len(methods) == 1
    told = [f"{'' if single else '- '}{name}: {summary(result)}." for name, result in methods.items()]
    cells = rows(next(iter(methods.values()))) if single else [row for group in groups for row in group]
    lines = [f"## {title}", "", *told, "", *markdown_lines(HEADINGS if single else headings, cells)]
    if maps:
        headings, groups = pointing(maps)
        left_out = next(iter(maps.values())).left_out
        lines += ["", "### Where the heat map points", "", f"{pointing_note(maps)} {left_out} pictures without true boxes are left out.", ""]
        lines += markdown_lines(headings, [row for group in groups for row in group])
    return "\n".join(lines) + "\n"


def as_json(result: Classification, maps: Mapping[str, Localisation] | None = None, **about: object) -> dict[str, Any]:
    """One method, for a program; ``about`` (what was evaluated on what) comes first. What was not measured is null."""
    content: dict[str, Any] = {**about, **asdict(result)}
    content["confusion"] = [list(row) for row in result.confusion]
    if result.defects is not None:
        one = result.defects
        content["defects"] |= {
            "precision": one.precision,
            "true_positive_rate": one.true_positive_rate,
            "false_positive_rate": one.false_positive_rate,
            "false_negative_rate": one.false_negative_rate,
            "f1": one.f1,
        }
    if maps:
        content["maps"] = {name: asdict(one) for name, one in maps.items()}
    return content


def _rates(defects: DefectFigures) -> tuple[tuple[str, str], ...]:
    """The paper's names and the values of its equations 7 to 11."""
    return (
        ("PR", share(defects.precision)),
        ("TPR", share(defects.true_positive_rate)),
        ("FPR", share(defects.false_positive_rate)),
        ("FNR", share(defects.false_negative_rate)),
        ("F1", share(defects.f1)),
    )


def _grouped_table(title: str, headings: Sequence[str], groups: Sequence[Cells]) -> Table:
    """A table for a terminal, its figures set apart from each other."""
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index > 1 else "left", overflow="fold")
    for group in groups:
        for number, row in enumerate(group):
            over_all = number == len(group) - 1 and row[1] in OVER_ALL
            table.add_row("" if number else row[0], *row[1:], style="bold" if over_all else None)
        table.add_section()
    return table


def _measured_on(row: PointingFigures) -> tuple[object, ...]:
    """What is the same for all maps of the same pictures."""
    return row.name, row.pictures, *(None if value is None else round(value, 9) for value in (row.whole_iou, row.random_hits))


def _same(measured_on: Iterable[object]) -> None:
    """Raises ValueError unless there is at least one and all are equal."""
    told = list(measured_on)
    if not told:
        raise ValueError("there is nothing to make a table of")
    if any(one != told[0] for one in told[1:]):
        raise ValueError("only what was measured on the same pictures stands in one table")
