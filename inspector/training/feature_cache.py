"""The maps of frozen trunks, computed once: phase one of a classifier's training then costs no convolution of theirs."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch

from inspector.contract.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inspector.config.network import Precision
    from inspector.models.bilinear import BilinearClassifier

CHUNK = 16
"""Pictures that pass the trunks together."""


class FeatureCache:
    """float32 maps [variants, pictures, width, h, w] of each trunk in a file without a name, which is gone when this is closed or the process ends.

    Args:
        model: its trunks, in the state they have now. Trunks of equal weights are computed once.
        canvas: gives variant and picture number's canvas, uint8 [C, H, W].
        variants: how many there are of each picture.
        pictures: how many there are.
        folder: where the file lies; it needs room for all maps.
        stopped: asked between chunks; True ends the computing early.
        precision: in which the trunks compute; what is kept is float32 whatever it is.

    Raises:
        DataError: the folder has no room, or a picture no longer decodes.
    """

    def __init__(
        self,
        model: BilinearClassifier,
        canvas: Callable[[int, int], NDArray[np.uint8]],
        variants: int,
        pictures: int,
        folder: Path,
        stopped: Callable[[], bool],
        precision: Precision = "fp32",
    ) -> None:
        self._low = precision == "bf16"
        self.trunks = 1 if model.trunks_are_equal() else len(model.trunks)
        self.complete = False
        width = model.backbones[0].widths[model.network.level]
        with torch.no_grad():
            example = model.trunk_maps(model.normalise(torch.from_numpy(canvas(0, 0)[None])))[0]
        shape = (self.trunks, variants, pictures, width, int(example.shape[2]), int(example.shape[3]))
        needed = int(np.prod(shape)) * 4
        try:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the cache
        except OSError as error:
            raise DataError(f"{folder}: cannot be written: {error.strerror}") from None
        try:
            os.posix_fallocate(self._file.fileno(), 0, needed)  # a map without room behind it would end the process by a signal
        except OSError as error:
            self._file.close()
            raise DataError(
                f"{folder}: has no room for the features of phase one, {needed / 1e9:.3g} GB ({error.strerror}): free some, or lower "
                "training.cached_variants"
            ) from None
        self._maps: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = np.memmap(self._file, np.float32, "r+", shape=shape)
        try:
            self._fill(model, canvas, stopped)
        except BaseException:
            self.close()
            raise

    def maps(self, variants: Sequence[int], pictures: Sequence[int]) -> list[torch.Tensor]:
        """Each trunk's maps [n, width, h, w] of n pictures, each in one of its variants; one for all trunks where their weights are equal."""
        assert self._maps is not None
        return [torch.from_numpy(np.ascontiguousarray(self._maps[trunk, list(variants), list(pictures)])) for trunk in range(self.trunks)]

    def close(self) -> None:
        """Frees memory and file. Idempotent."""
        self._maps = None
        self._file.close()

    def _fill(self, model: BilinearClassifier, canvas: Callable[[int, int], NDArray[np.uint8]], stopped: Callable[[], bool]) -> None:
        assert self._maps is not None
        _, variants, pictures = self._maps.shape[:3]
        for variant in range(variants):
            for first in range(0, pictures, CHUNK):
                if stopped():
                    return
                numbers = range(first, min(first + CHUNK, pictures))
                images = torch.from_numpy(np.stack([canvas(variant, number) for number in numbers]))
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._low):
                    x = model.normalise(images).contiguous(memory_format=torch.channels_last)
                    for trunk in range(self.trunks):
                        (found,) = model.backbones[trunk].taps(x, (model.network.level,))
                        self._maps[trunk, variant, first : first + len(numbers)] = found.float().numpy()
        self.complete = True
