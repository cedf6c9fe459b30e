"""A detector: camera images in, detections in the image's own pixels out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.config.recipe import DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.network import PictureNetwork, Submitted
from inspector.engine.preprocess import boxes_to_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.engine.base import Array, Engine


class Detections(msgspec.Struct, frozen=True, eq=False):
    """What one network found in one image, in falling score order. The arrays are read-only and belong to this object."""

    boxes_px: NDArray[np.float32]
    """[n, 4] float32: x1, y1, x2, y2 in pixels of the image that was submitted, inside its borders."""
    scores: NDArray[np.float32]
    """[n] float32, raw scores above 0, at most 1."""
    labels: NDArray[np.int32]
    """[n] int32, index into ``classes``."""
    classes: tuple[str, ...]
    """Names of the network's defect classes."""
    preprocess_ms: float
    """Time that resizing and letterboxing took."""
    engine_ms: float
    """Time from submitting to having the outputs."""

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of each detection."""
        return tuple(self.classes[label] for label in self.labels.tolist())


class Detector(PictureNetwork[Detections]):
    """A compiled detector.

    Args:
        engine: of a recipe with the architecture ``multiscale``.

    Raises:
        EngineError: the engine is no detector's.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        recipe = engine.manifest.recipe
        if not isinstance(recipe, DetectorRecipe):
            raise EngineError(f'engine {recipe.name!r} is no detector: name one that was compiled from a recipe with architecture = "multiscale"')

    def _read(self, outputs: dict[str, Array], one: Submitted) -> Detections:
        if not bool(np.all(outputs["converged"])):
            raise EngineError("non-maximum suppression did not converge on this image: raise network.nms_steps in the recipe and compile again")
        scores = outputs["scores"][0].astype(np.float32)
        used = np.flatnonzero(scores > 0)
        used = used[np.argsort(-scores[used], kind="stable")]
        labels = outputs["classes"][0].astype(np.int32)[used]
        boxes = boxes_to_image(outputs["boxes"][0].astype(np.float32)[used], one.geometry, one.height_px, one.width_px)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()) or bool(np.any((labels < 0) | (labels >= len(self._classes)))):
            raise EngineError("the engine gave numbers that are no detections (not finite, or a class that does not exist): compile it again")
        arrays = (boxes, scores[used], labels)
        for array in arrays:
            array.flags.writeable = False
        return Detections(*arrays, self._classes, one.preprocess_ms, one.engine_ms)

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Submit one image and wait for it.

        Raises:
            EngineError: as :meth:`submit` and :meth:`collect`.
        """
        return self.collect(self.submit(image))
