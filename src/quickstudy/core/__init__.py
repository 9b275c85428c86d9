"""The words everyone uses: tasks, learners, objectives, sources. Nothing is learnt here."""

from quickstudy.core.catalogue import Catalogue
from quickstudy.core.objective import Classification, GaussianRegression, Objective, Regression

OBJECTIVES: Catalogue[Objective] = Catalogue(
    "objective",
    {"classification": Classification, "regression": Regression, "gaussian": GaussianRegression},
)
