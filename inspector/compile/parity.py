"""Parity: whether an engine says what the reference says.

Outputs in another precision cannot be compared element by element: near ties are re-ordered. Detections are matched instead. A network that finds
nothing (random weights) proves nothing by its detections; its inner tensors are compared, on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.contract.errors import EngineError
from inspector.engine.manifest import Parity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from inspector.compile.reference import Reference
    from inspector.config.detector import CompileRecipe

TRUNK_TOLERANCE = {"fp32": 1e-3, "bf16": 0.06}
"""Largest error of the proposals' logits against their largest value. bfloat16 has 8 bits; over some hundred layers 1 to 3 % were seen."""
BF16_HINT = (
    "bfloat16 re-orders near ties: parity_iou = 0.5, parity_min_matched = 0.95, parity_score_tolerance = 0.3 suit it; compare AP before trusting it"
)
EMPTY_PX2 = 1e-9


@dataclass(frozen=True, slots=True)
class Found:
    """Detections of one image, in the order of their scores."""

    boxes: NDArray[np.float32]
    """[n, 4]"""
    scores: NDArray[np.float32]
    """[n]"""
    classes: NDArray[np.int32]
    """[n]"""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which of the wanted detections were met: indices, equally long."""

    wanted: NDArray[np.intp]
    given: NDArray[np.intp]


def used(boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any]) -> Found:
    """The used slots of one image's outputs (boxes [D, 4], scores [D], classes [D]), best first."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    return Found(boxes[order].astype(np.float32), scores[order].astype(np.float32), classes[order].astype(np.int32))


