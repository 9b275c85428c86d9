"""Tuning: a search over any option of learner and training, with Optuna, and whether what it found holds."""

from quickstudy.tune.confirm import Confirmation, confirm
from quickstudy.tune.outcome import Outcome, outcome, write_config
from quickstudy.tune.space import Dimension, default_space, dimension
from quickstudy.tune.tuning import Tuning

__all__ = ["Confirmation", "Dimension", "Outcome", "Tuning", "confirm", "default_space", "dimension", "outcome",
           "write_config"]  # fmt: skip
