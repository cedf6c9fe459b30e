"""The texture baseline that Zhou et al. 2019 compare with: grey-level co-occurrence matrices into a small multilayer perceptron.

It sees no shape, only how often two grey levels stand at a distance from each other; what it reaches shows what a data set asks of a network.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from skimage.feature import graycomatrix, graycoprops
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

NAME = "GLCM + MLP"
"""In tables."""
DISTANCES_PX = (1, 2, 4)
"""Diagonally to the nearest pixel: 2 px are 1 to the side and 1 down, as 1 px is."""
ANGLES_RAD = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
FEATURES = len(PROPERTIES) * len(DISTANCES_PX) * len(ANGLES_RAD)
LEVELS = 32
"""Grey levels that a picture is reduced to. 64 cost twice the time and gave nothing on NEU."""
HIDDEN = 100
MAX_EPOCHS = 2000
"""It ends by itself once the loss stands still for ten epochs, on NEU after about 400. No part is held back to decide when to end: that
cost six points of accuracy there, for the pictures are few."""


@dataclass(frozen=True, slots=True)
class GlcmBaseline:
    """A trained baseline; :meth:`fit` makes one."""

    classes: int
    levels: int
    network: Any
    """scikit-learn's pipeline: standardisation and perceptron."""

    @classmethod
    def fit(cls, images: Iterable[NDArray[np.uint8]], labels: NDArray[Any], seed: int, *, classes: int, levels: int = LEVELS) -> GlcmBaseline:
        """Trains on labelled pictures. The same pictures and seed give the same baseline.

        Args:
            images: uint8 [H, W], or [H, W, 3] RGB, of any sizes; looked at once, one after the other.
            labels: int [n], 0-based.
            seed: of the first weights and of the order of the pictures.
            classes: how many there are; some may be absent from the labels.
            levels: grey levels that the pictures are reduced to, 2..256.

        Raises:
            ValueError: there are not as many pictures as labels, a label is outside the classes, the labels name fewer than two classes, or
                ``levels`` is outside its range.
        """
        features, truth = texture_features(images, levels), np.asarray(labels, np.int64)
        if len(features) != len(truth):
            raise ValueError(f"{len(features)} pictures for {len(truth)} labels")
        if len(np.unique(truth)) < 2:
            raise ValueError("the labels must name at least two classes, for there is nothing to tell apart")
        if truth.min() < 0 or truth.max() >= classes:
            raise ValueError(f"labels run from {truth.min()} to {truth.max()}, there are {classes} classes")
        perceptron = MLPClassifier((HIDDEN,), max_iter=MAX_EPOCHS, random_state=seed)
        network = make_pipeline(StandardScaler(), perceptron)
        with warnings.catch_warnings():
            # Pictures that cannot be told apart never stop improving a little; then the number of epochs is the end.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(features, truth)
        return cls(classes, levels, network)

    def scores(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Soft-max scores, float64 [n, classes], each row with the sum 1; a class that was absent from the training has 0.

        Args:
            images: as for :meth:`fit`.
        """
        features = texture_features(images, self.levels)
        scores = np.zeros((len(features), self.classes))
        if len(features):
            scores[:, self.network.classes_] = self.network.predict_proba(features)
        return scores


def texture_features(images: Iterable[NDArray[np.uint8]], levels: int = LEVELS) -> NDArray[np.float64]:
    """Six properties of the co-occurrence matrix of each distance and angle, float64 [n, 72]: by property, then distance, then angle.

    The matrices are symmetric, and the properties are of their shares, so that the size of the picture does not count.

    Args:
        images: uint8 [H, W], or [H, W, 3] RGB.
        levels: grey levels, 2..256.

    Raises:
        ValueError: ``levels`` is outside its range.
    """
    if not 2 <= levels <= 256:
        raise ValueError(f"{levels} grey levels; there must be 2 to 256")
    rows = [_features(image, levels) for image in images]
    return np.array(rows, np.float64).reshape(-1, FEATURES)


def _features(image: NDArray[np.uint8], levels: int) -> NDArray[np.float64]:
    """One picture's features [72]."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    reduced = (grey.astype(np.uint16) * levels // 256).astype(np.uint8)
    matrix = graycomatrix(reduced, DISTANCES_PX, ANGLES_RAD, levels=levels, symmetric=True)  # type: ignore[no-untyped-call]
    return np.concatenate([graycoprops(matrix, name).ravel() for name in PROPERTIES])  # type: ignore[no-untyped-call]
