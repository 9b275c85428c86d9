"""A mixture of initialisations, trained on four families of functions that it is never told of, beside one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.core.learner import MetaLearner
from quickstudy.learners import MixtureMAML
from quickstudy.tasks import Mixture

STEPS, HELD_OUT, COMPONENTS = 1000, 1000, 4


def learner(name: str, source: Mixture, **options) -> MetaLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return qs.make(name, source.spec, inner_steps=1, inner_lr=0.01, **options)


def errors(learner: MetaLearner, tasks: qs.Task) -> Tensor:
    """The squared error of each task, (task,)."""
    with torch.no_grad():
        return learner.eval().meta_loss(tasks)


def table(learner: MetaLearner, tasks: qs.Task, families: Tensor) -> Tensor:
    """How many tasks of each family (column) each component (row) is held responsible for."""
    assert isinstance(learner, MixtureMAML)
    with torch.no_grad():
        winner = learner.eval().adapt(tasks.support)["responsibility"].argmax(1)
    return torch.bincount(winner * 4 + families, minlength=4 * COMPONENTS).view(COMPONENTS, 4)


def purity(table: Tensor) -> float:
    """The share of tasks that are of the commonest family of their component."""
    return float(table.amax(1).sum() / table.sum())


@pytest.mark.slow
def test_the_mixture_finds_the_families_and_beats_one_start() -> None:
    source = Mixture()
    tasks = source.sample("test", HELD_OUT, source.rng("held out"))
    families = source.families("test", HELD_OUT, source.rng("held out"))
    mixture = learner("mixture_maml", source, components=COMPONENTS, temperature=0.3)
    one = learner("maml", source)
    before = table(mixture, tasks, families)
    for trained in (mixture, one):
        qs.train(trained, source, STEPS, meta_batch=16, lr=2e-3, valid_every=0, progress=False)
    after = table(mixture, tasks, families)
    shuffled = families[torch.randperm(HELD_OUT, generator=torch.Generator().manual_seed(0))]
    chance = purity(table(mixture, tasks, shuffled))
    ours, theirs = errors(mixture, tasks), errors(one, tasks)
    print(f"purity {purity(after):.3f}, untrained {purity(before):.3f}, chance {chance:.3f}; {after.tolist()}")
    print(f"squared error {ours.mean():.2f} against {theirs.mean():.2f} of one start")

    # lines, quadratics and cubics overlap: many of them no one could tell apart from ten noisy points
    assert purity(after) > chance + 0.12 and purity(after) > purity(before) + 0.08
    # sinusoids are unlike the rest: one component takes them, and takes little else
    mine = after[:, 0].argmax()
    assert after[mine, 0] > 0.6 * after[:, 0].sum() and after[mine, 0] > 0.5 * after[mine].sum()
    # no component died
    assert (after.sum(1) > 0.03 * HELD_OUT).all()
    # with as many outer steps on the same tasks, better on every family
    assert ours.mean() < 0.75 * theirs.mean()
    for family in range(4):
        assert ours[families == family].mean() < theirs[families == family].mean()
