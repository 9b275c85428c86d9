"""The first block of a convolutional network: convolution, batch statistics and 2x2 max-pool, a few images at a time.

Its map is the largest of all, 64 times the image where that has one channel, and nothing before it wants a gradient.
So a few images go through at a time and their map is not kept, which takes no longer: the way back needs what the
pool took, and for the statistics how the pixels of a patch go together,

    dkernel = sum over what the pool took of g x patch + slope C kernel + rest S

with S the sum of all patches, C their scatter around the mean, (c * 9, c * 9), and slope and rest as in norm_pool.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.nets.norm_pool import affine, aten, norm_pool, per_channel, sums, through_statistics

CACHED = 2**20
"""Numbers of the map that are made at a time: no more than a processor's cache holds."""


def in_parts(images: Tensor, kernel: Tensor) -> bool:
    """Whether `first_block` can stand for the plain way and saves memory: on a processor, where nothing before the
    images wants a gradient, patches are smaller than what is made of them, and the map is larger than its parts."""
    plain = images.requires_grad or images.is_cuda or kernel[0].numel() > len(kernel)
    return not plain and len(images) > _at_a_time(images, kernel)


def first_block(
    images: Tensor, kernel: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """norm_pool(conv2d(images, kernel, padding=1), scale, shift, epsilon) for images that want no gradient.

    images: (n, c, h, w); kernel: (channels, c, 3, 3). Returns the result (n, channels, h // 2, w // 2), and the mean
    and the biased variance, (channels,), through which no gradient goes. Differentiable as often as norm_pool is.
    """
    out, mean, variance = _FirstBlock.apply(images, kernel, scale, shift, epsilon)[:3]  # type: ignore[index]
    return out, mean, variance


class _FirstBlock(torch.autograd.Function):
    """(images, kernel, scale, shift, epsilon) -> (out, mean, variance), and what the way back needs."""

    @staticmethod
    def forward(images: Tensor, kernel: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> tuple[Tensor, ...]:
        seen, taken = [], []
        size = _at_a_time(images, kernel)
        shape = (len(kernel), images.shape[2] // 2, images.shape[3] // 2)
        kept = _room(len(images), shape, images, images.dtype)
        for few, largest in zip(images.split(size), kept.split(size), strict=True):
            x = _convolve(few, kernel)
            seen.append(aten.batch_norm_update_stats(x, None, None, 0.0))
            taken.append(_room(len(few), shape, images, torch.long))
            aten.max_pool2d_with_indices.out(x, [2, 2], out=largest, indices=taken[-1])
        mean, variance = _together([len(at) for at in taken], *map(torch.stack, zip(*seen, strict=True)))
        return affine(kept, mean, variance, scale, shift, epsilon), mean, variance, kept, *taken

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.epsilon = inputs[4]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:4], *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None, None
        images, kernel, scale, shift, mean, variance, kept, *taken = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: that of the plain way is written down
            out = norm_pool(_convolve(images, kernel), scale, shift, ctx.epsilon)[0]
            found = torch.autograd.grad(out, (kernel, scale, shift), grads[0], create_graph=True)
            return None, *found, None
        scaled, ds, db = sums(grads[0], kept, scale, mean, variance, ctx.epsilon, [True, True, True])
        total, scatter = _patches(images, kernel)
        slope, rest = through_statistics(ds, db, scale, variance, ctx.epsilon, per_channel(images))
        dkernel = torch.outer(rest, total).addmm_(slope.unsqueeze(1) * kernel.flatten(1), scatter).view_as(kernel)
        size = _at_a_time(images, kernel)
        for few, g, at in zip(images.split(size), scaled.split(size), taken, strict=True):
            dx = F.max_unpool2d(g, at, [2, 2], output_size=images.shape[2:])
            dkernel += aten.convolution_backward(
                dx, few, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1]
        return None, dkernel, ds, db, None


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(images, kernel, padding=1)


def _room(rows: int, shape: tuple[int, int, int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, *shape), in channels_last, not filled."""
    return torch.empty((rows, *shape), dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _at_a_time(images: Tensor, kernel: Tensor) -> int:
    return max(1, CACHED // (len(kernel) * images.shape[2] * images.shape[3]))


def _together(rows: list[int], means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of all rows from those of parts of them, (part, channels)."""
    share = means.new_tensor(rows).unsqueeze(1) / sum(rows)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


def _patches(images: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of all patches that the kernel meets, (c * 9,), and their scatter around the mean, (c * 9, c * 9)."""
    channels, even = images.shape[1], images.shape[2] % 2 == images.shape[3] % 2 == 0
    # four patches lie in a window of 4 x 4, which has less than half of their numbers
    step, side = (2, 4) if even else (1, 3)
    near = images.mean((0, 2, 3))  # without which the difference of two large numbers would be left
    total, products = near.new_zeros(channels * side**2), near.new_zeros(channels * side**2, channels * side**2)
    for few in images.split(_at_a_time(images, kernel)):
        padded = F.pad(few, (1, 1, 1, 1)).sub_(near.view(-1, 1, 1))
        windows = padded.unfold(2, side, step).unfold(3, side, step).permute(0, 2, 3, 1, 4, 5).reshape(-1, len(total))
        products.addmm_(windows.T, windows)
        total += windows.sum(0)
    numbers = torch.arange(len(total)).view(channels, side, side)
    patches = [numbers[:, i : i + 3, j : j + 3].flatten() for i in range(step) for j in range(step)]
    total = torch.stack([total[p] for p in patches]).sum(0)
    products = torch.stack([products[p][:, p] for p in patches]).sum(0)
    size = per_channel(images)
    return total + size * near.repeat_interleave(9), products - torch.outer(total, total) / size
