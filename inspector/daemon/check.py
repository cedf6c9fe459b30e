"""What can be known of a station before it runs: the engines fit, and the product speaks of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspector.contract.errors import ConfigError
from inspector.inspection.networks import open_networks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inspector.config.product import ClassifierRules
    from inspector.config.station import StationFiles
    from inspector.inspection.findings import NetworkFacts, ProductFacts


def check_classes(files: StationFiles, networks: ProductFacts) -> None:
    """Whether the product speaks of classes that its engines have, and asks of them what they can tell.

    Raises:
        ConfigError: naming everything that does not fit.
    """
    product = files.product
    problems = _unknown("detector", product.detector.classes, networks.detector)
    if product.classifier is not None and networks.classifier is not None:
        problems += _unknown("classifier", product.classifier.classes, networks.classifier)
        problems += _classifier_problems(product.classifier, networks.classifier)
    if problems:
        raise ConfigError(f"{files.station.product}: {problem}" for problem in problems)


def check_station(files: StationFiles) -> list[str]:
    """Load the engines without starting anything; lines that tell what would run.

    Raises:
        EngineError: an engine does not fit this machine, is damaged, or is of the wrong kind.
        ConfigError: the product speaks of classes that an engine has not, or asks of it what it cannot tell.
    """
    product = files.product
    with open_networks(product) as networks:
        check_classes(files, networks.facts)
        lines = [
            f"station {files.station.name}, product {product.name} version {product.version}",
            *(f"camera {camera.name}: {camera.kind}" for camera in files.station.cameras),
            *(
                f"{kind} {one.name} ({one.hash[:12]}), budget {one.budget_ms:.0f} ms, classes {', '.join(one.classes)}"
                for kind, one in zip(("detector", "classifier"), networks.all, strict=False)
            ),
        ]
    if product.classifier is not None:
        lines.append(f"the classifier is shown: {product.classifier.on}; verdict: {product.classifier.verdict}")
    return [*lines, f"deadline {product.deadline_ms:.0f} ms, a part that is not inspected acts as {product.uninspected.value}"]


def _unknown(section: str, named: Iterable[str], network: NetworkFacts) -> list[str]:
    known = ", ".join(sorted(network.classes))
    return [f"{section}.classes.{name}: the engine has no such class; it has {known}" for name in named if name not in network.classes]


def _classifier_problems(rules: ClassifierRules, network: NetworkFacts) -> list[str]:
    problems = []
    if network.good in rules.classes:
        problems.append(f"classifier.classes.{network.good}: the engine calls parts without a defect so: remove this rule, it applies to nothing")
    if network.good is None and rules.sees_image and rules.verdict != "confirm":
        problems.append(
            f"classifier.verdict: {rules.verdict!r} with on = {rules.on!r} would find a defect on every part, as engine {network.name!r} knows no "
            "good ones: use verdict = 'confirm', on = 'detections', or an engine whose recipe names its good class"
        )
    return problems
