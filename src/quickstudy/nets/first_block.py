"""The first block of a convolutional network: convolution, batch statistics and 2x2 max-pool, a few images at a time.

Its map is the largest of all, 64 times the image where that has one channel, and nothing before it wants a gradient.
So a few images go through at a time and their map is not kept, which takes no longer: the way back needs what the
pool took, and for the statistics how the pixels of a patch go together,

    dkernel = sum over what the pool took of g x patch + slope C kernel + rest S

with S the sum of all patches, C their scatter around the mean, (c * 9, c * 9), and slope and rest as in norm_pool.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.device import on_processor
from quickstudy.nets.norm_pool import affine, aten, norm_pool, per_channel, room, sums, through_statistics

CACHED = 2**20
"""Numbers of the map that are made at a time: no more than a processor's cache holds."""


def in_parts(images: Tensor, kernel: Tensor) -> bool:
    """Whether `first_block` can stand for the plain way and saves memory: on a processor, where nothing before the
    images wants a gradient, patches are smaller than what is made of them, and the map is larger than its parts."""
    plain = images.requires_grad or not on_processor(images) or kernel[0].numel() > len(kernel)
    return not plain and len(images) > _at_a_time(images, kernel)


def first_block(
    images: Tensor, kernel: Tensor, scale: Tensor, shift: Tensor, epsilon: float, sets: list[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """norm_pool(conv2d(images, kernel, padding=1), scale, shift, epsilon, sets) for images that want no gradient.

    images: (n, c, h, w); kernel: (channels, c, 3, 3). sets: how many images, one after the other, are normalised by
    themselves; all together if None. Returns the result (n, channels, h // 2, w // 2), and the mean
    and the biased variance, (set, channels), through which no gradient goes. Differentiable as often as norm_pool is.
    """
    sets = [len(images)] if sets is None else sets
    out, mean, variance = _FirstBlock.apply(images, kernel, scale, shift, epsilon, sets)[:3]  # type: ignore[index]
    return out, mean, variance


class _FirstBlock(torch.autograd.Function):
    """(images, kernel, scale, shift, epsilon, sets) -> (out, mean, variance), and what the way back needs."""

    @staticmethod
    def forward(
        images: Tensor, kernel: Tensor, scale: Tensor, shift: Tensor, epsilon: float, sets: list[int]
    ) -> tuple[Tensor, ...]:
        size, (height, width) = _at_a_time(images, kernel), images.shape[2:]
        kept, out = (room((len(images), len(kernel), height // 2, width // 2), images) for _ in range(2))
        seen, taken = [], []
        for rows, largest, place in zip(images.split(sets), kept.split(sets), out.split(sets), strict=True):
            parts, stats = rows.split(size), []
            for few, few_largest in zip(parts, largest.split(size), strict=True):
                x = _convolve(few, kernel)
                stats.append(aten.batch_norm_update_stats(x, None, None, 0.0))
                taken.append(room(few_largest.shape, images, torch.long))
                aten.max_pool2d_with_indices.out(x, [2, 2], out=few_largest, indices=taken[-1])
            mean, variance = _together(parts, *map(torch.stack, zip(*stats, strict=True)))
            affine(largest, mean, variance, scale, shift, epsilon, place)
            seen.append((mean, variance))
        means, variances = map(torch.stack, zip(*seen, strict=True))
        return out, means, variances, kept, *taken

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.epsilon, ctx.sets = inputs[4:]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:4], *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None, None, None
        images, kernel, scale, shift, mean, variance, kept, *taken = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: that of the plain way is written down
            out = norm_pool(_convolve(images, kernel), scale, shift, ctx.epsilon, ctx.sets)[0]
            found = torch.autograd.grad(out, (kernel, scale, shift), grads[0], create_graph=True)
            return None, *found, None, None
        dkernel, ds, db = (torch.zeros_like(t) for t in (kernel, scale, shift))
        size, places = _at_a_time(images, kernel), iter(taken)
        split = (t.split(ctx.sets) for t in (images, grads[0], kept))
        for rows, g, largest, m, v in zip(*split, mean, variance, strict=True):
            scaled, of_scale, of_shift = sums(g, largest, scale, m, v, ctx.epsilon, [True, True, True])
            ds += of_scale
            db += of_shift
            total, scatter = _patches(rows, size)
            slope, rest = through_statistics(of_scale, of_shift, scale, v, ctx.epsilon, per_channel(rows))
            dkernel += torch.outer(rest, total).addmm_(slope.unsqueeze(1) * kernel.flatten(1), scatter).view_as(kernel)
            for few, few_scaled in zip(rows.split(size), scaled.split(size), strict=True):
                dx = F.max_unpool2d(few_scaled, next(places), [2, 2], output_size=images.shape[2:])
                dkernel += aten.convolution_backward(
                    dx, few, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )[1]
        return None, dkernel, ds, db, None, None


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(images, kernel, padding=1)


def _at_a_time(images: Tensor, kernel: Tensor) -> int:
    return max(1, CACHED // (len(kernel) * images.shape[2] * images.shape[3]))


def _together(parts: Sequence[Tensor], means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of all rows from those of parts of them, (part, channels)."""
    if len(parts) == 1:
        return means[0], variances[0]
    share = means.new_tensor([[len(rows)] for rows in parts]) / sum(map(len, parts))
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


def _patches(images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The sum of all patches that a kernel meets, (c * 9,), and their scatter around the mean, (c * 9, c * 9)."""
    channels, even = images.shape[1], images.shape[2] % 2 == images.shape[3] % 2 == 0
    # four patches lie in a window of 4 x 4, which has less than half of their numbers
    step, side = (2, 4) if even else (1, 3)
    near = images.mean((0, 2, 3))  # without which the difference of two large numbers would be left
    total, products = near.new_zeros(channels * side**2), near.new_zeros(channels * side**2, channels * side**2)
    for few in images.split(size):
        padded = F.pad(few, (1, 1, 1, 1)).sub_(near.view(-1, 1, 1))
        windows = padded.unfold(2, side, step).unfold(3, side, step).permute(0, 2, 3, 1, 4, 5).reshape(-1, len(total))
        products.addmm_(windows.T, windows)
        total += windows.sum(0)
    numbers, pairs = total.view(channels, side, side), products.view(2 * (channels, side, side))
    places = [(slice(None), slice(i, i + 3), slice(j, j + 3)) for i in range(step) for j in range(step)]
    total = torch.stack([numbers[place] for place in places]).sum(0).flatten()
    products = torch.stack([pairs[place + place] for place in places]).sum(0).view(len(total), -1)
    size = per_channel(images)
    return total + size * near.repeat_interleave(9), products.addr_(total, total, alpha=-1 / size)
