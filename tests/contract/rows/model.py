"""Model-based methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import POINT, VECTOR, Row
from quickstudy.core import GaussianRegression
from quickstudy.learners import CNP

ROWS: dict[str, Row] = {
    "cnp": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT),
    "cnp-ragged": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT, ragged=True),
    "cnp-vectors": Row(lambda: CNP(GaussianRegression(2), VECTOR, width=8, depth=1)),
}
