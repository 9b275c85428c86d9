"""Batch statistics and 2x2 max-pool in one: the same numbers as one after the other, on a quarter of the data.

Where a channel is scaled by a number that is not negative, the largest of four pixels stays the largest. So the pool
goes first, and only what it keeps is normalised. The gradient of what is kept is sparse, and that of the statistics
is a constant plus a multiple of the pixels, so that the way back is one pass over the map. Written down
here to the second derivative, which torch's own batch norm takes through dozens of passes.

With M rows and pixels to a channel, S the selection of the pool, r = (variance + epsilon)^-1/2, z = (x - mean) r, and
a gradient g of what comes out:

    out = scale S z + shift             db = sum g,  ds = sum g S z
    dx  = scale r (S'g - (db + z ds) / M)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.core.device import on_processor

aten: Any = torch.ops.aten


def norm_pool(
    x: Tensor, scale: Tensor, shift: Tensor, epsilon: float, sets: list[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """max_pool2d(batch_norm(x), 2) with the statistics of x, for scales that are not negative.

    x: (n, channels, h, w); scale, shift: (channels,). sets: how many rows, one after the other, are normalised by
    themselves; all together if None. Returns the result (n, channels, h // 2, w // 2), and the mean
    and the biased variance, (set, channels), through which no gradient goes. Differentiable twice; a third
    derivative raises RuntimeError.
    """
    sets = [len(x)] if sets is None else sets
    out, mean, variance = _NormPool.apply(x, scale, shift, epsilon, sets)[:3]  # type: ignore[index]
    return out, mean, variance


def affine(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor, epsilon: float, out: Tensor | None = None
) -> Tensor:
    """scale z + shift, channel by channel, for given statistics; into `out` if that is given."""
    given = (x, scale, shift, mean, variance, False, 0.0, epsilon)
    if out is None:
        return aten.native_batch_norm(*given)[0]
    none = x.new_empty(0)
    return aten.native_batch_norm.out(*given, out=out, save_mean=none, save_invstd=none)[0]


class _NormPool(torch.autograd.Function):
    """(x, scale, shift, epsilon, sets) -> (out, mean, variance), and what the way back needs."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, epsilon: float, sets: list[int]) -> tuple[Tensor, ...]:
        seen = [aten.batch_norm_update_stats(rows, None, None, 0.0) for rows in x.split(sets)]
        kept, at = F.max_pool2d_with_indices(x, (2, 2))
        if len(sets) == 1:
            mean, variance = seen[0]
            out = affine(kept, mean, variance, scale, shift, epsilon)
        else:  # written where it stays: `cat` takes longer than what it puts together
            out = torch.empty_like(kept)
            for (mean, variance), largest, place in zip(seen, kept.split(sets), out.split(sets), strict=True):
                affine(largest, mean, variance, scale, shift, epsilon, place)
        means, variances = map(torch.stack, zip(*seen, strict=True))
        return out, means, variances, kept, at

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.epsilon, ctx.sets = inputs[3:]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:3], *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None, None, None
        x, scale, shift, mean, variance, kept, at = ctx.saved_tensors
        if torch.is_grad_enabled() and len(ctx.sets) == 1:
            return *_Back.apply(grads[0], x, scale, mean[0], variance[0], kept, at, ctx.epsilon), None, None  # type: ignore[misc]
        if torch.is_grad_enabled():  # a second derivative is wanted, which is written down for one set
            out = torch.cat([norm_pool(rows, scale, shift, ctx.epsilon)[0] for rows in x.split(ctx.sets)])
            return *torch.autograd.grad(out, (x, scale, shift), grads[0], create_graph=True), None, None
        return *_back(grads[0], x, scale, mean, variance, kept, at, ctx.epsilon, ctx.sets), None, None


