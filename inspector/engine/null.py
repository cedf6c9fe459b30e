"""An engine that does nothing: the plumbing is measured and tested with it, and it finds no defects, ever."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np

from inspector.config.recipe import ClassifierRecipe
from inspector.engine.desk import TicketedEngine
from inspector.engine.manifest import SCHEMA, Backend, Device, Manifest, TensorSpec, utc_now

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.recipe import Recipe
    from inspector.engine.base import Array


def engine_contract(recipe: Recipe) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    """Input and outputs of a network for one image: the names, dtypes and shapes that every backend is held to."""
    image = TensorSpec("image", "uint8", (1, recipe.input.channels, recipe.input.height_px, recipe.input.width_px))
    if isinstance(recipe, ClassifierRecipe):
        count, grid = len(recipe.classes), recipe.grid
        return image, (
            TensorSpec("scores", "float32", (1, count)),
            TensorSpec("label", "int32", (1,)),
            TensorSpec("logits", "float32", (1, count)),
            TensorSpec("grad_cam", "float32", (1, *grid)),
            TensorSpec("contribution", "float32", (1, *grid)),
        )
    slots = recipe.network.detections
    return image, (
        TensorSpec("boxes", "float32", (1, slots, 4)),
        TensorSpec("scores", "float32", (1, slots)),
        TensorSpec("classes", "int32", (1, slots)),
        TensorSpec("converged", "int32", (1,)),
    )


def null_manifest(recipe: Recipe) -> Manifest:
    """The manifest of an engine that does nothing with a recipe's images."""
    image, outputs = engine_contract(recipe)
    return Manifest(
        schema=SCHEMA,
        recipe_values=recipe.model_dump(mode="json"),
        files=(),
        weights_sha256="",
        backend=Backend("null", "1"),
        device=Device("cpu", platform.processor(), platform.machine()),
        precision=recipe.compile.precision,
        stages=(),
        threads=0,
        input=image,
        outputs=outputs,
        parity=None,
        latency=None,
        budget_ms=recipe.compile.budget_ms,
        created_utc=utc_now(),
    )


class NullEngine(TicketedEngine[None]):
    """An :class:`~inspector.engine.base.Engine` that answers at once, with no detections.

    Args:
        recipe: input size, classes and budget.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(null_manifest(recipe))

    def _start(self, image: NDArray[np.uint8]) -> None:
        """Nothing."""

    def _finish(self, job: None) -> dict[str, Array]:  # noqa: ARG002 (nothing was started)
        """No detections, found in one step."""
        return {spec.name: np.full(spec.shape, spec.name == "converged", spec.dtype) for spec in self.manifest.outputs}

    def _free(self) -> None:
        """Nothing."""
