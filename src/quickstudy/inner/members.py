"""Several sets of weights for every task (components, particles, draws), folded into the task axis.

A network then meets task * members tasks, and one batched product a layer serves them all (inner/apply.py).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.objective import Classification, GaussianRegression, Objective
from quickstudy.core.task import State, map_tensors
from quickstudy.inner.posterior import gaussian_prediction

T = TypeVar("T")


def repeat(tree: T, members: int) -> T:
    """Every task `members` times in a row: (task, ...) -> (task * members, ...)."""
    return map_tensors(tree, lambda t: t.repeat_interleave(members, 0))


def fold(tree: T) -> T:
    """(task, members, ...) -> (task * members, ...)."""
    return map_tensors(tree, lambda t: t.flatten(0, 1))


def unfold(tree: T, members: int) -> T:
    """(task * members, ...) -> (task, members, ...)."""
    return map_tensors(tree, lambda t: t.unflatten(0, (-1, members)))


def combined(
    objective: Objective, answers: Float[Tensor, "task members n size"], share: Float[Tensor, "task members"] | None
) -> Float[Tensor, "task n size"]:
    """The one prediction of a mixture of members.

    Classes: the log of the mean probability. Real values: the mean; Gaussians: the Gaussian with the
    mixture's mean and variance, m = sum_k r_k m_k and s^2 = sum_k r_k (s_k^2 + (m_k - m)^2).
    share: what each member counts for, with sum 1; None for all alike.

    >>> from quickstudy.core.objective import Regression
    >>> combined(Regression(), torch.tensor([[[[1.0]], [[4.0]]]]), None)
    tensor([[[2.5000]]])
    """
    if share is None:
        share = answers.new_full(answers.shape[:2], 1 / answers.shape[1])
    if isinstance(objective, Classification):
        # a share may be 0, whose logarithm has no derivative
        log_share = share.clamp_min(torch.finfo(share.dtype).tiny).log()
        return (answers.log_softmax(-1) + log_share[..., None, None]).logsumexp(1)
    share = share[..., None, None]
    if not isinstance(objective, GaussianRegression):
        return (share * answers).sum(1)
    means, deviations = objective.mean_and_deviation(answers)
    mean = (share * means).sum(1)
    variance = (share * (deviations.square() + (means - mean.unsqueeze(1)).square())).sum(1)
    return gaussian_prediction(objective, mean, variance.sqrt())


def others(net: nn.Module, members: int) -> nn.ParameterList:
    """Where `members` - 1 further initialisations begin, (members - 1, *shape) a parameter: with the numbers of the
    network's own, shuffled tensor by tensor. So they differ, and are distributed as that architecture wants."""
    if members == 1:
        return nn.ParameterList()

    def shuffled(p: Tensor) -> Tensor:
        return p.detach().flatten()[torch.randperm(p.numel(), device=p.device)].view(p.shape)

    return nn.ParameterList(torch.stack([shuffled(p) for _ in range(members - 1)]) for p in net.parameters())


def starts(net: nn.Module, more: nn.ParameterList, tasks: int) -> State:
    """The network's own parameters and those of `others` for every task, (task, members, *shape)."""
    own = dict(net.named_parameters())
    rest = list(more) or [p.new_zeros(0, *p.shape) for p in own.values()]
    joined = {k: torch.cat([p.unsqueeze(0), r]) for (k, p), r in zip(own.items(), rest, strict=True)}
    return {k: w.unsqueeze(0).expand(tasks, *w.shape) for k, w in joined.items()}


def like(net: nn.Module, value: float) -> nn.ParameterList:
    """A parameter of the same shape for each of the network's, filled with `value`."""
    return nn.ParameterList(torch.full_like(p, value) for p in net.parameters())


def named(net: nn.Module, values: nn.ParameterList, tasks: int) -> State:
    """What `like` made, under the network's names, for every task: (task, *shape)."""
    names = (name for name, _ in net.named_parameters())
    return {k: v.unsqueeze(0).expand(tasks, *v.shape) for k, v in zip(names, values, strict=True)}
