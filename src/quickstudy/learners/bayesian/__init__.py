"""Bayesian and hierarchical methods: a distribution over what was learnt, or several places to start from."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.bayesian.abml import ABML
from quickstudy.learners.bayesian.alpaca import ALPaCA
from quickstudy.learners.bayesian.bmaml import BMAML
from quickstudy.learners.bayesian.dkt import DKT
from quickstudy.learners.bayesian.hsml import HSML
from quickstudy.learners.bayesian.mixture_alpaca import MixtureALPaCA
from quickstudy.learners.bayesian.mixture_maml import MixtureMAML
from quickstudy.learners.bayesian.platipus import PLATIPUS

TABLE: dict[str, type[MetaLearner]] = {
    "mixture_maml": MixtureMAML,
    "mixture_alpaca": MixtureALPaCA,
    "hsml": HSML,
    "bmaml": BMAML,
    "abml": ABML,
    "platipus": PLATIPUS,
    "alpaca": ALPaCA,
    "dkt": DKT,
}

__all__ = ["ABML", "BMAML", "DKT", "HSML", "PLATIPUS", "ALPaCA", "MixtureALPaCA", "MixtureMAML"]
