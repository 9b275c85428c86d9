"""Closed forms against scikit-learn and against naive loops."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from quickstudy.inner.closed import class_sums, full_precision, prototypes, squared_distances, weighted_ridge
from quickstudy.testing import check_meta_gradient

TASKS, WAY, FEATURES = 3, 4, 7
FEWER, MORE = 5, 12  # rows: fewer and more than features


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(rows: int) -> Tensor:
    return 0.2 + noise(TASKS, rows, seed=3).abs()


def problem(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, two columns of targets, and weights that are not all alike."""
    return noise(TASKS, rows, FEATURES, seed=1), noise(TASKS, rows, 2, seed=2), weights(rows)


# --- ridge ---


@pytest.mark.parametrize("penalty", [1e-3, 0.7, 50.0])
@pytest.mark.parametrize("rows", [FEWER, FEATURES, MORE])
def test_ridge_is_that_of_scikit_learn(rows: int, penalty: float) -> None:
    x, y, weight = problem(rows)
    ours = weighted_ridge(x, y, weight, penalty)
    assert ours.shape == (TASKS, FEATURES, 2)
    for t in range(TASKS):
        model = Ridge(alpha=penalty, fit_intercept=False).fit(x[t], y[t], sample_weight=weight[t])
        torch.testing.assert_close(ours[t], torch.from_numpy(model.coef_).T, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rows", [FEWER, MORE])
def test_ridge_is_a_stationary_point(rows: int) -> None:
    # d/dW of sum_i w_i |x_i W - y_i|^2 + penalty |W|^2 is 0
    x, y, weight = problem(rows)
    w = weighted_ridge(x, y, weight, 0.3)
    slope = 2 * x.transpose(1, 2) @ (weight.unsqueeze(-1) * (x @ w - y)) + 2 * 0.3 * w
    assert slope.abs().max() < 1e-11


@pytest.mark.parametrize("rows", [FEWER, MORE])
def test_rows_without_weight_change_nothing(rows: int) -> None:
    x, y, weight = problem(rows)
    alone = weighted_ridge(x, y, weight, 0.3)
    # three rows of rubbish more: with them the other of the two formulas may be at work
    x2, y2 = torch.cat([x, 1e3 * noise(TASKS, 3, FEATURES)], 1), torch.cat([y, 1e3 * noise(TASKS, 3, 2)], 1)
    padded = weighted_ridge(x2, y2, torch.cat([weight, torch.zeros(TASKS, 3)], 1), 0.3)
    torch.testing.assert_close(padded, alone, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("rows", [FEWER, MORE])
def test_rows_without_weight_have_no_gradient(rows: int) -> None:
    x, y, weight = (t.clone() for t in problem(rows))
    weight[:, 1] = 0.0
    leaves = [t.requires_grad_() for t in (x, y, weight)]
    by_x, by_y, by_weight = torch.autograd.grad(weighted_ridge(*leaves, 0.3).square().sum(), leaves)  # type: ignore
    assert by_x[:, 1].eq(0).all() and by_y[:, 1].eq(0).all() and by_weight[:, 1].eq(0).all()
    others = [g[:, [i for i in range(rows) if i != 1]] for g in (by_x, by_y, by_weight)]
    assert all(torch.isfinite(g).all() and g.ne(0).any() for g in others)


@pytest.mark.parametrize("rows", [FEWER, MORE])
def test_the_gradient_of_ridge_is_the_derivative(rows: int) -> None:
    leaves = [t.requires_grad_() for t in (*problem(rows), torch.tensor(0.4, dtype=torch.float64))]
    ask = noise(TASKS, FEATURES, 2, seed=5)
    check_meta_gradient(
        lambda: (weighted_ridge(*leaves) * ask).sum(), leaves, ["features", "targets", "weight", "penalty"]
    )


def test_a_weight_of_two_is_the_row_twice() -> None:
    x, y, _ = problem(FEWER)
    weight = torch.ones(TASKS, FEWER, dtype=torch.float64)
    weight[:, 0] = 2.0
    twice = weighted_ridge(
        torch.cat([x, x[:, :1]], 1), torch.cat([y, y[:, :1]], 1), torch.ones(TASKS, FEWER + 1).double(), 0.3
    )
    torch.testing.assert_close(weighted_ridge(x, y, weight, 0.3), twice, rtol=1e-10, atol=1e-11)


# --- class means and distances ---


def test_class_sums_and_prototypes_are_those_of_a_loop() -> None:
    x, weight = noise(TASKS, MORE, FEATURES, seed=1), weights(MORE)
    y = torch.randint(WAY - 1, (TASKS, MORE), generator=torch.Generator().manual_seed(0))  # the last never
    one_hot = torch.nn.functional.one_hot(y, WAY).double() * weight.unsqueeze(-1)
    sums, counts = class_sums(x, one_hot)
    means = prototypes(sums, counts)
    for t in range(TASKS):
        for k in range(WAY):
            rows = [i for i in range(MORE) if y[t, i] == k]
            total = sum((weight[t, i] * x[t, i] for i in rows), torch.zeros(FEATURES, dtype=torch.float64))
            count = sum(float(weight[t, i]) for i in rows)
            torch.testing.assert_close(sums[t, k], total, rtol=1e-12, atol=1e-13)
            assert float(counts[t, k]) == pytest.approx(count, rel=1e-12)
            torch.testing.assert_close(means[t, k], total / count if rows else total, rtol=1e-12, atol=1e-13)
    assert counts[:, -1].eq(0).all() and means[:, -1].eq(0).all()


def test_a_class_of_small_weight_keeps_its_mean() -> None:
    # dividing by max(count, 1) would shrink it
    sums, counts = class_sums(torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 0.25))
    assert prototypes(sums, counts).item() == pytest.approx(3.0)


def test_squared_distances_are_those_of_a_loop() -> None:
    x, centres = noise(TASKS, MORE, FEATURES, seed=1), noise(TASKS, WAY, FEATURES, seed=2)
    found = squared_distances(x, centres)
    for t in range(TASKS):
        for i in range(MORE):
            for k in range(WAY):
                assert float(found[t, i, k]) == pytest.approx(float((x[t, i] - centres[t, k]).square().sum()))


# --- autocast ---


def far_apart() -> tuple[Tensor, Tensor]:
    """Points 100 from the origin and 1 from each other: |x|^2 is 10,000, and bfloat16 holds 3 digits."""
    return 100 + noise(1, 6, 2, seed=1).float(), 100 + noise(1, 3, 2, seed=2).float()


def test_autocast_would_spoil_the_distances() -> None:
    # without the guard the product alone is off by more than the distances themselves
    x, c = far_apart()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = x @ c.transpose(1, 2)
    assert (product.float() - x @ c.transpose(1, 2)).abs().max() > 10


def test_closed_forms_keep_out_of_autocast() -> None:
    x, c = far_apart()
    one_hot = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 0, 1, 2]]), 3).float()
    y, weight = one_hot[..., :1], one_hot.sum(-1)

    def forms() -> list[Tensor]:
        ridge = [weighted_ridge(f, y, weight, 0.5) for f in (x, x.repeat(1, 1, 4))]  # more rows, fewer rows
        return [squared_distances(x, c), *class_sums(x, one_hot), *ridge]

    plain = forms()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = forms()
    for a, b in zip(cast, plain, strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b)


def test_bfloat16_features_are_computed_with_in_float32() -> None:
    x, c = (t.bfloat16() for t in far_apart())
    found = squared_distances(x, c)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, (x.float().unsqueeze(2) - c.float().unsqueeze(1)).square().sum(-1), atol=0.02, rtol=0.0
    )


def test_full_precision_leaves_autocast_on_for_the_rest_and_doubles_alone() -> None:
    seen: list[tuple[torch.dtype, bool]] = []

    @full_precision
    def form(a: Tensor) -> Tensor:
        seen.append((a.dtype, torch.is_autocast_enabled("cpu")))
        return a

    with torch.autocast("cpu", dtype=torch.bfloat16):
        form(torch.ones(2, 2, dtype=torch.bfloat16))
        form(torch.ones(2, 2, dtype=torch.float64))
        assert torch.is_autocast_enabled("cpu")
    assert seen == [(torch.float32, False), (torch.float64, False)]
