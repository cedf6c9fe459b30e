"""VGG-16 (Simonyan & Zisserman 2015, configuration D): its convolutions, as torchvision names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 3x3 convolutions of each block; a 2x2 max pooling stands between two blocks."""
TOP_LEVEL = 4
"""The last convolution, conv5_3, has stride 16."""


class Vgg16(nn.Module):
    """The convolutions up to the last one of stride 2^``top``, each with its ReLU; the pooling after conv5_3 is not one of them.

    Args:
        share: share of the channels kept, 0..1, rounded to multiples of 8.
        top: the coarsest level, 2..4.
    """

    def __init__(self, share: float, top: int) -> None:
        super().__init__()
        inputs = 3
        layers: list[nn.Module] = []
        self.widths: dict[int, int] = {}
        self._stages: list[tuple[int, int]] = []
        for level, widths in enumerate(BLOCKS[: top + 1]):
            first = len(layers)
            if level:
                layers.append(nn.MaxPool2d(2, 2))
            for width in widths:
                outputs = max(8, int(width * share / 8 + 0.5) * 8)
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            self._stages.append((first, len(layers)))
            self.widths[level] = inputs
        self.features = nn.Sequential(*layers)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def taps(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """C_k [N, widths[k], H / 2^k, W / 2^k] for each of ``levels``, rising, from images [N, 3, H, W] float."""
        maps: dict[int, Tensor] = {}
        for level, (first, last) in enumerate(self._stages):
            for index in range(first, last):
                x = self.features[index](x)
            maps[level] = x
        return [maps[level] for level in levels]

    def stages(self) -> list[list[nn.Module]]:
        """Modules of each block; a VGG has no stem."""
        return [[self.features[index] for index in range(first, last)] for first, last in self._stages]
