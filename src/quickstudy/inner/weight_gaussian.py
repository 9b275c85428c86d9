"""Gaussians over the weights of a network, each weight by itself: draws, and how far two of them differ."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import generator
from quickstudy.core.task import State


def check_gaussian(deviation: float, kl_weight: float, draws: int, eval_draws: int) -> None:
    """Raises UserError for a spread that is not positive, a weight below 0, or no draws."""
    if not deviation > 0 or not kl_weight >= 0:
        raise UserError(f"deviation is {deviation} and kl_weight {kl_weight}: give above 0, and 0 or more.")
    if draws < 1 or eval_draws < 1:
        raise UserError(f"draws is {draws} and eval_draws {eval_draws}: give 1 or more.")



def fixed_noise(weights: State, draws: int, word: str) -> State:
    """Standard normal numbers (1, draws, *shape) for weights (task, *shape): the same at every call and for every task.

    They come in pairs z, -z, so that an even number of them has the mean 0. They depend on `word` and the
    weights' names and shapes alone, not on their order or precision.
    """

    def pairs(name: str, w: Tensor) -> Tensor:
        rng = generator("fixed noise", word, name)
        half = torch.randn((draws + 1) // 2, *w.shape[1:], generator=rng, dtype=torch.float32)
        return torch.cat([half, -half])[:draws].unsqueeze(0).to(w)

    return {k: pairs(k, w) for k, w in weights.items()}


def fresh_noise(weights: State, draws: int) -> State:
    """Standard normal numbers (task, draws, *shape) for weights (task, *shape), by torch's own generator."""
    return {k: w.new_empty(len(w), draws, *w.shape[1:]).normal_() for k, w in weights.items()}


def drawn(mean: State, log_deviation: State, noise: State) -> State:
    """mean + exp(log_deviation) * noise: (task, draws, *shape)."""
    return {k: m.unsqueeze(1) + (log_deviation[k].exp().unsqueeze(1) * noise[k]) for k, m in mean.items()}


def divergence(mean: State, log_deviation: State, mean0: State, log_deviation0: State) -> Float[Tensor, " task"]:
    """KL(N(mean, s^2) || N(mean0, s0^2)) in nats, summed over all weights of a task.

    sum of log(s0 / s) + (s^2 + (mean - mean0)^2) / (2 s0^2) - 1/2.

    >>> zero, one = {"w": torch.zeros(1, 2)}, {"w": torch.ones(1, 2)}
    >>> divergence(one, zero, zero, zero)
    tensor([1.])
    """

    def of(k: str) -> Tensor:
        ratio = log_deviation[k] - log_deviation0[k]
        far = (mean[k] - mean0[k]) * (-log_deviation0[k]).exp()
        each = ((ratio * 2).exp() + far.square()) / 2 - ratio - 0.5
        return each.reshape(len(each), -1).sum(1)

    return torch.stack([of(k) for k in mean]).sum(0)
