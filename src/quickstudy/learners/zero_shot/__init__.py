"""Zero-shot methods: a class is known by its description alone."""

from __future__ import annotations

from quickstudy.core.learner import MetaLearner
from quickstudy.learners.zero_shot.dap import DAP
from quickstudy.learners.zero_shot.devise import DeViSE
from quickstudy.learners.zero_shot.eszsl import ESZSL
from quickstudy.learners.zero_shot.semantic_protonet import SemanticProtoNet

TABLE: dict[str, type[MetaLearner]] = {
    "semantic_protonet": SemanticProtoNet,
    "eszsl": ESZSL,
    "devise": DeViSE,
    "dap": DAP,
}

__all__ = ["DAP", "ESZSL", "DeViSE", "SemanticProtoNet"]
