"""A detector and a classifier that read their word on each image from the number that is stamped on it (``stamps.py``).

Bit 0: the detector finds "bright" there. Bit 1: the classifier calls the whole image "bright". Bit 2: it calls the detection's surroundings so.
"""

from __future__ import annotations

import numpy as np
from stamps import BLOCK, SIDE, Calls, read_stamp

from inspector.config.classifier import BilinearNetwork, ClassifierCompile
from inspector.config.detector import CompileRecipe
from inspector.config.network import InputRecipe
from inspector.config.recipe import ClassifierRecipe, DetectorRecipe
from inspector.contract.errors import EngineError
from inspector.engine.base import Array
from inspector.engine.manifest import manifest_hash
from inspector.engine.null import NullEngine, null_manifest
from inspector.engine.preprocess import FILL_GREY

INPUT = InputRecipe(height_px=SIDE, width_px=SIDE)
FINDER = DetectorRecipe(name="finder", classes=("bright", "dark"), input=INPUT, compile=CompileRecipe(budget_ms=400))
LOOKER = ClassifierRecipe(
    name="looker",
    classes=("good", "bright", "mark"),
    good="good",
    input=INPUT,
    network=BilinearNetwork(architecture="bilinear", backbone_width=0.125, channels=8),
    compile=ClassifierCompile(budget_ms=400),
)


class Finder(NullEngine):
    """Finds "bright" on the stamp, score 0.95, or only 0.25."""

    def __init__(self) -> None:
        super().__init__(FINDER)

    def _start(self, image: np.ndarray) -> int:  # type: ignore[override]
        return read_stamp(image)

    def _finish(self, job: int) -> dict[str, Array]:  # type: ignore[override]
        outputs = super()._finish(None)
        outputs["scores"][0, 0] = 0.95 if job & 1 else 0.25
        outputs["boxes"][0, 0] = (0, 0, SIDE, BLOCK)
        return outputs


def looker_calls(mischiefs: tuple) -> Calls:  # type: ignore[type-arg]
    """The classifier's calls, however often it is opened."""
    return Calls(mischiefs, manifest=null_manifest(LOOKER), log_fd=-1)


class Looker(NullEngine):
    """Calls an image "bright", score 0.75, or "good"; some calls fail."""

    def __init__(self, calls: Calls) -> None:
        super().__init__(LOOKER)
        self._manifest, self._hash = calls.manifest, manifest_hash(calls.manifest)
        self._calls = calls

    def _start(self, image: np.ndarray) -> bool:  # type: ignore[override]
        is_crop = int(image[0, SIDE // 2, 0]) == FILL_GREY  # nothing lies under the stamp
        return bool(read_stamp(image) & (4 if is_crop else 2))

    def _finish(self, job: bool) -> dict[str, Array]:  # type: ignore[override]
        self._calls.count += 1
        if self._calls.seconds("throw") is not None:
            raise EngineError(f"call {self._calls.count} fails on purpose")
        outputs = super()._finish(None)
        outputs["scores"][0] = (0.25, 0.75, 0) if job else (0.875, 0.125, 0)
        outputs["label"][0] = job
        outputs["contribution"][0, 0] = 1
        return outputs
