"""Blocks of a convolutional network for many tasks at once, which is what keeps a GPU busy.

On a processor tasks take turns, since what one of them holds fits its cache. A GPU waits for whoever starts its
kernels, so here the rows of all tasks are in every one of them, each task with statistics of its own, and with kernels
of its own where it has them: then the channels of all tasks stand side by side in one grouped convolution.

torch takes the second derivative of a grouped convolution group by group. It need not: convolution, the gradient of its
input and that of its kernel are the three sides of one product of three, <conv(x, w), g>, and the derivatives of each
are the other two.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.nets.norm import ChannelNorm
from quickstudy.nets.norm_pool import norm_pool, per_channel

Pool = Literal["max", "stride"]
aten: Any = torch.ops.aten


def block(
    x: Tensor,
    kernel: Tensor,
    norm: ChannelNorm,
    scale: Tensor,
    shift: Tensor,
    pool: Pool,
    sets: list[int] | None = None,
) -> Tensor:
    """3x3 convolution, norm, ReLU and 2x2 max-pool, or a stride of 2 in place of the pool.

    x: (task, n, c, h, w). kernel: (channels, c, 3, 3), scale and shift: (channels,), or all of them with a task axis
    in front. sets: how many rows of a task, one after the other, are normalised by themselves; all together if None.
    Returns (task, n, channels, h // 2, w // 2), the half rounded up with a stride.
    """
    if pool == "stride":
        return torch.relu(norm.at_once(convolved(x, kernel, 2), scale, shift, sets=sets))
    if norm.norm == "group":
        return pooled(torch.relu(norm.at_once(convolved(x, kernel), scale, shift)), kernel)
    # the pool keeps what is largest, and so it does after a scale that is not negative: a kernel of the other sign
    # stands in for a negative one, and a quarter of the data is left to normalise
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    made, scale = convolved(x, kernel * sign[..., None, None, None]), scale * sign
    if len(x) == 1 and kernel.dim() == 4 and norm.uses_batch_statistics:
        return torch.relu(_of_one_task(made[0], norm, scale, shift, sign, sets))
    return torch.relu(norm.at_once(made, scale, shift, pooled(made, kernel), sign, sets))


def _of_one_task(
    made: Tensor, norm: ChannelNorm, scale: Tensor, shift: Tensor, sign: Tensor, sets: list[int] | None
) -> Tensor:
    """Norm and pool of the rows (n, channels, h, w) of a single task, by the derivatives that are written down."""
    rows = made.to(torch.promote_types(made.dtype, torch.float32))
    out, means, variances = norm_pool(rows, scale, shift, norm.epsilon, sets)
    norm.see(means * sign, variances, per_channel(rows, sets or [len(rows)]))
    return out.unsqueeze(0)


def convolved(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """conv2d with padding 1 of images (task, n, c, h, w), by one kernel for all or by one a task."""
    if kernel.dim() == 4:
        laid = kernel.contiguous(memory_format=torch.channels_last)
        return _back(F.conv2d(_rows(x, kernel), laid, stride=stride, padding=1), x, kernel)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x, kernel = (t.to(torch.get_autocast_dtype(device)) for t in (x, kernel))
    made: Tensor = _Convolved.apply(_rows(x, kernel), kernel.flatten(0, 1), _How(stride, len(x)))  # type: ignore[assignment]
    return _back(made, x, kernel)


def pooled(x: Tensor, kernel: Tensor) -> Tensor:
    """2x2 max-pool of what the kernel made."""
    return _back(F.max_pool2d(_rows(x, kernel), 2), x, kernel)


def _rows(x: Tensor, kernel: Tensor) -> Tensor:
    """Images as torch takes them: (task * n, c, h, w), or (n, task * c, h, w) for kernels of each task's own. A view
    of what came from such a batch."""
    return x.flatten(0, 1) if kernel.dim() == 4 else x.transpose(0, 1).flatten(1, 2)


def _back(rows: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """`_rows` undone, for tasks and rows as in x."""
    if kernel.dim() == 4:
        return rows.unflatten(0, x.shape[:2])
    return rows.unflatten(1, (len(x), -1)).transpose(0, 1)


class _How(NamedTuple):
    stride: int
    groups: int


class _Side(torch.autograd.Function):
    """A product of two tensors, its first inputs; the last says how."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[-1]
        ctx.save_for_backward(*inputs[:2])


class _Convolved(_Side):
    """conv(x, w): x (n, groups * c, h, w), w (groups * o, c, 3, 3)."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, how: _How) -> Tensor:
        return F.conv2d(x, w, stride=how.stride, padding=1, groups=how.groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (x, w), (g,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dx = _OfInput.apply(g, w, x.shape, ctx.how) if wanted[0] else None
        return dx, _OfKernel.apply(x, g, w.shape, ctx.how) if wanted[1] else None, None


class _OfInput(_Side):
    """The gradient of x: (g, w) -> the dx for which <conv(x, w), g> = <x, dx>."""

    @staticmethod
    def forward(g: Tensor, w: Tensor, shape: torch.Size, how: _How) -> Tensor:
        return _gradient(g, g.new_empty(1).expand(shape), w, how, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (g, w), (u,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dg = _Convolved.apply(u, w, ctx.how) if wanted[0] else None
        return dg, _OfKernel.apply(u, g, w.shape, ctx.how) if wanted[1] else None, None, None


class _OfKernel(_Side):
    """The gradient of w: (x, g) -> the dw for which <conv(x, w), g> = <w, dw>."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, shape: torch.Size, how: _How) -> Tensor:
        return _gradient(g, x, g.new_empty(1).expand(shape), how, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (x, g), (v,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dx = _OfInput.apply(g, v, x.shape, ctx.how) if wanted[0] else None
        return dx, _Convolved.apply(x, v, ctx.how) if wanted[1] else None, None, None


def _gradient(g: Tensor, x: Tensor, w: Tensor, how: _How, which: int) -> Tensor:
    wanted = [number == which for number in range(3)]
    strides = [how.stride] * 2
    return aten.convolution_backward(g, x, w, None, strides, [1, 1], [1, 1], False, [0, 0], how.groups, wanted)[which]
