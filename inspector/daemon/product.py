"""What people may change while the station runs: pause it, and give its product other rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inspector.config.product import Product, read_product
from inspector.contract.errors import ConfigError
from inspector.daemon.check import check_classes
from inspector.inspection.verdict import ProductRules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inspector.config.station import StationFiles
    from inspector.contract.records import Action
    from inspector.inspection.findings import ProductFacts
    from inspector.inspection.pipeline import Inspection

_SECTIONS = {
    "detector": ("threshold", "min_side_px", "regions", "classes"),
    "classifier": ("threshold", "classes", "verdict", "crop_margin", "max_crops"),
}
"""Sections of the product recipe that are compared key by key, and their keys that can be changed between two images."""
_SWAPPED = {"version", "uninspected", "px_per_mm"} | {f"{section}.{key}" for section, keys in _SECTIONS.items() for key in keys}
"""All keys that can be; the others need a restart."""


class ProductControls:
    """Pauses the inspection, and swaps the product's rules. Any thread; one reload at a time."""

    def __init__(self, files: StationFiles) -> None:
        self._files = files
        self._inspection: Inspection | None = None
        self._networks: ProductFacts | None = None
        self._tell: tuple[Callable[[str, Action], None], ...] = ()

    def attach(self, inspection: Inspection, networks: ProductFacts, tell: Sequence[Callable[[str, Action], None]]) -> None:
        """Say what is moved.

        Args:
            inspection: has the rules, and is paused.
            networks: what decides.
            tell: are called in the inspection thread when the rules change, with the product's version and what UNINSPECTED acts as.
        """
        self._inspection, self._networks, self._tell = inspection, networks, tuple(tell)

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
        new = read_product(path)
        changed = _changed(now, new)
        if not changed:
            return "nothing has changed"
        problems = [f"{path}: {key}: has changed; this needs a restart of the station" for key in changed if key not in _SWAPPED]
        if "version" not in changed:
            problems.append(f"{path}: version: give the product another version when {', '.join(changed)} changes: every verdict carries it")
        if problems:
            raise ConfigError(problems)
        if self._inspection is None or self._networks is None:
            raise ConfigError([f"{path}: the station is not yet running: reload again"])
        files = self._files.model_copy(update={"product": new})
        check_classes(files, self._networks)
        self._inspection.use(ProductRules(new, self._networks), lambda: self._told(new))
        self._files = files
        return f"version {new.version} from the next image on; changed: {', '.join(changed)}"

    def _told(self, product: Product) -> None:
        for tell in self._tell:
            tell(product.version, product.uninspected)


def _changed(now: Product, new: Product) -> list[str]:
    """Keys whose value differs; those of a section with its name, and the section itself where only one of them has it."""
    before, after = _keys(now), _keys(new)
    return [key for key in before if key in after and before[key] != after[key]]


def _keys(product: Product) -> dict[str, Any]:
    keys: dict[str, Any] = {name: getattr(product, name) for name in Product.model_fields if name not in _SECTIONS}
    for name in _SECTIONS:
        section = getattr(product, name)
        keys[name] = section is not None
        if section is not None:
            keys |= {f"{name}.{key}": getattr(section, key) for key in type(section).model_fields}
    return keys
