"""What a learner sees in a row: the features its predictions are made from, before any adaptation."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Inputs


def encoder_of(learner: nn.Module) -> nn.Module | None:
    """The network that a learner's rows pass (the inner one's of a wrapper); None for a method without one."""
    net = getattr(learner, "net", None)
    if isinstance(net, nn.Module):
        return net
    inner = getattr(learner, "learner", None)
    return encoder_of(inner) if isinstance(inner, nn.Module) else None


def row_features(learner: MetaLearner, x: Inputs) -> Float[Tensor, "task n d"]:
    """The features of rows (task, n, *x_shape), each task by itself.

    What the learner's network gives; what its last linear layer takes, where the network ends in predictions; the rows
    as they are, flattened, for a method without a network.
    """
    net = encoder_of(learner)
    if net is None:
        assert isinstance(x, Tensor)
        return x.flatten(2)
    heads = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not getattr(net, "out", None) or not heads:
        return net(x).flatten(2)
    taken: list[Tensor] = []
    hook = heads[-1].register_forward_pre_hook(lambda module, given: taken.append(given[0].flatten(0, -2)))
    try:
        out = net(x)
    finally:
        hook.remove()
    rows = torch.cat(taken) if taken else out
    return rows.view(*out.shape[:2], -1) if rows.numel() % (out.shape[0] * out.shape[1]) == 0 else out


def behind_network(learner: MetaLearner) -> MetaLearner | None:
    """The learner without its network, for rows that are `row_features` already; None where it cannot be taken off.

    For a method whose network only turns rows into features. Weights are shared, and states are the same: that it says
    the same is for the caller to check, on a task.
    """
    net = getattr(learner, "net", None)
    if not isinstance(net, nn.Module) or type(learner).net_output != "features":
        return None
    if learner.batch_statistics or learner.descends:
        return None
    behind = copy.copy(learner)
    behind._modules = {**learner._modules, "net": nn.Identity()}
    return behind
