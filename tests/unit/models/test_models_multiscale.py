from __future__ import annotations

from collections import Counter

import pytest
import torch

from inspector.config.detector import NetworkRecipe
from inspector.config.network import InputRecipe
from inspector.models.backbones import ResNet, scaled_width
from inspector.models.boxes import iou, nms
from inspector.models.lite import BATCH_NORM_EPSILON, EfficientNetLite0, SameConv
from inspector.models.multiscale import MultiscaleDetector

HEIGHT, WIDTH = 128, 192


def recipe(**changes: object) -> NetworkRecipe:
    values: dict[str, object] = {
        "backbone": "resnet18",
        "backbone_width": 0.25,
        "channels": 16,
        "hidden": 32,
        "pre_nms": 60,
        "proposals": 24,
        "detections": 12,
    }
    return NetworkRecipe.model_validate(values | {"score_floor": 0.01} | changes)


def build(seed: int = 0, channels: int = 1, **changes: object) -> MultiscaleDetector:
    torch.manual_seed(seed)
    model = MultiscaleDetector(recipe(**changes), InputRecipe(height_px=HEIGHT, width_px=WIDTH, channels=channels), 3)
    for layer in (model.proposals.objectness, model.proposals.deltas, model.detection.classes, model.detection.boxes):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return model.eval()


