"""Metric-based methods: a learnt space, and something closed that answers in it."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.metric.protonet import ProtoNet
from quickstudy.learners.metric.r2d2 import R2D2

TABLE: dict[str, type[MetaLearner]] = {
    "protonet": ProtoNet,
    "r2d2": R2D2,
}

__all__ = ["R2D2", "ProtoNet"]
