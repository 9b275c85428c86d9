"""Gradient-based methods: the inner loop is gradient steps."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.gradient.anil import ANIL
from quickstudy.learners.gradient.boil import BOIL
from quickstudy.learners.gradient.cavia import CAVIA
from quickstudy.learners.gradient.imaml import IMAML
from quickstudy.learners.gradient.maml import MAML
from quickstudy.learners.gradient.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.gradient.meta_curvature import MetaCurvature
from quickstudy.learners.gradient.meta_lstm import MetaLSTM
from quickstudy.learners.gradient.meta_sgd import MetaSGD
from quickstudy.learners.gradient.reptile import Reptile
from quickstudy.learners.gradient.warp_grad import WarpGrad

TABLE: dict[str, type[MetaLearner]] = {
    "maml": MAML,
    "anil": ANIL,
    "imaml": IMAML,
    "reptile": Reptile,
    "meta_sgd": MetaSGD,
    "boil": BOIL,
    "cavia": CAVIA,
    "maml_plus_plus": MAMLPlusPlus,
    "meta_curvature": MetaCurvature,
    "warp_grad": WarpGrad,
    "meta_lstm": MetaLSTM,
}

__all__ = [
    "ANIL",
    "BOIL",
    "CAVIA",
    "IMAML",
    "MAML",
    "MAMLPlusPlus",
    "MetaCurvature",
    "MetaLSTM",
    "MetaSGD",
    "Reptile",
    "WarpGrad",
]
