from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from inspector.models.depthwise import _Depthwise, depthwise


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
def test_gradients_are_those_of_torch(kernel: int, stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(kernel + stride)
    values = [torch.randn(shape, generator=generator) for shape in ((2, 8, 13, 12), (8, 1, kernel, kernel), (8,))]
    ours, theirs = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    # In float32, where the comparison is sharp; the way is the same in bfloat16.
    result = _Depthwise.apply(*ours, stride, padding)
    expected = functional.conv2d(*theirs, stride, padding, 1, 8)
    assert torch.equal(result, expected)
    slope = torch.randn(result.shape, generator=generator)
    result.backward(slope)
    expected.backward(slope)
    for own, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, reference.grad, atol=1e-4, rtol=1e-4)


def test_autocast_takes_the_fast_gradients_and_float32_torchs_own() -> None:
    x = torch.randn(1, 8, 10, 10, requires_grad=True)
    weight, bias = torch.randn(8, 1, 5, 5, requires_grad=True), torch.zeros(8, requires_grad=True)
    assert "Depthwise" not in type(depthwise(x, weight, bias, 1, 2).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, weight, bias, 1, 2)
    assert "Depthwise" in type(y.grad_fn).__name__
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    low = weight.grad
    weight.grad = None
    depthwise(x, weight, bias, 1, 2).sum().backward()
    torch.testing.assert_close(low, weight.grad, atol=0.3, rtol=0.03)


def test_needs_only_the_gradients_that_are_asked_for() -> None:
    weight = torch.randn(4, 1, 5, 5, requires_grad=True)
    x = torch.randn(1, 4, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        depthwise(x, weight, torch.zeros(4), 2, 2).float().sum().backward()
    assert weight.grad is not None
    assert x.grad is None
