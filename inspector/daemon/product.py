"""What people may change while the station runs: pause it, and give its product other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inspector.config.base import read_toml
from inspector.config.product import Product
from inspector.contract.errors import ConfigError
from inspector.daemon.check import check_classes
from inspector.inspection.rules import DefectRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from inspector.config.station import StationFiles
    from inspector.contract.records import Action
    from inspector.inspection.pipeline import Inspection

_SWAPPED = frozenset({"version", "uninspected", "px_per_mm", "detector.threshold", "detector.min_side_px", "detector.regions", "detector.classes"})
"""Keys of the product recipe that can be changed between two images; all others need a restart."""


class ProductControls:
    """Pauses the inspection, and swaps the product's rules. Any thread; one reload at a time."""

    def __init__(self, files: StationFiles) -> None:
        self._files = files
        self._inspection: Inspection | None = None
        self._classes: tuple[str, ...] = ()
        self._source = ""
        self._tell: tuple[Callable[[str, Action], None], ...] = ()

    def attach(self, inspection: Inspection, classes: Iterable[str], source: str, tell: Sequence[Callable[[str, Action], None]]) -> None:
        """Say what is moved.

        Args:
            inspection: has the rules, and is paused.
            classes: the engine's.
            source: the network's name.
            tell: are called in the inspection thread when the rules change, with the product's version and what UNINSPECTED acts as.
        """
        self._inspection, self._classes, self._source, self._tell = inspection, tuple(classes), source, tuple(tell)

    @property
    def paused(self) -> bool:
        """Whether parts are let by uninspected."""
        return self._inspection is not None and self._inspection.paused

    def pause(self, *, paused: bool) -> None:
        """From now on every part is UNINSPECTED(paused), or is inspected again."""
        if self._inspection is not None:
            self._inspection.pause(paused=paused)

    def reload(self) -> str:
        """Read the product recipe; its rules count from the next image on.

        Returns:
            what has changed.

        Raises:
            ConfigError: the recipe is wrong, or a key has changed that needs a restart; nothing was changed.
        """
        path, now = self._files.station.product, self._files.product
        new = read_toml(path, Product)
        new = new.model_copy(update={"detector": new.detector.model_copy(update={"engine": path.parent / new.detector.engine})})
        changed = _changed(now, new)
        if not changed:
            return "nothing has changed"
        problems = [f"{path}: {key}: has changed; this needs a restart of the station" for key in changed if key not in _SWAPPED]
        if "version" not in changed:
            problems.append(f"{path}: version: give the product another version when {', '.join(changed)} changes: every verdict carries it")
        if problems:
            raise ConfigError(problems)
        files = self._files.model_copy(update={"product": new})
        check_classes(files, self._classes)
        if self._inspection is None:
            raise ConfigError([f"{path}: the station is not yet running: reload again"])
        self._inspection.use(DefectRules(new, self._source), lambda: self._told(new))
        self._files = files
        return f"version {new.version} from the next image on; changed: {', '.join(changed)}"

    def _told(self, product: Product) -> None:
        for tell in self._tell:
            tell(product.version, product.uninspected)


def _changed(now: Product, new: Product) -> list[str]:
    """Keys whose value differs; those of ``[detector]`` with its name."""
    before, after = _keys(now), _keys(new)
    return [key for key in before if before[key] != after[key]]


def _keys(product: Product) -> dict[str, Any]:
    keys = {name: getattr(product, name) for name in Product.model_fields if name != "detector"}
    return keys | {f"detector.{name}": getattr(product.detector, name) for name in type(product.detector).model_fields}
