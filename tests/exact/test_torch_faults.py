"""Torch's own faults that the library works around, each pinned.

A test here fails when torch has mended the fault: then the workaround that it names can be lifted.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.attention
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint

from quickstudy.testing import ContractError, check_meta_gradient

Normalise = Callable[[Tensor, Tensor, Tensor], Tensor]
LIFT = "torch has mended this fault, so lift the workaround: "


def expect_wrong(loss: Callable[[], Tensor], parameters: list[Tensor], workaround: str) -> None:
    """Fail, and say what can go, if the gradient of `loss` is right after all."""
    try:
        check_meta_gradient(loss, parameters)
    except ContractError as error:
        assert "central difference" in str(error)  # silently wrong, not refused
        return
    pytest.fail(f"{LIFT}{workaround}.")


def by_torch(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.batch_norm(h, None, None, scale, shift, True, 0.0, 1e-5)


def by_formula(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    variance, mean = torch.var_mean(h, 0, correction=0)
    return (h - mean) * torch.rsqrt(variance + 1e-5) * scale + shift


def batch_norm_problem() -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    rng = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    matrix, scale, shift = noise(3, 4), 1 + 0.3 * noise(4), 0.3 * noise(4)
    parameters = [p.requires_grad_() for p in (matrix, scale, shift)]
    return noise(2, 6, 3), noise(2, 6, 4), noise(2, 6, 4), parameters


def meta_loss(normalise: Normalise, batched: bool) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """One inner step on a layer with batch statistics, of its scale too, for two tasks; then the loss."""
    x, y, asked, parameters = batch_norm_problem()

    def loss(weights: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
        matrix, scale, shift = weights
        return (torch.tanh(normalise(x @ matrix, scale, shift)) - y).square().mean()

    def one_task(weights: tuple[Tensor, ...], x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        adapted = tuple(w - 0.5 * g for w, g in zip(weights, grad(loss)(weights, x, y), strict=True))
        return loss(adapted, x, asked)

    def every_task() -> Tensor:
        weights = tuple(parameters)
        if batched:
            return vmap(one_task, in_dims=(None, 0, 0, 0))(weights, x, y, asked).sum()
        return torch.stack([one_task(weights, *task) for task in zip(x, y, asked, strict=True)]).sum()

    return every_task, parameters


def test_batch_norm_under_vmap_has_a_wrong_second_derivative() -> None:
    expect_wrong(*meta_loss(by_torch, batched=True), "inner.apply loops over tasks that have batch statistics")


@pytest.mark.parametrize(("normalise", "batched"), [(by_torch, False), (by_formula, False), (by_formula, True)])
def test_batch_norm_is_right_in_a_loop_and_by_its_formula(normalise: Normalise, batched: bool) -> None:
    check_meta_gradient(*meta_loss(normalise, batched))


def three_steps(closing_over_the_loop: bool) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Three checkpointed inner steps, each on rows of its own."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5, 2, generator=rng, dtype=torch.float64)
    start = torch.randn(2, generator=rng, dtype=torch.float64, requires_grad=True)

    def step(w: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            (g,) = torch.autograd.grad(torch.tanh(x @ w).square().sum(), w, create_graph=True)
        return w - 0.1 * g

    def loss() -> Tensor:
        w = 1.0 * start
        for x in rows:
            if closing_over_the_loop:
                w = checkpoint(lambda w: step(w, x), w, use_reentrant=False)  # noqa: B023 (the fault itself)
            else:
                w = checkpoint(step, w, x, use_reentrant=False)
        return w.square().sum()

    return loss, [start]


def test_a_checkpoint_that_closes_over_the_loop_is_wrong() -> None:
    expect_wrong(*three_steps(closing_over_the_loop=True), "inner.descent passes every tensor as an argument")


def test_a_checkpoint_that_is_given_its_tensors_is_right() -> None:
    check_meta_gradient(*three_steps(closing_over_the_loop=False))


def attention_twice(backend: torch.nn.attention.SDPBackend) -> Tensor:
    """The gradient of a gradient through attention."""
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 8, 4, generator=rng).requires_grad_() for _ in range(3))
    with torch.nn.attention.sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(q, k, v)
    (first,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    return torch.autograd.grad(first.square().sum(), k)[0]


def test_fused_attention_has_no_double_backward() -> None:
    try:
        attention_twice(torch.nn.attention.SDPBackend.FLASH_ATTENTION)
    except RuntimeError as error:
        assert "derivative" in str(error)
        return
    pytest.fail(LIFT + "networks with attention pick the math kernel for inner gradients.")


def test_plain_attention_has_one() -> None:
    assert torch.isfinite(attention_twice(torch.nn.attention.SDPBackend.MATH)).all()
