"""Gaussian posteriors in closed form, for all tasks at once: Bayesian linear regression and Gaussian processes.

Everything here is computed in float64, whatever comes in: a Cholesky factor of a kernel with little noise has no digits
left in float32. Autocast leaves float64 alone.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.objective import GaussianRegression, Objective


def wide(values: Tensor) -> Tensor:
    """In float64, or in float32 where the device has no other (mps)."""
    return values.float() if values.device.type == "mps" else values.double()


def inverse_softplus(values: Tensor) -> Tensor:
    """The x with softplus(x) = values > 0, which is values + log(1 - exp(-values)).

    >>> torch.nn.functional.softplus(inverse_softplus(torch.tensor([0.1, 3.0])))
    tensor([0.1000, 3.0000])
    """
    return values + torch.log(-torch.expm1(-values))


def gaussian_prediction(
    objective: GaussianRegression, mean: Float[Tensor, "task n k"], deviation: Float[Tensor, "task n k"]
) -> Float[Tensor, "task n size"]:
    """The prediction of which `objective.mean_and_deviation` is `mean` and `deviation`.

    A deviation at or under the objective's floor becomes the floor.
    """
    above = (deviation - objective.floor).clamp_min(torch.finfo(deviation.dtype).tiny)
    return torch.cat([mean, inverse_softplus(above)], -1)


def check_noise(learner: str, objective: Objective, noise: float) -> None:
    """Raises UserError for an objective without a deviation, or for a noise that is not positive."""
    if objective.kind == "regression" and not isinstance(objective, GaussianRegression):
        raise UserError(f"{learner} predicts a mean and a deviation: give it the objective GaussianRegression.")
    if not noise > 0:
        raise UserError(f"noise is {noise}: {learner} needs a positive standard deviation.")


def linear_statistics(
    features: Float[Tensor, "task n d"], targets: Float[Tensor, "task n k"], weight: Float[Tensor, "task n"]
) -> tuple[Float[Tensor, "task d d"], Float[Tensor, "task d k"]]:
    """sum_i w_i f_i f_i' and sum_i w_i f_i y_i': all that linear regression keeps of its rows."""
    f, y, w = wide(features), wide(targets), wide(weight)
    scaled = (f * w.unsqueeze(-1)).transpose(1, 2)
    return scaled @ f, scaled @ y


def linear_posterior(
    gram: Float[Tensor, "task d d"],
    cross: Float[Tensor, "task d k"],
    factor: Float[Tensor, "d d"],
    x: Float[Tensor, "task m d"],
) -> tuple[Float[Tensor, "task m k"], Float[Tensor, "task m"]]:
    """x B and x P^-1 x' at every row x, for B = P^-1 cross and P = factor factor' + gram.

    With y = B'f + e, e ~ N(0, s^2) and columns of B ~ N(0, s^2 (factor factor')^-1), the posterior of B'x has the mean
    x B and the variance s^2 x P^-1 x' (Bishop 2006, section 3.3).
    """
    root, rows = wide(factor), wide(x)
    precision = torch.linalg.cholesky(root @ root.transpose(0, 1) + wide(gram))
    half = torch.linalg.solve_triangular(precision, rows.transpose(1, 2), upper=False)
    return rows @ torch.cholesky_solve(wide(cross), precision), half.square().sum(1)


def process_factor(
    gram: Float[Tensor, "task n n"], variance: Tensor, weight: Float[Tensor, "task n"]
) -> Float[Tensor, "task n n"]:
    """The Cholesky factor of gram + variance / w_i on the diagonal.

    A row of weight 0 becomes an unrelated variable of variance 1: it says nothing and has a log determinant of 0.
    """
    real, w = weight > 0, wide(weight)
    both = real.unsqueeze(1) & real.unsqueeze(2)
    own = torch.where(real, wide(variance) / torch.where(real, w, 1), 1)
    factor = torch.linalg.cholesky(torch.where(both, wide(gram), 0) + torch.diag_embed(own))
    return factor.contiguous()  # by rows, as it comes back from a file: solves differ in the last bit by layout


def log_marginal_likelihood(
    factor: Float[Tensor, "task n n"], targets: Float[Tensor, "task n k"], weight: Float[Tensor, "task n"]
) -> Float[Tensor, "task k"]:
    """log N(y; 0, C) = -(y' C^-1 y + log det C + n log 2 pi) / 2 of every column, for C = factor factor'."""
    real = weight > 0
    half = torch.linalg.solve_triangular(factor, torch.where(real.unsqueeze(-1), wide(targets), 0), upper=False)
    # a count is an integer, and an integer times a float has seven digits
    count = real.sum(1).to(factor.dtype)
    spread = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1) + count * math.log(2 * math.pi)
    return -(half.square().sum(1) + spread.unsqueeze(1)) / 2


def process_posterior(
    factor: Float[Tensor, "task n n"],
    targets: Float[Tensor, "task n k"],
    weight: Float[Tensor, "task n"],
    cross: Float[Tensor, "task m n"],
    own: Float[Tensor, "task m"],
) -> tuple[Float[Tensor, "task m k"], Float[Tensor, "task m"]]:
    """Mean c C^-1 y and variance k - c C^-1 c' at every row, for C = factor factor', c = cross and k = own
    (Rasmussen and Williams 2006, algorithm 2.1).
    """
    real = weight > 0
    half = torch.linalg.solve_triangular(factor, (wide(cross) * real.unsqueeze(1)).transpose(1, 2), upper=False)
    y = torch.linalg.solve_triangular(factor, torch.where(real.unsqueeze(-1), wide(targets), 0), upper=False)
    return half.transpose(1, 2) @ y, (wide(own) - half.square().sum(1)).clamp_min(0)
