"""From a recipe and weights to the ONNX and the reference outputs beside it; the part of compiling that needs torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inspector.compile.export import export_onnx, tensor_names, weights_sha256
from inspector.compile.reference import Reference
from inspector.contract.errors import DataError
from inspector.models.multiscale import MultiscaleDetector
from inspector.training.checkpoint import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.recipe import Recipe

INNER_IMAGES = 1
"""Images whose inner tensors are kept of a network that finds nothing: they are large."""


def build_model(recipe: Recipe, weights: Path | None, seed: int = 0) -> MultiscaleDetector:
    """The torch model with trained weights; with random ones when ``weights`` is None.

    Raises:
        DataError: the weights do not fit, or were trained for other classes.
    """
    torch.manual_seed(seed)
    model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    if weights is not None:
        trained = json.loads(load_model(model, weights).get("classes", "null"))
        if trained is not None and tuple(trained) != recipe.classes:
            raise DataError(f"{weights}: was trained for the classes {', '.join(trained)}, the recipe names {', '.join(recipe.classes)}")
    return model.eval()


def torch_reference(model: MultiscaleDetector, recipe: Recipe, canvases: NDArray[np.uint8]) -> Reference:
    """What torch makes of canvases, in float32.

    Args:
        model: the detector, in evaluation mode.
        recipe: its recipe.
        canvases: uint8 [n, C, H, W].
    """
    found: list[dict[str, NDArray[Any]]] = []
    with torch.inference_mode():
        for index in range(len(canvases)):
            trace = model.trace(torch.from_numpy(canvases[index : index + 1]))
            tensors = (trace.boxes, trace.scores, trace.classes, trace.converged, *trace.maps, *trace.rpn_logits, *trace.rpn_deltas)
            inner = (trace.regions, trace.regions_converged, trace.pooled, trace.class_logits, trace.box_deltas)
            named = zip(tensor_names(model.levels), (*tensors, *inner), strict=True)
            kept = {name: value.numpy() for name, value in named if _kept(name, index)}
            found.append(kept)
    untrained = not any(bool((image["scores"] >= recipe.compile.parity_score).any()) for image in found)
    names = [name for name in found[0] if name not in {"boxes", "scores", "classes"}] if untrained else []
    return Reference(
        source=f"torch {torch.__version__}",
        weights_sha256=weights_sha256(model),
        canvases=canvases,
        boxes=np.concatenate([image["boxes"] for image in found]).astype(np.float32),
        scores=np.concatenate([image["scores"] for image in found]).astype(np.float32),
        classes=np.concatenate([image["classes"] for image in found]).astype(np.int32),
        inner={name: np.stack([image[name] for image in found[:INNER_IMAGES]]).astype(np.float32) for name in names},
    )


def _kept(name: str, index: int) -> bool:
    """Whether a tensor of image ``index`` is looked at later."""
    return name in {"boxes", "scores", "classes"} or (index < INNER_IMAGES and (name in {"regions", "class_logits"} or name.startswith("rpn_logits")))


def export_with_reference(recipe: Recipe, weights: Path | None, canvases: NDArray[np.uint8], onnx: Path, *, half_weights: bool = False) -> Reference:
    """Write the ONNX of a recipe and say what torch makes of ``canvases``.

    Args:
        recipe: what to build.
        weights: trained weights (safetensors); None: random ones.
        canvases: reference images, uint8 [n, C, H, W].
        onnx: the file to write.
        half_weights: store weights as float16; the reference is computed with the weights as they were.

    Raises:
        DataError: the weights do not fit.
        EngineError: the graph cannot be exported.
    """
    model = build_model(recipe, weights)
    export_onnx(model, recipe, onnx, half_weights=half_weights)
    return torch_reference(model, recipe, canvases)
