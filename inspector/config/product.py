"""The product recipe: what counts as a defect on this product, how fast it must be known, and what the line does then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section, read_toml
from inspector.config.classifier import MapKind
from inspector.contract.records import Action

Score = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Region(Section):
    """A rectangle of the image, in pixels; a detection counts when its centre lies inside (edges included)."""

    x1_px: Annotated[float, Field(ge=0)]
    y1_px: Annotated[float, Field(ge=0)]
    x2_px: Annotated[float, Field(gt=0)]
    y2_px: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.x2_px <= self.x1_px or self.y2_px <= self.y1_px:
            raise ValueError("the region is empty: x2_px must be right of x1_px and y2_px below y1_px")
        return self


class ClassRule(Section):
    """Exceptions for one class; what is None is as for all."""

    threshold: Score | None = None
    min_side_px: Annotated[float, Field(ge=0)] | None = None
    ignore: bool = False
    """True: raw scores are kept, but the class never rejects a part."""


class DetectorRules(Section):
    """The detector of this product and what counts of its findings."""

    engine: Path
    """The compiled engine's manifest (``inspector compile`` writes it); relative to the product file."""
    threshold: Score = 0.5
    """Raw score from which a detection counts."""
    min_side_px: Annotated[float, Field(ge=0)] = 0.0
    """The longer side of a detection must be at least this long to count."""
    regions: tuple[Region, ...] = ()
    """Where detections count; none: everywhere."""
    classes: dict[str, ClassRule] = Field(default_factory=dict)
    """By class name; a name that the engine does not have is an error."""


class ClassifierClassRule(Section):
    """Exceptions for one class of the classifier; what is None is as for all."""

    threshold: Score | None = None
    ignore: bool = False
    """True: raw scores are kept, but the class never rejects a part, and a detection of this class needs no confirmation."""


class ClassifierRules(Section):
    """The classifier of this product, what it looks at, and what its word counts beside the detector's."""

    engine: Path
    """The compiled engine's manifest; relative to the product file."""
    on: Literal["image", "detections", "both"] = "image"
    """What it looks at: the whole image, the surroundings of each detection that counts, or both."""
    verdict: Literal["either", "agree", "confirm"] = "either"
    """either: what either network finds rejects. agree: a part is rejected where both networks find something in its image. confirm: a detection
    counts where the classifier, looking at the same place (at the whole image with ``on = "image"``), does not call it good; what the classifier
    alone finds is kept and never rejects."""
    threshold: Score = 0.5
    """Raw score from which a class other than the good one counts. confirm: raw score of all classes but the good one together, or, where there is
    no good one, of the detection's own class, from which a detection is confirmed."""
    classes: dict[str, ClassifierClassRule] = Field(default_factory=dict)
    """By class name; a name that the engine does not have, or of the good class, is an error."""
    map: MapKind | None = None
    """Which heat map is kept, drawn and segmented; None: the engine's own choice."""
    crop_margin: Annotated[float, Field(ge=0, le=4)] = 0.5
    """Surroundings of a detection, as a share of its longer side, on every side of it."""
    max_crops: Annotated[int, Field(ge=1, le=64)] = 4
    """Detections that are looked at, best first; all others count as if the classifier had confirmed them."""

    @property
    def sees_image(self) -> bool:
        """Whether it looks at the whole image."""
        return self.on != "detections"

    @property
    def sees_detections(self) -> bool:
        """Whether it looks at the surroundings of detections."""
        return self.on != "image"


class ValidityRules(Section):
    """What makes an image unfit to be inspected: its part is UNINSPECTED(image_invalid)."""

    width_px: Annotated[int, Field(gt=0)] | None = None
    """None: whatever the camera was opened with."""
    height_px: Annotated[int, Field(gt=0)] | None = None
    pixel_format: Literal["Mono8", "BayerRG8", "RGB8"] | None = None
    black_below: Annotated[float, Field(ge=0, le=255)] = 5.0
    """Mean grey level under which an image is black; 0: never."""
    saturated_level: Annotated[int, Field(ge=1, le=255)] = 250
    saturated_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of samples at or above ``saturated_level`` from which an image is saturated; 1: all of them."""
    frozen: bool = True
    """True: an image equal to the one before it, byte by byte, is invalid."""


class Product(Section):
    """One product. Unknown keys are refused."""

    name: Name
    version: Annotated[str, Field(min_length=1, max_length=64)]
    deadline_ms: Annotated[float, Field(gt=0)]
    """Exposure to verdict; a part without one then is UNINSPECTED(late)."""
    uninspected: Literal[Action.REJECT, Action.STOP, Action.DIVERT] = Action.REJECT
    """What the line does with a part that was not inspected: never pass."""
    px_per_mm: Annotated[float, Field(gt=0)] | None = None
    detector: DetectorRules
    classifier: ClassifierRules | None = None
    """None: the detector alone decides."""
    validity: ValidityRules = ValidityRules()
    views: tuple[Name, ...] = ()
    """Cameras that see one part together and give one verdict, matched by part id; empty: every view is a part of its own."""

    @model_validator(mode="after")
    def _views(self) -> Self:
        if len(self.views) == 1 or len(set(self.views)) != len(self.views):
            raise ValueError("views names the cameras of a group: at least two, each once (leave it out for one camera)")
        return self


def read_product(path: Path) -> Product:
    """The product recipe in a TOML file; its engines' paths are made whole.

    Raises:
        ConfigError: the file is missing, is no TOML, or has missing, unknown or impossible keys; all of them are listed.
    """
    product = read_toml(path, Product)
    whole: dict[str, Section] = {"detector": product.detector.model_copy(update={"engine": path.parent / product.detector.engine})}
    if product.classifier is not None:
        whole["classifier"] = product.classifier.model_copy(update={"engine": path.parent / product.classifier.engine})
    return product.model_copy(update=whole)


def missing_engines(product: Product, source: Path) -> list[str]:
    """A sentence for every engine whose manifest is not there; ``source``: the product's file."""
    engines = {"detector": product.detector.engine} | ({"classifier": product.classifier.engine} if product.classifier is not None else {})
    return [
        f"{source}: {name}.engine: no such file: {path} (make it with `inspector compile`)" for name, path in engines.items() if not path.is_file()
    ]
