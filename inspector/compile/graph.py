"""What an exported graph promises: the names of its tensors, and the parts into which a backend may cut it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.models.bilinear import BilinearClassifier
from inspector.models.multiscale import MultiscaleDetector

if TYPE_CHECKING:
    from torch import Tensor

INPUT = "image"
Model = MultiscaleDetector | BilinearClassifier


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the graph between named tensors."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    float32: bool
    """Whether it runs in float32 whatever the engine's precision: it computes coordinates, or what a heat map is made of."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The names of a network's tensors."""

    outputs: tuple[str, ...]
    inner: tuple[str, ...]
    parts: tuple[Part, ...]
    """In their order; what one puts out, a later one or the caller takes."""

    @property
    def names(self) -> tuple[str, ...]:
        """All cuttable tensors, the outputs first."""
        return (*self.outputs, *self.inner)


def graph_of(model: Model) -> Graph:
    """The graph of a network."""
    return _classifier_graph(model) if isinstance(model, BilinearClassifier) else _detector_graph(model)


def named_tensors(model: Model, images: Tensor) -> dict[str, Tensor]:
    """Every named tensor of one pass over uint8 [N, C, H, W], in the order of :attr:`Graph.names`."""
    names = graph_of(model).names
    if isinstance(model, BilinearClassifier):
        by_name = model.trace(images)._asdict()
        return {name: by_name[name] for name in names}
    found = model.trace(images)
    by_level = (*found.maps, *found.rpn_logits, *found.rpn_deltas)
    inner = (found.regions, found.regions_converged, found.pooled, found.class_logits, found.box_deltas)
    return dict(zip(names, (found.boxes, found.scores, found.classes, found.converged, *by_level, *inner), strict=True))


def _detector_graph(model: MultiscaleDetector) -> Graph:
    """Five parts: convolutions and the head in the engine's precision, all that computes coordinates in float32."""
    outputs = ("boxes", "scores", "classes", "converged")
    maps = tuple(f"map_{level}" for level in model.pooling_levels)
    by_level = tuple(f"{kind}_{level}" for kind in ("map", "rpn_logits", "rpn_deltas") for level in model.levels)
    proposals = tuple(name for name in by_level if not name.startswith("map_"))
    parts = (
        Part("trunk", (INPUT,), (*maps, *proposals), float32=False),
        Part("proposals", proposals, ("regions", "regions_converged"), float32=True),
        Part("pooling", (*maps, "regions"), ("pooled",), float32=True),
        Part("head", ("pooled",), ("class_logits", "box_deltas"), float32=False),
        Part("boxes", ("regions", "regions_converged", "class_logits", "box_deltas"), outputs, float32=True),
    )
    return Graph(outputs, (*by_level, "regions", "regions_converged", "pooled", "class_logits", "box_deltas"), parts)


def _classifier_graph(model: BilinearClassifier) -> Graph:
    """Two parts: the features in the engine's precision; pooling, classes and heat maps, sums over all positions, in float32."""
    outputs = ("scores", "label", "logits", "grad_cam", "contribution")
    features = ("features_a", "features_b") if model.features_differ else ("features_a",)
    return Graph(outputs, features, (Part("features", (INPUT,), features, float32=False), Part("classes", features, outputs, float32=True)))
