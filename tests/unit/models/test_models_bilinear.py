"""The bilinear classifier: its closed forms against torch's gradients, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inspector.config.classifier import BilinearNetwork
from inspector.config.network import InputRecipe
from inspector.models.bilinear import BilinearClassifier

INPUT = InputRecipe(height_px=32, width_px=48, stride_px=16)
CLASSES = 5
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"positions": "mean", "activation": "relu"},
    {"normalise": "sqrt_l2", "gradient": "true"},
    {"normalise": "sqrt_l2", "gradient": "norm_constant", "activation": "relu"},
    {"normalise": "sqrt_l2", "descriptor_scale": 10.0, "trunks": "shared"},
    {"normalise": "sqrt_l2", "root_epsilon": 0.01},
    {"pooling": "average", "streams": 1},
)


def network(**changes: Any) -> BilinearNetwork:
    values = {"architecture": "bilinear", "backbone_width": 0.125, "channels": 6, "positions": "mean"}
    return BilinearNetwork.model_validate(values | changes)


def classifier(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> BilinearClassifier:
    """With random weights everywhere: in the last layer too, and different ones in each trunk."""
    torch.manual_seed(seed)
    model = BilinearClassifier(network(**changes), INPUT, CLASSES)
    with torch.no_grad():
        model.classes.weight.normal_()
        for trunk in model.backbones[1:]:
            for parameter in trunk.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, INPUT.height_px, INPUT.width_px), generator=generator, dtype=torch.uint8)


def autograd_grad_cam(model: BilinearClassifier, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equations 4 and 5 by torch's backward pass; the norm is held constant where the model says so."""
    a = a.detach().requires_grad_()
    phi = model.pool(a, b)
    if model.network.normalise == "sqrt_l2" and model.network.gradient == "norm_constant":
        root = torch.sign(phi) * torch.sqrt(phi.abs() + model.network.root_epsilon)
        norm = torch.sqrt((root * root).sum((1, 2), keepdim=True) + 1e-10).detach()
        logits = model.head(root / norm * model.network.descriptor_scale)
    else:
        logits = model.head(model.descriptor(phi))
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), a)
    alpha = gradient.mean((2, 3), keepdim=True)
    return torch.relu((alpha * a).sum(1)).detach()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference as a share of the largest value, the worst image."""
    assert torch.isfinite(found).all()
    difference = (found - wanted).abs().amax((1, 2))
    return float((difference / wanted.abs().amax((1, 2)).clamp_min(1e-300)).max())


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
def test_the_closed_form_is_autograds_grad_cam(form: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model = classifier(1, dtype, **form)
    with torch.no_grad():
        found = model.trace(images(3))
    wanted = autograd_grad_cam(model, found.features_a, found.features_b)
    warm = wanted.amax((1, 2)) > 1e-4  # a map without any evidence for its class is all zero
    assert int(warm.sum()) >= 2
    assert relative(found.grad_cam[warm], wanted[warm]) < tolerance
    assert float(found.grad_cam[~warm].sum()) < 1e-4


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_where_entries_of_phi_are_zero_everything_is_finite_and_still_equal(form: dict[str, Any]) -> None:
    model = classifier(2, **form)
    with torch.no_grad():
        a, b = model.features(model.trunk_maps(model.normalise(images(2))))
        a = a.clone()
        a[:, ::2] = 0.0  # whole rows of Phi
        a[1] = 0.0  # and all of it
        found = model.explain(a, b)
    for tensor in found:
        assert torch.isfinite(tensor).all()
    assert relative(found.grad_cam[:1], autograd_grad_cam(model, a[:1], b[:1])) < 1e-10
    assert float(found.grad_cam[1].abs().max()) == float(found.contribution[1].abs().max()) == 0.0


@pytest.mark.parametrize("form", [form for form in FORMS if form.get("normalise") != "sqrt_l2"], ids=str)
def test_the_contributions_sum_to_the_class_score(form: dict[str, Any]) -> None:
    model = classifier(3, **form)
    with torch.no_grad():
        found = model.trace(images(4))
        score = found.logits.max(1).values - model.classes.bias[found.label.long()]
    assert torch.allclose(found.contribution.sum((1, 2)), score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", [{}, {"pooling": "average", "streams": 1}], ids=str)
def test_what_is_not_pooled_has_no_heat_and_no_say(form: dict[str, Any]) -> None:
    model = classifier(6, level=3, border_cells=1, trunks="shared", **form)
    with torch.no_grad():
        maps = model.trunk_maps(model.normalise(images(3)))
        whole = model.explain(*model.features(maps))
        for one in maps:
            one[:, :, 0] = one[:, :, -1] = 9.0
            one[:, :, :, 0] = one[:, :, :, -1] = -9.0
        other = model.explain(*model.features(maps))
    assert whole.features_a.shape[2:] == (2, 4)
    assert whole.contribution.shape == whole.grad_cam.shape == (3, 4, 6)
    for left, right in zip(whole, other, strict=True):
        assert torch.equal(left, right)
    inner = whole.contribution[:, 1:-1, 1:-1]
    assert float(inner.abs().sum()) == float(whole.contribution.abs().sum()) > 0
    score = whole.logits.max(1).values - model.classes.bias[whole.label.long()]
    assert torch.allclose(whole.contribution.sum((1, 2)), score, rtol=1e-10)


def test_with_the_norm_the_contributions_sum_to_the_class_score_but_for_epsilon() -> None:
    model = classifier(3, normalise="sqrt_l2")
    with torch.no_grad():
        found = model.trace(images(4))
        phi = model.pool(found.features_a, found.features_b)
        score = found.logits.max(1).values - model.classes.bias[found.label.long()]
    assert float(phi.abs().median()) > 1e-3  # epsilon is small against it
    assert torch.allclose(found.contribution.sum((1, 2)), score, rtol=0.02)


def test_the_true_gradient_through_the_norm_is_orthogonal_to_phi() -> None:
    model = classifier(4, normalise="sqrt_l2", gradient="true")
    with torch.no_grad():
        found = model.trace(images(3))
        phi = model.pool(found.features_a, found.features_b) * 1e6  # epsilon vanishes against it
        gradient = model.score_gradient(phi, found.label.long(), norm_constant=False)
        constant = model.score_gradient(phi, found.label.long(), norm_constant=True)
    along = (gradient * phi).sum((1, 2)) / (gradient.norm(dim=(1, 2)) * phi.norm(dim=(1, 2)))
    along_constant = (constant * phi).sum((1, 2)) / (constant.norm(dim=(1, 2)) * phi.norm(dim=(1, 2)))
    assert float(along.abs().max()) < 1e-5 < float(along_constant.abs().min())


@given(seed=st.integers(0, 2**16), c1=st.integers(1, 5), c2=st.integers(1, 5), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_any_shape_of_features_has_the_gradient_of_autograd(seed: int, c1: int, c2: int, rows: int, columns: int) -> None:
    model = classifier(0, normalise="sqrt_l2", gradient="true")
    torch.manual_seed(seed)
    model.classes = torch.nn.Linear(c1 * c2, CLASSES).double()
    a, b = torch.randn(2, c1, rows, columns).double(), torch.randn(2, c2, rows, columns).double()
    phi = model.pool(a, b).requires_grad_()
    logits = model.head(model.descriptor(phi))
    (wanted,) = torch.autograd.grad(logits.max(1).values.sum(), phi)
    found = model.score_gradient(phi.detach(), logits.argmax(1), norm_constant=False)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", [{}, {"activation": "relu", "normalise": "sqrt_l2"}, {"channels": 0, "streams": 1}], ids=str)
def test_one_shared_trunk_is_four_independent_ones_of_equal_weights(form: dict[str, Any]) -> None:
    torch.manual_seed(5)
    many = BilinearClassifier(network(trunks="independent", **form), INPUT, CLASSES).eval()
    one = BilinearClassifier(network(trunks="shared", **form), INPUT, CLASSES).eval()
    with torch.no_grad():
        many.classes.weight.normal_()
        one.load_state_dict(
            {name: value for name, value in many.state_dict().items() if not name.startswith("trunks.") or name.startswith("trunks.0.")}
        )
        wanted, found = many.trace(images(2)), one.trace(images(2))
    assert many.trunks_are_equal()
    assert len(many.trunks) == (4 if form.get("streams", 2) == 2 else 2)
    for left, right in zip(found, wanted, strict=True):
        assert float((left - right).abs().max()) <= 1e-5 * max(1.0, float(right.abs().max()))


@pytest.mark.parametrize("form", [{}, {"normalise": "sqrt_l2"}, {"pooling": "average", "streams": 1}], ids=str)
def test_centred_weights_have_the_same_scores_and_whatever_all_classes_share_is_not_in_the_maps(form: dict[str, Any]) -> None:
    model, shifted = classifier(8, **form), classifier(8, **form)
    with torch.no_grad():
        shifted.classes.weight += torch.randn_like(shifted.classes.weight[:1])
        shifted.classes.bias += 3.0
        plain = model.trace(images(9))
        assert relative(shifted.trace(images(9)).contribution, plain.contribution) > 0.1
        for one in (model, shifted):
            one.load_state_dict(one.centred_weights())
        centred, same = model.trace(images(9)), shifted.trace(images(9))
    assert torch.allclose(centred.scores, plain.scores, rtol=1e-10, atol=1e-12)
    assert torch.allclose(centred.logits.mean(1), torch.zeros(()).double(), atol=1e-10)
    for kind in ("grad_cam", "contribution"):
        assert relative(getattr(same, kind), getattr(centred, kind)) < 1e-10


def test_the_paper_s_network_has_torchvisions_names_and_the_papers_sizes() -> None:
    paper = BilinearNetwork(architecture="bilinear")
    with torch.device("meta"):
        model = BilinearClassifier(paper, InputRecipe(height_px=448, width_px=448), 2)
    names = {name for name in model.state_dict() if name.startswith("trunks.3.")}
    layers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert names == {f"trunks.3.features.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert model.feature_channels == 512
    assert model.classes.in_features == 512 * 512
    assert sum(parameter.numel() for parameter in model.backbones[0].parameters()) == 14_714_688


def test_a_recipe_that_cannot_be_built_is_refused() -> None:
    for wrong in ({"level": 5}, {"pooling": "average", "normalise": "sqrt_l2"}, {"channels": 0, "activation": "relu"}, {"depth": 3}):
        with pytest.raises(ValueError, match=str(next(iter(wrong)))):
            network(**wrong)


def test_phase_one_trains_the_new_layers_and_phase_two_all_but_the_frozen_stages() -> None:
    model = classifier(0, trunks="shared")
    model.freeze_trunks()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if not name.startswith("trunks.")}
    model.thaw_trunks(1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"trunks.0.features.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
