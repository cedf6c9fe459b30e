"""Classes and heat maps of whole pictures: the form in which every classifier, trained or compiled, is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from inspector.engine.heatmap import hot_spots
from inspector.engine.preprocess import LetterboxGeometry, letterbox
from inspector.training.localisation import Pointed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from inspector.config.classifier import HeatMapRecipe, MapKind
    from inspector.config.network import InputRecipe, Precision
    from inspector.engine.base import Engine
    from inspector.models.bilinear import BilinearClassifier
    from inspector.training.labelled import LabelledDataset

BATCH = 8
MAPS: tuple[MapKind, ...] = ("grad_cam", "contribution")


@dataclass(frozen=True, slots=True)
class Classified:
    """What a classifier makes of one picture."""

    scores: NDArray[np.float32]
    """[classes], soft-max."""
    maps: dict[MapKind, NDArray[np.float32]]
    """Both heat maps of the predicted class, [h, w] over the whole canvas, signed."""
    geometry: LetterboxGeometry
    """Where the picture lies on the canvas."""

    @property
    def label(self) -> int:
        """The predicted class."""
        return int(self.scores.argmax())

    @property
    def finite(self) -> bool:
        """Whether all of it is numbers; it is not where weights or a precision are of no use."""
        return all(bool(np.isfinite(values).all()) for values in (self.scores, *self.maps.values()))


def torch_classifier(model: BilinearClassifier, precision: Precision) -> Callable[[Sequence[NDArray[np.uint8]]], list[Classified]]:
    """A trained model as a function of pictures.

    Args:
        model: put into evaluation mode.
        precision: of the features; all that follows is float32 whatever it is.
    """
    model.eval()
    size = model.input

    def classify(images: Sequence[NDArray[np.uint8]]) -> list[Classified]:
        made = [letterbox(image, size.height_px, size.width_px, size.channels) for image in images]
        batch = torch.from_numpy(np.stack([canvas for canvas, _ in made])).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                a, b = model.features(model.trunk_maps(model.normalise(batch)))
            found = model.explain(a.float(), b.float())
        arrays = zip(found.scores.numpy(), found.grad_cam.numpy(), found.contribution.numpy(), made, strict=True)
        return [Classified(scores, {"grad_cam": cam, "contribution": share}, geometry) for scores, cam, share, (_, geometry) in arrays]

    return classify


def engine_classifier(engine: Engine) -> Callable[[Sequence[NDArray[np.uint8]]], list[Classified]]:
    """A compiled classifier as a function of pictures; it raises EngineError where the engine fails."""
    _, channels, height, width = engine.manifest.input.shape

    def one(image: NDArray[np.uint8]) -> Classified:
        canvas, geometry = letterbox(image, height, width, channels)
        outputs = engine.collect(engine.submit(canvas))
        maps: dict[MapKind, NDArray[np.float32]] = {name: np.asarray(outputs[name][0], np.float32) for name in MAPS}
        return Classified(np.asarray(outputs["scores"][0], np.float32), maps, geometry)

    return lambda images: [one(image) for image in images]


def classify_all(
    classify: Callable[[Sequence[NDArray[np.uint8]]], list[Classified]], images: Iterator[NDArray[np.uint8]], batch: int = BATCH
) -> Iterator[Classified]:
    """All pictures in order, ``batch`` of them at a time."""
    waiting: list[NDArray[np.uint8]] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch:
            yield from classify(waiting)
            waiting = []
    if waiting:
        yield from classify(waiting)


def pointed(dataset: LabelledDataset, found: Sequence[Classified], kind: MapKind, size: InputRecipe, rule: HeatMapRecipe) -> list[Pointed]:
    """Where one kind of map points, picture by picture; true boxes are those of the picture's own class."""
    points = []
    for picture, one in zip(dataset.pictures, found, strict=True):
        image_px = picture.height_px, picture.width_px
        spots = hot_spots(one.maps[kind], (size.height_px, size.width_px), one.geometry, image_px, rule)
        box = np.array(msgspec.structs.astuple(spots.regions[0].box_px)) if spots.regions else None
        true = picture.boxes[picture.box_classes == picture.label]
        points.append(Pointed(*image_px, picture.label, true, box, spots.peak_px))
    return points
