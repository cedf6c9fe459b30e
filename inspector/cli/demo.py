"""``inspector demo``: the whole station on a machine with no camera and no GPU."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspector.contract.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from rich.console import Console

    from inspector.cli.demo_run import DemoResult
    from inspector.cli.demo_station import DemoOptions

SHIPPED = Path("engines") / "demo"
CLASSIFIER = "demo-classifier"
_DEFAULT_RATE_HZ = 10.0


def demo(
    parts: Annotated[int, typer.Option(help="Parts that pass the camera.", min=1, max=1_000_000)] = 200,
    rate: Annotated[float, typer.Option(help="Parts per second on the line.", min=0.1, max=2000)] = _DEFAULT_RATE_HZ,
    images: Annotated[
        Path | None, typer.Option(help="Show these pictures (a folder, one size) instead of generated surfaces.", show_default=False)
    ] = None,
    engine: Annotated[
        Path | None, typer.Option(help="A compiled engine: its folder or manifest. Default: the demo engine.", show_default=False)
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="A compiled classifier beside it. Default: the demo's with the demo engine, else none.", show_default=False)
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Score from which a detection counts.", min=0, max=1, show_default=False)] = None,
    faults: Annotated[str, typer.Option(help="Faults of the simulated camera, e.g. drop_every=20,late_at=50:300ms (docs/camera.md).")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the faults.", min=0)] = 1,
    folder: Annotated[Path, typer.Option(help="Where station file, journal and pictures go.")] = Path("runs") / "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run the real station on a simulated camera: generated surfaces with planted defects, verdicts, journal, pictures, metrics.

    Prints outcomes, latency, precision and recall against what was planted. Exit code 0 when every trigger of the simulated line has
    exactly one verdict, published and logged.
    """
    from rich.console import Console

    from inspector.cli.demo_station import DemoOptions

    console = Console(stderr=as_json)
    options = DemoOptions(
        folder=folder,
        parts=parts,
        rate_hz=rate,
        engine=_given("--engine", engine) or _shipped("--engine", folder, console, "demo"),
        classifier=_classifier(classifier, folder, console, alone=engine is not None),
        images=_folder_of(images),
        threshold=threshold,
        faults=faults,
        seed=seed,
        endpoint=f"tcp://127.0.0.1:{_free_port()}",
        metrics_port=_free_port(),
    )
    result = _run(options, console)
    _print_summary(result, options, console)
    if as_json:
        print(json.dumps(_as_json(result, options)))
    if result.exit_code:
        raise typer.Exit(result.exit_code)
    if not result.consistent and not faults:
        raise typer.Exit(ExitCode.FAILURE)


def _run(options: DemoOptions, console: Console) -> DemoResult:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from inspector.cli.demo_run import run_station
    from inspector.cli.demo_station import lay_out

    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        drawing = bars.add_task("Drawing surfaces", total=options.parts, note="", visible=options.images is None)
        station = lay_out(options, lambda done, wanted: bars.update(drawing, completed=done, total=wanted))
        parts = bars.add_task("Parts", total=options.parts, note="starting the station")
        rejected = [0]

        def count(verdict: object) -> None:
            rejected[0] += getattr(verdict, "outcome", "") == "REJECT"
            bars.update(parts, advance=1, note=f"{rejected[0]} rejected, metrics at http://127.0.0.1:{options.metrics_port}/metrics")

        return run_station(station, options.folder, options.endpoint, options.parts, count)


def _given(option: str, path: Path | None) -> Path | None:
    """The manifest that an option names; None: it was not given."""
    from inspector.engine.manifest import SUFFIX

    if path is None:
        return None
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        raise ConfigError([f"{option}: {path}: names no compiled engine (NAME{SUFFIX}, or a folder with one); make it with `inspector compile`"])
    return found[0]


