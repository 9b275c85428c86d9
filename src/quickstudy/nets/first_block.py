"""The first block of a convolutional network, from convolution to 2x2 max-pool, a few images at a time.

Its map is the largest of all, 64 times the image where that has one channel, and nothing before it wants a gradient.
So a few images go through at a time and their map is not kept. What it would be looked at for follows from how the
pixels of a patch go together: with S the sum of all M patches, C their scatter around the mean, (c * 9, c * 9), and
slope and rest as in norm_pool.py,

    mean = kernel S / M             variance = kernel C kernel / M
    dkernel = sum over what the pool took of g x patch + slope C kernel + rest S
"""

from __future__ import annotations

from functools import cache
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
    """relu(norm_pool(conv2d(images, kernel, padding=1), scale, shift, epsilon, sets)) for images that want no gradient.

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
        taken, small = [], torch.int16 if height * width < 2**15 else torch.int32  # the pool's own are of 8 bytes
        for few, largest in zip(*(_split(t, sets, size) for t in (images, kept)), strict=True):
            at = room(largest.shape, images, torch.long)
            aten.max_pool2d_with_indices.out(_convolve(few, kernel), [2, 2], out=largest, indices=at)
            taken.append(at.to(small))
        totals, scatters = _patches(images, sets)
        sizes, flat = per_channel(images, sets), kernel.flatten(1).to(totals.dtype)
        means = (totals @ flat.T / sizes).to(kernel.dtype)
        variances = ((flat @ scatters * flat).sum(2) / sizes).clamp_min_(0).to(kernel.dtype)
        for rows, place, mean, variance in zip(kept.split(sets), out.split(sets), means, variances, strict=True):
            for few, part in zip(rows.split(2 * size), place.split(2 * size), strict=True):
                affine(few, mean, variance, scale, shift, epsilon, part).relu_()
        return out, means, variances, kept, totals, scatters, *taken

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.epsilon, ctx.sets = inputs[4:]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:4], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None, None, None
        images, kernel, scale, shift, out, means, variances, kept, totals, scatters, *taken = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: that of the plain way is written down
            plain = torch.relu(norm_pool(_convolve(images, kernel), scale, shift, ctx.epsilon, ctx.sets)[0])
            found = torch.autograd.grad(plain, (kernel, scale, shift), grads[0], create_graph=True)
            return None, *found, None, None
        ds, db, sparse = (t.new_zeros(len(ctx.sets), *t.shape) for t in (scale, shift, kernel))
        size, places = _at_a_time(images, kernel), iter(taken)
        split = (t.split(ctx.sets) for t in (images, grads[0], out, kept))
        by_set = zip(*split, means, variances, ds, db, sparse, strict=True)
        for *rows, mean, variance, of_scale, of_shift, of_kernel in by_set:
            for few, g, given, largest in zip(*(t.split(size) for t in rows), strict=True):
                g = aten.threshold_backward(g, given, 0)
                found = sums(g, largest, scale, mean, variance, ctx.epsilon, [False, True, True])
                of_scale += found[1]
                of_shift += found[2]
                dx = F.max_unpool2d(g, next(places).long(), [2, 2], output_size=images.shape[2:])
                of_kernel += aten.convolution_backward(
                    dx, few, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )[1]
        slope, rest = through_statistics(ds, db, scale, variances, ctx.epsilon, per_channel(images, ctx.sets))
        factor = (scale * (variances + ctx.epsilon).rsqrt_()).unsqueeze(2)
        through = slope.unsqueeze(2) * (kernel.flatten(1).to(scatters.dtype) @ scatters)
        through += rest.unsqueeze(2) * totals.unsqueeze(1)
        dkernel = (factor * sparse.flatten(2) + through).sum(0).to(kernel.dtype).view_as(kernel)
        return None, dkernel, ds.sum(0), db.sum(0), None, None


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(images, kernel, padding=1)


def _split(t: Tensor, sets: list[int], size: int) -> list[Tensor]:
    """The rows of each set, at most `size` at a time."""
    return [few for rows in t.split(sets) for few in rows.split(size)]


def _at_a_time(images: Tensor, kernel: Tensor) -> int:
    return max(1, CACHED // (len(kernel) * images.shape[2] * images.shape[3]))


def _patches(images: Tensor, sets: list[int]) -> tuple[Tensor, Tensor]:
    """The sum of all patches that a kernel meets, (set, c * 9), and their scatter around the mean, (set, c * 9, c * 9).

    Summed in double precision, image by image: few pixels decide what an edge is.
    """
    channels, (height, width) = images.shape[1], images.shape[2:]
    # four patches lie in a window of 4 x 4, which has less than half of their numbers
    step, side = (2, 4) if height % 2 == width % 2 == 0 else (1, 3)
    numbers = channels * side * side
    near = images.mean((0, 2, 3))  # without which the difference of two large numbers would be left
    found = []
    for few in images.split(max(1, CACHED // (numbers * (height // step) * (width // step)))):
        padded = F.pad(few, (1, 1, 1, 1)).sub_(near.view(-1, 1, 1))
        windows = padded.unfold(2, side, step).unfold(3, side, step).permute(0, 2, 3, 1, 4, 5)
        flat = windows.reshape(len(few), -1, numbers)
        found.append((flat.sum(1), flat.mT @ flat))
    at, sizes = _in_window(channels, side, step), per_channel(images, sets).double()
    by_image = (torch.cat(of).double() for of in zip(*found, strict=True))
    totals, products = (torch.stack([rows.sum(0) for rows in of.split(sets)]) for of in by_image)
    totals = totals[:, at].sum(1)
    scatters = products[:, at.unsqueeze(2), at.unsqueeze(1)].sum(1)
    scatters -= totals.unsqueeze(2) * totals.unsqueeze(1) / sizes.unsqueeze(2)
    return totals + sizes * near.repeat_interleave(9), scatters


@cache
def _in_window(channels: int, side: int, step: int) -> Tensor:
    """Where the numbers of each patch of a window stand among those of the window, (patch, channels * 9)."""
    numbers = torch.arange(channels * side * side).view(channels, side, side)
    shifts = [(i, j) for i in range(step) for j in range(step)]
    return torch.stack([numbers[:, i : i + 3, j : j + 3].flatten() for i, j in shifts])
