"""Parity of a classifier: whether its engine names the classes that the reference names, with the same scores and heat maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.manifest import Parity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from inspector.compile.reference import Reference
    from inspector.config.classifier import ClassifierCompile

MAPS = ("grad_cam", "contribution")


def compare_classes(reference: Reference, outputs: Sequence[Mapping[str, NDArray[Any]]]) -> Parity:
    """Parity by predicted classes; heat maps are compared where the class is the same: they are the predicted class's.

    Args:
        reference: canvases and what torch makes of them.
        outputs: the engine's, by image.
    """
    wanted = reference.outputs
    same, scores, maps = 0, [], []
    for index, output in enumerate(outputs):
        scores.append(float(np.abs(output["scores"][0] - wanted["scores"][index]).max()))
        if int(output["label"][0]) != int(wanted["label"][index]):
            continue
        same += 1
        for name in MAPS:
            largest = float(np.abs(wanted[name][index]).max())
            difference = float(np.abs(output[name][0] - wanted[name][index]).max())
            maps.append(difference / largest if largest > 0 else difference)
    return Parity(
        reference=reference.source,
        proven_by="classes",
        images=len(outputs),
        detections=len(outputs),
        matched=same / len(outputs),
        max_score_difference=max(scores),
        max_map_difference=max(maps, default=0.0),
    )


def check_class_parity(name: str, parity: Parity, limits: ClassifierCompile) -> None:
    """Whether the parity is within the recipe's tolerances.

    Raises:
        EngineError: it is not; naming what failed.
    """
    failed = []
    if parity.matched < limits.parity_min_matched:
        failed.append(f"{parity.matched:.1%} of {parity.images} predicted classes agree, parity_min_matched is {limits.parity_min_matched:.1%}")
    if not parity.max_score_difference <= limits.parity_score_tolerance:
        failed.append(f"scores differ by up to {parity.max_score_difference:.3g}, parity_score_tolerance is {limits.parity_score_tolerance}")
    if not (parity.max_map_difference or 0.0) <= limits.parity_map_tolerance:
        failed.append(
            f"heat maps differ by up to {parity.max_map_difference:.2%} of their largest value, parity_map_tolerance is "
            f"{limits.parity_map_tolerance:.2%}"
        )
    if failed:
        raise EngineError(f"no engine was written for {name!r}, it does not repeat its reference ({parity.reference}): {'; '.join(failed)}")
