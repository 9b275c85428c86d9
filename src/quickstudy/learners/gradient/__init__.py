"""Gradient-based methods: the inner loop is gradient steps."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.gradient.anil import ANIL
from quickstudy.learners.gradient.imaml import IMAML
from quickstudy.learners.gradient.maml import MAML
from quickstudy.learners.gradient.reptile import Reptile

TABLE: dict[str, type[MetaLearner]] = {
    "maml": MAML,
    "anil": ANIL,
    "imaml": IMAML,
    "reptile": Reptile,
}

__all__ = ["ANIL", "IMAML", "MAML", "Reptile"]
