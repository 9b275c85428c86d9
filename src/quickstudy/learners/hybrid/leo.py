"""LEO: gradient steps on a short code of a task, from which the classifier is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.closed import class_sums, prototypes
from quickstudy.inner.descent import descend
from quickstudy.nets import Net
from quickstudy.nets.related_rows import RelatedRows


class LEO(MetaLearner):
    """Latent embedding optimisation (Rusu and others 2019, arXiv 1807.05960).

    Codes z_c ~ N(m_c, s_c^2), (m_c, log s_c) = mean over rows i of class c, and all rows j, of r(e(f_i), e(f_j)).
    Weights w_c ~ N(mu_c, (s0 t_c)^2), (mu_c, log t_c) = D z_c, logits w_c . f. On the support loss L, z takes
    `inner_steps` steps z - a dL/dz, and then w `finetune_steps` steps w - b dL/dw; a and b are learnt. The loss:

        L_query + kl KL(z || N(0, I)) + encoder |stop(z') - z|^2 + orthogonality |correlations of D - I|^2

    each a mean over entries. Not in training, z and w are their means. `prior`: fine-tuning goes on from its weights,
    and a class that it has not seen is decoded. As in the authors' code s0 is Glorot's, sqrt(2 / (d + way)).

    Departures: features are learnt with the rest (the paper's come ready-made); KL in closed form; one draw of w for
    all steps; no dropout; the L2 penalty is left to the optimiser.
    """

    papers = ("rusu2019leo",)
    choose = (
        "Classes from one or a few rows, where steps on all the weights overfit: gradient steps on a short code, any "
        "number of classes. Features that were trained before suit it best."
    )
    cost = "one pass and gradient steps on a short code"
    kinds = ("classification",)
    objective: Classification
    any_way = True

    def __init__(
        self, net: Net, objective: Classification, latents: int = 64, inner_steps: int = 5, inner_lr: float = 1.0,
        finetune_steps: int = 5, finetune_lr: float = 1e-3, kl: float = 1e-3, encoder: float = 1e-3,
        orthogonality: float = 1e-3,
    ):  # fmt: skip
        super().__init__()
        self.net = net
        self.objective = objective
        self.latents = latents
        self.inner_steps, self.finetune_steps = inner_steps, finetune_steps
        self.inner_lr, self.finetune_lr = inner_lr, finetune_lr
        self.kl, self.encoder, self.orthogonality = kl, encoder, orthogonality
        self.relation = RelatedRows(net.size, latents)
        self.decoder = nn.Linear(latents, 2 * net.size, bias=False)
        self.code_rate = nn.Parameter(torch.full((latents,), inner_lr))
        self.weight_rate = nn.Parameter(torch.full((net.size,), finetune_lr))

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        # the code that the encoder is drawn to is taken as given
        return self.encoder == 0 or self.inner_steps == 0

    @property
    def descends(self) -> bool:  # type: ignore[override]
        return self.inner_steps + self.finetune_steps > 0

    def solve(self, support: Examples, prior: State | None = None) -> tuple[State, Tensor]:
        """The classifier {"weight": (task, way, d), "seen": (task, way)}, and what its codes cost, (task,)."""
        rows = support._replace(x=apply_shared(self.net, support.x, support.weight))
        sums, counts = class_sums(self.relation(rows.x, rows.weight), self.objective.one_hot(rows))
        mean, log_deviation = prototypes(sums, counts).chunk(2, -1)
        seen, e, e_w = self.objective.seen(rows), torch.zeros_like(mean), mean.new_zeros(*mean.shape[:2], self.net.size)
        if self.training:
            e, e_w = torch.randn_like(e), torch.randn_like(e_w) * math.sqrt(2 / (self.net.size + self.objective.way))

        def decode(z: Tensor) -> Tensor:
            mu, log_t = self.decoder(z).chunk(2, -1)
            return mu + e_w * log_t.exp()

        def steps(weights: Callable[[Tensor], Tensor], start: Tensor, count: int, rate: Tensor, seen: Tensor) -> Tensor:
            def loss(moved: State, rows: Examples) -> Tensor:
                assert isinstance(rows.x, Tensor)
                return self.objective.loss(self.classify(weights(moved["it"]), rows.x, seen), rows)

            return descend(loss, {"it": start}, rows, count, rate)["it"]

        start = mean + e * log_deviation.exp()
        end = steps(decode, start, self.inner_steps, self.code_rate, seen)
        weight, known = decode(end), seen
        if prior is not None:
            weight = torch.where(prior["seen"].unsqueeze(-1) > 0, prior["weight"], weight)
            known = torch.maximum(seen, prior["seen"])
        weight = steps(lambda w: w, weight, self.finetune_steps, self.weight_rate, known)
        kl = (mean.square() + (2 * log_deviation).exp() - 1) / 2 - log_deviation
        entries = self.kl * kl.mean(-1) + self.encoder * (end.detach() - start).square().mean(-1)
        return {"weight": weight, "seen": known}, (entries * seen).sum(1) / seen.sum(1).clamp_min(1)

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        return self.solve(support, prior)[0]

    def classify(self, weight: Tensor, features: Tensor, seen: Tensor) -> Tensor:
        return self.objective.hide_unseen(features @ weight.transpose(1, 2), seen)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        return self.classify(state["weight"], apply_shared(self.net, x, weight), state["seen"])

    def meta_loss(self, tasks: Task) -> Tensor:
        if not self.training:
            return super().meta_loss(tasks)
        state, cost = self.solve(tasks.support)
        columns = nn.functional.normalize(self.decoder.weight, dim=0)
        apart = (columns.T @ columns - torch.eye(self.latents).to(columns)).square().mean()
        prediction = self.predict(state, tasks.query.x, tasks.query.weight)
        return self.objective.loss(prediction, tasks.query) + cost + self.orthogonality * apart
