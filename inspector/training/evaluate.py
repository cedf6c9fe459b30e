"""Average precision of detections against labels, as COCO defines it, by faster-coco-eval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from inspector.training.datasets import Dataset
    from inspector.training.detect import Detections

RECALL_POINTS = 101
MAX_DETECTIONS = 100
"""Per picture; COCO's own limit."""
IOU_50, IOU_75 = 0, 5
"""Places of 0.50 and 0.75 among COCO's ten IoU thresholds."""


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One row of the paper's table."""

    name: str
    labels: int
    """True boxes, without ignored ones."""
    ap50: float | None
    """AP at IoU 0.5, 0..1; None: the class has no labels."""
    ap: float | None
    """Mean of the AP at IoU 0.50, 0.55 ... 0.95."""
    recall: float | None
    """Largest recall at IoU 0.5."""
    best_f1: float | None
    """Largest F1 at IoU 0.5 along the curve."""
    best_f1_score: float | None
    """The score floor at which it is reached: where a product recipe's threshold may start."""
    precision: tuple[float, ...]
    """Precision at IoU 0.5 at recall 0.00, 0.01 ... 1.00, made falling as COCO does; empty without labels."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a detector is on a data set."""

    pictures: int
    classes: tuple[ClassResult, ...]
    map50: float
    """Mean of the classes' ``ap50``, over those with labels."""
    map75: float
    map: float
    """COCO's mAP: the mean of the classes' ``ap``."""


def evaluate_detections(dataset: Dataset, detections: Sequence[Detections]) -> Evaluation:
    """COCO's average precision, over boxes of all sizes, at most 100 detections per picture.

    Args:
        dataset: the truth. Ignored boxes count neither as missed nor, where they are met, as false.
        detections: of each picture, in the data set's order.

    Raises:
        ValueError: there are not as many detections as pictures, or no labels at all.
    """
    if len(detections) != len(dataset):
        raise ValueError(f"{len(detections)} detections for {len(dataset)} pictures")
    counts = np.zeros(len(dataset.classes), np.int64)
    for picture in dataset.pictures:
        np.add.at(counts, picture.classes[~picture.ignored], 1)
    if not counts.sum():
        raise ValueError(f"{dataset.source}: has no labels to evaluate against")
    precision, recall, scores = _accumulate(_truth(dataset), _found(detections))
    rows = [_class_result(name, int(counts[k]), precision[:, :, k], recall[:, k], scores[:, :, k]) for k, name in enumerate(dataset.classes)]
    labelled = counts > 0
    ap75 = precision[IOU_75][:, labelled].mean()
    return Evaluation(
        pictures=len(dataset),
        classes=tuple(rows),
        map50=float(np.mean([row.ap50 for row in rows if row.ap50 is not None])),
        map75=float(ap75),
        map=float(np.mean([row.ap for row in rows if row.ap is not None])),
    )


def _class_result(name: str, labels: int, precision: NDArray[np.float64], recall: NDArray[np.float64], scores: NDArray[np.float64]) -> ClassResult:
    """One class from its precision [T, R], recall [T] and scores [T, R]."""
    if not labels:
        return ClassResult(name, 0, None, None, None, None, None, ())
    curve = precision[IOU_50]
    steps = np.linspace(0, 1, RECALL_POINTS)
    f1 = 2 * curve * steps / np.maximum(curve + steps, 1e-12)
    best = int(f1.argmax())
    return ClassResult(
        name=name,
        labels=labels,
        ap50=float(curve.mean()),
        ap=float(precision.mean()),
        recall=float(recall[IOU_50]),
        best_f1=float(f1[best]),
        best_f1_score=float(scores[IOU_50, best]),
        precision=tuple(float(value) for value in curve),
    )


def _truth(dataset: Dataset) -> dict[str, Any]:
    """The data set as COCO's dictionary; every id starts at 1, for the library takes 0 for 'unmatched'."""
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(dataset.pictures, start=1):
        for box, kind, ignored in zip(picture.boxes.astype(np.float64), picture.classes, picture.ignored, strict=True):
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(kind) + 1,
                "bbox": [float(box[0]), float(box[1]), width, height],
                "area": width * height,
                "iscrowd": int(ignored),
            })  # fmt: skip
    pictures = [{"id": number, "width": p.width_px, "height": p.height_px} for number, p in enumerate(dataset.pictures, start=1)]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": k + 1, "name": name} for k, name in enumerate(dataset.classes)]}


def _found(detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Detections in COCO's result format."""
    return [
        {
            "image_id": number,
            "category_id": int(kind) + 1,
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            "score": float(score),
        }
        for number, found in enumerate(detections, start=1)
        for box, score, kind in zip(found.boxes.astype(np.float64), found.scores, found.classes, strict=True)
    ]


def _accumulate(truth: dict[str, Any], found: list[dict[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision [T, R, K], recall [T, K] and scores [T, R, K] over boxes of all sizes; 0 where a class has no detections."""
    labels = COCO(truth, print_function=_quiet)
    evaluation = COCOeval_faster(labels, labels.loadRes(found), iouType="bbox", print_function=_quiet)
    evaluation.params.maxDets = [1, 10, MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # Axes: IoU threshold, recall, class, area range (all first), detection limit (100 last).
    precision = np.asarray(evaluation.eval["precision"], np.float64)[:, :, :, 0, -1]
    recall = np.asarray(evaluation.eval["recall"], np.float64)[:, :, 0, -1]
    scores = np.asarray(evaluation.eval["scores"], np.float64)[:, :, :, 0, -1]
    return np.maximum(precision, 0), np.maximum(recall, 0), np.maximum(scores, 0)


def _quiet(*_: object) -> None:
    """The library's chatter goes nowhere."""
