"""ResNet (He et al. 2016) as torchvision names and lays it out, giving the maps C2..C5; and the choice of backbone by the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch.nn import functional

from inspector.models.lite import EfficientNetLite0
from inspector.models.vgg import Vgg16

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inspector.config.network import Backbone as BackboneName

STEM_WIDTH = 64
STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_BLOCKS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}


class Backbone(Protocol):
    """What the detector needs of a backbone."""

    widths: dict[int, int]
    """Channels of C_k by level k."""

    def taps(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """C_k [N, widths[k], H / 2^k, W / 2^k] for each of ``levels``, rising, from images [N, 3, H, W] float."""
        ...

    def stages(self) -> list[list[nn.Module]]:
        """Modules of each stage, the stem first."""
        ...


def scaled_width(channels: int, share: float) -> int:
    """``channels * share``, rounded to a multiple of 8, at least 8."""
    return max(8, int(channels * share / 8 + 0.5) * 8)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)
        self.last_norm = (self.bn2,)  # in a tuple: not a second name in the state dict

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, width, h / stride, w / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride, as torchvision's), 1x1 and the shortcut (ResNet-50 and -101)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)
        self.last_norm = (self.bn3,)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] to [N, 4 * width, h / stride, w / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection of a shortcut whose shape changes."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """The convolutional part of a ResNet up to ``top`` (5: C5; 4: C4 is the last stage built).

    Batch normalisation always runs on its stored statistics, also while training: a detector's batch of one to four images is too small for its own.

    Args:
        name: a key of ``STAGE_BLOCKS``.
        share: share of the channels kept, 0..1.
        top: the coarsest level, 2..5.
    """

    def __init__(self, name: str, share: float, top: int) -> None:
        super().__init__()
        kind = BasicBlock if name in {"resnet18", "resnet34"} else Bottleneck
        inputs = scaled_width(STEM_WIDTH, share)
        self.conv1 = nn.Conv2d(3, inputs, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.widths: dict[int, int] = {}
        for level, width, count in zip(range(2, top + 1), STAGE_WIDTHS, STAGE_BLOCKS[name], strict=False):
            width = scaled_width(width, share)  # noqa: PLW2901 (the scaled one is meant from here on)
            blocks: list[BasicBlock | Bottleneck] = []
            for index in range(count):
                block = kind(inputs, width, 2 if index == 0 and level > 2 else 1)
                # With stored statistics nothing holds the residual sum down before training: n equal branches of 1/sqrt(n) do. ImageNet
                # weights overwrite it.
                nn.init.constant_(block.last_norm[0].weight, count**-0.5)
                blocks.append(block)
                inputs = width * kind.expansion
            self.add_module(f"layer{level - 1}", nn.Sequential(*blocks))
            self.widths[level] = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def taps(self, x: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """See :class:`Backbone`."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        maps: dict[int, Tensor] = {}
        for level in self.widths:
            x = self.get_submodule(f"layer{level - 1}")(x)
            maps[level] = x
        return [maps[level] for level in levels]

    def stages(self) -> list[list[nn.Module]]:
        """See :class:`Backbone`."""
        return [[self.conv1, self.bn1], *([self.get_submodule(f"layer{level - 1}")] for level in self.widths)]

    def norms(self) -> Iterable[nn.BatchNorm2d]:
        """All batch normalisations."""
        return (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> ResNet:
        """As torch's, but batch normalisation stays on its stored statistics."""
        super().train(mode)
        for norm in self.norms():
            norm.eval()
        return self


AnyBackbone = ResNet | EfficientNetLite0 | Vgg16


def build_backbone(name: BackboneName, share: float, top: int) -> AnyBackbone:
    """The backbone of a recipe up to level ``top``, 2..5 (VGG16: 4 at most), random weights from torch's global generator.

    Args:
        name: as the recipe names it.
        share: share of the channels kept, 0..1.
        top: the coarsest level.
    """
    match name:
        case "efficientnet_lite0":
            return EfficientNetLite0(share, top)
        case "vgg16":
            return Vgg16(share, top)
        case _:
            return ResNet(name, share, top)
