"""From a recipe and weights to the ONNX and the reference outputs beside it; the part of compiling that needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inspector.compile.export import export_onnx, weights_sha256
from inspector.compile.graph import graph_of, named_tensors
from inspector.compile.reference import Reference
from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
from inspector.models.bilinear import BilinearClassifier
from inspector.models.multiscale import MultiscaleDetector
from inspector.training.checkpoint import load_trained

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.compile.graph import Model
    from inspector.config.recipe import Recipe

INNER_IMAGES = 1
"""Images whose inner tensors are kept of a network that finds nothing: they are large."""


def build_model(recipe: Recipe, weights: Path | None, seed: int = 0) -> Model:
    """The torch model with trained weights; with random ones when ``weights`` is None.

    Raises:
        DataError: the weights do not fit, or were trained for other classes.
    """
    torch.manual_seed(seed)
    model: Model
    if isinstance(recipe, ClassifierRecipe):
        model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
        if weights is None:
            # The last layer starts at zero: all classes would tie, and every heat map be zero.
            torch.nn.init.normal_(model.classes.weight, std=model.classes.in_features**-0.5)
    else:
        model = MultiscaleDetector(recipe.network, recipe.input, len(recipe.classes))
    if weights is not None:
        load_trained(model, weights, recipe.classes)
    return model.eval()


def torch_reference(model: Model, recipe: Recipe, canvases: NDArray[np.uint8]) -> Reference:
    """What torch makes of canvases, in float32.

    Args:
        model: in evaluation mode.
        recipe: its recipe.
        canvases: uint8 [n, C, H, W].
    """
    outputs = tuple(name for name in graph_of(model).outputs if name != "converged")
    found: list[dict[str, NDArray[Any]]] = []
    with torch.inference_mode():
        for index in range(len(canvases)):
            named = named_tensors(model, torch.from_numpy(canvases[index : index + 1]))
            found.append({name: value.numpy() for name, value in named.items() if name in outputs or _kept(name, index)})
    untrained = isinstance(recipe, DetectorRecipe) and not any(bool((image["scores"] >= recipe.compile.parity_score).any()) for image in found)
    names = [name for name in found[0] if name not in outputs] if untrained else []
    return Reference(
        source=f"torch {torch.__version__}",
        weights_sha256=weights_sha256(model),
        canvases=canvases,
        outputs={name: np.concatenate([image[name] for image in found]) for name in outputs},
        inner={name: np.stack([image[name] for image in found[:INNER_IMAGES]]).astype(np.float32) for name in names},
    )


def _kept(name: str, index: int) -> bool:
    """Whether an inner tensor of image ``index`` is looked at later."""
    return index < INNER_IMAGES and (name in {"regions", "class_logits"} or name.startswith("rpn_logits"))


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
