"""Blocks of a convolutional network for many tasks at once, which is what keeps a GPU busy.

On a processor tasks take turns, since what one of them holds fits its cache. A GPU waits for whoever starts its
kernels, so here the rows of all tasks are in every one of them: images are (task, n, channels, h, w), laid out with
the channels last, each task with statistics of its own, and with kernels of its own where it has them.

Kernels of each task's own are one batched matrix product of patches and kernels, whose derivatives of every order are
batched products too; those of a grouped convolution are slow.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.nets.norm import ChannelNorm

Pool = Literal["max", "stride"]


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
        return _pooled(torch.relu(norm.at_once(convolved(x, kernel), scale, shift, sets=sets)))
    # the pool keeps what is largest, and so it does after a scale that is not negative: a kernel of the other sign
    # stands in for a negative one, and a quarter of the data is left to normalise
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    made = convolved(x, kernel * sign[..., None, None, None])
    return torch.relu(norm.at_once(made, scale * sign, shift, _pooled(made), sign, sets))


def convolved(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """conv2d with padding 1 of images (task, n, c, h, w), by one kernel for all or by one a task."""
    if kernel.dim() == 4:
        laid = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x.flatten(0, 1), laid, stride=stride, padding=1).unflatten(0, x.shape[:2])
    patches: Tensor = _Patches.apply(x.permute(0, 1, 3, 4, 2), stride)  # type: ignore[assignment]
    tasks, n, height, width = patches.shape[:4]
    matrix = kernel.permute(0, 3, 4, 2, 1).flatten(1, 3)
    made = torch.bmm(patches.view(tasks, n * height * width, -1), matrix)
    return made.view(tasks, n, height, width, -1).permute(0, 1, 4, 2, 3)


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


class _Patches(torch.autograd.Function):
    """What a 3x3 kernel meets: (task, n, h, w, c) -> (task, n, h', w', 3, 3, c), the edges padded with zeros."""

    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        windows = F.pad(x, (0, 0, 1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride)
        return windows.permute(0, 1, 2, 3, 5, 6, 4).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.size, ctx.stride = inputs[0].shape[2:4], inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _Folded.apply(grads[0], ctx.stride, *ctx.size), None


class _Folded(torch.autograd.Function):
    """The transpose: every pixel gets the sum of what stands in its place in all patches."""

    @staticmethod
    def forward(patches: Tensor, stride: int, height: int, width: int) -> Tensor:
        tasks, n, high, wide = patches.shape[:4]
        padded = patches.new_zeros(tasks, n, height + 2, width + 2, patches.shape[-1])
        for i in range(3):
            for j in range(3):
                rows, columns = (slice(at, at + stride * (size - 1) + 1, stride) for at, size in ((i, high), (j, wide)))
                padded[:, :, rows, columns] += patches[:, :, :, :, i, j]
        return padded[:, :, 1:-1, 1:-1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.stride = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _Patches.apply(grads[0], ctx.stride), None, None, None
