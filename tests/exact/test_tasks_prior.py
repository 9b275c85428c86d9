"""Tasks drawn from a prior, whose posterior is known, and pictures to complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from quickstudy.core import Classification
from quickstudy.core.catalogue import build, describe
from quickstudy.core.errors import UserError
from quickstudy.core.source import generator
from quickstudy.core.task import Examples
from quickstudy.tasks import Completion, Prior


def double(part: Examples) -> Examples:
    return Examples(*(t.double() for t in part))  # type: ignore[arg-type]


def test_the_posterior_of_the_linear_prior_is_that_of_its_weights() -> None:
    # S = (d I + X'X / noise^2)^-1, m = S X'y / noise^2; f(x) ~ N(x'm, x'S x)
    source = Prior("linear", shot="1-9", query=6, features=4, noise=0.5)
    support, query = (double(part) for part in source.sample("test", 5, source.rng(0)))
    mean, deviation = source.posterior(support, query.x)
    for t in range(5):
        real = support.weight[t] > 0
        x, y = support.x[t, real], support.y[t, real]
        s = torch.linalg.inv(4 * torch.eye(4, dtype=torch.float64) + x.T @ x / 0.25)
        assert torch.allclose(mean[t], query.x[t] @ (s @ x.T @ y / 0.25), atol=1e-6)
        assert torch.allclose(deviation[t, :, 0].square(), ((query.x[t] @ s) * query.x[t]).sum(1), atol=1e-6)


def test_the_posterior_of_the_gp_prior_is_scikit_learns() -> None:
    source = Prior("gp", shot="2-9", query=6, features=2, noise=0.4, length_scale=0.8)
    support, query = (double(part) for part in source.sample("test", 5, source.rng(0)))
    mean, deviation = source.posterior(support, query.x)
    for t in range(5):
        real = support.weight[t] > 0
        peer = GaussianProcessRegressor(RBF(0.8), alpha=0.16, optimizer=None)
        peer.fit(support.x[t, real].numpy(), support.y[t, real, 0].numpy())
        m, s = peer.predict(query.x[t].numpy(), return_std=True)
        assert np.allclose(mean[t, :, 0], m, atol=1e-6) and np.allclose(deviation[t, :, 0], s, atol=1e-6)


@pytest.mark.parametrize("prior", ["linear", "gp"])
def test_what_is_drawn_is_what_the_posterior_expects(prior: str) -> None:
    source = Prior(prior, shot="1-8", query=10, features=2, noise=0.3)
    support, query = source.sample("train", 3000, source.rng(0))
    mean, deviation = source.posterior(support, query.x)
    z = (query.y - mean) / (deviation.square() + 0.3**2).sqrt()
    assert abs(float(z.mean())) < 0.03 and abs(float(z.std()) - 1) < 0.02
    assert set(support.weight.sum(1).tolist()) == set(range(1, 9))
    assert not support.x[support.weight == 0].any() and not support.y[support.weight == 0].any()
    assert abs(float((query.y - mean).std() / query.y.std()) - 1) > 0.1  # the support says something


def thirds(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
    """Three classes, the last of which one row in ten has."""
    x = torch.rand(tasks, rows, 1, generator=rng)
    return x, (x[..., 0] * 2.2).int()


def test_a_prior_of_your_own_shows_every_class_that_it_asks() -> None:
    source = Prior.of(thirds, way=3, shot="3-5", query=30)
    spec = source.spec
    assert (spec.kind, spec.x_shape, spec.way) == ("classification", (1,), 3)
    support, query = source.sample("train", 200, source.rng(0))
    objective = Classification(3)
    seen, asked = objective.seen(support), objective.seen(query)
    assert not (asked > seen).any() and 0 < float(seen[:, 2].mean()) < 1
    assert torch.equal(query.y, (query.x[..., 0] * 2.2).long())
    # the rows stay those that were drawn, in another order
    x = thirds(generator("again"), 4, 35)[0]
    given = Prior.of(lambda rng, tasks, rows: thirds(generator("again"), tasks, rows), 3, 5, 30)
    both = torch.cat([part.x for part in given.sample("train", 4, given.rng(0))], 1)
    assert torch.equal(both.sort(1).values, x.sort(1).values) and not torch.equal(both, x)


def test_regression_of_your_own_may_have_many_targets() -> None:
    def pairs(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(tasks, rows, 3, 2, generator=rng)
        return x, x.sum(2)[..., :1].expand(-1, -1, 2)

    source = Prior.of(pairs)
    assert (source.spec.kind, source.spec.x_shape, source.spec.y_size) == ("regression", (3, 2), 2)
    flat = Prior.of(lambda rng, tasks, rows: (pairs(rng, tasks, rows)[0], torch.zeros(tasks, rows)))
    assert flat.spec.y_size == 1 and flat.sample("valid", 2, flat.rng(0)).support.y.shape == (2, 10, 1)


def made(x: tuple[int, ...], y: Tensor, way: int = 0) -> Prior:
    return Prior.of(lambda rng, tasks, rows: (torch.zeros(x), y), way=way, shot=2, query=2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: Prior("liner"), "did you mean 'linear'"),
        (lambda: Prior(noise=-1.0), "noise is -1"),
        (lambda: Prior(way=3), "no way"),
        (lambda: Prior("gp", length_scale=0.0), "length_scale is 0"),
        (lambda: Prior.of(thirds, way=3, shot="2-5"), "a row for every class"),
        (lambda: made((2, 5, 1), torch.zeros(2, 4)), r"\(tasks, rows\) in front"),
        (lambda: made((2, 4, 1), torch.full((2, 4), torch.nan)), "row 0 holds a NaN"),
        (lambda: made((2, 4, 1), torch.zeros(2, 4).long()), "say how many classes"),
        (lambda: made((2, 4, 1), torch.full((2, 4), 2), way=2), "from 0 to 1"),
        (lambda: made((2, 4, 1), torch.zeros(2, 4), way=2), "whole numbers"),
    ],
)
def test_priors_that_make_no_sense_are_refused(source, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source().sample("train", 2, generator(0))


def test_a_function_is_described_and_not_rebuilt() -> None:
    again = build(describe(Prior.of(thirds, way=3, shot=3), "tasks"), "tasks")
    assert again.prior == "function:thirds"
    with pytest.raises(UserError, match=r"make the source again with Prior\.of"):
        again.sample("train", 1, generator(0))
    with pytest.raises(UserError, match="nor is its posterior"):
        source = Prior.of(thirds)
        source.posterior(Prior().sample("train", 1, generator(0)).support, torch.zeros(1, 2, 3))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("size", [28, 7])
def test_completion_shows_the_pixels_of_one_picture(cache, size: int) -> None:
    source = Completion("5-20", 29, size=size, drawings=2)
    support, query = source.sample("test", 12, source.rng(0))
    pictures = source.pictures("test", 12, source.rng(0))
    assert pictures.shape == (12, size, size) and 0.01 < float(pictures.mean()) < 0.6
    assert not torch.equal(pictures[0], pictures[1])
    for t in range(12):
        real = support.weight[t] > 0
        x, y = torch.cat([support.x[t, real], query.x[t]]), torch.cat([support.y[t, real], query.y[t]])
        across, down = ((x + 1) * size / 2 - 0.5).round().long().unbind(1)
        assert torch.equal(y[:, 0], pictures[t, down, across])
        assert len((down * size + across).unique()) == len(x)  # no pixel twice
    corners = source.places()[[0, size - 1, -1]]
    edge = 1 - 1 / size
    assert torch.allclose(corners, torch.tensor([[-edge, -edge], [edge, -edge], [edge, edge]]))


def test_completion_splits_the_letters_and_refuses_what_cannot_be(cache, tmp_path: Path) -> None:
    source = Completion(drawings=2)
    names = {split: set(source.names(split)) for split in ("train", "valid", "test")}
    assert all(names.values()) and not names["train"] & (names["valid"] | names["test"])
    whole, small = (source.reshaped(size=s, shot=5, query=5).pictures("train", 3, source.rng(0)) for s in (28, 7))
    assert torch.allclose(whole.view(3, 7, 4, 7, 4).mean((2, 4)), small, atol=1e-6)
    with pytest.raises(UserError, match="divides it"):
        source.reshaped(size=9).sample("train", 1, source.rng(0))
    with pytest.raises(UserError, match="a picture has 49"):
        source.reshaped(size=7, shot=40).sample("train", 1, source.rng(0))
