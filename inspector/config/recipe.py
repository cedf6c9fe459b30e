"""The engine recipe: everything that makes one network, in one TOML file (``engines/NAME.toml``). Its architecture tells which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from inspector.config.base import Section, load_toml, parse_section
from inspector.config.classifier import BilinearNetwork, ClassifierCompile, ClassifierTraining, HeatMapRecipe
from inspector.config.detector import CompileRecipe, NetworkRecipe, TrainingRecipe
from inspector.config.network import BuildRecipe, InputRecipe
from inspector.contract.errors import ConfigError


class BaseRecipe(Section):
    """What every network has. Unknown keys are refused."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order of the network's outputs; a detector's are its defect classes (background is not named)."""
    input: InputRecipe
    compile: BuildRecipe = BuildRecipe()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a class twice")
        return self


class DetectorRecipe(BaseRecipe):
    """A multiscale detector."""

    network: NetworkRecipe = NetworkRecipe()
    training: TrainingRecipe = TrainingRecipe()
    compile: CompileRecipe = CompileRecipe()


class ClassifierRecipe(BaseRecipe):
    """A bilinear classifier."""

    good: str | None = None
    """The class of pictures without a defect; left out: every class is a defect."""
    network: BilinearNetwork
    heat_map: HeatMapRecipe = HeatMapRecipe()
    training: ClassifierTraining = ClassifierTraining()
    compile: ClassifierCompile = ClassifierCompile()

    @model_validator(mode="after")
    def _classes(self) -> Self:
        if len(self.classes) < 2:
            raise ValueError("classes: a classifier tells at least two apart")
        if min(self.grid) <= 2 * self.network.border_cells:
            raise ValueError(f"border_cells = {self.network.border_cells} leaves nothing of a map of {self.grid[0]} x {self.grid[1]} cells")
        if self.good is not None and self.good not in self.classes:
            raise ValueError(f"good = {self.good!r} is not among classes")
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the heat map."""
        step = 2**self.network.level
        return -(-self.input.height_px // step), -(-self.input.width_px // step)


Recipe = DetectorRecipe | ClassifierRecipe


def parse_recipe(source: str, values: dict[str, Any]) -> Recipe:
    """A recipe from its values; ``source`` stands in every problem.

    Raises:
        ConfigError: keys are missing, unknown or impossible; all of them are listed.
    """
    network = values.get("network", {})
    architecture = network.get("architecture", "multiscale") if isinstance(network, dict) else "multiscale"
    if architecture not in {"multiscale", "bilinear"}:
        raise ConfigError([f"{source}: network.architecture: must be 'multiscale' (a detector) or 'bilinear' (a classifier), not {architecture!r}"])
    return parse_section(source, values, ClassifierRecipe) if architecture == "bilinear" else parse_section(source, values, DetectorRecipe)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        ConfigError: the file is missing, is no TOML, or has missing, unknown or impossible keys; all of them are listed.
    """
    return parse_recipe(str(path), load_toml(path))


def read_detector_recipe(path: Path) -> DetectorRecipe:
    """The recipe of a detector in a TOML file.

    Raises:
        ConfigError: as :func:`read_recipe`, or it is a classifier's.
    """
    recipe = read_recipe(path)
    if not isinstance(recipe, DetectorRecipe):
        raise ConfigError([f"{path}: is the recipe of a classifier: name a detector's here"])
    return recipe
