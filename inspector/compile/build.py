"""From an exported network to an engine with its manifest. Needs no torch: this is what a station does with a network from elsewhere."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.compile import reference as references
from inspector.compile.class_parity import check_class_parity, compare_classes
from inspector.compile.network import read_network
from inspector.compile.parity import check_parity, compare_detections, compare_tensors
from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine import manifest as manifests
from inspector.engine.cpu import available_threads, cpu_device
from inspector.engine.manifest import Backend, EngineFile, Latency, Manifest, Parity
from inspector.engine.null import engine_contract
from inspector.engine.openvino import OpenVinoEngine, library_version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inspector.compile.network import Network
    from inspector.compile.reference import Reference
    from inspector.config.network import Precision
    from inspector.engine.base import Array, Engine
    from inspector.engine.manifest import Role

WARM_UP_IMAGES = 5
LATENCY_IMAGES = 50
LATENCY_S = 20.0
"""Measuring stops after this long, however few images it were."""
LEAST_LATENCY_IMAGES = 5


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built."""

    precision: Precision | None = None
    """None: the recipe's."""
    threads: int | None = None
    """None: the recipe's."""
    allow_untrained: bool = False
    """Compare inner tensors where the reference finds nothing."""


def build_engine(
    onnx: Path, reference: Reference, out: Path, options: BuildOptions | None = None, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Build an engine for this machine, prove its parity, measure its latency, and write it.

    ``out`` receives ``NAME.onnx``, ``NAME.reference.npz`` and, last, ``NAME.engine.json``; on failure it is left as it was.

    Args:
        onnx: the exported network.
        reference: what it has to repeat.
        out: a folder, made where it is missing.
        options: see :class:`BuildOptions`.
        progress: told what is being done.

    Returns:
        The manifest's path.

    Raises:
        EngineError: the network, the machine or the parity does not fit, or ``out`` cannot be written.
    """
    options = options or BuildOptions()
    network = _chosen(read_network(onnx), options)
    if reference.weights_sha256 != network.weights_sha256:
        raise EngineError(f"{onnx}: the reference outputs belong to other weights: compile the recipe and its weights again")
    if not np.array_equal(reference.canvases.shape[1:], engine_contract(network.recipe)[0].shape[1:]):
        raise EngineError(f"{onnx}: the reference images are of another size than the network's input: compile the recipe and its weights again")
    name = network.recipe.name
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as scratch:
            folder = Path(scratch)
            shutil.copyfile(onnx, folder / f"{name}.onnx")
            references.save_reference(reference, folder / f"{name}{references.SUFFIX}")
            manifest = measure(new_manifest(network, folder), network, folder, reference, options, progress)
            (folder / f"{name}{manifests.SUFFIX}").write_bytes(manifests.encode_manifest(manifest))
            progress("writing")
            for file in (*(entry.name for entry in manifest.files), f"{name}{manifests.SUFFIX}"):
                (folder / file).replace(out / file)  # the manifest last: it is refused until all the rest is there
    except OSError as error:
        raise EngineError(f"{out}: the engine cannot be written there: {error.strerror}") from None
    return out / f"{name}{manifests.SUFFIX}"


def _chosen(network: Network, options: BuildOptions) -> Network:
    """The network with the options' precision and threads in its recipe."""
    wanted = {key: value for key, value in (("precision", options.precision), ("threads", options.threads)) if value is not None}
    settings = network.recipe.compile.model_copy(update=wanted)
    return type(network)(network.recipe.model_copy(update={"compile": settings}), network.weights_sha256, network.parts)


def new_manifest(network: Network, folder: Path) -> Manifest:
    """The manifest of a network's engine on this machine, before anything was measured; ``folder`` holds its files."""
    recipe = network.recipe
    image, outputs = engine_contract(recipe)
    roles: tuple[tuple[Role, str], ...] = (("onnx", ".onnx"), ("reference", references.SUFFIX))
    present = [(role, recipe.name + suffix) for role, suffix in roles if (folder / (recipe.name + suffix)).is_file()]
    return Manifest(
        schema=manifests.SCHEMA,
        recipe_values=recipe.model_dump(mode="json"),
        files=tuple(EngineFile(name, manifests.file_sha256(folder / name), role) for role, name in present),
        weights_sha256=network.weights_sha256,
        backend=Backend("openvino", library_version()),
        device=cpu_device(),
        precision=recipe.compile.precision,
        stages=network.stages(recipe.compile.precision),
        threads=available_threads(recipe.compile.threads),
        input=image,
        outputs=outputs,
        parity=None,
        latency=None,
        budget_ms=recipe.compile.budget_ms,
        created_utc=manifests.utc_now(),
    )


def measure(
    manifest: Manifest, network: Network, folder: Path, reference: Reference, options: BuildOptions, progress: Callable[[str], None]
) -> Manifest:
    """The manifest with parity and latency.

    Raises:
        EngineError: the engine does not work, or its parity is not within the recipe's tolerances.
    """
    recipe = network.recipe
    onnx = folder / manifest.file("onnx").name
    proves_nothing = (
        options.allow_untrained
        and isinstance(recipe, DetectorRecipe)
        and not bool((reference.outputs["scores"] >= recipe.compile.parity_score).any())
    )
    progress("compiling for this machine")
    with OpenVinoEngine(manifest, onnx, network.trunk_logits() if proves_nothing else ()) as engine:
        progress("measuring parity")
        if not isinstance(recipe, DetectorRecipe):
            parity = compare_classes(reference, run_all(engine, reference.canvases))
            check_class_parity(recipe.name, parity, recipe.compile)
        else:
            if proves_nothing:
                parity = _untrained_parity(manifest, network, recipe, onnx, reference, engine)
            else:
                parity = compare_detections(reference, run_all(engine, reference.canvases), recipe.compile)
            check_parity(recipe.name, parity, recipe.compile)
        progress("measuring latency")
        return msgspec.structs.replace(manifest, parity=parity, latency=measure_latency(engine, reference.canvases, manifest.threads))


def _untrained_parity(manifest: Manifest, network: Network, recipe: DetectorRecipe, onnx: Path, reference: Reference, engine: Engine) -> Parity:
    """Parity by inner tensors."""
    if "regions" not in reference.inner:
        raise EngineError("the reference holds no inner tensors to compare: compile the recipe and its weights again")
    canvases = reference.canvases[: len(reference.inner["regions"])]
    plain = msgspec.structs.replace(manifest, stages=network.stages("fp32"))
    with OpenVinoEngine(plain, onnx, ("regions", "class_logits")) as float32:
        return compare_tensors(reference, run_all(float32, canvases), run_all(engine, canvases), recipe.compile)


def run_all(engine: Engine, canvases: Sequence[Array] | Array) -> list[dict[str, Array]]:
    """The engine's outputs of canvases uint8 [n, C, H, W].

    Raises:
        EngineError: the engine failed, or a detector's suppression did not converge.
    """
    found = []
    for canvas in canvases:
        outputs = engine.collect(engine.submit(np.ascontiguousarray(canvas, np.uint8)))
        if not bool(np.all(outputs.get("converged", True))):
            raise EngineError("non-maximum suppression did not converge on a reference image: raise network.nms_steps in the recipe")
        found.append(outputs)
    return found


def measure_latency(engine: Engine, canvases: Sequence[Array] | Array, threads: int) -> Latency:
    """Time of one image at a time, after warm-up.

    Raises:
        EngineError: the engine failed.
    """
    images = [np.ascontiguousarray(canvas, np.uint8) for canvas in canvases]
    for index in range(WARM_UP_IMAGES):
        engine.collect(engine.submit(images[index % len(images)]))
    times_ms: list[float] = []
    begun = time.monotonic()
    while len(times_ms) < LATENCY_IMAGES and (len(times_ms) < LEAST_LATENCY_IMAGES or time.monotonic() - begun < LATENCY_S):
        start = time.perf_counter()
        engine.collect(engine.submit(images[len(times_ms) % len(images)]))
        times_ms.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times_ms, (50, 99))
    return Latency(round(float(p50), 3), round(float(p99), 3), round(max(times_ms), 3), len(times_ms), threads)
