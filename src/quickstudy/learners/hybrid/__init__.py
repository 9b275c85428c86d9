"""Hybrid methods: a metric start with gradient steps, or a network that makes weights."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.hybrid.proto_maml import ProtoMAML

TABLE: dict[str, type[MetaLearner]] = {
    "proto_maml": ProtoMAML,
}

__all__ = ["ProtoMAML"]
