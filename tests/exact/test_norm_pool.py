"""Batch statistics and max-pool in one: against torch's own two, to the second derivative."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.nets import first_block as parts
from quickstudy.nets.first_block import first_block, in_parts
from quickstudy.nets.norm import ChannelNorm, Norm, average, collect
from quickstudy.nets.norm_pool import norm_pool

EPSILON = 0.1
SHAPES = [(3, 4, 6, 6), (2, 3, 7, 5), (1, 2, 3, 3), (5, 1, 2, 2)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    x = (2 + 3 * noise(*shape)).to(memory_format=torch.channels_last)
    scale, shift = 0.2 + noise(shape[1], seed=1).abs(), noise(shape[1], seed=2)
    return x.requires_grad_(), scale.requires_grad_(), shift.requires_grad_()


def apart(x: Tensor, scale: Tensor, shift: Tensor, sets: list[int] | None = None) -> Tensor:
    """One after the other, from plain operations: torch.batch_norm is what this is compared with elsewhere."""
    if sets is not None:
        return torch.cat([apart(rows, scale, shift) for rows in x.split(sets)])
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    z = (x - mean) * (variance + EPSILON).rsqrt()
    return F.max_pool2d(z * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), 2)


def together(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return norm_pool(x, scale, shift, EPSILON)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_statistics_and_both_derivatives(shape: tuple[int, ...]) -> None:
    leaves = inputs(shape)
    found, expected = together(*leaves), apart(*leaves)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    _, mean, variance = norm_pool(*leaves, EPSILON)
    torch.testing.assert_close(mean[0], leaves[0].mean((0, 2, 3)), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(variance[0], leaves[0].var((0, 2, 3), correction=0), rtol=1e-12, atol=1e-13)

    def derivatives(out: Tensor) -> list[Tensor]:
        pull = noise(*out.shape, seed=3).requires_grad_()
        first = torch.autograd.grad(out, leaves, pull, create_graph=True)
        pulled = sum((g * noise(*g.shape, seed=4 + i)).sum() for i, g in enumerate(first))
        return [*first, *torch.autograd.grad(pulled, [*leaves[:2], pull])]  # type: ignore[arg-type]

    for a, b in zip(derivatives(found), derivatives(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_finite_differences_agree() -> None:
    leaves = inputs((2, 3, 5, 4))
    assert torch.autograd.gradcheck(together, leaves)
    assert torch.autograd.gradgradcheck(together, leaves)


@pytest.mark.parametrize("graph", [False, True])
def test_sets_of_rows_are_normalised_by_themselves(graph: bool) -> None:
    leaves, sets = inputs((6, 3, 7, 4)), [2, 1, 3]
    found, mean, variance = norm_pool(*leaves, EPSILON, sets)
    expected = apart(*leaves, sets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for rows, m, v in zip(leaves[0].split(sets), mean, variance, strict=True):
        torch.testing.assert_close(m, rows.mean((0, 2, 3)), rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(v, rows.var((0, 2, 3), correction=0), rtol=1e-12, atol=1e-13)
    pull = noise(*found.shape, seed=3)
    grads = [torch.autograd.grad(out, leaves, pull, create_graph=graph) for out in (found, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    if graph:
        along = [noise(*g.shape, seed=5 + i) for i, g in enumerate(grads[0])]
        for a, b in zip(*(torch.autograd.grad(first, leaves[:2], along) for first in grads), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_third_derivative_is_refused() -> None:
    x, scale, shift = inputs((2, 2, 4, 4))
    (first,) = torch.autograd.grad(together(x, scale, shift).pow(3).sum(), scale, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), scale, create_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        second.sum().backward()


@pytest.mark.parametrize("norm", ["batch", "running", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_pools_what_it_normalises(norm: Norm, training: bool) -> None:
    """Scales of both signs and zero; several tasks side by side; what running norms hand over."""
    layer, tasks = ChannelNorm(8, norm).double().train(training), 2
    if norm == "running":
        layer.mean.copy_(noise(8, seed=8))
        layer.variance.copy_(0.5 + noise(8, seed=9).abs())
    rows, kernel = noise(3, tasks, 7, 6), noise(8 * tasks, 1, 3, 3, seed=1).requires_grad_()
    weight, bias = noise(8 * tasks, seed=2), noise(8 * tasks, seed=3).requires_grad_()
    weight[3] = 0.0
    leaves = [kernel, weight.requires_grad_(), bias]

    with collect() as seen:
        found = layer.pooled(rows, kernel, weight, bias, tasks)
    with collect() as expected_seen:
        convolved = F.conv2d(rows, kernel, padding=1, groups=tasks)
        expected = F.max_pool2d(layer.normalised(convolved, weight, bias).relu(), 2)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    for (_, a), (_, b) in zip(average(seen), average(expected_seen), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    pull = noise(*found.shape, seed=7)
    grads = [torch.autograd.grad((out * pull).sum(), leaves) for out in (found, expected)]
    for a, b in zip(*grads, strict=True):
        # where a scale is 0 all pixels are equal, and which of them the pool takes is anyone's choice
        keep = weight.detach() != 0
        torch.testing.assert_close(a[keep], b[keep], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("side", [(6, 6), (7, 5), (6, 7)])
@pytest.mark.parametrize("sets", [None, [1, 6]])
def test_the_first_block_in_parts_is_the_whole(
    channels: int, side: tuple[int, int], sets: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not quite three images at a time, then what is left; far from zero, where the sums of squares are large."""
    monkeypatch.setattr(parts, "CACHED", (3 * side[0] * side[1] - 4) * 20 // torch.get_num_threads())
    images = (40 + noise(7, channels, *side)).to(memory_format=torch.channels_last)
    kernel = noise(20, channels, 3, 3, seed=1).requires_grad_()
    scale, shift = (0.2 + noise(20, seed=2).abs()).requires_grad_(), noise(20, seed=3).requires_grad_()
    leaves = (kernel, scale, shift)
    assert in_parts(images, kernel)

    def whole(kernel: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, ...]:
        out, *seen = norm_pool(F.conv2d(images, kernel, padding=1), scale, shift, EPSILON, sets)
        return out.relu(), *seen

    found, expected = first_block(images, *leaves, EPSILON, sets), whole(*leaves)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    pull = noise(*found[0].shape, seed=4)
    for graph in (False, True):
        grads = [
            torch.autograd.grad(out[0], leaves, pull, create_graph=graph, retain_graph=True)
            for out in (found, expected)
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        if graph:
            along = [noise(*g.shape, seed=5 + i) for i, g in enumerate(grads[0])]
            second = [torch.autograd.grad(first, leaves[:2], along) for first in grads]
            for a, b in zip(*second, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_the_first_block_takes_one_pixel_of_equal_ones() -> None:
    """Drawn lines on an empty ground, as characters are: most windows are flat. Which pixel is taken is the same."""
    images = (noise(40, 1, 12, 12) > 1.8).double().to(memory_format=torch.channels_last)
    kernel = noise(20, 1, 3, 3, seed=1).requires_grad_()
    scale, shift = noise(20, seed=2).abs().index_fill(0, torch.tensor([4]), 0.0), noise(20, seed=3)
    leaves = (kernel, scale.requires_grad_(), shift.requires_grad_())
    found = first_block(images, *leaves, EPSILON)[0]
    expected = norm_pool(F.conv2d(images, kernel, padding=1), *leaves[1:], EPSILON)[0].relu()
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    pull = noise(*found.shape, seed=4)
    for a, b in zip(*(torch.autograd.grad(out, leaves, pull) for out in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_first_block_goes_in_parts_where_that_is_the_same_and_pays() -> None:
    images, kernel = noise(200, 1, 28, 28), noise(64, 1, 3, 3)
    assert in_parts(images, kernel)
    assert not in_parts(images[:5], kernel), "small enough for the cache"
    assert not in_parts(noise(200, 16, 28, 28), noise(64, 16, 3, 3)), "patches larger than what is made of them"
    assert not in_parts(images.requires_grad_(), kernel), "the images want a gradient"