def _back(
    g: Tensor, x: Tensor, scale: Tensor, means: Tensor, variances: Tensor, kept: Tensor, at: Tensor, epsilon: float,
    sets: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx in channels_last, ds and db; the statistics are those of each set."""
    dx, wanted = room(x.shape, x), [True, True, True]
    given = zip(g.split(sets), kept.split(sets), means, variances, strict=True)
    scaled, of_scale, of_shift = zip(*(_sums(d, k, scale, m, v, epsilon, wanted) for d, k, m, v in given), strict=True)
    ds, db = torch.stack(of_scale), torch.stack(of_shift)
    slope, rest = through_statistics(ds, db, scale, variances, epsilon, per_channel(x, sets))
    rest = rest.addcmul_(slope, means, value=-1)
    parts = zip(dx.split(sets), x.split(sets), scaled, at.split(sets), slope, rest, strict=True)
    for place, rows, largest, taken, factor, added in parts:
        torch.addcmul(_column(added), rows, _column(factor), out=place)
        _scatter(place, largest, taken)
    return dx, ds.sum(0), db.sum(0)


class _Back(torch.autograd.Function):
    """(g, x, scale, ...) -> (dx, ds, db). What is beside x and scale counts as functions of x."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, variance: Tensor, kept: Tensor, at: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _back(g, x, scale, mean.unsqueeze(0), variance.unsqueeze(0), kept, at, epsilon, [len(x)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.epsilon = inputs[7]
        ctx.save_for_backward(*inputs[:7], *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # as arguments, so that once_differentiable sees that they have a graph behind them
        return *_second(ctx, *grads, *ctx.saved_tensors), None, None, None, None, None


@once_differentiable
def _second(
    ctx: Any, u: Tensor, u_s: Tensor, u_b: Tensor, g: Tensor, x: Tensor, scale: Tensor, mean: Tensor,
    variance: Tensor, kept: Tensor, at: Tensor, ds: Tensor, db: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradient of <u, dx> + u_s ds + u_b db with respect to g, x and scale."""
    size, r = x.numel() // x.shape[1], (variance + ctx.epsilon).rsqrt_()
    picked = _image(pixels(u).gather(1, pixels(at)), kept)
    _, along, total = _sums(u, x, None, mean, variance, ctx.epsilon, [False, True, True])
    along, total = along / size, total / size
    inner = (picked * g).sum((0, 2, 3)) - db * total - ds * along
    factor = scale * r
    of_z = u_s - factor * along
    dg = affine(kept, mean, variance, of_z, u_b - factor * total, ctx.epsilon).addcmul_(picked, _column(factor))
    # dx = of_u u + of_x (x - mean) + of_g S'g + rest, a number a channel each
    share = ds / size
    of_x = (factor * (2 * share * along - inner / size) - u_s * share) * r * r
    rest = r * (factor * share * total - of_z * db / size)
    dx = torch.addcmul(_column(rest - of_x * mean), x, _column(of_x))
    dx.addcmul_(u, _column(factor * r * share), value=-1)
    return dg, _scatter(dx, g * _column(r * of_z), at), r * inner


def through_statistics(
    ds: Tensor, db: Tensor, scale: Tensor, variances: Tensor, epsilon: float, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of x through the statistics of each set, slope (x - mean) + rest: both (set, channels).

    sizes: how many rows and pixels there are to a channel of each set, (set, 1).
    """
    r = (variances + epsilon).rsqrt_()
    share = (scale * r).div_(-sizes)
    return share * ds * r, share * db


def _sums(
    g: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """scale r g, sum g z and sum g; the scale is 1 if None."""
    saved = None
    if not on_processor(x):  # there, torch wants to be told that nothing was saved, and gives no sums without a scale
        saved, scale = x.new_empty(0), torch.ones_like(mean) if scale is None else scale
    return aten.native_batch_norm_backward(g, x, scale, mean, variance, saved, saved, False, epsilon, wanted)


def _scatter(x: Tensor, g: Tensor, at: Tensor) -> Tensor:
    """x with g added where the pool took it from; in place if x is in channels_last."""
    return _image(pixels(x).scatter_add_(1, pixels(at), pixels(g)), x)


def room(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor in channels_last, not filled; of the type of `like` unless told otherwise."""
    return torch.empty(
        tuple(shape), dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last
    )


def pixels(x: Tensor) -> Tensor:
    """(n, channels, h, w) as (n, h * w, channels): a view of what is in channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(pixels: Tensor, like: Tensor) -> Tensor:
    return pixels.view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _column(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def per_channel(x: Tensor, sets: Sequence[int]) -> Tensor:
    """How many rows and pixels there are to a channel of each set of (n, channels, h, w), (set, 1)."""
    # filled where x is: what comes from elsewhere is not recorded on a GPU
    sizes = [x.new_full((1, 1), n * x.shape[2] * x.shape[3]) for n in sets]
    return sizes[0] if len(sizes) == 1 else torch.cat(sizes)