def pictures(count: int = 2, channels: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


THREE_LEVELS: dict[str, object] = {"levels": (3, 4, 5, 6), "pooling_levels": (3, 4, 5), "anchor_sizes_px": (32.0, 64.0, 128.0, 256.0)}


def test_resnet50_has_torchvisions_names_and_shapes() -> None:
    state = ResNet("resnet50", 1.0, 5).state_dict()
    assert len(state) == 318  # torchvision's 320 without fc.weight and fc.bias
    assert Counter(name.split(".")[0] for name in state) == {"conv1": 1, "bn1": 5, "layer1": 60, "layer2": 78, "layer3": 114, "layer4": 60}
    golden = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_mean": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer2.3.bn3.bias": (512,),
        "layer3.5.conv3.weight": (1024, 256, 1, 1),
        "layer4.2.bn2.num_batches_tracked": (),
        "layer4.0.downsample.0.weight": (2048, 1024, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in golden} == golden


@pytest.mark.parametrize(("name", "tensors", "parameters"), [("resnet18", 120, 11176512), ("resnet34", 216, 21284672), ("resnet101", 624, 42500160)])
def test_the_other_resnets_have_their_published_sizes(name: str, tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        net = ResNet(name, 1.0, 5)
    assert len(net.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_bottleneck_carries_the_stride_in_its_3x3() -> None:
    net = ResNet("resnet50", 0.125, 5)
    assert net.get_submodule("layer2.0.conv2").stride == (2, 2)
    assert net.get_submodule("layer2.0.conv1").stride == (1, 1)


def test_lite0_has_its_published_size() -> None:
    with torch.device("meta"):
        net = EfficientNetLite0(1.0, 5)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2939120
    assert net.widths == {2: 24, 3: 40, 4: 112, 5: 320}
    assert len(net.blocks) == 16
    assert len(EfficientNetLite0(0.5, 4).blocks) == 11


@pytest.mark.parametrize(("kernel", "stride", "groups", "size"), [(3, 2, 1, 13), (3, 2, 8, 12), (5, 2, 8, 12), (5, 1, 8, 9), (1, 1, 1, 7)])
def test_folding_equals_convolution_and_batch_norm(kernel: int, stride: int, groups: int, size: int) -> None:
    torch.manual_seed(kernel)
    conv = torch.nn.Conv2d(8, 8, kernel, stride, groups=groups, bias=False)
    norm = torch.nn.BatchNorm2d(8, eps=BATCH_NORM_EPSILON).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.3, 1.5)
    folded = SameConv(8, 8, kernel, stride, groups=groups, activate=False)
    weights = {f"c.{name}": value for name, value in conv.state_dict().items()} | {f"n.{name}": value for name, value in norm.state_dict().items()}
    folded.load_folded(weights, "c", "n")
    x = torch.randn(2, 8, size, size)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    padded = torch.nn.functional.pad(x, (total // 2, total - total // 2) * 2)
    expected = norm(conv(padded))
    assert expected.shape[-1] == -(-size // stride)
    torch.testing.assert_close(folded(x), expected, atol=1e-5, rtol=1e-5)


def test_width_is_rounded_to_multiples_of_8() -> None:
    assert [scaled_width(64, share) for share in (1.0, 0.5, 0.3, 0.01)] == [64, 32, 16, 8]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "efficientnet_lite0"])
def test_maps_have_the_strides_of_their_levels(backbone: str) -> None:
    model = build(backbone=backbone)
    with torch.no_grad():
        maps = model.features(model.normalise(pictures()))
    assert [tuple(features.shape) for features in maps] == [(2, 16, HEIGHT >> k, WIDTH >> k) for k in (2, 3, 4, 5, 6)]
    assert torch.equal(maps[4], maps[3][:, :, ::2, ::2])


def test_odd_sizes_meet_in_the_pyramid() -> None:
    model = build(**THREE_LEVELS)
    with torch.no_grad():
        maps = model.features(torch.zeros(1, 3, 100, 90))
    assert [tuple(features.shape[-2:]) for features in maps] == [(13, 12), (7, 6), (4, 3), (2, 2)]
    assert [len(anchors) for anchors in model.anchors(maps)] == [13 * 12 * 3, 7 * 6 * 3, 4 * 3 * 3, 2 * 2 * 3]


def test_the_baseline_is_c4_with_all_anchors() -> None:
    model = build(pyramid=False)
    maps = model.features(model.normalise(pictures()))
    assert [tuple(features.shape) for features in maps] == [(2, 16, HEIGHT // 16, WIDTH // 16)]
    logits, deltas = model.rpn(maps)
    (anchors,) = model.anchors(maps)
    assert logits[0].shape == (2, len(anchors)) == (2, HEIGHT // 16 * (WIDTH // 16) * 15)
    assert deltas[0].shape == (2, len(anchors), 4)
    assert not [name for name in model.state_dict() if name.startswith("backbone.layer4")]


def test_grey_is_repeated_and_normalised() -> None:
    model = build()
    x = model.normalise(torch.full((1, 1, 2, 2), 200, dtype=torch.uint8))
    expected = (200 - torch.tensor(model.input.mean)) / torch.tensor(model.input.std)
    torch.testing.assert_close(x[0, :, 0, 0], expected)


def test_the_head_is_fed_by_pool_as_by_the_canvas() -> None:
    model = build()
    with torch.no_grad():
        found = model.trace(pictures())
        valid = found.regions[..., 2] > found.regions[..., 0]
        pooled = model.pool(found.maps, [regions[mask] for regions, mask in zip(found.regions, valid, strict=True)])
    torch.testing.assert_close(pooled, found.pooled[valid.flatten()], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"pyramid": False}, {"box_output": "shared"}, {"backbone": "efficientnet_lite0", **THREE_LEVELS}])
def test_detections_obey_their_contract(changes: dict[str, object]) -> None:
    model = build(**changes)
    with torch.no_grad():
        boxes, scores, classes, converged = model(pictures())
    assert boxes.shape == (2, 12, 4)
    assert scores.dtype == boxes.dtype == torch.float32
    assert classes.dtype == converged.dtype == torch.int32
    assert converged.tolist() == [1, 1]
    used = scores > 0
    assert used.any()
    assert (scores[used] >= model.network.score_floor).all()
    assert (boxes[~used] == 0).all()
    assert (boxes[..., 2] <= WIDTH).all()
    assert (boxes[..., 3] <= HEIGHT).all()
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    for image in range(2):
        for label in range(3):
            chosen = boxes[image][(classes[image] == label) & used[image]]
            overlap = iou(chosen, chosen) - torch.eye(len(chosen))
            assert (overlap <= model.network.detection_iou).all()


def test_the_whole_graph_equals_greedy_suppression() -> None:
    model = build()
    with torch.no_grad():
        found = model.trace(pictures(1))
        kept, logits = [], []
        for level_logits, level_deltas, anchors in zip(found.rpn_logits, found.rpn_deltas, model.anchors(found.maps), strict=True):
            boxes, _ = model.propose([level_logits], [level_deltas], [anchors])  # one level alone
            kept.append(boxes[0])
            logits.append(level_logits)
    # Regions of each level survive greedy suppression unchanged.
    for regions in kept:
        used = regions[regions[:, 2] > regions[:, 0]]
        ranks = torch.linspace(1, 0.5, len(used))
        assert nms(used, ranks, model.network.proposal_iou).tolist() == list(range(len(used)))


def test_a_high_floor_leaves_empty_slots_only() -> None:
    model = build(score_floor=0.99)
    with torch.no_grad():
        boxes, scores, _, _ = model(pictures())
    assert not scores.any()
    assert not boxes.any()


def test_freezing_by_stages_and_norms() -> None:
    model = build(frozen_stages=2)
    model.freeze()
    model.train()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in trainable if name.startswith(("backbone.conv1", "backbone.layer1")) or ".bn" in name]
    assert "backbone.layer2.0.conv1.weight" in trainable
    count = len(list(model.backbone_parameters())) + len(list(model.head_parameters()))
    assert count == len(trainable)
    before = model.backbone.state_dict()["layer2.0.bn1.running_mean"].clone()
    maps = model.features(model.normalise(pictures()))
    logits, deltas = model.rpn(maps)
    classes, codes = model.head(model.pool(maps, [torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[5.0, 5, 20, 20]])]))
    (sum(part.sum() for part in (*logits, *deltas)) + classes.sum() + codes.sum()).backward()
    assert torch.equal(model.backbone.state_dict()["layer2.0.bn1.running_mean"], before)
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name in trainable)


def test_box_outputs_stay_float32_under_autocast() -> None:
    model = build(backbone="efficientnet_lite0", **THREE_LEVELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.trace(pictures(1))
    assert found.maps[0].dtype == torch.bfloat16
    for part in (*found.rpn_logits, *found.rpn_deltas, found.regions, found.class_logits, found.box_deltas, found.boxes, found.scores):
        assert part.dtype == torch.float32


def test_the_same_seed_gives_the_same_network() -> None:
    first, second, other = build(3).state_dict(), build(3).state_dict(), build(4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_max_pooling_is_used_when_asked() -> None:
    align, largest = build(pooling="align"), build(pooling="max")
    maps = align.features(align.normalise(pictures(1)))
    box = [torch.tensor([[0.0, 0, 100, 100]])]
    assert (largest.pool(maps, box) >= align.pool(maps, box) - 1e-4).float().mean() > 0.95


def test_the_whole_network_runs_with_max_pooling_in_torch() -> None:
    model = build(pooling="max")
    with torch.no_grad():
        found = model.trace(pictures())
        expected = model.pool(found.maps, found.regions.unbind(0))
    assert torch.equal(found.pooled, expected)
    assert found.boxes.shape == (2, 12, 4)
    assert (found.scores > 0).any()
