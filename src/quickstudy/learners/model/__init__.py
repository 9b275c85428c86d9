"""Model-based methods: the forward pass is the learner."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.model.anp import ANP
from quickstudy.learners.model.cnp import CNP
from quickstudy.learners.model.conv_cnp import ConvCNP
from quickstudy.learners.model.fast_weights import FastWeights
from quickstudy.learners.model.in_context import InContext
from quickstudy.learners.model.mann import MANN
from quickstudy.learners.model.meta_networks import MetaNetworks
from quickstudy.learners.model.snail import SNAIL
from quickstudy.learners.model.tabular import Tabular
from quickstudy.learners.model.tnp import TNP

TABLE: dict[str, type[MetaLearner]] = {
    "cnp": CNP,
    "snail": SNAIL,
    "mann": MANN,
    "fast_weights": FastWeights,
    "meta_networks": MetaNetworks,
    "anp": ANP,
    "tnp": TNP,
    "conv_cnp": ConvCNP,
    "in_context": InContext,
    "tabular": Tabular,
}

__all__ = ["ANP", "CNP", "MANN", "SNAIL", "TNP", "ConvCNP", "FastWeights", "InContext", "MetaNetworks", "Tabular"]
