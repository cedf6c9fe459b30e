"""The product recipe: what counts as a defect on this product, how fast it must be known, and what the line does then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inspector.config.base import Section
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
    validity: ValidityRules = ValidityRules()
    views: tuple[Name, ...] = ()
    """Cameras that see one part together and give one verdict, matched by part id; empty: every view is a part of its own."""

    @model_validator(mode="after")
    def _views(self) -> Self:
        if len(self.views) == 1 or len(set(self.views)) != len(self.views):
            raise ValueError("views names the cameras of a group: at least two, each once (leave it out for one camera)")
        return self
