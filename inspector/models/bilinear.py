"""The bilinear classifier (Zhou et al. 2019): two feature functions, their outer product pooled over all positions, soft-max; and its heat maps.

The heat maps need no backward pass. With features A [C1, L] and B [C2, L] at L positions p, equations 2 and 3 pool ``Phi = s sum_p a_p b_p^T``
(s = 1, or 1 / L for the mean). Let G = dy_n / dPhi, a [C1, C2] matrix. Then ``dy_n / da_p = s G b_p``, so that the weights of Grad-CAM (equation 4),
the mean of the gradient over all positions, are ``alpha = s G mean_p(b_p)``, and its map (equation 5) is ``relu(alpha^T a_p)``.

G is, for the plain head, row n of the last layer as a matrix, W_n. With signed square root and L2 norm, ``S = sign(Phi) sqrt(|Phi| + eps)``,
``r = sqrt(sum S^2 + 1e-5^2)``, ``Z = S / r`` and ``y_n = <W_n, Z> + c_n``, it is the chain rule's
``G = (W_n - <W_n, Z> Z) / r * D`` with ``D = sign(Phi)^2 / (2 sqrt(|Phi| + eps))``, finite where Phi is zero. As y_n does not change when Phi is
scaled, ``<G, Phi> = 0``: the true gradient says nothing of where the evidence lies. With the norm held constant it is ``G = W_n / r * D``.

The bilinear model allows more than a gradient: for the plain head ``y_n - c_n = <W_n, Phi> = sum_p s a_p^T W_n b_p`` holds exactly, so that
``s a_p^T W_n b_p`` is position p's share of the class score, the contribution map. With the normalised head ``<W_n, S> / r`` is
``sum_p 2 s a_p^T (W_n / r * D) b_p`` but for eps (S is homogeneous of degree one half, hence Euler's factor 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from inspector.models.backbones import ResNet, build_backbone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inspector.config.classifier import BilinearNetwork
    from inspector.config.network import InputRecipe
    from inspector.models.backbones import AnyBackbone

EPSILON = 1e-5
"""Of the L2 norm; the square root's is the recipe's."""


class Trace(NamedTuple):
    """All named tensors of one pass: N images, C classes, L = h w positions; floating unless told."""

    features_a: Tensor
    """[N, C1, h - 2 border, w - 2 border]: without the rings that are not pooled."""
    features_b: Tensor
    """[N, C2, h - 2 border, w - 2 border]."""
    logits: Tensor
    """[N, C]: y of the paper."""
    scores: Tensor
    """[N, C]: soft-max of the logits."""
    label: Tensor
    """[N] int32: the predicted class, 0-based."""
    grad_cam: Tensor
    """[N, h, w], >= 0: Grad-CAM of the predicted class on feature A, equations 4 and 5; zero where nothing is pooled, as the other."""
    contribution: Tensor
    """[N, h, w], signed: each position's share of the predicted class's logit."""


class BilinearClassifier(nn.Module):
    """The classifier; random weights come from torch's global generator, the same in all trunks.

    Args:
        network: architecture and widths.
        input: size, channels and normalisation of the images.
        classes: number of classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: BilinearNetwork, input: InputRecipe, classes: int) -> None:  # noqa: A002 (the recipe's name)
        super().__init__()
        self.network = network
        self.input = input
        self.class_count = classes
        bilinear = network.pooling == "bilinear"
        self.functions = 2 if bilinear else 1
        trunks = 1 if network.trunks == "shared" else network.streams * self.functions
        self.trunks = nn.ModuleList(build_backbone(network.backbone, network.backbone_width, network.level) for _ in range(trunks))
        first = self.backbones[0]
        for other in self.backbones[1:]:
            other.load_state_dict(first.state_dict())
        width = first.widths[network.level]
        streams = network.streams * self.functions if network.channels else 0
        self.projections = nn.ModuleList(nn.Conv2d(width, network.channels, 1) for _ in range(streams))
        for projection in self.projections:
            assert isinstance(projection, nn.Conv2d)
            nn.init.kaiming_normal_(projection.weight, nonlinearity="relu" if network.activation == "relu" else "linear")
            nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
        channels = network.streams * (network.channels or width)
        self.feature_channels = channels
        self.classes = nn.Linear(channels * channels if bilinear else channels, classes)
        nn.init.zeros_(self.classes.weight)  # the logits do not depend on the size of Phi at the start
        nn.init.zeros_(self.classes.bias)
        self.register_buffer("mean", torch.tensor(input.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(input.std).view(1, 3, 1, 1), persistent=False)

    @property
    def backbones(self) -> list[AnyBackbone]:
        """The trunks: one if shared, else those of fA, then those of fB."""
        return [trunk for trunk in self.trunks]  # type: ignore[misc]  # noqa: C416 (a module list has no type for its modules)

    @property
    def features_differ(self) -> bool:
        """Whether B is another feature than A: not without 1x1 convolutions behind one trunk, nor where the pooling takes one feature only."""
        return self.functions == 2 and (len(self.projections) > 0 or len(self.trunks) > 1)

    # The parts, in the order in which an image passes them.

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] to [N, 3, H, W] of the weights' dtype: grey repeated, mean subtracted, divided by the spread."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def trunk_maps(self, x: Tensor) -> list[Tensor]:
        """Each trunk's map [N, width, h, w] from [N, 3, H, W]."""
        return [trunk.taps(x, (self.network.level,))[0] for trunk in self.backbones]

    def features(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features A and B [N, channels, h, w] from the trunks' maps, without their border; the same tensor twice where the pooling takes one."""
        streams = self.network.streams * self.functions
        each = [maps[index % len(maps)] for index in range(streams)]
        if self.projections:
            each = [projection(tensor) for projection, tensor in zip(self.projections, each, strict=True)]
            if self.network.activation == "relu":
                each = [functional.relu(tensor) for tensor in each]
        border = self.network.border_cells
        if border:
            each = [tensor[:, :, border:-border, border:-border] for tensor in each]
        functions = [torch.cat(each[start : start + self.network.streams], dim=1) for start in range(0, streams, self.network.streams)]
        return functions[0], functions[-1]

    def pool(self, a: Tensor, b: Tensor) -> Tensor:
        """Phi [N, C1, C2] (equations 2 and 3), or the mean feature [N, C1, 1] of the plain control, from features [N, C, h, w]."""
        if self.network.pooling == "average":
            return a.flatten(2).mean(2, keepdim=True)
        return torch.matmul(a.flatten(2), b.flatten(2).transpose(1, 2)) * self.share(a)

    def share(self, a: Tensor) -> float:
        """s: 1, or one by the number of positions."""
        average = self.network.pooling == "average" or self.network.positions == "mean"
        return 1.0 / (int(a.shape[-2]) * int(a.shape[-1])) if average else 1.0

    def descriptor(self, phi: Tensor) -> Tensor:
        """Z [N, C1, C2]: Phi itself, or its signed square root with an L2 norm of one; times the recipe's scale."""
        if self.network.normalise == "none":
            return phi * self.network.descriptor_scale
        root, norm = self._root_and_norm(phi)
        return root / norm * self.network.descriptor_scale

    def _root_and_norm(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Signed square root S [N, C1, C2] and its norm r [N, 1, 1]."""
        root = torch.sign(phi) * torch.sqrt(torch.abs(phi) + self.network.root_epsilon)
        return root, torch.sqrt((root * root).sum((1, 2), keepdim=True) + EPSILON**2)

    def head(self, descriptor: Tensor) -> Tensor:
        """Logits [N, C] from Z [N, C1, C2]."""
        logits: Tensor = self.classes(descriptor.flatten(1))
        return logits

    def score_gradient(self, phi: Tensor, label: Tensor, *, norm_constant: bool) -> Tensor:
        """G = dy_n / dPhi [N, C1, C2] in closed form, n the image's label [N]; with the norm held constant if asked for and there is one."""
        count, rows, columns = int(phi.shape[0]), int(phi.shape[1]), int(phi.shape[2])
        weight = self.classes.weight.index_select(0, label).reshape(count if not torch.onnx.is_in_onnx_export() else -1, rows, columns)
        weight = weight * self.network.descriptor_scale
        if self.network.normalise == "none":
            return weight
        root, norm = self._root_and_norm(phi)
        slope = torch.sign(phi) ** 2 / (2 * torch.sqrt(torch.abs(phi) + self.network.root_epsilon))
        if not norm_constant:
            unit = root / norm
            weight = weight - (weight * unit).sum((1, 2), keepdim=True) * unit
        return weight / norm * slope

    def grad_cam(self, a: Tensor, b: Tensor, gradient: Tensor) -> Tensor:
        """Grad-CAM on feature A, [N, h, w] (equations 4 and 5), from features [N, C, h, w] and G [N, C1, C2]."""
        other = torch.ones_like(gradient[:, :1]).transpose(1, 2) if self.network.pooling == "average" else b.flatten(2).mean(2, keepdim=True)
        alpha = torch.matmul(gradient, other) * self.share(a)
        return functional.relu(torch.matmul(alpha.transpose(1, 2), a.flatten(2))).reshape(-1, int(a.shape[2]), int(a.shape[3]))

    def contribution(self, a: Tensor, b: Tensor, gradient: Tensor) -> Tensor:
        """Each position's share of the class score, [N, h, w], signed; ``gradient`` is G with the norm held constant."""
        columns = a.flatten(2)
        through = gradient if self.network.pooling == "average" else torch.matmul(gradient, b.flatten(2))
        degree = 1.0 if self.network.normalise == "none" else 2.0
        return ((columns * through).sum(1) * (degree * self.share(a))).reshape(-1, int(a.shape[2]), int(a.shape[3]))

    # The whole.

    def classify(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits [N, C] from the trunks' maps."""
        return self.head(self.descriptor(self.pool(*self.features(maps))))

    def trace(self, images: Tensor) -> Trace:
        """Every named tensor of one pass over uint8 [N, C, H, W]."""
        a, b = self.features(self.trunk_maps(self.normalise(images)))
        return self.explain(a, b)

    def explain(self, a: Tensor, b: Tensor) -> Trace:
        """Classes and both maps from features [N, C, h, w]."""
        phi = self.pool(a, b)
        logits = self.head(self.descriptor(phi))
        label = logits.argmax(1)
        constant = self.score_gradient(phi, label, norm_constant=True)
        same = self.network.normalise == "none" or self.network.gradient == "norm_constant"
        gradient = constant if same else self.score_gradient(phi, label, norm_constant=False)
        cam, contribution = (
            functional.pad(map_, [self.network.border_cells] * 4) for map_ in (self.grad_cam(a, b, gradient), self.contribution(a, b, constant))
        )
        return Trace(a, b, logits, functional.softmax(logits, 1), label.to(torch.int32), cam, contribution)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, C] of uint8 [N, C, H, W]."""
        return self.classify(self.trunk_maps(self.normalise(images)))

    # Training.

    def freeze_trunks(self) -> None:
        """Phase one: only the new layers are trained."""
        self.trunks.requires_grad_(requires_grad=False)

    def thaw_trunks(self, frozen_stages: int) -> None:
        """Phase two: all layers are trained, but for each trunk's first stages, and a ResNet's batch normalisations."""
        self.trunks.requires_grad_(requires_grad=True)
        for trunk in self.backbones:
            for stage in trunk.stages()[:frozen_stages]:
                for module in stage:
                    module.requires_grad_(requires_grad=False)
            if isinstance(trunk, ResNet):
                for norm in trunk.norms():
                    norm.requires_grad_(requires_grad=False)

    def trunks_are_equal(self) -> bool:
        """Whether all trunks have the same weights, so that one of them computes for all."""
        first = self.backbones[0].state_dict()
        return all(
            torch.equal(value, first[name]) for other in self.backbones[1:] for name, value in other.state_dict().items() if value.is_floating_point()
        )

    def centred_weights(self) -> dict[str, Tensor]:
        """The state, with the mean over the classes taken from the last layer.

        The soft-max does not see what all classes' scores have in common, so training leaves it to chance; the maps do see it: they show what
        raises a score, not what raises it above the others'. Without it the scores are the same and the maps tell the classes apart.
        """
        state = self.state_dict()
        for name in ("classes.weight", "classes.bias"):
            state[name] = state[name] - state[name].mean(0, keepdim=True)
        return state

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Those of all that follows the trunks."""
        yield from self.projections.parameters()
        yield from self.classes.parameters()
