"""The feature pyramid (Wei & Bi 2019, section 3.2), and the single map of the paper's baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


class FeaturePyramid(nn.Module):
    """Top-down pathway: lateral 1x1 convolutions, nearest upsampling and addition, 3x3 smoothing; optionally one level on top by subsampling.

    Args:
        widths: channels of the backbone's maps, finest first.
        channels: channels of every pyramid map.
        extra: whether a level above the last is made by taking every second cell of it (P6 from P5).
    """

    def __init__(self, widths: Sequence[int], channels: int, extra: bool) -> None:
        super().__init__()
        self.extra = extra
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        for layer in (*self.lateral, *self.smooth):
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Pyramid maps [N, channels, h_k, w_k], finest first, from backbone maps [N, C_k, h_k, w_k]; one more than given when ``extra``."""
        merged: list[Tensor] = []
        for lateral, tap in zip(reversed(self.lateral), reversed(taps), strict=True):
            current = lateral(tap)
            if merged:
                # The exact size, not a factor of two: odd maps have no half.
                current = current + functional.interpolate(merged[-1], size=(int(current.shape[-2]), int(current.shape[-1])), mode="nearest")
            merged.append(current)
        maps = [smooth(current) for smooth, current in zip(self.smooth, reversed(merged), strict=True)]
        if self.extra:
            maps.append(functional.max_pool2d(maps[-1], kernel_size=1, stride=2))
        return maps


class SingleMap(nn.Module):
    """The paper's baseline without a pyramid: C4 alone, brought to the head's channels by one 1x1 convolution, so that the same head serves both.

    Args:
        width: channels of C4.
        channels: channels of the map that is given out.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(width, channels, 1)
        nn.init.kaiming_uniform_(self.lateral.weight, a=1)
        nn.init.zeros_(self.lateral.bias)  # type: ignore[arg-type]

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """[C4'] as [N, channels, h, w], from [C4] as [N, C, h, w]."""
        (tap,) = taps
        return [self.lateral(tap)]
