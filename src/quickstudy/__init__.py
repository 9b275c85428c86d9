"""quickstudy learns to learn: source -> tasks -> learner.adapt(support) -> state -> predict -> score."""

from quickstudy import client, learners, nets, tasks
from quickstudy.adaptation import AdaptedTask, adapt, load_task
from quickstudy.checkpoint import load, save
from quickstudy.core import Classification, GaussianRegression, Objective, Regression
from quickstudy.core.catalogue import catalogue
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Spec, generator
from quickstudy.core.task import Examples, State, Task, examples, select
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.evaluate import compare, evaluate
from quickstudy.learners import make
from quickstudy.pretrained import pretrained
from quickstudy.train import train
from quickstudy.version import VERSION as __version__

__all__ = [
    "AdaptedTask",
    "Classification",
    "Examples",
    "FewShotClassifier",
    "FewShotRegressor",
    "GaussianRegression",
    "MetaLearner",
    "Objective",
    "Regression",
    "Source",
    "Spec",
    "State",
    "Task",
    "UserError",
    "__version__",
    "adapt",
    "catalogue",
    "client",
    "compare",
    "evaluate",
    "examples",
    "generator",
    "learners",
    "load",
    "load_task",
    "make",
    "nets",
    "pretrained",
    "save",
    "select",
    "tasks",
    "train",
]
