"""Depthwise convolution whose bfloat16 gradients are fast on a CPU.

oneDNN's bfloat16 kernels for two gradients of depthwise convolutions are very slow. Measured on one core of an AVX-512 BF16 machine without AMX
(batch 4, channels last, ms): weight gradient, 5x5, 240 channels of 50x50: 82.8, here 14.4 (672 of 25x25, stride 2: 28.1, here 1.9); input
gradient, 3x3 stride 2, 144 channels of 100x100: 35.9, here 4.0 (5x5: 58.9, here 5.6). In float32 the detours do not pay (the 5x5 weight gradient
23.2 against 31.0), nor for 3x3 weight gradients in either precision, so float32 takes torch's own gradients.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

_gradients = torch.ops.aten.convolution_backward


class _Depthwise(torch.autograd.Function):
    """The same convolution; only the backward pass takes other kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:  # noqa: ANN401 (torch gives no type)
        """See :func:`depthwise`; all tensors in bfloat16."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        """Gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        grad_x = _input_gradient(grad, x, weight, stride, padding) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_gradient(grad, x, weight, stride, padding) if ctx.needs_input_grad[1] else None
        grad_bias = grad.sum((0, 2, 3), dtype=torch.float32).to(grad.dtype) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the input; in float32 where the stride is above 1."""
    channels = x.shape[1]
    arguments = ([channels], [stride, stride], [padding, padding], [1, 1], False, [0, 0], channels, [True, False, False])
    if stride == 1:
        return cast("Tensor", _gradients(grad, x, weight, *arguments)[0])
    like = torch.empty_like(x, dtype=torch.float32)
    return cast("Tensor", _gradients(grad.float(), like, weight.float(), *arguments)[0]).to(x.dtype)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Gradient of the weight; a 5x5 one as four 3x3 ones on shifted inputs (the middle row and column are written twice, with the same values)."""
    channels = x.shape[1]
    arguments = ([1, 1], False, [0, 0], channels, [False, True, False])
    if weight.shape[-1] != 5:
        return cast("Tensor", _gradients(grad, x, weight, [channels], [stride, stride], [padding, padding], *arguments)[1])
    x = functional.pad(x, (padding, padding, padding, padding))
    rows, columns = (grad.shape[2] - 1) * stride + 3, (grad.shape[3] - 1) * stride + 3
    quarter = weight[:, :, :3, :3].contiguous()
    result = torch.empty_like(weight)
    for top in (0, 2):
        for left in (0, 2):
            shifted = x[:, :, top : top + rows, left : left + columns].contiguous(memory_format=torch.channels_last)
            part = _gradients(grad, shifted, quarter, [channels], [stride, stride], [0, 0], *arguments)[1]
            result[:, :, top : top + 3, left : left + 3] = part
    return result


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Depthwise convolution for training.

    Args:
        x: [N, C, h, w].
        weight: [C, 1, k, k].
        bias: [C], or None.
        stride: of both axes.
        padding: zeros on all four sides.

    Returns:
        [N, C, (h + 2 padding - k) // stride + 1, ...], bfloat16 under CPU autocast, else of x's type.
    """
    low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if x.device.type != "cpu" or not (low or x.dtype == torch.bfloat16) or bias is None or (weight.shape[-1] != 5 and stride == 1):
        return functional.conv2d(x, weight, bias, stride, padding, 1, x.shape[1])
    result: Tensor = _Depthwise.apply(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), stride, padding)  # type: ignore[no-untyped-call]
    return result
