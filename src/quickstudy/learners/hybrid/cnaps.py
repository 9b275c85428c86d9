"""CNAPs: a network reads the support and answers with scales and shifts of the features, and with a classifier."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State
from quickstudy.inner.apply import apply_per_task, apply_shared, task_weights
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.nets import MLP, Net
from quickstudy.nets.film import film_layers, modulated


class CNAPs(MetaLearner):
    """Conditional neural adaptive processes (Requeima and others 2019, arXiv 1906.07697).

    z = mean over the support of g(x), a network of its own. Every layer l of the features f has its channels scaled by
    1 + a_l(z) and shifted by b_l(z) (FiLM), where a_l and b_l begin at 0. With c_k = mean of the modulated f(x) over
    class k, logit_k = (c_k + u(c_k)) . f(x) + v(c_k), each class without a look at the others. No gradients.

    The state holds the sums of g and f and their weights. `prior`: they go on; rows of before keep the features that
    they had then. width: of the networks a, b, u and v.

    Departures: f and g are learnt with the rest from the start (the paper's f is trained before, and fixed); g has the
    form of f, and its first weights; layers are modulated by z alone (the paper's plain variant, not the
    auto-regressive one); no penalty on the scales. Which layers: its norms, or where it has none its linear layers.
    """

    papers = ("requeima2019cnaps", "perez2018film")
    choose = (
        "Classification where tasks come from different worlds and the features themselves should bend, without "
        "gradients when it adapts; any number of classes. Wants many and varied training tasks."
    )
    cost = "two passes"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(self, net: Net, objective: Classification, width: int = 64):
        super().__init__()
        if width < 1:
            raise UserError(f"width is {width}: give the number of units of a hidden layer, from 1.")
        self.net = net
        self.objective = objective
        self.width = width
        self.reader = copy.deepcopy(net)
        channels = film_layers(net)
        self.layers = list(channels)
        self.film = nn.ModuleList(MLP((net.size,), out=2 * c, width=width, depth=1) for c in channels.values())
        self.classifier = MLP((net.size,), out=net.size + 1, width=width, depth=2)
        for made in self.film:
            last = made.layers[-1]  # type: ignore[index]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def features(self, state: State, x: Inputs, weight: Tensor | None) -> Tensor:
        """f(x) with the scales and shifts of each task: (task, n, d)."""
        z = state["read"] / state["rows"].clamp_min(1e-12).unsqueeze(-1)
        parts = [made(z.unsqueeze(1)).squeeze(1).chunk(2, -1) for made in self.film]
        weights = task_weights(self.net, len(z))
        weights = modulated(weights, self.layers, [1 + a for a, _ in parts], [b for _, b in parts])
        return apply_per_task(self.net, weights, x, weight)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        read = apply_shared(self.reader, support.x, support.weight)
        sums, rows = class_sums(read, support.weight.to(read.dtype).unsqueeze(-1))
        state = {"read": sums.squeeze(1), "rows": rows.squeeze(1)}
        if prior is not None:
            state = {name: prior[name] + new for name, new in state.items()}
        f = self.features(state, support.x, support.weight)
        sums, counts = class_sums(f, self.objective.one_hot(support))
        if prior is not None:
            sums, counts = prior["sums"] + sums, prior["counts"] + counts
        return {**state, "sums": sums, "counts": counts}

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        centres = prototypes(state["sums"], state["counts"])
        made = self.classifier(centres)
        f = self.features(state, x, weight)
        logits = torch.baddbmm(made[..., -1:].transpose(1, 2), f, (centres + made[..., :-1]).transpose(1, 2))
        return self.objective.hide_unseen(logits, state["counts"])
