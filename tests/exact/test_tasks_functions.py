"""Function sources: the formulas, the distributions, and the exact posterior of a Gaussian process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, ExpSineSquared, Matern

from quickstudy.core.errors import UserError
from quickstudy.core.source import generator
from quickstudy.core.task import Examples
from quickstudy.tasks.functions import Harmonics, Mixture, Sinusoid
from quickstudy.tasks.gaussian_process import GaussianProcess
from quickstudy.tasks.sampling import branch

EVERY = [Sinusoid(), Harmonics(), Mixture(), GaussianProcess()]


@pytest.mark.parametrize("source", EVERY, ids=lambda s: type(s).__name__)
def test_shapes_determinism_and_streams(source):
    first, again = (source.sample("train", 6, source.rng(1)) for _ in range(2))
    assert torch.equal(first.query.y, again.query.y)
    assert not torch.equal(first.query.y, source.sample("test", 6, source.rng(1)).query.y)
    assert not torch.equal(first.query.y, source.sample("train", 6, source.rng(2)).query.y)
    assert first.support.x.shape[2:] == first.query.y.shape[2:] == (1,)
    assert first.query.x.dtype == first.support.y.dtype == torch.float32
    pooled = source.sample_pooled("valid", 9, source.rng(0))
    assert pooled.x.shape == pooled.y.shape == (1, 9, 1) and pooled.weight.shape == (1, 9)
    assert source.spec.kind == "regression" and source.spec.x_shape == (1,)
    with pytest.raises(UserError, match="unknown split"):
        source.sample("dev", 1, source.rng(0))


@pytest.mark.parametrize("source", EVERY, ids=lambda s: type(s).__name__)
def test_variable_shot_is_padding_of_weight_zero(source):
    source = source.reshaped(shot="2-7", query=3)
    support, query = source.sample("train", 200, source.rng(0))
    assert set(support.weight.sum(1).tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0, 7.0}
    assert bool((support.x[support.weight == 0] == 0).all()) and bool(
        (support.y[support.weight == 0] == 0).all()
    )
    assert query.y.shape == (200, 3, 1) and bool((query.weight == 1).all())


def test_sinusoid_formula_and_ranges():
    source = Sinusoid()
    tasks = source.sample("train", 5000, source.rng(0))
    amplitude, phase = source.parameters("train", 5000, source.rng(0)).unsqueeze(-1).unbind(1)
    for part in tasks:
        assert torch.allclose(part.y[..., 0], amplitude * torch.sin(part.x[..., 0] - phase), atol=1e-5)
        assert -5 <= float(part.x.min()) < -4.99 and 4.99 < float(part.x.max()) <= 5
    assert 0.1 <= float(amplitude.min()) < 0.12 and 4.98 < float(amplitude.max()) <= 5
    assert 0 <= float(phase.min()) < 0.01 and math.pi - 0.01 < float(phase.max()) <= math.pi


def test_the_stream_of_sinusoids_is_the_one_that_figures_were_made_with():
    # Drawn number by number, as it was when benchmarks/results/sinusoid.json was written.
    source = Sinusoid()
    rng = branch(source.rng(0, "train", 7), "train")
    amplitude, phase = (torch.rand(25, 1, generator=rng) for _ in range(2))
    x = -5.0 + (5.0 - -5.0) * torch.rand(25, 20, 1, generator=rng)
    amplitude, phase = 0.1 + (5.0 - 0.1) * amplitude, 0.0 + (math.pi - 0.0) * phase
    y = amplitude.unsqueeze(-1) * torch.sin(x - phase.unsqueeze(-1))
    tasks = source.sample("train", 25, source.rng(0, "train", 7))
    for part, at in zip(tasks, (slice(0, 10), slice(10, 20)), strict=True):
        assert torch.equal(part.x, x[:, at]) and torch.equal(part.y, y[:, at])
        assert torch.equal(part.weight, torch.ones(25, 10))
    first = [-4.6696, 1.8142, 0.6956]
    assert torch.allclose(tasks.support.x[0, :3, 0], torch.tensor(first), atol=1e-4)


def test_harmonics_formula():
    source = Harmonics()
    x, y, _ = source.sample("test", 50, source.rng(0)).query
    a1, a2, b1, b2, w, _ = source.parameters("test", 50, source.rng(0)).unsqueeze(-1).unbind(1)
    expected = a1 * torch.sin(w * x[..., 0] + b1) + a2 * torch.sin(2 * w * x[..., 0] + b2)
    assert torch.allclose(y[..., 0], expected, atol=1e-4)


def test_mixture_families_fit_their_functions():
    source = Mixture(shot=20, noise=0.0)
    x, y, _ = source.sample("train", 400, source.rng(0)).support
    family = source.families("train", 400, source.rng(0))
    assert torch.equal(family.unique(), torch.arange(4))
    for degree in (1, 2, 3):
        for task in (family == degree).nonzero().flatten().tolist():
            xs, ys = x[task, :, 0].double().numpy(), y[task, :, 0].double().numpy()
            fitted = np.polynomial.polynomial.polyfit(xs, ys, degree)
            assert np.allclose(np.polynomial.polynomial.polyval(xs, fitted), ys, atol=1e-3)
            assert abs(fitted[degree]) > 1e-6
    p = source.parameters("train", 400, source.rng(0))[family == 0].unsqueeze(-1)
    assert torch.allclose(
        y[family == 0][..., 0], p[:, 1] * torch.sin(p[:, 2] * x[family == 0][..., 0]) + p[:, 4], atol=1e-5
    )


def test_noise_has_its_standard_deviation():
    quiet, noisy = (Sinusoid(query=200, noise=n).sample("train", 200, generator(0)) for n in (0.0, 0.5))
    # The same functions and points, for the noise is drawn last.
    assert torch.equal(quiet.query.x, noisy.query.x)
    assert abs(float((noisy.query.y - quiet.query.y).std()) - 0.5) < 0.01


KERNELS = {
    "rbf": RBF(0.7),
    "matern52": Matern(0.7, nu=2.5),
    "periodic": ExpSineSquared(length_scale=0.7, periodicity=1.3),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_posterior_is_scikit_learns(kernel):
    source = GaussianProcess(
        shot="3-12", query=20, kernel=kernel, length_scale=0.7, variance=1.7, noise=0.3, period=1.3
    )
    support, query = source.sample("test", 8, source.rng(0))
    double = Examples(*(part.double() for part in support))
    mean, deviation = source.posterior(double, query.x.double())
    for task in range(8):
        real = support.weight[task] > 0
        peer = GaussianProcessRegressor(ConstantKernel(1.7) * KERNELS[kernel], alpha=0.09, optimizer=None)
        peer.fit(double.x[task, real].numpy(), double.y[task, real, 0].numpy())
        m, s = peer.predict(query.x[task].double().numpy(), return_std=True)
        assert np.allclose(mean[task, :, 0], m, atol=1e-6) and np.allclose(deviation[task, :, 0], s, atol=1e-6)


def test_posterior_is_calibrated_and_float32_in_gives_float32_out():
    source = GaussianProcess(shot=10, query=50, noise=0.1)
    support, query = source.sample("train", 200, source.rng(0))
    mean, deviation = source.posterior(support, query.x)
    assert mean.dtype == torch.float32 and mean.shape == deviation.shape == query.y.shape
    z = (query.y - mean) / (deviation.square() + 0.1**2).sqrt()
    assert abs(float(z.std()) - 1) < 0.03 and abs(float((z.abs() < 1.6448536).float().mean()) - 0.9) < 0.02


def test_gaussian_process_values_have_the_covariance_of_the_kernel():
    source = GaussianProcess(shot=1, query=1, kernel="matern52", noise=0.2)
    x = torch.tensor([[-0.3], [0.0], [0.5]]).expand(40_000, 3, 1)
    y = source._values(x, generator(0))[..., 0]
    expected = source.covariance(x[:1], x[:1])[0] + 0.04 * torch.eye(3)
    assert torch.allclose(y.T @ y / len(y), expected, atol=0.03)


def test_unknown_kernel_and_scales():
    with pytest.raises(UserError, match="did you mean 'rbf'"):
        GaussianProcess(kernel="rfb").sample("train", 1, generator(0))
    with pytest.raises(UserError, match="length_scale is 0"):
        GaussianProcess(length_scale=0.0).sample("train", 1, generator(0))
    with pytest.raises(UserError, match="noise is -1"):
        Sinusoid(noise=-1).sample("train", 1, generator(0))