def iou_matrix(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union [A, B] of boxes [A, 4] and [B, 4]."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, EMPTY_PX2))


def match(wanted: Found, given: Found, threshold: float) -> Pairs:
    """Pairs of the same class whose overlap reaches ``threshold``, one to one: the best scores choose first, and choose the best score.

    Not the best overlap: of two boxes on one defect another precision may keep the other one, and leave a weak rest nearer to the first.
    """
    fits = (iou_matrix(wanted.boxes, given.boxes) >= threshold) & (wanted.classes[:, None] == given.classes[None])
    pairs: list[tuple[int, int]] = []
    for row in range(len(wanted.scores)):  # both are in the order of their scores
        column = int(fits[row].argmax()) if fits.shape[1] else 0
        if fits.shape[1] and fits[row, column]:
            pairs.append((row, column))
            fits[:, column] = False
    return Pairs(np.array([pair[0] for pair in pairs], np.intp), np.array([pair[1] for pair in pairs], np.intp))


def compare_detections(reference: Reference, outputs: Sequence[Mapping[str, NDArray[Any]]], limits: CompileRecipe) -> Parity:
    """Parity by matched boxes, both ways: what the reference finds and the engine does not counts, and so does what only the engine finds.

    Args:
        reference: canvases and what was found on them.
        outputs: the engine's, by image.
        limits: the recipe's tolerances; detections count from ``parity_score``.

    Raises:
        EngineError: the reference finds nothing, so that nothing is proven.
    """
    wanted_count, given_count, wanted_met, given_met = 0, 0, 0, 0
    scores: list[float] = []
    coordinates: list[float] = []
    for index, output in enumerate(outputs):
        wanted = used(*(reference.outputs[name][index] for name in ("boxes", "scores", "classes")))
        given = used(output["boxes"][0], output["scores"][0], output["classes"][0])
        pairs = match(wanted, given, limits.parity_iou)
        strong_wanted, strong_given = wanted.scores >= limits.parity_score, given.scores >= limits.parity_score
        wanted_count += int(strong_wanted.sum())
        given_count += int(strong_given.sum())
        wanted_met += int(strong_wanted[pairs.wanted].sum())
        given_met += int(strong_given[pairs.given].sum())
        counted = strong_wanted[pairs.wanted]
        scores.extend(np.abs(wanted.scores[pairs.wanted] - given.scores[pairs.given])[counted].tolist())
        coordinates.extend(np.abs(wanted.boxes[pairs.wanted] - given.boxes[pairs.given])[counted].max(axis=1, initial=0).tolist())
    if not wanted_count:
        raise EngineError(
            f"the reference finds nothing with a score of {limits.parity_score} on {len(outputs)} images, which proves no parity: "
            "give images with defects by --images FOLDER, or say --allow-untrained to compare inner tensors of an untrained network"
        )
    return Parity(
        reference=reference.source,
        proven_by="detections",
        images=len(outputs),
        detections=wanted_count,
        matched=min(wanted_met / wanted_count, given_met / given_count if given_count else 0.0),
        max_score_difference=max(scores, default=0.0),
        max_box_difference_px=max(coordinates, default=0.0),
        p99_box_difference_px=float(np.percentile(coordinates, 99)) if coordinates else 0.0,
    )


def compare_tensors(
    reference: Reference, float32: Sequence[Mapping[str, NDArray[Any]]], named: Sequence[Mapping[str, NDArray[Any]]], limits: CompileRecipe
) -> Parity:
    """Parity of a network that finds nothing: in float32 by its regions and their classes, in the named precision by the trunk's logits.

    Args:
        reference: with inner tensors.
        float32: inner tensors of the graph run in float32, by image.
        named: the trunk's logits in the engine's precision, by image.
        limits: the recipe's tolerances.
    """
    met, count = 0, 0
    shares: list[float] = []
    coordinates: list[float] = []
    for index, output in enumerate(float32):
        regions, probabilities = reference.inner["regions"][index][0], _softmax(reference.inner["class_logits"][index])
        real = (regions[:, 2:] > regions[:, :2]).all(axis=1)
        given = output["regions"][0]
        pairs = match(_regions(regions[real]), _regions(given), limits.parity_iou)
        count += int(real.sum())
        met += len(pairs.wanted)
        coordinates.extend(np.abs(regions[real][pairs.wanted] - given[pairs.given]).max(axis=1, initial=0).tolist())
        shares.extend(np.abs(probabilities[real][pairs.wanted] - _softmax(output["class_logits"])[pairs.given]).max(axis=1, initial=0).tolist())
    errors = [
        float(np.abs(output[name] - reference.inner[name][index]).max() / max(np.abs(reference.inner[name][index]).max(), EMPTY_PX2))
        for index, output in enumerate(named)
        for name in reference.inner
        if name.startswith("rpn_logits")
    ]
    return Parity(
        reference=reference.source,
        proven_by="tensors",
        images=len(float32),
        detections=count,
        matched=met / max(count, 1),
        max_score_difference=max(shares, default=0.0),
        max_box_difference_px=max(coordinates, default=0.0),
        p99_box_difference_px=float(np.percentile(coordinates, 99)) if coordinates else 0.0,
        trunk_relative_error=max(errors, default=0.0),
    )


def check_parity(name: str, parity: Parity, limits: CompileRecipe) -> None:
    """Whether the parity is within the recipe's tolerances.

    Raises:
        EngineError: it is not; naming what failed.
    """
    what = "detections" if parity.proven_by == "detections" else "regions"
    failed = []
    if parity.matched < limits.parity_min_matched:
        failed.append(f"{parity.matched:.1%} of {parity.detections} {what} match, parity_min_matched is {limits.parity_min_matched:.1%}")
    if parity.max_score_difference > limits.parity_score_tolerance:
        failed.append(f"scores differ by up to {parity.max_score_difference:.3f}, parity_score_tolerance is {limits.parity_score_tolerance}")
    allowed = TRUNK_TOLERANCE[limits.precision]
    if parity.trunk_relative_error is not None and parity.trunk_relative_error > allowed:
        failed.append(f"the trunk's logits differ by up to {parity.trunk_relative_error:.1%}, at most {allowed:.1%} is {limits.precision}'s own")
    if failed:
        hint = f" ({BF16_HINT})" if limits.precision == "bf16" and parity.proven_by == "detections" else ""
        raise EngineError(f"no engine was written for {name!r}, it does not repeat its reference ({parity.reference}): {'; '.join(failed)}{hint}")


def _regions(boxes: NDArray[Any]) -> Found:
    """Boxes as detections of one class."""
    return Found(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int32))


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
