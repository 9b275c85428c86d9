"""The first block of a convolutional network, from convolution to 2x2 max-pool, without its map.

The map is the largest of all, 64 times the image where that has one channel, and nothing before it wants a gradient.
The four pixels of it that the pool looks at come from one window of 4 x 4 of the image: four products of matrices,
with the kernel in four places of the window, a few windows at a time. What the whole map would be looked at for
follows from how the pixels of a patch go together: with S the sum of all M patches, C their scatter around the mean,
(c * 9, c * 9), and r, slope and rest as in norm_pool.py,

    mean = kernel S / M             variance = kernel C kernel / M
    dkernel = scale r P + slope C kernel + rest S       P = sum over what the pool took of g x patch
    ds = r (kernel P - mean db)                         as what the pool took is the kernel's product with its patch
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.device import on_processor
from quickstudy.nets.norm_pool import aten, norm_pool, per_channel, pixels, room, through_statistics

CACHED = 2**19
"""Numbers of the map that a thread makes at a time: no more than its cache holds."""


def in_parts(images: Tensor, kernel: Tensor) -> bool:
    """Whether `first_block` can stand for the plain way and saves memory: on a processor, where nothing before the
    images wants a gradient, patches are smaller than what is made of them, and the map is larger than its parts."""
    plain = images.requires_grad or not on_processor(images) or kernel[0].numel() > len(kernel)
    return not plain and images[:, 0].numel() * len(kernel) > CACHED


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
        # what all pixels have in common changes nothing behind a norm but rounding, which it makes worse
        near = images.mean((0, 2, 3))
        windows, totals, scatters = _patches(images, near, sets)
        flat, sizes = kernel.flatten(1).to(totals.dtype), per_channel(images, sets)
        means = totals @ flat.T / sizes
        variances = ((flat @ scatters * flat).sum(2) / sizes).clamp_min_(0)
        factors = scale * (variances + epsilon).rsqrt_()
        shifts = (shift - factors * means).to(kernel.dtype)
        out = room((len(images), len(kernel), images.shape[2] // 2, images.shape[3] // 2), images)
        size, places = _at_a_time(kernel), _placed(kernel)
        made = kernel.new_empty(4, size, len(kernel))
        parts = (t.split(_windows_of(sets, images)) for t in (windows, _rows(out)))
        for rows, place, factor, added in zip(*parts, factors.to(kernel.dtype), shifts, strict=True):
            scaled = places * factor
            for few, largest in zip(rows.split(size), place.split(size), strict=True):
                first, second, third, fourth = _products(few, scaled, made)
                torch.maximum(first, second, out=first)
                torch.maximum(third, fourth, out=third)
                torch.add(torch.maximum(first, third, out=first), added, out=largest).relu_()
        means += flat @ near.repeat_interleave(9).to(flat.dtype)
        return out, means.to(kernel.dtype), variances.to(kernel.dtype), windows, totals, scatters

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
        images, kernel, scale, shift, out, _, variances, windows, totals, scatters = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: that of the plain way is written down
            plain = torch.relu(norm_pool(F.conv2d(images, kernel, padding=1), scale, shift, ctx.epsilon, ctx.sets)[0])
            found = torch.autograd.grad(plain, (kernel, scale, shift), grads[0], create_graph=True)
            return None, *found, None, None
        taken, db = _taken(grads[0], out, windows, kernel, _windows_of(ctx.sets, images))
        flat, sizes = kernel.flatten(1).to(totals.dtype), per_channel(images, ctx.sets)
        r = (variances + ctx.epsilon).rsqrt_()
        ds = r * ((taken * flat).sum(2) - totals @ flat.T / sizes * db).to(kernel.dtype)
        slope, rest = through_statistics(ds, db, scale, variances, ctx.epsilon, sizes)
        through = slope.unsqueeze(2) * (flat @ scatters) + rest.unsqueeze(2) * totals.unsqueeze(1)
        dkernel = (taken * (scale * r).unsqueeze(2) + through).sum(0).to(kernel.dtype).view_as(kernel)
        return None, dkernel, ds.sum(0), db.sum(0), None, None


def _taken(g: Tensor, out: Tensor, windows: Tensor, kernel: Tensor, sets: list[int]) -> tuple[Tensor, Tensor]:
    """P, (set, channels, c * 9), and db, (set, channels), where the ReLU let something through."""
    size, places, channels = _at_a_time(kernel), _placed(kernel), len(kernel)
    differences = torch.stack([places[1] - places[0], places[3] - places[2], places[2] - places[0]])
    db = kernel.new_zeros(len(sets), channels)
    products = kernel.new_zeros(len(sets), 4, windows.shape[1], channels)
    made, gs = (kernel.new_empty(k, size, channels) for k in (3, 4))
    g = g.contiguous(memory_format=torch.channels_last)
    parts = (t.split(sets) for t in (windows, _rows(g), _rows(out)))
    for *rows, of_shift, of_windows in zip(*parts, db, products, strict=True):
        for few, g_few, out_few in zip(*(t.split(size) for t in rows), strict=True):
            right, lower_right, lower = _products(few, differences, made)  # than what stands left of it, or above
            every, below, beside, across = by_place = gs[:, : len(few)]
            _where_positive(g_few, out_few, every)
            of_shift += every.sum(0)
            # the lower row has the largest where its larger pixel is larger than that of the upper row
            _where_positive(every, lower.add_(lower_right.relu_()).sub_(right.relu_()), below)
            _where_positive(torch.sub(every, below, out=beside), right, beside)
            _where_positive(below, lower_right, across)
            of_windows += torch.bmm(few.T.expand(4, -1, -1), by_place)
    every, below, beside, across = products.mT.unbind(1)
    by_place = torch.stack([every - below - beside, beside, below - across, across], 1)
    at = _in_window(kernel.shape[1], 4, 2).unsqueeze(1).expand(len(sets), 4, channels, -1)
    return by_place.gather(3, at).sum(1), db


def _where_positive(g: Tensor, x: Tensor, out: Tensor) -> None:
    """g where x is positive, 0 elsewhere."""
    aten.threshold_backward.grad_input(g, x, 0, grad_input=out)


def _at_a_time(kernel: Tensor) -> int:
    """How many windows."""
    return max(1, torch.get_num_threads() * CACHED // (4 * len(kernel)))


def _windows_of(sets: list[int], images: Tensor) -> list[int]:
    """How many windows the images of each set have."""
    return [n * (images.shape[2] // 2) * (images.shape[3] // 2) for n in sets]


def _rows(x: Tensor) -> Tensor:
    """(n, channels, h, w) in channels_last as (n * h * w, channels): a view."""
    return pixels(x).flatten(0, 1)


def _products(windows: Tensor, places: Tensor, made: Tensor) -> Tensor:
    """(windows, numbers) times (k, numbers, channels): (k, windows, channels), written into what was made for it."""
    return torch.bmm(windows.expand(len(places), -1, -1), places, out=made[:, : len(windows)])


def _placed(kernel: Tensor) -> Tensor:
    """The kernel in its four places of a window, row by row, (4, c * 16, channels)."""
    at = _in_window(kernel.shape[1], 4, 2).unsqueeze(2).expand(-1, -1, len(kernel))
    empty = kernel.new_zeros(4, 16 * kernel.shape[1], len(kernel))
    return empty.scatter_(1, at, kernel.flatten(1).T.expand(4, -1, -1))


def _patches(images: Tensor, near: Tensor, sets: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The windows that the pool looks at, (n * h // 2 * w // 2, c * 16); of all patches that a kernel meets, the sum
    (set, c * 9) and the scatter around the mean (set, c * 9, c * 9): all of pixels less `near`, (c,).

    Summed in double precision, image by image: few pixels decide what an edge is.
    """
    n, channels, height, width = images.shape
    padded = images.new_zeros(n, height + 2, width + 2, channels)
    padded[:, 1:-1, 1:-1] = images.permute(0, 2, 3, 1)
    padded -= near
    windows = _windows(padded, 4, 2)
    # four patches lie in a window, which has less than half of their numbers; what is odd has patches beside
    side, step, every = 4, 2, [windows]
    if height % 2 or width % 2:
        numbers = 9 * channels * height * width
        side, step, every = 3, 1, (_windows(few, 3, 1) for few in padded.split(max(1, CACHED // numbers)))
    found = [(flat.sum(1), flat.mT @ flat) for flat in every]
    at, sizes = _in_window(channels, side, step), per_channel(images, sets).double()
    by_image = (torch.cat(of).double() for of in zip(*found, strict=True))
    totals, products = (torch.stack([rows.sum(0) for rows in of.split(sets)]) for of in by_image)
    totals = totals[:, at].sum(1)
    scatters = products[:, at.unsqueeze(2), at.unsqueeze(1)].sum(1)
    scatters -= totals.unsqueeze(2) * totals.unsqueeze(1) / sizes.unsqueeze(2)
    return windows.flatten(0, 1), totals, scatters


def _windows(padded: Tensor, side: int, step: int) -> Tensor:
    """All windows of (n, h, w, c), `step` apart: (n, windows, side * side * c)."""
    windows = padded.unfold(1, side, step).unfold(2, side, step).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(len(padded), -1, side * side * padded.shape[3])


@cache
def _in_window(channels: int, side: int, step: int) -> Tensor:
    """Where the numbers of each patch of a window stand among those of the window, (patch, channels * 9)."""
    numbers = torch.arange(side * side * channels).view(side, side, channels).permute(2, 0, 1)
    shifts = [(i, j) for i in range(step) for j in range(step)]
    return torch.stack([numbers[:, i : i + 3, j : j + 3].flatten() for i, j in shifts])