def _shipped(option: str, folder: Path, console: Console, name: str) -> Path:
    """The manifest of a shipped engine, made fit for this machine."""
    from inspector.compile.ensure import ensure_built

    model = _shipped_model(name)
    if model is None:
        raise ConfigError([f"{option}: the shipped engine {name} (engines/demo) is not installed beside the program; name a compiled engine"])
    with console.status(f"Building the engine {name} for this machine"):
        return ensure_built(model, folder / "engine")


def _shipped_model(name: str) -> Path | None:
    for place in (Path(__file__).resolve().parents[2] / SHIPPED, Path(sys.prefix) / "share" / "inspectord" / SHIPPED, SHIPPED):
        if (place / f"{name}.onnx").is_file():
            return place / f"{name}.onnx"
    return None


def _classifier(given: Path | None, folder: Path, console: Console, *, alone: bool) -> Path | None:
    """The classifier's manifest: the given one, else the shipped one; None: there is none, or a detector of one's own was named ``alone``."""
    found = _given("--classifier", given)
    if found is not None or alone:
        return found
    return None if _shipped_model(CLASSIFIER) is None else _shipped("--classifier", folder, console, CLASSIFIER)


def _folder_of(images: Path | None) -> Path | None:
    if images is not None and not images.is_dir():
        raise ConfigError([f"--images: no such folder: {images}"])
    return images.absolute() if images is not None else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_json(result: DemoResult, options: DemoOptions) -> dict[str, object]:
    score = result.score
    return {
        "triggers": result.triggers,
        "outcomes": result.outcomes,
        "reasons": result.reasons,
        "published": result.published,
        "logged": result.logged,
        "latency_ms": result.latency_ms or {"p50": None, "p99": None, "max": None},
        "precision": score.precision if score else None,
        "recall": score.recall if score else None,
        "planted": score.planted if score else None,
        "found_by": {one.name: {"parts": one.parts, "alone": one.alone, "clean": one.clean, "defective": one.defective} for one in result.found_by},
        "blind_intervals": result.blind_intervals,
        "consistent": result.consistent,
        "journal": str(options.folder / "state" / "journal.sqlite"),
        "pictures": str(options.folder / "state" / "pictures"),
    }


def _print_summary(result: DemoResult, options: DemoOptions, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"{result.triggers} parts passed the camera", title_justify="left", show_header=False, title_style="bold")
    for name, count in result.outcomes.items():
        table.add_row(name, str(count), ", ".join(f"{reason}: {n}" for reason, n in sorted(result.reasons.items())) if name == "UNINSPECTED" else "")
    table.add_section()
    table.add_row("published", str(result.published), "verdicts on the wire")
    table.add_row("logged", str(result.logged), f"{options.folder}/state/journal.sqlite  (inspector log {options.folder}/state)")
    table.add_row("pictures", "", f"{options.folder}/state/pictures")
    table.add_section()
    if result.latency_ms:
        latency = "  ".join(f"{name} {value:.1f} ms" for name, value in result.latency_ms.items())
        table.add_row("latency", "", f"{latency}  (exposure to verdict sent)")
    for one in result.found_by:
        known = "" if one.clean is None else f"{one.defective} of {result.defective} with a planted defect, {one.clean} clean; "
        table.add_row(f"found by {one.name}", str(one.parts), f"{known}{one.alone} found by it alone")
    table.add_section()
    if result.score:
        score, boxes = result.score, f"boxes of {result.detector}, same class, IoU at least 0.5"
        for name, value, base in (("precision", score.precision, score.counted), ("recall", score.recall, score.planted)):
            table.add_row(name, "-" if value is None else f"{value:.3f}", f"{score.matched} of {base} ({boxes})")
    console.print(table)
    if result.consistent:
        console.print("Every trigger of the line has exactly one verdict, published and logged.")
    elif options.faults:
        console.print(
            f"Triggers without a verdict lie in the {result.blind_intervals} blind intervals that were published (inspector log shows them)."
        )
    else:
        console.print("[bold red]The numbers do not agree: a part was lost. This must not happen; see daemon.log.[/]")
