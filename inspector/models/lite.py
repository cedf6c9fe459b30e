"""EfficientNet-Lite0 (the mobile EfficientNet without squeeze-and-excitation), its batch normalisation folded into the convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from inspector.models.depthwise import depthwise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEM_WIDTH = 32
STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAP_BLOCKS = {2: 2, 3: 4, 4: 10, 5: 15}
"""The last block of each level's stride."""
BATCH_NORM_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution with bias and TensorFlow's 'same' padding: the odd pixel goes to the right and bottom; ReLU6 after it unless told otherwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, activate: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)
        self.activate = activate
        gain = 2.0 if activate else 1.0
        nn.init.normal_(self.weight, std=(gain * groups / (kernel * kernel * inputs)) ** 0.5)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, ceil(h / stride), ceil(w / stride)]."""
        if self.stride[0] > 1:
            x = functional.pad(x, self._same(int(x.shape[-1])) + self._same(int(x.shape[-2])))
        if self.groups > 1 and torch.is_grad_enabled() and self.weight.requires_grad:
            y = depthwise(x, self.weight, self.bias, self.stride[0], int(self.padding[0]))
        else:
            y = self._conv_forward(x, self.weight, self.bias)
        return functional.relu6(y) if self.activate else y

    def _same(self, size: int) -> tuple[int, int]:
        """Padding before and after an axis of ``size`` cells."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2

    def load_folded(self, weights: Mapping[str, Tensor], conv: str, norm: str) -> None:
        """Takes a convolution without bias and the batch normalisation after it, from a state dict by their prefixes.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a shape does not fit.
        """
        scale = weights[f"{norm}.weight"] / torch.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        with torch.no_grad():
            self.weight.copy_(weights[f"{conv}.weight"] * scale[:, None, None, None])
            assert self.bias is not None
            self.bias.copy_(weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = SameConv(inputs, middle) if expansion > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, groups=middle)
        self.project = SameConv(middle, outputs, activate=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, outputs, ceil(h / stride), ceil(w / stride)]."""
        y: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """The convolutional part up to ``top``.

    Args:
        share: share of the channels kept, 0..1, rounded to multiples of 8.
        top: the coarsest level, 2..5.
    """

    def __init__(self, share: float, top: int) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * share / 8 + 0.5) * 8)

        inputs = scaled(STEM_WIDTH)
        self.stem = SameConv(3, inputs, 3, 2)
        blocks: list[InvertedResidual] = []
        widths: list[int] = []
        for repeats, kernel, stride, expansion, channels in STAGES:
            for index in range(repeats):
                blocks.append(InvertedResidual(inputs, scaled(channels), kernel, stride if index == 0 else 1, expansion))
                inputs = scaled(channels)
                widths.append(inputs)
        self.blocks = nn.ModuleList(blocks[: TAP_BLOCKS[top] + 1])
        self.widths = {level: widths[block] for level, block in TAP_BLOCKS.items() if level <= top}

    def taps(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """C_k [N, widths[k], H / 2^k, W / 2^k] for each of ``levels``, rising, from images [N, 3, H, W] float."""
        maps: dict[int, Tensor] = {}
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x)
            maps[index] = x
        return [maps[TAP_BLOCKS[level]] for level in levels]

    def stages(self) -> list[list[nn.Module]]:
        """Modules of each stage, the stem first."""
        first = 0
        stages: list[list[nn.Module]] = [[self.stem]]
        for level in self.widths:
            stages.append(list(self.blocks[first : TAP_BLOCKS[level] + 1]))
            first = TAP_BLOCKS[level] + 1
        return stages

    def load_folded(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the published state dict (``_conv_stem``, ``_blocks.N._expand_conv`` and so on), folding its batch normalisation.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a shape does not fit.
        """
        self.stem.load_folded(weights, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            assert isinstance(block, InvertedResidual)
            prefix = f"_blocks.{index}."
            if block.expand is not None:
                block.expand.load_folded(weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
            block.depthwise.load_folded(weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            block.project.load_folded(weights, f"{prefix}_project_conv", f"{prefix}_bn2")
