"""A learner for tables of any width: a transformer that reads the labelled rows and answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, row_mean
from quickstudy.core.source import Spec
from quickstudy.core.task import Examples, Inputs, State, Task, join_rows
from quickstudy.core.tracing import is_tracing
from quickstudy.nets.table_transformer import TableTransformer, as_table, describe_cells

PAIRS = 8
"""Pairs of a task and a class that are worked out at once where a state is asked: memory stays small."""


class Tabular(MetaLearner):
    """An in-context learner for tables, fitted to a prior over them (TabPFN, Hollmann et al. 2023, arXiv 2207.01848,
    over cells as nanoTabPFN, Pfefferle et al. 2025, arXiv 2511.03634).

    A row is (2, columns), values and then 1 where there is a cell, or (columns,) with every cell there. For each class
    c that the support shows, one pass says g_c(x), the logit of c against the rest:

        p(c | x, support) = s(g_c(x)) / sum_k s(g_k(x)),   s the logistic function

    so that any number of classes and columns will do, and the order of neither, nor of rows, matters. In training one
    class of each task is drawn and its logistic loss taken. The state is the support; `prior`: the rows of both are
    read together, exactly. A weight counts as so many rows. Departures: one class against the rest in place of a code
    of the class number; ranks beside standard scores; no ensemble. The shipped weights (`quickstudy.pretrained`) have
    met up to 80 labelled rows, 40 columns and 10 classes: beyond these they work, unproven.
    """

    papers = ("hollmann2023tabpfn", "pfefferle2025nanotabpfn")
    choose = (
        "Small tables (up to a hundred labelled rows) of numbers and categories, with or without missing cells, where "
        "nothing is to be trained or tuned: its weights are shipped."
    )
    cost = "one pass for each class"
    kinds = ("classification",)
    any_way = True
    incremental = True
    objective: Classification

    def __init__(self, objective: Classification, width: int = 64, depth: int = 3, reading: int = 4, heads: int = 4):
        super().__init__()
        self.objective = objective
        self.width = width
        self.depth = depth
        self.reading = reading
        self.heads = heads
        self.transformer = TableTransformer(width, depth, reading, heads)

    @classmethod
    def fits(cls, spec: Spec) -> bool:
        return super().fits(spec) and (len(spec.x_shape) == 1 or (len(spec.x_shape) == 2 and spec.x_shape[0] == 2))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        x = as_table(support.x)
        rows = Examples(x, support.y, support.weight)
        if prior is not None:
            _same_columns(prior["x"], x)
            rows = join_rows(Examples(prior["x"], prior["y"], prior["weight"]), rows)
        return rows._asdict()

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        support = Examples(state["x"], state["y"], state["weight"])
        seen, seat = self.objective.seen(support), self._seat(support, x)
        # only the pairs of a task and a class that it shows are worked out, unless a program is traced
        shown = torch.cartesian_prod(*map(torch.arange, seen.shape)) if is_tracing() else seen.nonzero()
        task, label = shown.to(seen.device).unbind(1)
        pairs = zip(task.split(PAIRS), label.split(PAIRS), strict=True)
        said = F.logsigmoid(torch.cat([self._logits(support, seat, *pair) for pair in pairs]))
        logits = said.new_zeros(*seen.shape, said.shape[1]).index_put((task, label), said)
        return self.objective.hide_unseen(logits.transpose(1, 2), seen)

    def meta_loss(self, tasks: Task) -> Tensor:
        """In training the logistic loss of one class of each task, drawn anew each time; else the objective's."""
        if not self.training:
            return super().meta_loss(tasks)
        support, query = Examples(*self.adapt(tasks.support).values()), tasks.query
        label = torch.multinomial(self.objective.seen(support) + 1e-9, 1)
        each = torch.arange(len(label), device=label.device)
        logit = self._logits(support, self._seat(support, query.x), each, label.squeeze(1))
        loss = F.binary_cross_entropy_with_logits(logit, (query.y == label).to(logit.dtype), reduction="none")
        return row_mean(loss, query.weight)

    def _seat(self, support: Examples, x: Inputs) -> tuple[Tensor, Tensor | None]:
        """All cells as the support describes them, and which columns it shows: (task, column), None for all."""
        assert isinstance(support.x, Tensor)
        rows = as_table(x)
        _same_columns(support.x, rows)
        whole = torch.cat([support.x, rows], 1)
        shown = ((support.x[:, :, 1] > 0.5) & (support.weight > 0).unsqueeze(-1)).any(1)
        if not is_tracing():  # columns that no task shows are left out
            kept = shown.any(0)
            kept[0] |= ~kept.any()
            whole, shown = whole[..., kept], shown[:, kept]
        cells = describe_cells(whole[:, :, 0], whole[:, :, 1], support.weight)
        return cells, None if not is_tracing() and bool(shown.all()) else shown.to(cells.dtype)

    def _logits(self, support: Examples, seat: tuple[Tensor, Tensor | None], task: Tensor, label: Tensor) -> Tensor:
        """The logit (pair, asked row) of being of class `label` (pair,) of task number `task` (pair,)."""
        cells, columns = seat
        sign = torch.where(support.y[task] == label.unsqueeze(1), 1.0, -1.0).to(cells.dtype)
        return self.transformer(cells[task], None if columns is None else columns[task], sign, support.weight[task])


def _same_columns(support: Tensor, x: Tensor) -> None:
    if support.shape[-1] != x.shape[-1]:
        was, now = support.shape[-1], x.shape[-1]
        raise UserError(f"the support has {was} columns and these rows have {now}: give the same columns.")
