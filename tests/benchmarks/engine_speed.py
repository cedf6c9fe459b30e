"""Speed of a recipe's network in OpenVINO (fp32 and bf16) beside torch eager float32, in one run: percentiles and ratios.

    python tests/benchmarks/engine_speed.py engines/neu-lite0.toml [--weights FILE] [--images 30] [--threads 2] [--torch-bf16]

Random weights do: the arithmetic does not depend on them. Variants take turns image by image, so that whatever else the machine does meets all of
them. On a machine with other work only the ratios mean something.
"""

from __future__ import annotations

import argparse
import json
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
from inspector.config.recipe import read_recipe
from inspector.engine.cpu import available_threads, cpu_device
from inspector.engine.openvino import OpenVinoEngine, computes_bf16

Run = Callable[[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]], object]


def torch_run(model: torch.nn.Module, autocast: bool) -> Run:
    def run(canvas: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(torch.from_numpy(canvas[None]))

    return run


def engine_run(engine: OpenVinoEngine) -> Run:
    return lambda canvas: engine.collect(engine.submit(canvas))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--torch-bf16", action="store_true", help="also torch under bf16 autocast")
    parser.add_argument("--json", action="store_true", help="one JSON object last")
    chosen = parser.parse_args()
    recipe = read_recipe(chosen.recipe)
    threads = available_threads(chosen.threads)
    torch.set_num_threads(threads)
    console = Console(highlight=False)
    model = build_model(recipe, chosen.weights)
    canvases = surface_canvases(recipe.input, 4)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as open_engines:
        folder = Path(scratch)
        onnx = folder / f"{recipe.name}.onnx"
        export_onnx(model, recipe, onnx)
        network = read_network(onnx)
        plain = msgspec.structs.replace(new_manifest(network, folder), threads=threads)
        runs: dict[str, Run] = {"torch eager fp32": torch_run(model, autocast=False)}
        if chosen.torch_bf16:
            runs["torch autocast bf16"] = torch_run(model, autocast=True)
        precisions: tuple[Precision, ...] = ("fp32", "bf16") if computes_bf16() else ("fp32",)
        opening_s = {}
        for precision in precisions:
            manifest = msgspec.structs.replace(plain, precision=precision, stages=network.stages(precision))
            begun = time.monotonic()
            engine = open_engines.enter_context(OpenVinoEngine(manifest, onnx))
            opening_s[precision] = time.monotonic() - begun
            runs[f"OpenVINO {precision}"] = engine_run(engine)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            for canvas in canvases[:2]:
                run(canvas)
        for index in track(range(chosen.images), console=console):
            for name, run in runs.items():
                begun = time.perf_counter()
                run(canvases[index % len(canvases)])
                times[name].append((time.perf_counter() - begun) * 1e3)
    report(console, recipe.name, times, opening_s, threads)
    if chosen.json:
        figures = {name: np.percentile(values, (50, 99, 100)).round(3).tolist() for name, values in times.items()}
        print(json.dumps({name: dict(zip(("p50", "p99", "max"), row, strict=True)) for name, row in figures.items()}))


def report(console: Console, name: str, times: dict[str, list[float]], opening_s: dict[str, float], threads: int) -> None:
    device = cpu_device()
    table = Table(title=f"{name}, {threads} threads, {device.name} ({', '.join(device.instructions)})")
    for column in ("", "best", "p50", "p90", "p99", "max", "times faster (p50)", "(best)"):
        table.add_column(column, justify="right" if column else "left")
    base = np.array(times["torch eager fp32"])
    for variant, values in times.items():
        figures = [min(values), *np.percentile(values, (50, 90, 99)), max(values)]
        ratios = (np.median(base) / np.median(values), base.min() / min(values))
        table.add_row(variant, *(f"{value:.1f}" for value in figures), *(f"{ratio:.2f}" for ratio in ratios))
    console.print(table)
    console.print("milliseconds per image; opening took " + ", ".join(f"{seconds:.1f} s ({precision})" for precision, seconds in opening_s.items()))


if __name__ == "__main__":
    main()
