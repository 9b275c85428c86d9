"""A mixture of priors, trained on four families of functions that it is never told of: the evidence finds them."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

import quickstudy as qs
from quickstudy.tasks import Mixture


@pytest.mark.slow
def test_the_evidence_finds_the_families() -> None:
    source = Mixture()
    tasks = source.sample("test", 1000, source.rng("held out"))
    families = source.families("test", 1000, source.rng("held out"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = qs.make("mixture_alpaca", source.spec, net_options={"out": 16})
    qs.train(learner, source, 800, meta_batch=16, lr=5e-3, clip=10.0, valid_every=0, progress=False)
    with torch.no_grad():
        found = learner.eval().adapt(tasks.support)["responsibility"].argmax(1)
    table = torch.bincount(found * 4 + families, minlength=24).view(6, 4)
    purity = float(table.amax(1).sum() / 1000)
    shared = float(normalized_mutual_info_score(families, found))
    print(f"purity {purity:.3f}, information {shared:.3f}: {table.tolist()}")
    # chance is 0.28; 0.87 and 0.69 on validation tasks when this was written, and a classifier that is told the
    # families in training reaches 0.90 and 0.73
    assert purity > 0.75 and shared > 0.6
    # every family has a component of its own
    mine = table.argmax(0)
    assert len(mine.unique()) == 4
    for family, component in enumerate(mine.tolist()):
        assert table[component, family] > 0.6 * table[:, family].sum()
        assert table[component, family] > 0.6 * table[component].sum()
