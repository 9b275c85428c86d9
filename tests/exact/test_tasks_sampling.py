"""Exact properties of episode sampling, on data in which every row says which class and row it is."""

from __future__ import annotations

import pytest
import torch

from quickstudy.core.catalogue import build, describe
from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS, generator
from quickstudy.core.task import Examples
from quickstudy.tasks import TASKS
from quickstudy.tasks.arrays import Arrays
from quickstudy.tasks.sampling import Classes, Episode, count_range, draw, meta_dataset_shots, whole


def marked(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (class, place in the class), shuffled so that classes are not contiguous."""
    rows = torch.tensor([(c, i) for c, n in enumerate(counts) for i in range(n)], dtype=torch.float32)
    rows = rows[torch.randperm(len(rows), generator=generator("shuffle"))]
    return rows + 1, rows[:, 0].long()  # padding is 0: no real row is


def rows_of(part: Examples, task: int) -> set[tuple[float, float]]:
    """The real rows of one task."""
    assert isinstance(part.x, torch.Tensor)
    real = part.weight[task] > 0
    found = [tuple(r) for r in part.x[task, real].tolist()]
    assert len(set(found)) == len(found), "a row was drawn twice"
    return set(found)


OPTIONS = [
    {},
    {"way": "2-6", "shot": "1-4", "query": "2-5"},
    {"way": 4, "shot": 5, "query": 3, "imbalance": 1.5},
    {"way": "3-20", "scheme": "meta_dataset"},
    {"way": 3, "shot": (2, 3), "query": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_tasks_are_well_formed(options, split):
    x, y = marked([12 + 5 * (c % 4) for c in range(60)])
    source = Arrays.of(x, y, **({"way": 5, "shot": 2, "query": 4} | options))
    tasks = source.sample(split, 40, source.rng(0, split))
    drawn = source.draw(split, 40, source.rng(0, split))
    names = source.names(split)
    way = source.spec.way
    for part in tasks:
        assert part.y.dtype == torch.long and part.weight.dtype == torch.float32
        assert int(part.y.min()) >= 0 and int(part.y.max()) < way
        assert set(part.weight.unique().tolist()) <= {0.0, 1.0}
        assert bool((part.x[part.weight == 0] == 0).all()), "padding rows are zeros"
    for task in range(40):
        support, query = rows_of(tasks.support, task), rows_of(tasks.query, task)
        assert support and query and not support & query
        # The class that a row names is the class of its label.
        for part in tasks:
            real = part.weight[task] > 0
            expected = [int(names[c]) for c in drawn.classes[task, part.y[task, real]].tolist()]
            assert (part.x[task, real, 0] - 1).long().tolist() == expected
        in_use = int(drawn.way[task])
        shots = torch.bincount(tasks.support.y[task], tasks.support.weight[task], way)
        asked = torch.bincount(tasks.query.y[task], tasks.query.weight[task], way)
        assert bool((shots[:in_use] >= 1).all()) and bool((shots[in_use:] == 0).all())
        assert bool((asked[:in_use] >= 1).all()) and bool((asked[in_use:] == 0).all())
        assert len(set(drawn.classes[task, :in_use].tolist())) == in_use


def test_ranges_are_used_to_their_ends():
    x, y = marked([12] * 30)
    source = Arrays.of(x, y, way="2-4", shot="1-3", query="2-5", valid_fraction=0, test_fraction=0)
    tasks = source.sample("train", 300, source.rng(0))
    drawn = source.draw("train", 300, source.rng(0))
    assert set(drawn.way.tolist()) == {2, 3, 4}
    assert set((tasks.support.weight.sum(1) / drawn.way).tolist()) == {1.0, 2.0, 3.0}
    assert set((tasks.query.weight.sum(1) / drawn.way).tolist()) == {2.0, 3.0, 4.0, 5.0}
    assert tasks.support.y.shape == (300, 12) and tasks.query.y.shape == (300, 20)


def test_imbalance_gives_unequal_shots_between_the_bounds():
    x, y = marked([30] * 20)
    source = Arrays.of(x, y, shot=20, query=5, imbalance=2.0, valid_fraction=0, test_fraction=0)
    support = source.sample("train", 200, source.rng(0)).support
    shots = torch.stack([(support.weight * (support.y == c)).sum(1) for c in range(5)], 1)
    assert 3 <= int(shots.min()) < 5 and int(shots.max()) == 20  # 20 exp(-2) is 2.7
    assert bool((shots.amax(1) > shots.amin(1)).any())


def test_same_generator_same_tasks_and_other_generator_other_tasks():
    x, y = marked([20] * 30)
    source = Arrays.of(x, y)
    first, again = (source.sample("train", 8, source.rng(3, "train", 7)) for _ in range(2))
    other = source.sample("train", 8, source.rng(3, "train", 8))
    assert all(torch.equal(a, b) for p, q in zip(first, again, strict=True) for a, b in zip(p, q, strict=True))
    assert not torch.equal(first.support.x, other.support.x)


def test_every_class_and_every_row_is_equally_likely():
    classes = Classes(torch.arange(80).view(10, 8), torch.full((10,), 8))
    drawn = draw(classes, Episode((3, 3), (1, 1), (2, 2)), 20_000, generator(0))
    share = torch.bincount(drawn.classes.flatten(), minlength=10) / drawn.classes.numel()
    assert torch.allclose(share, torch.full((10,), 0.1), atol=0.004)
    share = torch.bincount(drawn.support_rows.flatten(), minlength=80) / drawn.support_rows.numel()
    assert torch.allclose(share, torch.full((80,), 1 / 80), atol=0.0025)
    first = torch.bincount(drawn.classes[:, 0], minlength=10) / 20_000  # labels are in random order
    assert torch.allclose(first, torch.full((10,), 0.1), atol=0.01)


def test_groups_hold_all_classes_of_a_task():
    groups = torch.arange(24) % 3
    sizes = torch.bincount(groups)
    classes = Classes(torch.arange(240).view(24, 10), torch.full((24,), 10), groups, torch.arange(3), sizes)
    for scheme, way in (("fixed", (5, 5)), ("meta_dataset", (2, 20))):
        drawn = draw(classes, Episode(way, (1, 1), (5, 5), 0.0, scheme), 200, generator(1))
        used = torch.arange(drawn.classes.shape[1]) < drawn.way.unsqueeze(1)
        belongs = groups[drawn.classes]
        assert bool(((belongs == belongs[:, :1]) | ~used).all())
        assert set(belongs[:, 0].tolist()) == {0, 1, 2}
        assert int(drawn.way.max()) <= 8


def test_meta_dataset_bounds():
    counts = torch.randint(2, 400, (500, 30), generator=generator(0))
    way = whole(5, 30, (500, 1), generator(1))
    in_use = torch.arange(30) < way
    shots, query = meta_dataset_shots(counts, in_use, generator(2))
    smallest = counts.masked_fill(~in_use, 10**6).amin(1)
    assert torch.equal(query[:, 0], (smallest // 2).clamp_max(10))
    assert bool((shots[in_use] >= 1).all()) and bool((shots + query <= counts)[in_use].all())
    total = (shots * in_use).sum(1)
    assert int(total.max()) <= 500 and int(total.max()) > 400
    assert bool((total >= way[:, 0]).all())


def test_pooled_rows_bear_the_number_of_their_class():
    x, y = marked([3, 9, 27, 5, 8, 6])
    source = Arrays.of(x, y, valid_fraction=0, test_fraction=0.5)
    for split in ("train", "test"):
        pooled = source.sample_pooled(split, 500, source.rng(0))
        names = torch.tensor([int(n) for n in source.names(split)])
        assert torch.equal(names[pooled.y], (pooled.x[..., 0] - 1).long())
        assert set(pooled.y.unique().tolist()) == {0, 1, 2}
        assert bool((pooled.weight == 1).all())


def test_splits_hold_whole_classes_and_all_of_them():
    x, y = marked([4] * 50)
    names = [set(Arrays.of(x, y, split_seed=1).names(split)) for split in SPLITS]
    assert [len(n) for n in names] == [30, 10, 10]
    assert len(set.union(*names)) == 50
    assert names[2] != set(Arrays.of(x, y, split_seed=2).names("test"))


def test_reshaped_and_moved_copies_share_the_data():
    x, y = marked([20] * 30)
    source = Arrays.of(x, y)
    wide = source.reshaped(way=3, shot=2)
    assert wide.prepare() is source.prepare() is source.to("cpu").prepare()
    assert wide.spec.way == 3 and source.spec.way == 5
    assert source.reshaped(split_seed=5).prepare() is not source.prepare()


@pytest.mark.parametrize("key", list(TASKS))
def test_every_source_is_described_and_built_again(key):
    card = describe(TASKS[key](), "tasks")
    assert describe(build(card, "tasks"), "tasks") == card


def test_a_source_in_memory_is_described_but_not_rebuilt():
    x, y = marked([20] * 30)
    card = describe(Arrays.of(x, y, way="2-3"), "tasks")
    assert card["path"].startswith("memory:") and card["way"] == "2-3"
    assert card["path"] != describe(Arrays.of(x + 1, y), "tasks")["path"]
    with pytest.raises(UserError, match="given in memory"):
        build(card, "tasks").prepare()


@pytest.mark.parametrize("value", [0, -1, "0-3", "5-2", "a", "1-2-3", "", (1, 2, 3), 2.5])
def test_counts_that_make_no_sense_are_refused(value):
    with pytest.raises(UserError, match="shot is"):
        count_range(value, "shot")
