"""The result of MANN in miniature: guessing at the first presentation of a class, knowing at the next."""

from __future__ import annotations

import pytest
import torch

import quickstudy as qs
from quickstudy.learners import MANN
from quickstudy.presentations import by_presentation
from quickstudy.tasks import Arrays

WAY, SHOWN, STEPS = 2, 8, 600


def blobs(classes: int = 400, rows: int = 20, size: int = 4) -> Arrays:
    """Tasks of two out of 400 classes, each shown eight times; whole classes are held out."""
    rng = qs.generator("blobs")
    centres = torch.randn(classes, 1, size, generator=rng)
    x = (centres + 0.1 * torch.randn(classes, rows, size, generator=rng)).flatten(0, 1)
    y = torch.arange(classes).repeat_interleave(rows)
    return Arrays.of(x, y.tolist(), way=WAY, shot=1, query=SHOWN - 1, valid_fraction=0.1, test_fraction=0.2)


def accuracies(learner: MANN, source: Arrays) -> list[float]:
    """At the first, second, ... presentation of a class, over 400 sequences."""
    found = by_presentation(learner, source, tasks=400)
    return [found.mean(k) for k in range(1, SHOWN + 1)]


@pytest.mark.slow
def test_mann_knows_a_class_from_its_second_presentation_on() -> None:
    source = blobs()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = qs.nets.MLP((4,), width=32, depth=1)
        learner = MANN(net, qs.Classification(WAY), hidden=64, slots=16, width=16, heads=2, in_sequence=True)
    before = accuracies(learner, source)
    run = qs.train(learner, source, STEPS, meta_batch=32, lr=5e-3, valid_every=0, progress=False)
    after = accuracies(learner, source)
    for name, found in {"untrained": before, "trained": after}.items():
        print(name, " ".join(f"{accuracy:.3f}" for accuracy in found))
    print(f"trained in {run.seconds:.0f} s")

    assert all(accuracy == pytest.approx(0.5, abs=0.1) for accuracy in before)
    # the first class to come can only be guessed, the other's first row is known to be none of it: 0.75 at best
    assert after[0] < 0.8
    assert min(after[1:]) > max(0.85, after[0] + 0.1)
