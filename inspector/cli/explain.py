"""``inspector explain``: what a network's decision on one picture hangs on, as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspector.contract.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from inspector.config.recipe import Recipe
    from inspector.engine.heatmap import HotSpots

WEIGHTS = "weights.safetensors"
CAPTIONS = {
    "grad_cam": "Grad-CAM: where more of the same features would raise the score of {}",
    "contribution": "contribution: each place's share of the score of {}",
}
"""Above a classifier's maps, with the class."""
SCORES_SHOWN = 3
SPREAD = 0.004
"""Width of the blur that makes single pixels of a saliency map visible, as a share of the input's longer side."""


def explain(
    image: Annotated[Path, typer.Argument(help="The picture.", show_default=False)],
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Engine recipes (TOML) of trained networks.", show_default=False)],
    weights: Annotated[
        Path | None,
        typer.Option(
            help=f"Trained weights, with one recipe. Default: runs/NAME/{WEIGHTS}, else NAME/{WEIGHTS} beside the recipe.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/explain"),
    min_score: Annotated[float, typer.Option(help="Detections below it are not explained.", min=0.0, max=1.0)] = 0.3,
    count: Annotated[int, typer.Option(help="Most detections to explain; the best.", min=1)] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.", min=0)] = 0,
) -> None:
    """Show what a network's decision on one picture hangs on.

    A detector: PICTURE-NAME-saliency.png, its detections beside the pixels that its classes hang on most (the derivative of the classification loss
    with respect to the image). A classifier: PICTURE-NAME-heat.png, the picture beside both heat maps of the class it names, Grad-CAM and
    contribution, with the regions they point at. Prints one line per network.
    """
    import torch

    from inspector.config.recipe import ClassifierRecipe

    if weights is not None and len(recipes) > 1:
        raise typer.BadParameter("--weights goes with one recipe; with several, each takes its own weights")
    networks = _networks(image, recipes, weights)
    if threads:
        torch.set_num_threads(threads)
    for network in networks:
        told = explain_classifier(network, out) if isinstance(network.recipe, ClassifierRecipe) else explain_detector(network, out, min_score, count)
        print(told, flush=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """One network that is asked about the picture."""

    recipe: Recipe
    weights: Path
    image: Path
    pixels: NDArray[np.uint8]
    """[H, W] or [H, W, 3] RGB, as the recipe takes it."""


def _networks(image: Path, paths: Sequence[Path], weights: Path | None) -> list[Asked]:
    """The networks, their files looked for.

    Raises:
        ConfigError: with every problem of recipes, weights and picture, where a recipe is among them.
        DataError: with every problem of weights and picture.
    """
    from inspector.config.recipe import read_recipe
    from inspector.training.pictures import decode_image

    found: list[Asked] = []
    wrong_recipes: list[str] = []
    problems: list[str] = []
    by_name: dict[str, Path] = {}
    if decode_image(image, colour=False) is None:
        problems.append(f"{image}: does not decode as a picture" if image.is_file() else f"{image}: no such picture")
    if weights is not None and not weights.is_file():
        problems.append(f"{weights}: no such weights file")
    for path in paths:
        try:
            recipe = read_recipe(path)
        except ConfigError as error:
            wrong_recipes += error.problems
            continue
        if recipe.name in by_name:
            wrong_recipes.append(f"{path}: has the name {recipe.name!r} of {by_name[recipe.name]}, and one's picture would replace the other's")
        by_name.setdefault(recipe.name, path)
        usual = (Path("runs") / recipe.name / WEIGHTS, path.parent / recipe.name / WEIGHTS)
        trained = weights or next((file for file in usual if file.is_file()), None)
        if trained is None:
            problems.append(f"{path}: has no weights, neither {usual[0]} nor {usual[1]}; train it, or name them with --weights")
        pixels = decode_image(image, colour=recipe.input.channels == 3)
        if trained is not None and pixels is not None:
            found.append(Asked(recipe, trained, image, pixels))
    if wrong_recipes:
        raise ConfigError(problems + wrong_recipes)
    if problems:
        raise DataError("\n".join(problems))
    return found


def explain_detector(asked: Asked, out: Path, min_score: float, count: int) -> str:
    """Draws a detector's saliency on one picture: the detections on the left, on the right the pixels that their classes hang on.

    Each detection's map is drawn as a share of its own strongest pixel: the loss of a sure one, and so its derivative, is smaller by powers of ten.

    Args:
        asked: the detector and the picture.
        out: folder for PICTURE-NAME-saliency.png; written only where something is found.
        min_score: detections below it are left out.
        count: most detections.

    Returns:
        One line: what was found, and the file.

    Raises:
        DataError: the weights are missing, damaged or others', or the picture cannot be written.
    """
    import msgspec
    import torch

    from inspector.compile.torch_reference import build_model
    from inspector.contract.records import Box, Defect
    from inspector.engine.preprocess import boxes_to_image, letterbox, with_channels
    from inspector.models.explain import detector_saliency
    from inspector.models.multiscale import MultiscaleDetector
    from inspector.training.explain_plots import Panel, beside, map_on_picture, overlay, strongest_of, write_picture

    recipe, pixels = asked.recipe, asked.pixels
    size, image_px = recipe.input, (pixels.shape[0], pixels.shape[1])
    canvas, geometry = letterbox(pixels, size.height_px, size.width_px, size.channels)
    model = build_model(recipe, asked.weights)
    assert isinstance(model, MultiscaleDetector)
    saliency = detector_saliency(model, torch.from_numpy(canvas), count, min_score)
    if saliency is None:
        return f"{asked.image}: {recipe.name} finds nothing with a score of {min_score:g} or more, so there is nothing to explain and to draw"
    boxes = boxes_to_image(saliency.boxes.numpy(), geometry, *image_px)
    defects = tuple(
        Defect(recipe.classes[index], score, Box(*(float(side) for side in box)), counted=True, source=recipe.name, camera="")
        for index, score, box in zip(saliency.classes.tolist(), saliency.scores.tolist(), boxes, strict=True)
    )
    shown = strongest_of(saliency.each.numpy(), SPREAD * max(size.height_px, size.width_px))
    heat = map_on_picture(shown, (size.height_px, size.width_px), geometry, image_px)
    path = out / f"{asked.image.stem}-{recipe.name}-saliency.png"
    many = "1 defect" if len(defects) == 1 else f"{len(defects)} defects"
    panels = (
        Panel(_bgr(pixels), (f"{asked.image.name}: {recipe.name} finds {many}",), defects),
        Panel(
            overlay(with_channels(pixels, 1), heat),
            ("saliency: the pixels that the classes hang on", "from not at all (grey) over purple and red to the most (yellow)"),
            outlines=tuple(defect.box_px for defect in defects),
        ),
    )
    write_picture(path, beside(panels))
    told = []
    for defect, inside in zip(defects, saliency.inside().tolist(), strict=True):
        x1, y1, x2, y2 = msgspec.structs.astuple(defect.box_px)
        area = (x2 - x1) * (y2 - y1) / (image_px[0] * image_px[1])
        told.append(f"{defect.name} {defect.score:.2f} ({inside:.0%} of its saliency in its box, {area:.1%} of the picture)")
    return f"{path}: {', '.join(told)}"


def explain_classifier(asked: Asked, out: Path) -> str:
    """Draws a classifier's two heat maps of the class it names: the picture on the left, Grad-CAM in the middle, the contributions on the right.

    Args:
        asked: the classifier and the picture.
        out: folder for PICTURE-NAME-heat.png.

    Returns:
        One line: the class, its score, the largest region of the map that the recipe chooses, and the file.

    Raises:
        DataError: the weights are missing, damaged, others' or no numbers, or the picture cannot be written.
    """
    import numpy as np

    from inspector.compile.torch_reference import build_model
    from inspector.config.recipe import ClassifierRecipe
    from inspector.engine.heatmap import hot_spots
    from inspector.engine.preprocess import with_channels
    from inspector.models.bilinear import BilinearClassifier
    from inspector.training.classify import MAPS, torch_classifier
    from inspector.training.explain_plots import Panel, beside, map_on_picture, overlay, write_picture

    recipe, pixels = asked.recipe, asked.pixels
    assert isinstance(recipe, ClassifierRecipe)
    canvas_px, image_px = (recipe.input.height_px, recipe.input.width_px), (pixels.shape[0], pixels.shape[1])
    model = build_model(recipe, asked.weights)
    assert isinstance(model, BilinearClassifier)
    (found,) = torch_classifier(model, "fp32")([pixels])
    if not found.finite:
        raise DataError(f"{asked.weights}: its scores or heat maps of {asked.image} are not finite; train it again, with a lower learning rate")
    best = np.argsort(-found.scores, kind="stable").tolist()
    scores = ", ".join(f"{recipe.classes[index]} {found.scores[index]:.2f}" for index in best[:SCORES_SHOWN])
    panels = [Panel(_bgr(pixels), (f"{asked.image.name}: {recipe.name} names it {recipe.classes[best[0]]}", f"scores: {scores}"))]
    told = ""
    for kind in MAPS:
        spots = hot_spots(found.maps[kind], canvas_px, found.geometry, image_px, recipe.heat_map)
        heat = map_on_picture(np.maximum(found.maps[kind], 0), canvas_px, found.geometry, image_px)
        caption = (
            CAPTIONS[kind].format(recipe.classes[best[0]]),
            "grey: nothing; purple, red, yellow: more and more; in boxes: its regions",
        )
        panels.append(Panel(overlay(with_channels(pixels, 1), heat), caption, outlines=tuple(region.box_px for region in spots.regions)))
        if kind == recipe.heat_map.map:
            told = _largest(spots, image_px, kind)
    path = out / f"{asked.image.stem}-{recipe.name}-heat.png"
    write_picture(path, beside(panels))
    return f"{path}: {recipe.classes[best[0]]} {found.scores[best[0]]:.2f}, {told}"


def _largest(spots: HotSpots, image_px: tuple[int, int], kind: str) -> str:
    """The largest region of a heat map in words."""
    name = CAPTIONS[kind].split(":", 1)[0]
    if not spots.regions:
        return f"its {name} map points at nothing"
    region = spots.regions[0]
    box, many = region.box_px, len(spots.regions)
    place = f"x {box.x1:.0f} to {box.x2:.0f}, y {box.y1:.0f} to {box.y2:.0f} px, {region.area_px / (image_px[0] * image_px[1]):.1%} of the picture"
    return f"{'the only region' if many == 1 else f'the largest of {many} regions'} of its {name} map at {place}"


def _bgr(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H, W] or [H, W, 3] RGB as panels take it."""
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels
