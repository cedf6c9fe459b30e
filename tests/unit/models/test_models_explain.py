from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from inspector.config.detector import NetworkRecipe
from inspector.config.network import InputRecipe
from inspector.models.boxes import HEAD_WEIGHTS, decode, iou
from inspector.models.explain import DetectorSaliency, detector_saliency
from inspector.models.multiscale import MultiscaleDetector

HEIGHT, WIDTH = 64, 128
NETWORK = {
    "backbone": "resnet18",
    "backbone_width": 0.125,
    "levels": (2, 3, 4),
    "channels": 16,
    "anchor_sizes_px": (12.0, 24.0, 48.0),
    "pooling_levels": (2, 3, 4),
    "canonical_size_px": 24.0,
    "canonical_level": 3,
    "hidden": 32,
    "pre_nms": 40,
    "proposals": 24,
    "detections": 12,
    "score_floor": 0.01,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(seed: int = 0, channels: Literal[1, 3] = 1, **changes: Any) -> MultiscaleDetector:
    torch.manual_seed(seed)
    size = InputRecipe(height_px=HEIGHT, width_px=WIDTH, channels=channels)
    model = MultiscaleDetector(NetworkRecipe.model_validate(NETWORK | changes), size, 3)
    for layer in (model.proposals.objectness, model.proposals.deltas, model.detection.classes, model.detection.boxes):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return model.eval()


def picture(channels: int = 1, seed: int = 5) -> Tensor:
    return torch.randint(0, 256, (channels, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def explained(model: MultiscaleDetector, image: Tensor, count: int = 8, min_score: float = 0.0) -> DetectorSaliency:
    found = detector_saliency(model, image, count, min_score)
    assert found is not None
    return found


def losses(model: MultiscaleDetector, x: Tensor, regions: Tensor, classes: Tensor) -> Tensor:
    """[n] cross-entropy of each region, all in the model's own type."""
    head = model.detection
    hidden = functional.relu(head.hidden1(model.pool(model.features(x), [regions]).flatten(1)))
    logits = head.classes(functional.relu(head.hidden2(hidden)))
    result: Tensor = torch.logsumexp(logits, 1) - logits[torch.arange(len(classes)), classes + 1]
    return result


class Shape(NamedTuple):
    network: dict[str, Any]
    channels: Literal[1, 3] = 1


SHAPES = {
    "pyramid": Shape({}),
    "colour": Shape({}, 3),
    "shared boxes": Shape({"box_output": "shared"}),
    "paper's max pooling": Shape({"pooling": "max"}),
    "paper's baseline": Shape({"pyramid": False}),
    "bottlenecks": Shape({"backbone": "resnet50"}),
    "lite": Shape({"backbone": "efficientnet_lite0", "backbone_width": 1.0}),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_it_is_the_derivative_of_the_loss(shape: Shape) -> None:
    """Against central differences in float64, of each detection's loss and of their mean, at the strongest pixels and at others."""
    model, image = build(channels=shape.channels, **shape.network).double(), picture(shape.channels)
    found = explained(model, image, count=3)
    x = model.normalise(image[None])
    assert x.dtype == torch.float64
    random = torch.Generator().manual_seed(1)
    strongest = found.together.flatten().topk(3).indices.tolist()
    others = torch.randint(0, HEIGHT * WIDTH, (3,), generator=random).tolist()
    step = 1e-6
    for place in strongest + others:
        row, column = divmod(int(place), WIDTH)
        slopes = []
        for plane in range(3):
            above, below = x.clone(), x.clone()
            above[0, plane, row, column] += step
            below[0, plane, row, column] -= step
            with torch.no_grad():
                difference = losses(model, above, found.regions, found.classes) - losses(model, below, found.regions, found.classes)
            slopes.append(difference / (2 * step))
        slope = torch.stack(slopes)  # [plane, detection]
        tolerance = 1e-5 * float(found.each.max())
        torch.testing.assert_close(found.each[:, row, column], slope.abs().amax(0).float(), atol=tolerance, rtol=1e-5)
        torch.testing.assert_close(found.together[row, column], slope.mean(1).abs().amax().float(), atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("box_output", ["per_class", "shared"])
def test_it_explains_what_the_network_reports(box_output: str) -> None:
    """Same boxes, scores and classes; and the region behind each detection gives that score and that box."""
    model, image = build(box_output=box_output, detections=60), picture()
    found = explained(model, image, count=100)
    with torch.no_grad():
        boxes, scores, classes, _ = model(image[None])
        logits, deltas = model.head(model.pool(model.features(model.normalise(image[None])), [found.regions]))
    used = int((scores[0] > 0).sum())
    assert len(found.scores) == used > 4
    assert len(set(found.classes.tolist())) > 1
    torch.testing.assert_close(found.boxes, boxes[0, :used], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.scores, scores[0, :used], atol=1e-5, rtol=0)
    assert torch.equal(found.classes, classes[0, :used].long())
    rows = torch.arange(used)
    torch.testing.assert_close(logits.softmax(-1)[rows, found.classes + 1], found.scores, atol=1e-5, rtol=0)
    code = deltas[rows, found.classes if box_output == "per_class" else 0]
    torch.testing.assert_close(decode(found.regions, code, HEAD_WEIGHTS, HEIGHT, WIDTH), found.boxes, atol=1e-3, rtol=0)


def test_no_gradient_runs_through_the_regions() -> None:
    """With the regions held, a step of the image changes the loss as the map says; with regions that follow the image, it does not."""
    model, image = build(seed=2), picture()
    torch.nn.init.normal_(model.proposals.deltas.weight, std=1.0)
    model = model.double()
    found = explained(model, image, count=1)
    x = model.normalise(image[None])
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    step = 1e-4

    def regions(x: Tensor) -> Tensor:
        maps = model.features(x)
        boxes, _ = model.propose(*model.rpn(maps), model.anchors(maps))
        return boxes[0, iou(boxes[0], found.regions)[:, 0].argmax()][None]  # the same region, moved a little

    def slope(held: bool) -> float:
        ends = []
        with torch.no_grad():
            for side in (1, -1):
                moved = x + side * step * direction
                ends.append(float(losses(model, moved, found.regions if held else regions(moved), found.classes)))
        return (ends[0] - ends[1]) / (2 * step)

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(model, leaf, found.regions, found.classes).sum(), leaf)
    torch.testing.assert_close(found.together, gradient[0].abs().amax(0).float(), atol=0, rtol=1e-5)
    along = float((gradient * direction).sum())
    assert slope(held=True) == pytest.approx(along, rel=0.05)
    assert slope(held=False) != pytest.approx(along, rel=0.5)


def test_where_nothing_is_found_there_is_no_map() -> None:
    model, image = build(), picture()
    best = float(explained(model, image).scores[0])
    assert detector_saliency(model, image, min_score=best + 1e-3) is None
    assert detector_saliency(build(score_floor=0.999), image) is None


def test_the_best_detections_are_taken() -> None:
    model, image = build(), picture()
    full = explained(model, image, count=100)
    assert full.scores.tolist() == sorted(full.scores.tolist(), reverse=True)
    two = explained(model, image, count=2)
    assert torch.equal(two.scores, full.scores[:2])
    torch.testing.assert_close(two.each, full.each[:2], atol=1e-7, rtol=1e-4)
    above = explained(model, image, count=100, min_score=float(full.scores[3]))
    assert len(above.scores) == 4


def test_maps_are_float32_of_the_image_and_at_least_zero() -> None:
    found = explained(build(), picture(), count=3)
    assert found.each.shape == (3, HEIGHT, WIDTH)
    assert found.together.shape == (HEIGHT, WIDTH)
    for saliency in (*found.each, found.together):
        assert saliency.dtype == torch.float32
        assert float(saliency.min()) >= 0
        assert float(saliency.max()) > 0
        assert not saliency.requires_grad
    assert torch.all(found.together <= found.each.mean(0) * 1.0001 + 1e-9)  # gradients of one pixel may cancel each other, not add up to more
    one = explained(build(), picture(), count=1)
    torch.testing.assert_close(one.together, one.each[0])


def test_a_certain_detection_still_has_a_map() -> None:
    """Its loss is nearly nothing: one minus its score, which is the gradient, would be zero in float32."""
    model, image = build(), picture()
    certain = int(explained(model, image, count=1).classes[0])
    with torch.no_grad():
        model.detection.classes.bias[certain + 1] += 20
    found = explained(model, image, count=1)
    assert float(found.scores[0]) == 1.0
    model = model.double()
    leaf = model.normalise(image[None]).requires_grad_()
    (gradient,) = torch.autograd.grad(losses(model, leaf, found.regions, found.classes).sum(), leaf)
    strength = gradient[0].abs().amax(0).float()
    assert 0 < float(strength.max()) < 1e-7
    torch.testing.assert_close(found.together, strength, atol=1e-3 * float(strength.max()), rtol=0)


def test_equal_scores_do_not_mix_up_the_regions() -> None:
    model, image = build(detections=60, box_output="shared"), picture()
    with torch.no_grad():
        model.detection.classes.bias[1] += 100
        found = explained(model, image, count=60)
        _, deltas = model.head(model.pool(model.features(model.normalise(image[None])), [found.regions]))
    assert int((found.scores == 1).sum()) > 4
    torch.testing.assert_close(decode(found.regions, deltas[:, 0], HEAD_WEIGHTS, HEIGHT, WIDTH), found.boxes, atol=1e-3, rtol=0)


def test_the_model_is_left_as_it_was() -> None:
    model, image = build(), picture()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert detector_saliency(model, image, 2) is not None  # also where the caller keeps no gradients
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, HEIGHT, WIDTH),
        torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8),
        torch.zeros(1, HEIGHT, WIDTH + 64, dtype=torch.uint8),
        torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[1, 64, 128\]"):
        detector_saliency(build(), image)


def test_no_detection_to_explain_is_refused() -> None:
    with pytest.raises(ValueError, match="count = 0"):
        detector_saliency(build(), picture(), count=0)


def test_the_share_in_the_box_is_counted_by_pixel_middles() -> None:
    each = torch.zeros(2, 6, 8)
    each[0, 1, 2] = 3.0  # middle (2.5, 1.5)
    each[0, 4, 7] = 1.0
    boxes = torch.tensor([[2.5, 1.0, 5.0, 3.0], [0.0, 0.0, 8.0, 6.0]])
    nothing = torch.zeros(2)
    found = DetectorSaliency(boxes, nothing, nothing.long(), boxes, each * 1e-30, each[0])
    assert found.inside().tolist() == [0.75, 0.0]
    moved = DetectorSaliency(boxes + 0.1, nothing, nothing.long(), boxes, each, each[0])
    assert moved.inside().tolist() == [0.0, 0.0]
