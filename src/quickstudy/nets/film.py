"""FiLM: scaling and shifting the channels of a network's layers, task by task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.task import State
from quickstudy.nets.norm import ChannelNorm


def film_layers(net: nn.Module) -> dict[str, int]:
    """The layers of a network that can be modulated, by name, and the channels of each: its norms, or where there are
    none its linear layers.

    Raises UserError for a network that has neither.

    >>> from quickstudy.nets import MLP
    >>> film_layers(MLP((3,), width=8))
    {'layers.0': 8, 'layers.1': 8}
    """
    modules = dict(net.named_modules())
    norms = {name: m.weight.numel() for name, m in modules.items() if isinstance(m, ChannelNorm | nn.LayerNorm)}
    linear = {name: m.out_features for name, m in modules.items() if isinstance(m, nn.Linear) and m.bias is not None}
    if not norms and not linear:
        raise UserError(f"{type(net).__name__} has no norm and no linear layer whose channels could be scaled.")
    return norms or linear


def modulated(weights: State, layers: Sequence[str], scales: Sequence[Tensor], shifts: Sequence[Tensor]) -> State:
    """The weights (task, *shape) with which every one of the layers gives scale * (what it gave) + shift
    (Perez and others 2018, arXiv 1709.07871).

    scales, shifts: (task, channels), one a layer.
    """
    out = dict(weights)
    for layer, scale, shift in zip(layers, scales, shifts, strict=True):
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        out[f"{layer}.weight"] = weight * scale.view(*scale.shape, *[1] * (weight.dim() - 2))
        out[f"{layer}.bias"] = bias * scale + shift
    return out
