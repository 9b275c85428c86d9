"""Augmentation of training images: what moves, what stays, and what it depends on."""

from __future__ import annotations

import pytest
import torch

import quickstudy as qs
from quickstudy.core.task import Task
from quickstudy.tasks.augment import jitter, mirror_classes


def images(tasks: int = 2, way: int = 4, shot: int = 2) -> Task:
    x = torch.rand(tasks, way * shot, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(way).repeat_interleave(shot).expand(tasks, -1)
    return Task(qs.examples(x, y), qs.examples(x + 1, y))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_class_is_mirrored_as_a_whole_in_support_and_query() -> None:
    task = images(tasks=20)
    done = mirror_classes(task, 4, rng())
    turned = {}
    for part, before in zip(done, task, strict=True):
        flipped = (part.x == before.x.flip(-1)).flatten(2).all(2)  # type: ignore[union-attr, operator]
        kept = (part.x == before.x).flatten(2).all(2)  # type: ignore[union-attr, operator]
        assert bool((flipped ^ kept).all())
        for t in range(20):
            for row, k in enumerate(before.y[t].tolist()):
                assert turned.setdefault((t, k), bool(flipped[t, row])) == bool(flipped[t, row])
    assert 0.3 < sum(turned.values()) / len(turned) < 0.7


def test_jitter_moves_every_image_a_little_and_a_tiny_one_not_at_all() -> None:
    rows = images().support
    still = jitter(rows, 1e-7, rng())
    torch.testing.assert_close(still.x, rows.x, atol=1e-4, rtol=0)
    moved = jitter(rows, 0.1, rng())
    changed = (moved.x - rows.x).abs().flatten(2).mean(2)  # type: ignore[operator, union-attr]
    assert bool((changed > 0.01).all())
    assert torch.equal(moved.y, rows.y)


def test_a_shift_moves_a_dot_by_no_more_than_it_may() -> None:
    """A dot in the middle of 17 pixels moves by at most 0.2 * 17 / 2 pixels."""
    x = torch.zeros(1, 200, 1, 17, 17)
    x[..., 8, 8] = 1
    moved = jitter(qs.examples(x, torch.zeros(1, 200, dtype=torch.long)), 0.2, rng()).x[0, :, 0]  # type: ignore[index]
    place = torch.arange(17.0)
    mass = moved.sum((1, 2))
    down = (moved.sum(2) * place).sum(1) / mass - 8
    assert float(down.abs().max()) <= 0.2 * 17 / 2 + 0.6  # bilinear weights spread over a pixel
    assert float(down.std()) > 0.5


def test_only_training_tasks_are_augmented_and_the_seed_decides() -> None:
    plain = qs.tasks.Arrays.of(torch.rand(60, 1, 16, 16).numpy(), torch.arange(12).repeat(5).numpy(), shot=1, query=2)
    moved = plain.reshaped()
    moved.mirrors, moved.jitter = True, 0.1
    for split, same in (("train", False), ("valid", True), ("test", True)):
        a, b, c = (s.reshaped(way=2).sample(split, 2, s.rng(3)) for s in (plain, moved, moved))
        assert torch.equal(a.support.x, b.support.x) == same  # type: ignore[arg-type]
        assert torch.equal(b.query.x, c.query.x)  # type: ignore[arg-type]
        assert torch.equal(a.query.y, b.query.y)


@pytest.mark.parametrize("most", [-0.1, 1.5, float("nan")])
def test_a_jitter_that_makes_no_sense_is_refused(most: float) -> None:
    with pytest.raises(qs.UserError, match="jitter is"):
        jitter(images().support, most, rng())
    with pytest.raises(qs.UserError, match="need images"):
        jitter(qs.examples(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long)), 0.1, rng())
