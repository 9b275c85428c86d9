"""Effective numbers by hand, signals of planted shifts, and false alarms as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import quickstudy as qs
from quickstudy.evaluate import draw
from quickstudy.questions.audit import Auditor
from quickstudy.questions.diversity import effective_number, similarity, twins, width
from quickstudy.questions.row_features import behind_network, row_features


@pytest.mark.parametrize("k", [1, 3, 7])
def test_k_identical_clusters_count_as_k(k: int) -> None:
    assert effective_number(np.kron(np.eye(k), np.ones((5, 5)))) == pytest.approx(k)
    assert effective_number(np.eye(k)) == pytest.approx(k)


def test_two_things_half_alike() -> None:
    # eigenvalues 3/4 and 1/4
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_number(similarity(np.array([[0.0, 2.0], [2.0, 0.0]]), 2.0)) == pytest.approx(math.exp(entropy))


def clusters(classes: int = 40, rows: int = 12) -> tuple[torch.Tensor, list[int]]:
    """Classes round means of length about 3, in 6 dimensions."""
    rng = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(classes, 6, generator=rng)
    y = [i % classes for i in range(classes * rows)]
    return mean[y] + 0.5 * torch.randn(len(y), 6, generator=rng), y


@pytest.fixture(scope="module")
def source() -> qs.tasks.Arrays:
    return qs.tasks.Arrays.of(*clusters(), way=3, shot=2, query=4, valid_fraction=0.3, test_fraction=0.3)


@pytest.fixture(scope="module")
def auditor(source: qs.tasks.Arrays) -> Auditor:
    return Auditor(qs.make("centroid", source.spec), source, tasks=100).prepare()


def test_alarms_are_as_rare_as_said_and_ring_for_what_is_unlike(source: qs.tasks.Arrays, auditor: Auditor) -> None:
    held = [task.support for task in draw(source, "valid", 200, seed=9)]
    p = np.array([one.p for support in held for one in auditor.verdicts(auditor.profile(support))])
    assert (p <= 0.1).mean() < 0.2 and 0.35 < p.mean() < 0.65
    far = [s._replace(x=s.x + 15) for s in held[:2]]
    found = [one for support in far for one in auditor.verdicts(auditor.profile(support))]
    assert max(one.p for one in found) == pytest.approx(1 / 51)
    assert {one.why for one in found} <= {"inputs", "features", "task"}
    # labels that have nothing to do with the rows: they cannot be told from one another
    mixed = [s._replace(y=s.y.roll(1, 1)) for s in held[:2]]
    verdicts = [one for support in mixed for one in auditor.verdicts(auditor.profile(support))]
    assert np.mean([one.parts["fit"] for one in verdicts]) > 2
    assert all(one.parts["inputs"] < 5 for one in verdicts)


def test_the_nearest_training_task_of_a_training_task_is_itself(source: qs.tasks.Arrays, auditor: Auditor) -> None:
    support = next(draw(source, "train", 100, 0)).support
    found = auditor.verdicts(auditor.profile(support))
    assert [one.nearest[0] for one in found] == list(range(20))
    assert max(one.distance for one in found) < 1e-3


def test_width(source: qs.tasks.Arrays, auditor: Auditor) -> None:
    found = width(auditor)
    assert 1 < found.of_half < found.effective < found.drawn == 100
    assert found.same > 0 and set(found.covered) == {"valid", "test"}


def test_a_class_that_stands_in_two_splits_is_found() -> None:
    x, y = clusters()
    source = qs.tasks.Arrays.of(x, y, way=3, query=2, valid_fraction=0.25, test_fraction=0.25)
    learner = qs.make("centroid", source.spec)
    before, count = twins(learner, source)
    assert not before and count == {"valid": 0, "test": 0}
    train, test = (int(source.prepare().splits[s][0]) for s in ("train", "test"))
    label = torch.tensor(y)
    x[label == test] = x[label == train] + 1e-3
    planted = qs.tasks.Arrays.of(x, y, way=3, query=2, valid_fraction=0.25, test_fraction=0.25)
    ((pair,), count) = twins(learner, planted)
    assert (pair.train, pair.other, pair.split) == (str(train), str(test), "test") and pair.apart < 1
    assert count == {"valid": 0, "test": 1}


def test_waves_of_other_amplitudes_ring() -> None:
    source = qs.tasks.Sinusoid(shot=6, query=6)
    auditor = Auditor(qs.make("scratch", source.spec, inner_steps=3), source, tasks=60).prepare()
    support = next(draw(source, "test", 20, 0)).support
    plain = auditor.verdicts(auditor.profile(support))
    loud = auditor.verdicts(auditor.profile(support._replace(y=20 * support.y)))
    assert np.median([one.p for one in loud]) < 0.05 < 0.2 < np.median([one.p for one in plain])


def test_features_are_what_the_last_layer_takes() -> None:
    maml = qs.make("maml", qs.Spec("regression", (2,)))
    x = torch.randn(3, 5, 2)
    assert torch.allclose(maml.net.layers[-1](row_features(maml, x)), maml.net(x))
    conv = qs.make("maml", qs.Spec("classification", (1, 16, 16), way=3))
    images = torch.randn(2, 4, 1, 16, 16)
    assert torch.allclose(conv.net.head(row_features(conv, images)), conv.net(images), atol=1e-5)
    assert behind_network(maml) is None


def test_what_cannot_be_audited(source: qs.tasks.Arrays) -> None:
    with pytest.raises(qs.UserError, match="at least 20"):
        Auditor(qs.make("centroid", source.spec), source, tasks=5)
