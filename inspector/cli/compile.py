"""``inspector compile``: an engine for this machine, with its parity and latency."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inspector.contract.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from inspector.compile.build import BuildOptions
    from inspector.compile.reference import Reference
    from inspector.config.network import InputRecipe
    from inspector.config.recipe import Recipe
    from inspector.engine.manifest import Manifest


def compile_engine(
    source: Annotated[Path, typer.Argument(help="An engine recipe (TOML), or an ONNX that was compiled before.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the engine; made where it is missing.", show_default=False)],
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights (safetensors). Default: runs/NAME/weights.safetensors.", show_default=False)
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of reference pictures. Default: generated surfaces.", show_default=False)] = None,
    image_count: Annotated[int, typer.Option(help="Reference pictures.", min=1, max=1000)] = 8,
    precision: Annotated[Literal["fp32", "bf16"] | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads instead of the recipe's; 0: all cores.", min=0, show_default=False)] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Store weights as float16: half the file, for engines that are committed.")
    ] = False,
    allow_untrained: Annotated[
        bool, typer.Option("--allow-untrained", help="Random weights, or weights that find nothing: parity by inner tensors.")
    ] = False,
) -> None:
    """Compile a network into an engine for this machine.

    From a RECIPE: exports the ONNX and keeps torch's outputs on the reference pictures beside it. From an ONNX: builds the engine anew for
    this machine; needs no torch, and the file NAME.reference.npz beside the ONNX.

    Both measure parity with torch by matched boxes, and refuse an engine that is not within the recipe's tolerances.
    """
    from rich.console import Console

    from inspector.compile.build import BuildOptions, build_engine
    from inspector.engine.manifest import read_manifest

    console = Console(highlight=False, soft_wrap=True)
    options = BuildOptions(precision, threads, allow_untrained)
    with tempfile.TemporaryDirectory() as scratch:

        def progress(what: str) -> None:
            console.print(f"{what} ...")

        if source.suffix == ".onnx":
            if weights is not None or images is not None or half_weights:
                raise ConfigError(
                    [f"{source}: --weights, --images and --half-weights go with a recipe; an ONNX brings its weights and reference along"]
                )
            onnx, reference = source, _stored_reference(source)
        else:
            onnx = Path(scratch) / "network.onnx"
            reference = _export(source, weights, onnx, _Pictures(images, image_count), options, half_weights=half_weights, progress=progress)
        manifest_path = build_engine(onnx, reference, out, options, progress)
    manifest = read_manifest(manifest_path)
    console.print(_table(manifest, manifest_path))
    if manifest.latency is not None and manifest.latency.p99_ms > manifest.budget_ms:
        console.print(f"warning: p99 {manifest.latency.p99_ms:.0f} ms is over the recipe's budget_ms = {manifest.budget_ms:.0f}")


class _Pictures:
    """Where reference pictures come from."""

    def __init__(self, folder: Path | None, count: int) -> None:
        self._folder = folder
        self._count = count

    def canvases(self, size: InputRecipe) -> NDArray[np.uint8]:
        """uint8 [n, C, H, W]."""
        from inspector.compile.reference import folder_canvases, surface_canvases

        return surface_canvases(size, self._count) if self._folder is None else folder_canvases(self._folder, size, self._count)


def _stored_reference(onnx: Path) -> Reference:
    """The reference beside an ONNX."""
    from inspector.compile.network import read_network
    from inspector.compile.reference import SUFFIX, load_reference

    return load_reference(onnx.with_name(read_network(onnx).recipe.name + SUFFIX))


def _export(
    path: Path, weights: Path | None, onnx: Path, pictures: _Pictures, options: BuildOptions, *, half_weights: bool, progress: Callable[[str], None]
) -> Reference:
    """Write the ONNX of a recipe; its reference."""
    from inspector.config.recipe import read_recipe

    recipe = read_recipe(path)
    try:
        from inspector.compile.torch_reference import export_with_reference
    except ImportError as error:
        raise EngineError(
            f"{path}: compiling a recipe needs {error.name}: install inspectord[train], or compile the ONNX from another machine"
        ) from None
    progress("reading reference pictures")
    canvases = pictures.canvases(recipe.input)
    progress("exporting, and running torch on the reference pictures")
    return export_with_reference(recipe, _weights(recipe, weights, options), canvases, onnx, half_weights=half_weights)


def _weights(recipe: Recipe, weights: Path | None, options: BuildOptions) -> Path | None:
    """The weights file; None: random weights, which have to be asked for."""
    if weights is not None:
        return weights
    usual = Path("runs") / recipe.name / "weights.safetensors"
    if usual.is_file():
        return usual
    if options.allow_untrained:
        return None
    raise ConfigError([f"--weights: is missing and there is no {usual}: name trained weights, or say --allow-untrained for random ones"])


def _table(manifest: Manifest, path: Path) -> Table:
    """What was built and measured."""
    from rich.table import Table

    table = Table(title=f"engine {manifest.recipe.name}", show_header=False, title_justify="left")
    table.add_row("backend", f"{manifest.backend.name} {manifest.backend.version}, {manifest.precision}, {manifest.threads} threads")
    table.add_row("device", f"{manifest.device.name} ({manifest.device.architecture})")
    parity, latency = manifest.parity, manifest.latency
    if parity is not None:
        what = {"detections": "detections", "tensors": "regions (untrained: inner tensors were compared)", "classes": "classes"}[parity.proven_by]
        table.add_row("parity", f"{parity.matched:.2%} of {parity.detections} {what} on {parity.images} images, against {parity.reference}")
        if parity.max_box_difference_px is not None:
            table.add_row("", f"scores within {parity.max_score_difference:.2g}, boxes within {parity.max_box_difference_px:.2g} px")
        if parity.max_map_difference is not None:
            table.add_row("", f"scores within {parity.max_score_difference:.2g}, heat maps within {parity.max_map_difference:.2g} of their largest")
        if parity.trunk_relative_error is not None:
            table.add_row("", f"trunk within {parity.trunk_relative_error:.2%} of its largest logit")
    if latency is not None:
        table.add_row("latency", f"p50 {latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms, max {latency.max_ms:.1f} ms ({latency.images} images)")
    table.add_row("budget", f"{manifest.budget_ms:.0f} ms")
    for entry in manifest.files:
        table.add_row(entry.role, f"{path.parent / entry.name}")
    table.add_row("manifest", str(path))
    return table
