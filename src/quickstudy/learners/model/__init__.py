"""Model-based methods: the forward pass is the learner."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.model.cnp import CNP

TABLE: dict[str, type[MetaLearner]] = {
    "cnp": CNP,
}

__all__ = ["CNP"]
