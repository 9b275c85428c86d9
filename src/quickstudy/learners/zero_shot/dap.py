"""Direct attribute prediction: a classifier for each attribute, and the class whose attributes they say."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, row_mean
from quickstudy.core.task import Examples, Inputs, State, Task
from quickstudy.inner.apply import apply_shared
from quickstudy.inner.bilinear import description_sums
from quickstudy.inner.closed import prototypes
from quickstudy.nets import Net


class DAP(MetaLearner):
    """Direct attribute prediction (Lampert, Nickisch, Harmeling, CVPR 2009; TPAMI 2014).

    p(k | x) ~ prod_m p(a_m = s_km | x) / p(a_m = s_km), with s_k the attributes of class k, p(a_m = 1 | x) =
    sigmoid of a linear map of the features, and p(a_m) the share of the training classes with attribute m. All
    classes are equally likely beforehand. Logits are the logarithm of that product.

    Descriptions are attributes, 0 or 1; what lies between is how often a class has the attribute, and p(a_m = s) is
    then p^s (1 - p)^(1 - s). Values outside count as the nearest of 0 and 1.
    Departures: the classifiers are logistic and share the network (the paper's are support vector machines with
    Platt's scaling), and p(a_m) is learnt with them, by the likelihood of the descriptions: that share is its optimum.

    Several descriptions of a class: their mean. `prior`: classes and descriptions are added to those of the earlier
    state, exactly.
    """

    papers = ("lampert2009attributes", "lampert2014attribute")
    choose = "Zero-shot where descriptions are attributes that can be told one by one, and should be: it says which."
    cost = "nothing but a product"
    kinds = ("zero-shot",)
    objective: Classification
    any_way = True
    incremental = True

    def __init__(self, net: Net, objective: Classification, description_shape: tuple[int, ...]):
        super().__init__()
        self.net = net
        self.objective = objective
        self.description_shape = description_shape
        count = math.prod(description_shape)
        self.classify = nn.Linear(net.size, count)
        self.share = nn.Parameter(torch.zeros(count))

    def attributes(self, x: Inputs, weight: Tensor | None = None) -> Tensor:
        """The log odds of every attribute of every row, (task, n, attribute)."""
        return self.classify(apply_shared(self.net, x, weight))

    def adapt(self, support: Examples, prior: State | None = None) -> State:
        assert isinstance(support.x, Tensor)
        return description_sums(self.objective, support._replace(x=support.x.clamp(0, 1)), prior)

    def predict(self, state: State, x: Inputs, weight: Tensor | None = None) -> Tensor:
        s = prototypes(state["sums"], state["counts"])
        odds = self.attributes(x, weight)
        # log p^s (1 - p)^(1 - s) = s logit(p) + log(1 - p), of the rows less of the shares
        logits = (odds - self.share) @ s.transpose(1, 2)
        logits = logits + (F.logsigmoid(-odds) - F.logsigmoid(-self.share)).sum(-1, keepdim=True)
        return self.objective.hide_unseen(logits, state["counts"])

    def meta_loss(self, tasks: Task) -> Tensor:
        """Cross-entropy of the attributes of each row, plus that of each class under the shares; a mean over both."""
        state, query = self.adapt(tasks.support), tasks.query
        s = prototypes(state["sums"], state["counts"])
        odds = self.attributes(query.x, query.weight)
        wanted = s.gather(1, query.y.unsqueeze(-1).expand(-1, -1, s.shape[-1]))
        rows = F.binary_cross_entropy_with_logits(odds, wanted, reduction="none").mean(-1)
        share = self.share.expand_as(s)
        classes = F.binary_cross_entropy_with_logits(share, s, reduction="none").mean(-1)
        return row_mean(rows, query.weight) + row_mean(classes, (state["counts"] > 0).to(classes.dtype))
