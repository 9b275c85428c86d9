"""The contract as checks that anyone can run on a learner or a source of their own."""

from quickstudy.testing.gradient import check_meta_gradient
from quickstudy.testing.learner import Check, check_learner, learner_checks
from quickstudy.testing.promise import ContractError
from quickstudy.testing.source import SourceCheck, check_source, source_checks
from quickstudy.testing.synthetic import synthetic_tasks

__all__ = [
    "Check",
    "ContractError",
    "SourceCheck",
    "check_learner",
    "check_meta_gradient",
    "check_source",
    "learner_checks",
    "source_checks",
    "synthetic_tasks",
]
