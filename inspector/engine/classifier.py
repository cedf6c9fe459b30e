"""A classifier: camera images in, the class of each out, and where in the image its evidence lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from inspector.config.recipe import ClassifierRecipe
from inspector.contract.errors import EngineError
from inspector.contract.records import Box
from inspector.engine.heatmap import HotSpots, cells_on_picture, hot_spots
from inspector.engine.network import PictureNetwork, Submitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from inspector.config.classifier import MapKind
    from inspector.engine.base import Array, Engine


class Classification(msgspec.Struct, frozen=True, eq=False):
    """What a classifier says of one image. The arrays are read-only and belong to this object."""

    scores: NDArray[np.float32]
    """[classes] float32: soft-max, 0..1."""
    label: int
    """The predicted class, index into ``classes``."""
    classes: tuple[str, ...]
    heat: NDArray[np.float32]
    """[h, w] float32, >= 0: the chosen heat map of the predicted class, as far as its cells touch the image."""
    heat_box_px: Box
    """Where the map's outer edges lie, in pixels of the image; beyond it, by less than a cell, where the image did not fill the network's input."""
    spots: HotSpots
    """What the map points at, in pixels of the image."""
    preprocess_ms: float
    engine_ms: float
    """Time from submitting to having the outputs."""

    @property
    def name(self) -> str:
        """The predicted class."""
        return self.classes[self.label]

    @property
    def score(self) -> float:
        """The predicted class's score."""
        return float(self.scores[self.label])


class Classifier(PictureNetwork[Classification]):
    """A compiled classifier.

    Args:
        engine: of a recipe with the architecture ``bilinear``.
        map_kind: which heat map is given out; None: the recipe's.

    Raises:
        EngineError: the engine is no classifier's.
    """

    def __init__(self, engine: Engine, map_kind: MapKind | None = None) -> None:
        super().__init__(engine)
        recipe = engine.manifest.recipe
        if not isinstance(recipe, ClassifierRecipe):
            raise EngineError(f'engine {recipe.name!r} is no classifier: name one that was compiled from a recipe with architecture = "bilinear"')
        self._rule = recipe.heat_map
        self._map = map_kind or recipe.heat_map.map
        self._good = recipe.good

    @property
    def good(self) -> str | None:
        """The class of images without a defect; None: every class is a defect."""
        return self._good

    def _read(self, outputs: dict[str, Array], one: Submitted) -> Classification:
        scores, label = outputs["scores"][0].astype(np.float32), int(outputs["label"][0])
        whole = outputs[self._map][0].astype(np.float32)
        if not (np.isfinite(scores).all() and np.isfinite(whole).all() and 0 <= label < len(self._classes)):
            raise EngineError("the engine gave numbers that are no classification (not finite, or a class that does not exist): compile it again")
        canvas_px = one.canvas.shape[1], one.canvas.shape[2]
        rows, columns = cells_on_picture(whole.shape, canvas_px, one.geometry)
        heat = np.maximum(whole[:rows, :columns], 0)
        for array in (scores, heat):
            array.flags.writeable = False
        right = columns * canvas_px[1] / whole.shape[1] / one.geometry.scale_x
        bottom = rows * canvas_px[0] / whole.shape[0] / one.geometry.scale_y
        return Classification(
            scores=scores,
            label=label,
            classes=self._classes,
            heat=heat,
            heat_box_px=Box(0.0, 0.0, right, bottom),
            spots=hot_spots(whole, canvas_px, one.geometry, (one.height_px, one.width_px), self._rule),
            preprocess_ms=one.preprocess_ms,
            engine_ms=one.engine_ms,
        )

    def classify(self, image: NDArray[np.uint8]) -> Classification:
        """Submit one image, uint8 [H, W] or [H, W, 3] RGB, and wait for it.

        Raises:
            EngineError: as :meth:`submit` and :meth:`collect`.
        """
        return self.collect(self.submit(image))
