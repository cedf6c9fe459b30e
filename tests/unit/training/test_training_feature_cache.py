"""The kept maps of frozen trunks: the same as the network's own, and gone when they are no longer needed."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inspector.config.recipe import ClassifierRecipe
from inspector.contract.errors import DataError
from inspector.models.bilinear import BilinearClassifier
from inspector.training.feature_cache import CHUNK, FeatureCache

PICTURES = CHUNK + 3
Canvas = Callable[[int, int], np.ndarray]


def canvas(variant: int, number: int) -> np.ndarray:
    return np.random.default_rng([variant, number]).integers(0, 256, (1, 64, 64), np.uint8)


def never() -> bool:
    return False


def made(recipe: ClassifierRecipe, *, equal: bool = True) -> BilinearClassifier:
    torch.manual_seed(4)
    model = BilinearClassifier(recipe.network, recipe.input, len(recipe.classes))
    torch.nn.init.normal_(model.classes.weight, std=10.0)
    if not equal:
        for trunk in model.trunks[1:]:
            for parameter in trunk.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


@contextmanager
def closing(cache: FeatureCache) -> Iterator[FeatureCache]:
    try:
        yield cache
    finally:
        cache.close()


def open_files(folder: Path) -> list[str]:
    return [
        str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and str(entry.readlink()).startswith(str(folder))
    ]


@pytest.mark.parametrize(
    ("network", "equal", "trunks"),
    [
        ({"trunks": "shared"}, True, 1),
        ({"trunks": "shared", "streams": 2}, True, 1),
        ({}, True, 1),
        ({}, False, 2),
        ({"streams": 2}, True, 1),
        ({"streams": 2}, False, 4),
        ({"backbone": "efficientnet_lite0", "level": 4}, False, 2),
        ({"backbone": "resnet18", "pooling": "average"}, True, 1),
        ({"border_cells": 1, "normalise": "sqrt_l2", "descriptor_scale": 10.0}, True, 1),
    ],
    ids=str,
)
def test_kept_features_give_the_logits_of_the_whole_network(
    network: dict[str, Any], equal: bool, trunks: int, make_classifier: Any, tmp_path: Path
) -> None:
    model = made(make_classifier(network), equal=equal)
    with closing(FeatureCache(model, canvas, 2, PICTURES, tmp_path, never)) as cache, torch.inference_mode():
        assert (cache.complete, cache.trunks) == (True, trunks)
        variants = [number % 2 for number in range(PICTURES)]
        numbers = list(reversed(range(PICTURES)))  # in any order
        maps = cache.maps(variants, numbers)
        assert len(maps) == trunks
        assert {tensor.dtype for tensor in maps} == {torch.float32}
        found = model.classify(maps)
        images = np.stack([canvas(variant, number) for variant, number in zip(variants, numbers, strict=True)])
        wanted = model(torch.from_numpy(images))
    largest = float(wanted.abs().max())
    assert largest > 0.01
    assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, largest)
    assert float((wanted - wanted[0]).abs().max()) > 1e-3 * largest  # pictures differ, so a mix-up would show


def test_features_in_bfloat16_are_kept_as_float32(make_classifier: Any, tmp_path: Path) -> None:
    model = made(make_classifier())
    with closing(FeatureCache(model, canvas, 1, 2, tmp_path, never, "bf16")) as cache:
        (maps,) = cache.maps([0, 0], [0, 1])
    images = torch.from_numpy(np.stack([canvas(0, 0), canvas(0, 1)]))
    with torch.inference_mode():
        wanted = model.trunk_maps(model.normalise(images))[0]
    assert maps.dtype == torch.float32
    assert torch.equal(maps, maps.bfloat16().float())
    torch.testing.assert_close(maps, wanted, rtol=0.05, atol=0.02 * float(wanted.max()))


def test_what_is_given_out_is_no_part_of_the_file(make_classifier: Any, tmp_path: Path) -> None:
    with closing(FeatureCache(made(make_classifier()), canvas, 1, 2, tmp_path, never)) as cache:
        (maps,) = cache.maps([0, 0], [0, 1])
        before = maps.clone()
        maps.zero_()
        assert torch.equal(cache.maps([0, 0], [0, 1])[0], before)
    assert torch.equal(maps, torch.zeros_like(maps))  # still there after closing


def test_the_file_has_no_name_and_is_gone_after_closing(make_classifier: Any, tmp_path: Path) -> None:
    with closing(FeatureCache(made(make_classifier()), canvas, 1, 2, tmp_path, never)) as cache:
        assert not list(tmp_path.iterdir())
        assert open_files(tmp_path)
    assert not open_files(tmp_path)
    cache.close()


def test_it_ends_early_when_asked_to(make_classifier: Any, tmp_path: Path) -> None:
    asked: list[int] = []
    drawn: list[tuple[int, int]] = []

    def stopped() -> bool:
        asked.append(len(drawn))
        return len(asked) == 4

    def counted(variant: int, number: int) -> np.ndarray:
        drawn.append((variant, number))
        return canvas(variant, number)

    with closing(FeatureCache(made(make_classifier()), counted, 3, PICTURES, tmp_path, stopped)) as cache:
        assert not cache.complete
    # Two chunks of the first variant, one of the second, beside the picture that told the size.
    assert drawn == [(0, 0), *((0, number) for number in range(PICTURES)), *((1, number) for number in range(CHUNK))]


def test_a_picture_that_fails_leaves_no_file(make_classifier: Any, tmp_path: Path) -> None:
    def failing(variant: int, number: int) -> np.ndarray:
        if number == CHUNK + 1:
            raise DataError("17.png: is no longer a picture that decodes")
        return canvas(variant, number)

    with pytest.raises(DataError, match=r"17\.png"):
        FeatureCache(made(make_classifier()), failing, 1, PICTURES, tmp_path, never)
    assert not open_files(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_room_is_one_sentence_with_size_and_mend(make_classifier: Any, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataError) as caught:
            FeatureCache(made(make_classifier()), canvas, 2, 6, tmp_path, never)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # 2 variants of 6 pictures, 64 channels of 8 x 8 cells, 4 bytes each
    wanted = "has no room for the features of phase one, 0.000197 GB (File too large): free some, or lower training.cached_variants"
    assert str(caught.value) == f"{tmp_path}: {wanted}"
    assert not open_files(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(make_classifier: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: cannot be written: No such file or directory$"):
        FeatureCache(made(make_classifier()), canvas, 1, 2, tmp_path / "nothing", never)
