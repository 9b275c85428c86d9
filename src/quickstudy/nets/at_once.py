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
from quickstudy.nets.norm_pool import norm_pool

Pool = Literal["max", "stride"]
FEW = 36
"""Numbers of a patch up to which patches are laid out: at most those of four channels."""
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
    stride = 1 if pool == "max" else 2
    if norm.norm == "group":
        made = torch.relu(norm.at_once(convolved(x, kernel, stride), scale, shift))
        return made if pool == "stride" else pooled(made, kernel)
    # the pool keeps what is largest, and so it does after a scale that is not negative: a kernel of the other sign
    # stands in for a negative one, and a quarter of the data is left to normalise
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    made, scale = convolved(x, kernel * sign[..., None, None, None], stride), scale * sign
    import os
    if not os.environ.get("QS_PLAIN") and norm.uses_batch_statistics and (kernel.dim() == 5 or len(x) == 1):
        return torch.relu(_closed(x, made, kernel, norm, scale, shift, sign, pool == "max", sets))
    kept = pooled(made, kernel) if pool == "max" else made
    return torch.relu(norm.at_once(made, scale, shift, kept, sign, sets))


def _closed(
    x: Tensor, made: Tensor, kernel: Tensor, norm: ChannelNorm, scale: Tensor, shift: Tensor, sign: Tensor, pool: bool,
    sets: list[int] | None,
) -> Tensor:  # fmt: skip
    """Norm and pool by the derivatives that are written down: each task has channels of its own, or there is but one."""
    rows = _rows(made, kernel)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32)).contiguous(memory_format=torch.channels_last)
    out, means, variances = norm_pool(rows, scale.flatten(), shift.flatten(), norm.epsilon, sets, pool)
    for count, mean, variance in zip(sets or [len(rows)], means, variances, strict=True):
        tasks = mean.view(-1, len(norm.weight)) * sign, variance.view(-1, len(norm.weight))
        norm.see(*tasks, count * rows.shape[2] * rows.shape[3])
    return _back(out, x, kernel)


def convolved(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """conv2d with padding 1 of images (task, n, c, h, w), by one kernel for all or by one a task."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        x, kernel = (t.to(torch.get_autocast_dtype(device)) for t in (x, kernel))
    if kernel.dim() == 5 and not x.requires_grad and kernel[0, 0].numel() <= FEW:
        return _by_patches(x, kernel, stride)
    rows = _rows(x, kernel).contiguous(memory_format=torch.channels_last)
    laid = kernel.flatten(0, -4).contiguous(memory_format=torch.channels_last)
    if kernel.dim() == 4:
        return _back(F.conv2d(rows, laid, stride=stride, padding=1), x, kernel)
    return _back(_Convolved.apply(rows, laid, _How(stride, len(x))), x, kernel)  # type: ignore[arg-type]


def _by_patches(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """The same as one product of patches and kernels a task, for images of few channels that want no gradient."""
    windows = F.pad(x, (1, 1, 1, 1)).unfold(3, 3, stride).unfold(4, 3, stride)
    tasks, n, _, height, width = windows.shape[:5]
    patches = windows.permute(0, 1, 3, 4, 2, 5, 6).reshape(tasks, n * height * width, -1)
    made = torch.bmm(patches, kernel.flatten(2).transpose(1, 2)).view(tasks, n, height, width, -1)
    # as a grouped convolution gives it, the channels last and side by side
    return _back(made.permute(1, 2, 3, 0, 4).flatten(3).permute(0, 3, 1, 2), x, kernel)


def pooled(x: Tensor, kernel: Tensor) -> Tensor:
    """2x2 max-pool of what the kernel made."""
    return _back(F.max_pool2d(_rows(x, kernel), 2), x, kernel)


def _rows(x: Tensor, kernel: Tensor) -> Tensor:
    """Images in a batch as torch takes them: (task * n, c, h, w), or (n, task * c, h, w) for kernels of each task's own;
    a view of what came from such a one."""
    return x.flatten(0, 1) if kernel.dim() == 4 else x.transpose(0, 1).flatten(1, 2)


def _back(rows: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """`_rows` undone, for tasks and rows as in x."""
    if kernel.dim() == 4:
        return rows.unflatten(0, x.shape[:2])
    return rows.unflatten(1, (len(x), -1)).transpose(0, 1)


class _How(NamedTuple):
    stride: int
    groups: int


class _Convolved(torch.autograd.Function):
    """conv(x, w): x (n, groups * c, h, w), w (groups * o, c, 3, 3)."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, how: _How) -> Tensor:
        return F.conv2d(x, w, stride=how.stride, padding=1, groups=how.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _How], output: Tensor) -> None:
        ctx.how = inputs[2]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (x, w), (g,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dx = _OfInput.apply(g, w, x.shape, ctx.how) if wanted[0] else None
        return dx, _OfKernel.apply(x, g, w.shape, ctx.how) if wanted[1] else None, None


class _OfInput(torch.autograd.Function):
    """The gradient of x: (g, w) -> the dx for which <conv(x, w), g> = <x, dx>."""

    @staticmethod
    def forward(g: Tensor, w: Tensor, shape: torch.Size, how: _How) -> Tensor:
        return _gradient(g, g.new_empty(1).expand(shape), w, how, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[3]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (g, w), (u,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dg = _Convolved.apply(u, w, ctx.how) if wanted[0] else None
        return dg, _OfKernel.apply(u, g, w.shape, ctx.how) if wanted[1] else None, None, None


class _OfKernel(torch.autograd.Function):
    """The gradient of w: (x, g) -> the dw for which <conv(x, w), g> = <w, dw>."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, shape: torch.Size, how: _How) -> Tensor:
        return _gradient(g, x, g.new_empty(1).expand(shape), how, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.how = inputs[3]
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (x, g), (v,), wanted = ctx.saved_tensors, grads, ctx.needs_input_grad
        dx = _OfInput.apply(g, v, x.shape, ctx.how) if wanted[0] else None
        return dx, _Convolved.apply(x, v, ctx.how) if wanted[1] else None, None, None


def _gradient(g: Tensor, x: Tensor, w: Tensor, how: _How, which: int) -> Tensor:
    wanted = [number == which for number in range(3)]
    strides = [how.stride] * 2
    return aten.convolution_backward(g, x, w, None, strides, [1, 1], [1, 1], False, [0, 0], how.groups, wanted)[which]
