"""The table learner against what must hold whatever its weights: what tables mean does not hang on how they are
written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import quickstudy as qs
from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, Task, examples
from quickstudy.learners import Tabular
from quickstudy.nets.table_transformer import describe_cells
from quickstudy.tasks import Prior, TablePrior


@pytest.fixture
def learner() -> Tabular:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tabular(Classification(4), width=8, depth=2, reading=2, heads=2).double().eval()


@pytest.fixture
def task() -> Task:
    """Three tables with missing cells, of four classes or fewer."""
    rng = generator("tabular")
    values, there = (torch.randn(3, 20, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    x = torch.stack([values * (there > -1), (there > -1).double()], 2)
    y = torch.randint(4, (3, 20), generator=rng)
    y[2].clamp_(max=1)
    return Task(examples(x[:, :14], y[:, :14]), examples(x[:, 14:], y[:, 14:]))


def said(learner: Tabular, task: Task) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(task.support), task.query.x)


def changed(task: Task, change: Callable[[Tensor], Tensor]) -> Task:
    """The task with both x changed alike."""
    return Task(*(part._replace(x=change(part.x)) for part in task))


def stretched(x: Tensor) -> Tensor:
    values = x[:, :, 0] * torch.tensor([3.0, 1e-3, 100.0, 7.0, 1.0]) + torch.tensor([1.0, 5.0, -300.0, 0.0, 0.1])
    return torch.stack([values * x[:, :, 1], x[:, :, 1]], 2)


def widened(x: Tensor) -> Tensor:
    """Columns without a cell before, between and after, whatever their values say."""
    empty = torch.stack([torch.full_like(x[:, :, 0, :2], 7.0), torch.zeros_like(x[:, :, 0, :2])], 2)
    return torch.cat([empty, x[..., :3], empty, x[..., 3:], empty], -1)


def junk_where_missing(x: Tensor) -> Tensor:
    return torch.stack([torch.where(x[:, :, 1] > 0, x[:, :, 0], -1e3), x[:, :, 1]], 2)


@pytest.mark.parametrize(
    "change",
    [lambda x: x[..., [3, 0, 4, 2, 1]], stretched, widened, junk_where_missing],
    ids=["order of columns", "units of columns", "columns without a cell", "what a missing cell holds"],
)
def test_how_columns_are_written_says_nothing(
    learner: Tabular, task: Task, change: Callable[[Tensor], Tensor]
) -> None:
    torch.testing.assert_close(said(learner, changed(task, change)), said(learner, task), rtol=1e-8, atol=1e-8)


def test_a_column_that_one_table_lacks_says_nothing_there(learner: Tabular, task: Task) -> None:
    def emptied(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, :, :, 2] = 0
        return x

    found = said(learner, changed(task, emptied))
    alone = changed(Task(*(Examples(*(t[:1] for t in part)) for part in task)), lambda x: x[..., [0, 1, 3, 4]])
    torch.testing.assert_close(found[:1], said(learner, alone), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[1:], said(learner, task)[1:], rtol=1e-8, atol=1e-8)


def test_the_order_of_rows_says_nothing(learner: Tabular, task: Task) -> None:
    order = torch.randperm(14, generator=generator("rows"))
    moved = task._replace(support=Examples(*(t[:, order] for t in task.support)))
    torch.testing.assert_close(said(learner, moved), said(learner, task), rtol=1e-8, atol=1e-8)


def test_names_of_classes_say_nothing(learner: Tabular, task: Task) -> None:
    renamed = torch.tensor([2, 0, 3, 1])
    moved = task._replace(support=task.support._replace(y=renamed[task.support.y]))
    torch.testing.assert_close(said(learner, moved)[..., renamed], said(learner, task), rtol=1e-8, atol=1e-8)


def test_queries_never_influence_each_other(learner: Tabular, task: Task) -> None:
    together = said(learner, task)
    for i in range(6):
        alone = said(learner, task._replace(query=Examples(*(t[:, i : i + 1] for t in task.query))))
        torch.testing.assert_close(alone, together[:, i : i + 1], rtol=1e-8, atol=1e-8)


def test_a_weight_counts_as_so_many_rows(learner: Tabular, task: Task) -> None:
    twice = Examples(*(torch.cat([t, t[:, :3]], 1) for t in task.support))
    weight = torch.ones(3, 14, dtype=torch.float64)
    weight[:, :3] = 2
    heavy = task.support._replace(weight=weight)
    found = said(learner, task._replace(support=heavy))
    torch.testing.assert_close(found, said(learner, task._replace(support=twice)), rtol=1e-8, atol=1e-8)
    assert (found - said(learner, task)).abs().max() > 1e-4


def test_it_answers_to_what_it_is_shown(learner: Tabular, task: Task) -> None:
    """What the invariances do not say: every cell and every label counts."""
    first = said(learner, task)
    other = changed(task, lambda x: x * torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0]))
    assert (said(learner, other) - first).abs().max() > 1e-4
    labels = task.support.y.clone()
    labels[:, 0] = (labels[:, 0] + 1) % 2
    relabelled = task._replace(support=task.support._replace(y=labels))
    assert (said(learner, relabelled) - first).abs().max() > 1e-4


def test_any_number_of_classes(learner: Tabular) -> None:
    wide = learner.for_way(13)
    x = torch.randn(1, 26, 2, 3, generator=generator("wide"), dtype=torch.float64).abs()
    state = wide.adapt(examples(x, torch.arange(26).unsqueeze(0) % 13))
    assert wide.predict(state, x[:, :5]).softmax(-1).shape == (1, 5, 13)


def test_probabilities_are_those_of_one_against_the_rest(learner: Tabular, task: Task) -> None:
    """By hand: for every class a table of two, class and rest, whose logit goes through the logistic function."""
    support, query = task.support, task.query
    chances = []
    for c in range(4):
        cells = describe_cells(*(torch.cat([support.x, query.x], 1)[:, :, i] for i in (0, 1)), support.weight)
        sign = 2.0 * (support.y == c) - 1
        with torch.no_grad():
            chances.append(learner.transformer(cells, None, sign.double(), support.weight).sigmoid())
    wanted = torch.stack(chances, -1)
    wanted[2, :, 2:] = 0
    torch.testing.assert_close(said(learner, task).softmax(-1), wanted / wanted.sum(-1, keepdim=True))


def test_cells_are_described_from_the_support() -> None:
    values = torch.tensor([[[1.0], [3.0], [3.0], [9.0], [5.0], [0.0]]])
    present = torch.tensor([[[1.0], [1.0], [1.0], [0.0], [1.0], [1.0]]])
    cells = describe_cells(values, present, torch.tensor([[1.0, 1.0, 2.0, 1.0]]))
    mean, deviation = 10 / 4, (3 * 0.25 + 2.25) ** 0.5 / 2
    assert cells[0, 3].abs().sum() == 0
    torch.testing.assert_close(cells[0, [0, 1, 4, 5], 0, 0], ((values[0, [0, 1, 4, 5], 0] - mean) / deviation).asinh())
    torch.testing.assert_close(cells[0, [0, 1, 4, 5], 0, 1], torch.tensor([-0.75, 0.25, 1.0, -1.0]))
    torch.testing.assert_close(cells[0, [0, 1, 4, 5], 0, 2], torch.tensor([0.25, 0.75, 0.0, 0.0]))
    torch.testing.assert_close(cells[0, 0, 0, 4], torch.tensor(5.0).log() / 4)
    flat = describe_cells(torch.tensor([[[0.1], [0.1], [0.1], [7.0]]]), torch.ones(1, 4, 1), torch.ones(1, 3))
    assert torch.isfinite(flat).all() and flat[0, :, 0, 0].abs().sum() == 0 and flat[0, 3, 0, 1] == 1


def test_rows_that_are_no_tables_are_refused(learner: Tabular, task: Task) -> None:
    with pytest.raises(UserError, match=r"rows \(columns,\) or \(2, columns\), and these are \(3, 4\)"):
        learner.adapt(examples(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, dtype=torch.long)))
    with pytest.raises(UserError, match="has 5 columns and these rows have 4"):
        learner.predict(learner.adapt(task.support), task.query.x[..., :4])


def test_the_prior_keeps_to_its_options() -> None:
    source = TablePrior(way="3-5", shot="9-20", query=6, features="2-7", cells=100)
    for i in range(20):
        task = source.sample("train", 6, source.rng("options", i))
        n = task.support.y.shape[1]
        columns = (task.support.x[:, :, 1] > 0).any(1).sum(1)
        assert 9 <= n <= 20 and task.query.y.shape[1] == 6 and int(columns.min()) >= 1
        assert int(columns.max()) <= max(2, 100 // (n + 6)) and int(task.support.y.max()) < 5
        assert all(len(y.unique()) >= 2 for y in task.support.y)
        assert (task.support.x[:, :, 0][task.support.x[:, :, 1] == 0] == 0).all()
    with pytest.raises(UserError, match="a row for every class"):
        TablePrior(way=5, shot=4).sample("train", 1, source.rng(0))
    with pytest.raises(UserError, match="from 2 to 10"):
        _ = TablePrior(way=11).spec


def test_the_prior_holds_every_kind_of_table() -> None:
    source = TablePrior(shot=40, query=40, features=6, cells=0)
    tasks = [source.sample("train", 32, source.rng("kinds", i)) for i in range(4)]
    x, y = (torch.cat([torch.cat([getattr(part, name) for part in task], 1) for task in tasks]) for name in "xy")
    values, there = x.unbind(2)
    levels = torch.tensor([[len(values[t, :, j][there[t, :, j] > 0].unique()) for j in range(6)] for t in range(128)])
    missing = (there == 0).float().mean((1, 2))
    classes = torch.tensor([len(row.unique()) for row in y])
    rarest = torch.tensor([row.bincount()[row.unique()].min() for row in y]) / 80
    assert 0.02 < (levels == 2).float().mean() < 0.4 and 0.3 < (levels > 20).float().mean() < 0.9
    assert 0.05 < (missing > 0.02).float().mean() < 0.5
    assert 0.4 < (classes == 2).float().mean() < 0.85 and int(classes.max()) > 5
    assert float(rarest.min()) < 0.1 and float(rarest[classes == 2].max()) > 0.4


@pytest.mark.slow
def test_it_comes_to_the_posterior_of_a_known_prior() -> None:
    """One column, two classes of N(m, 1) and N(-m, 1), m = +-0.7, equally likely: which sign is learnt from the rows.

    p(y = 1 | x, support) is known, and a small network trained on such tasks comes near it; what it cannot know is the
    unit of the column, which it finds from the 12 rows themselves.
    """

    def sides(rng: torch.Generator, tasks: int, rows: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (tasks, rows), generator=rng)
        m = 1.4 * torch.randint(2, (tasks, 1), generator=rng) - 0.7
        return (m * (2 * y - 1) + torch.randn(tasks, rows, generator=rng)).unsqueeze(-1), y

    source = Prior.of(sides, way=2, shot=12, query=24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = qs.make("tabular", source.spec, width=16, depth=1, reading=1, heads=2)
        qs.train(learner, source, steps=400, meta_batch=32, lr=5e-3, clip=1.0, valid_every=0, progress=False)
    task = source.sample("test", 400, source.rng("posterior"))
    found = said(learner, task).softmax(-1)[..., 1]
    x, xq = task.support.x.squeeze(-1), task.query.x.squeeze(-1)
    evidence = (1.4 * x * (2 * task.support.y - 1)).sum(1, keepdim=True)  # log odds of m = 0.7
    positive = evidence.sigmoid()
    exact = positive * (1.4 * xq).sigmoid() + (1 - positive) * (-1.4 * xq).sigmoid()
    assert (found - exact).abs().mean() < (0.5 - exact).abs().mean() / 3
    loss = torch.nn.functional.binary_cross_entropy
    y = task.query.y.float()
    assert float(loss(found, y)) < float(loss(exact, y)) + 0.04
