"""What a classifier's heat maps cost: the engine with and without them, one trunk beside four, and torch's Grad-CAM by a backward pass.

    python tests/benchmarks/classifier_speed.py engines/bilinear-dvgg16.toml [--images 20] [--threads 2] [--no-torch]

Random weights do: the arithmetic does not depend on them. Variants take turns image by image, so that whatever else the machine does meets all of
them. On a machine with other work only the ratios mean something. The heat maps' cost is the median of the ratios of neighbouring images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from inspector.compile.build import new_manifest
from inspector.compile.export import export_onnx
from inspector.compile.network import read_network
from inspector.compile.reference import surface_canvases
from inspector.compile.torch_reference import build_model
from inspector.config.network import Precision
from inspector.config.recipe import ClassifierRecipe, read_recipe
from inspector.engine.cpu import available_threads, cpu_device
from inspector.engine.manifest import Manifest
from inspector.engine.openvino import OpenVinoEngine, computes_bf16
from inspector.models.bilinear import BilinearClassifier

Canvas = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Run = Callable[[Canvas], object]
CLASSES_ALONE = ("scores", "label", "logits")


def engine_run(engine: OpenVinoEngine) -> Run:
    return lambda canvas: engine.collect(engine.submit(canvas))


def autograd_grad_cam(model: BilinearClassifier, canvas: Canvas) -> torch.Tensor:
    """Grad-CAM as it is usually made: forward, then backward from the class score to the feature."""
    with torch.no_grad():
        maps = model.trunk_maps(model.normalise(torch.from_numpy(canvas[None])))
        a, b = model.features(maps)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(model.descriptor(model.pool(a, b))).max(1).values.sum(), a)
    return torch.relu((gradient.mean((2, 3), keepdim=True) * a).sum(1))


def full_autograd(model: BilinearClassifier, canvas: Canvas) -> torch.Tensor:
    """The same as libraries do it, by hooks: the whole network records what a backward pass needs."""
    a, b = model.features(model.trunk_maps(model.normalise(torch.from_numpy(canvas[None]))))
    a.retain_grad()
    model.head(model.descriptor(model.pool(a, b))).max(1).values.sum().backward()
    assert a.grad is not None
    return torch.relu((a.grad.mean((2, 3), keepdim=True) * a.detach()).sum(1))


def torch_runs(model: BilinearClassifier) -> dict[str, Run]:
    def closed(canvas: Canvas) -> object:
        with torch.inference_mode():
            return model.trace(torch.from_numpy(canvas[None]))

    def classes(canvas: Canvas) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(canvas[None]))

    return {
        "torch fp32, no map": classes,
        "torch fp32, closed form": closed,
        "torch fp32, backward pass from the feature": lambda canvas: autograd_grad_cam(model, canvas),
        "torch fp32, backward pass by hooks": lambda canvas: full_autograd(model, canvas),
    }


def without_maps(manifest: Manifest) -> Manifest:
    """The same engine, asked for its classes alone: what only the maps need is left out of the graph."""
    *others, last = manifest.stages
    stages = (*others, msgspec.structs.replace(last, outputs=tuple(name for name in last.outputs if name in CLASSES_ALONE or "features" in name)))
    outputs = tuple(spec for spec in manifest.outputs if spec.name in CLASSES_ALONE)
    return msgspec.structs.replace(manifest, stages=stages, outputs=outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-torch", action="store_true")
    chosen = parser.parse_args()
    recipe = read_recipe(chosen.recipe)
    assert isinstance(recipe, ClassifierRecipe), "name a classifier's recipe"
    threads = available_threads(chosen.threads)
    torch.set_num_threads(threads)
    console = Console(highlight=False, width=130)
    canvases = surface_canvases(recipe.input, 4)
    precisions: tuple[Precision, ...] = ("bf16", "fp32") if computes_bf16() else ("fp32",)
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as engines:
        for trunks in ("independent", "shared"):
            changed = recipe.model_copy(update={"network": recipe.network.model_copy(update={"trunks": trunks})})
            model = build_model(changed, None)
            assert isinstance(model, BilinearClassifier)
            with torch.no_grad():  # trunks of equal weights are one for OpenVINO, which computes equal parts of a graph once
                for trunk in model.backbones[1:]:
                    for parameter in trunk.parameters():
                        parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
            onnx = Path(scratch) / f"{trunks}.onnx"
            export_onnx(model, changed, onnx)
            network = read_network(onnx)
            (Path(scratch) / f"{recipe.name}.onnx").write_bytes(b"")  # the manifest names it; nothing reads it here
            for precision in precisions:
                manifest = msgspec.structs.replace(
                    new_manifest(network, Path(scratch)), threads=threads, precision=precision, stages=network.stages(precision)
                )
                count = len(model.trunks)
                runs[f"OpenVINO {precision}, {count} trunks, both maps"] = engine_run(engines.enter_context(OpenVinoEngine(manifest, onnx)))
                runs[f"OpenVINO {precision}, {count} trunks, no map"] = engine_run(
                    engines.enter_context(OpenVinoEngine(without_maps(manifest), onnx))
                )
            if trunks == recipe.network.trunks and not chosen.no_torch:
                runs |= torch_runs(model)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run(canvases[0])
        for index in track(range(chosen.images), console=console):
            order = list(runs.items()) if index % 2 else list(reversed(runs.items()))
            for name, run in order:
                begun = time.perf_counter()
                run(canvases[index % len(canvases)])
                times[name].append((time.perf_counter() - begun) * 1e3)
    report(console, recipe.name, times, threads)


def report(console: Console, name: str, times: dict[str, list[float]], threads: int) -> None:
    device = cpu_device()
    table = Table(title=f"{name}, {threads} threads, {device.name} ({', '.join(device.instructions)}), ms per image")
    for column in ("", "best", "p50", "p90", "max", "maps cost"):
        table.add_column(column, justify="right" if column else "left")
    for variant, values in times.items():
        figures = [min(values), *np.percentile(values, (50, 90)), max(values)]
        plain = times.get(variant.rsplit(", ", 1)[0] + ", no map")
        cost = "" if plain is None or plain is values else f"{(np.median(np.array(values) / np.array(plain)) - 1) * 100:+.1f} %"
        table.add_row(variant, *(f"{value:.1f}" for value in figures), cost)
    console.print(table)
    for left, right in (("4 trunks", "1 trunks"), ("2 trunks", "1 trunks")):
        for variant, values in times.items():
            other = times.get(variant.replace(left, right))
            if left in variant and other is not None:
                console.print(f"{variant}: {np.median(np.array(values) / np.array(other)):.2f} times the time of one shared trunk")


if __name__ == "__main__":
    main()
