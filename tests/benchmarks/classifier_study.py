"""Classifiers beside each other on labelled pictures: a recipe's network, plain BCNN and a linear head on the same trunk, a VGG16 trunk, textures.

    python tests/benchmarks/classifier_study.py engines/bilinear-lite0.toml --splits train.json:val.json block_a.json:block_b.json \
        [--methods recipe bcnn linear glcm vgg] [--seeds 0 1 2] [--vgg FILE] [--precision fp32] [--markdown FILE]

Every split trains on the first file and tests on the second. Accuracy is of the test's pictures; heat maps are measured where the labels have boxes.
The pictures of docs/training.md were made by it.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from inspector.config.classifier import MapKind
from inspector.config.recipe import ClassifierRecipe, read_recipe
from inspector.models.bilinear import BilinearClassifier
from inspector.models.weights import load_backbone_weights
from inspector.training.class_loop import ClassifierTrainer
from inspector.training.classification import Classification, evaluate_classification
from inspector.training.classify import MAPS, classify_all, pointed, torch_classifier
from inspector.training.glcm import GlcmBaseline
from inspector.training.labelled import LabelledDataset, read_labelled
from inspector.training.localisation import Localisation, evaluate_localisation


@dataclass(frozen=True, slots=True)
class Outcome:
    """One training, tested."""

    result: Classification
    maps: dict[MapKind, Localisation]
    minutes: float


def changed(recipe: ClassifierRecipe, name: str, network: dict[str, object], training: dict[str, object], **other: object) -> ClassifierRecipe:
    values = recipe.model_dump(mode="json")
    values["name"] = name
    values["network"] |= network
    values["training"] |= training
    for section, entries in other.items():
        values[section] |= entries
    return ClassifierRecipe.model_validate(values)


def variants(recipe: ClassifierRecipe) -> dict[str, ClassifierRecipe]:
    """The paper's baseline (one trunk per function, its own channels, plain) and the control (no bilinear pooling), each on the recipe's trunk."""
    plain = {"streams": 1, "trunks": "shared", "channels": 0, "activation": "none", "normalise": "none", "descriptor_scale": 1.0}
    vgg = {"backbone": "vgg16", "level": 3, "streams": 1, "trunks": "shared", "channels": 64}
    picture = {"height_px": 160, "width_px": 160, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    # What lies above the given layers is random: phase one would train on noise.
    rates = {"new_layers": {"epochs": 0, "learning_rate": 1e-3, "batch": 64}, "frozen_stages": 2, "precision": "bf16", "ema_decay": 0.99}
    rates["all_layers"] = {"epochs": 6, "learning_rate": 3e-4, "batch": 16, "schedule": "cosine"}
    return {
        "recipe": recipe,
        "bcnn": changed(recipe, "bcnn", plain, {}),
        "linear": changed(recipe, "linear", {**plain, "pooling": "average"}, {}),
        "vgg": changed(recipe, "vgg", vgg, rates, input=picture),
    }


def trained(
    recipe: ClassifierRecipe, seed: int, source: str, partial: bool, learned: LabelledDataset, precision: str
) -> tuple[BilinearClassifier, float]:
    settings = {"seed": seed} if partial else {"seed": seed, "precision": precision}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=settings)})
    torch.manual_seed(seed)
    model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
    load_backbone_weights(model.backbones[0], recipe.network, source, partial=partial)
    trainer = ClassifierTrainer(recipe, model, learned)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer.run(Path(folder), threading.Event(), lambda _: None)
    model = trainer.best_model
    model.load_state_dict(model.centred_weights())
    return model, (time.monotonic() - begun) / 60


def tested(recipe: ClassifierRecipe, model: BilinearClassifier, minutes: float, test: LabelledDataset) -> Outcome:
    found = list(classify_all(torch_classifier(model, "fp32"), test.images()))
    result = evaluate_classification(np.stack([one.scores for one in found]), test.labels, recipe.classes, recipe.good)
    maps: dict[MapKind, Localisation] = {
        kind: evaluate_localisation(pointed(test, found, kind, recipe.input, recipe.heat_map), recipe.classes) for kind in MAPS
    }
    return Outcome(result, maps, minutes)


def textures(recipe: ClassifierRecipe, seed: int, learned: LabelledDataset, test: LabelledDataset) -> Outcome:
    begun = time.monotonic()
    baseline = GlcmBaseline.fit(learned.images(), learned.labels, seed, classes=len(recipe.classes))
    minutes = (time.monotonic() - begun) / 60
    return Outcome(evaluate_classification(baseline.scores(test.images()), test.labels, recipe.classes, recipe.good), {}, minutes)


def row(name: str, split: str, outcomes: list[Outcome]) -> str:
    accuracy = [100 * (one.result.accuracy or 0) for one in outcomes]
    cells = [name, split, f"{np.mean(accuracy):.2f}", ", ".join(f"{value:.2f}" for value in accuracy)]
    cells.append(f"{np.mean([one.result.mean_ap or 0 for one in outcomes]):.4f}")
    for kind in MAPS:
        means = [one.maps[kind].mean for one in outcomes if one.maps]
        cells.append(
            " / ".join(f"{np.mean(values):.3f}" for values in zip(*((m.box_hits, m.peak_hits) for m in means), strict=True)) if means else "-"
        )
    return "| " + " | ".join([*cells, f"{np.mean([one.minutes for one in outcomes]):.1f}"]) + " |"


def by_class(outcomes: list[Outcome], classes: tuple[str, ...]) -> list[str]:
    """Localisation by class, means over the seeds, with both controls."""
    lines = ["| class | Grad-CAM box / peak | contribution box / peak | whole picture | random point |", "| --- | ---: | ---: | ---: | ---: |"]
    for index, name in enumerate((*classes, "mean")):
        figures = [[(one.maps[kind].classes[index] if index < len(classes) else one.maps[kind].mean) for one in outcomes] for kind in MAPS]
        means = [f"{np.mean([f.box_hits for f in kind]):.3f} / {np.mean([f.peak_hits for f in kind]):.3f}" for kind in figures]
        first = figures[0][0]
        lines.append(f"| {name} | {means[0]} | {means[1]} | {first.whole_hits:.3f} | {first.random_hits:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--splits", nargs="+", required=True, help="TRAIN:TEST label files")
    parser.add_argument("--methods", nargs="+", default=["recipe", "bcnn", "linear", "glcm"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--vgg", default="imagenet", help="weights of the VGG trunk; layers that are not in the file start at random")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="also append the tables to this file")
    chosen = parser.parse_args()
    recipe = read_recipe(chosen.recipe)
    assert isinstance(recipe, ClassifierRecipe), "name a classifier's recipe"
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    recipes = variants(recipe)

    def say(line: str) -> None:
        print(line, flush=True)
        if chosen.markdown is not None:
            with chosen.markdown.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    read: Callable[[Path], LabelledDataset] = lambda path: read_labelled(path, recipe.classes, colour=recipe.input.channels == 3)  # noqa: E731
    say("| method | split | accuracy % | by seed | mean AP | Grad-CAM box / peak | contribution box / peak | minutes |")
    say("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    details: list[tuple[str, list[Outcome]]] = []
    for method in chosen.methods:
        for split in chosen.splits:
            learned, test = (read(Path(name)) for name in split.split(":"))
            outcomes = []
            for seed in chosen.seeds:
                if method == "glcm":
                    outcomes.append(textures(recipe, seed, learned, test))
                    continue
                variant = recipes[method]
                source = chosen.vgg if method == "vgg" else "imagenet"
                outcomes.append(tested(variant, *trained(variant, seed, source, method == "vgg", learned, chosen.precision), test))
            name = " -> ".join(Path(part).stem for part in split.split(":"))
            say(row(recipes[method].name if method in recipes else "GLCM + MLP", name, outcomes))
            if outcomes[0].maps:
                details.append((f"{method}, {name}", outcomes))
    for title, outcomes in details:
        say(f"\n{title}\n")
        for line in by_class(outcomes, recipe.classes):
            say(line)


if __name__ == "__main__":
    main()
