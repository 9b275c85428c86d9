"""Metric-based methods: a learnt space, and something closed that answers in it."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.metric.baseline_plus_plus import BaselinePlusPlus
from quickstudy.learners.metric.bd_cspn import BDCSPN
from quickstudy.learners.metric.feat import FEAT
from quickstudy.learners.metric.label_propagation import TPN
from quickstudy.learners.metric.laplacian_shot import LaplacianShot
from quickstudy.learners.metric.lr_d2 import LRD2
from quickstudy.learners.metric.matching import MatchingNet
from quickstudy.learners.metric.meta_baseline import MetaBaseline
from quickstudy.learners.metric.metaoptnet import MetaOptNet
from quickstudy.learners.metric.protonet import ProtoNet
from quickstudy.learners.metric.r2d2 import R2D2
from quickstudy.learners.metric.relation import RelationNet
from quickstudy.learners.metric.simple_cnaps import SimpleCNAPS
from quickstudy.learners.metric.simple_shot import SimpleShot
from quickstudy.learners.metric.tim import TIM

TABLE: dict[str, type[MetaLearner]] = {
    "protonet": ProtoNet,
    "r2d2": R2D2,
    "matching": MatchingNet,
    "relation": RelationNet,
    "lr_d2": LRD2,
    "feat": FEAT,
    "metaoptnet": MetaOptNet,
    "simple_cnaps": SimpleCNAPS,
    "simple_shot": SimpleShot,
    "baseline_plus_plus": BaselinePlusPlus,
    "meta_baseline": MetaBaseline,
    "label_propagation": TPN,
    "bd_cspn": BDCSPN,
    "tim": TIM,
    "laplacian_shot": LaplacianShot,
}

__all__ = [
    "BDCSPN",
    "FEAT",
    "LRD2",
    "R2D2",
    "TIM",
    "TPN",
    "BaselinePlusPlus",
    "LaplacianShot",
    "MatchingNet",
    "MetaBaseline",
    "MetaOptNet",
    "ProtoNet",
    "RelationNet",
    "SimpleCNAPS",
    "SimpleShot",
]
