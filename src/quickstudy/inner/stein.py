"""Stein variational gradient descent: particles that descend together and keep apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, State
from quickstudy.inner.closed import full_precision
from quickstudy.inner.descent import Loss


@full_precision
def stein_direction(
    particles: Float[Tensor, "task m d"], scores: Float[Tensor, "task m d"], temperature: float = 1.0
) -> Float[Tensor, "task m d"]:
    """Where Stein's method moves m particles towards the density whose log has the slopes `scores` / temperature.

    phi(w) = 1/m sum_j [k(w_j, w) score_j + temperature * grad_{w_j} k(w_j, w)],  k(v, w) = exp(-|v - w|^2 / h),
    h = median of |v - w|^2 over pairs of particles / log(m + 1)  (Liu, Wang 2016, arXiv 1608.04471). The
    paper's log m would be 0 for one particle, whose phi is its score. Differentiable, h included.

    >>> stein_direction(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0]]]))
    tensor([[[1., 2.]]])
    """
    m = particles.shape[1]
    if m == 1:
        return scores
    gaps = particles.unsqueeze(2) - particles.unsqueeze(1)  # w_i - w_j at (i, j)
    distances = gaps.square().sum(-1)
    i, j = torch.triu_indices(m, m, 1, device=particles.device)
    # particles on one spot: any width will do
    h = distances[:, i, j].quantile(0.5, dim=1).clamp_min(1e-12) / math.log(m + 1)
    kernel = torch.exp(-distances / h[:, None, None])
    apart = torch.einsum("tij,tijd->tid", kernel, gaps) * (2 / h)[:, None, None]
    return (kernel @ scores + temperature * apart) / m


def slopes(loss: Loss, weights: State, rows: Examples, keep_graph: bool) -> State:
    """The gradient of each task's loss by its own weights; it can be differentiated again with `keep_graph`.

    Where the caller records no gradients it is a plain tensor.
    """
    if not torch.is_grad_enabled():
        weights, keep_graph = {k: w.detach().requires_grad_() for k, w in weights.items()}, False
    # fused attention has no second derivative (pytorch #116350)
    plain_attention = sdpa_kernel(SDPBackend.MATH) if keep_graph else nullcontext()
    with torch.enable_grad(), plain_attention:
        value = loss(weights, rows).sum()
        found = torch.autograd.grad(value, list(weights.values()), create_graph=keep_graph, materialize_grads=True)
    return dict(zip(weights, found, strict=True))


def stein_path(
    loss: Loss,
    weights: State,
    rows: Examples,
    members: int,
    steps: int,
    lr: float,
    precision: float = 0.0,
    temperature: float = 1.0,
    first_order: bool = False,
) -> Iterator[State]:
    """The particles after 0, 1, ..., `steps` steps w <- w + lr * phi(w), each (task * members, *shape).

    The log density is -loss(w) - precision / 2 |w|^2, at `temperature`; loss and rows know each particle as a
    task of its own. Differentiable as `descent_path` is. Raises UserError for a negative number of steps.
    """
    if steps < 0:
        raise UserError(f"the number of inner steps is {steps}: give 0 or more (inner_steps, eval_steps).")
    recording = torch.is_grad_enabled()
    weights = weights if recording else {k: w.detach() for k, w in weights.items()}
    yield weights
    for _ in range(steps):
        found = slopes(loss, weights, rows, recording and not first_order)
        particles = vectors(weights, members)
        phi = stein_direction(particles, -vectors(found, members) - precision * particles, temperature)
        weights = apart(particles + lr * (phi.detach() if first_order else phi), weights)
        yield weights


def vectors(weights: State, members: int) -> Float[Tensor, "task m d"]:
    """All weights of a particle in one row: (task * members, *shape) each -> (task, members, d)."""
    return torch.cat([w.reshape(len(w), -1) for w in weights.values()], 1).unflatten(0, (-1, members))


def apart(rows: Float[Tensor, "task m d"], like: State) -> State:
    """`vectors` undone: (task, members, d) -> (task * members, *shape) each."""
    parts = rows.flatten(0, 1).split([w[0].numel() for w in like.values()], 1)
    return {k: part.reshape(w.shape) for (k, w), part in zip(like.items(), parts, strict=True)}
