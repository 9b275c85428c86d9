"""Plain baselines, as ordinary learners: what meta-learning has to beat."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.baseline.centroid import Centroid
from quickstudy.learners.baseline.chance import Chance
from quickstudy.learners.baseline.linear_probe import LinearProbe
from quickstudy.learners.baseline.logistic import Logistic
from quickstudy.learners.baseline.nearest_description import NearestDescription
from quickstudy.learners.baseline.pooled import Pooled
from quickstudy.learners.baseline.ridge import Ridge
from quickstudy.learners.baseline.scratch import Scratch

TABLE: dict[str, type[MetaLearner]] = {
    "chance": Chance,
    "centroid": Centroid,
    "logistic": Logistic,
    "ridge": Ridge,
    "nearest_description": NearestDescription,
    "scratch": Scratch,
    "pooled": Pooled,
    "linear_probe": LinearProbe,
}

__all__ = ["Centroid", "Chance", "LinearProbe", "Logistic", "NearestDescription", "Pooled", "Ridge", "Scratch"]
