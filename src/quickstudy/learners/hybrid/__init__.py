"""Hybrid methods: a metric start with gradient steps, or a network that makes weights."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.hybrid.cnaps import CNAPs
from quickstudy.learners.hybrid.leo import LEO
from quickstudy.learners.hybrid.proto_maml import ProtoMAML
from quickstudy.learners.hybrid.prototype_memory import PrototypeMemory
from quickstudy.learners.hybrid.versa import VERSA

TABLE: dict[str, type[MetaLearner]] = {
    "proto_maml": ProtoMAML,
    "versa": VERSA,
    "leo": LEO,
    "cnaps": CNAPs,
    "prototype_memory": PrototypeMemory,
}

__all__ = ["LEO", "VERSA", "CNAPs", "ProtoMAML", "PrototypeMemory"]
