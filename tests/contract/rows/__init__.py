"""One row a learner, with the variants that matter, a file a family; `test_learners.py` runs every check on each."""

from contract.rows import baseline, bayesian, gradient, hybrid, metric, model, zero_shot
from contract.rows.made import Row

ROWS: dict[str, Row] = {
    **gradient.ROWS,
    **metric.ROWS,
    **model.ROWS,
    **hybrid.ROWS,
    **bayesian.ROWS,
    **zero_shot.ROWS,
    **baseline.ROWS,
}
