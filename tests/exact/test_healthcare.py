"""The intervals and distances of the healthcare examples, beside plainer ways to the same numbers."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from quickstudy.core.task import Task, examples

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        before, path = set(sys.modules), list(sys.path)
        import healthcare_ecg
        import healthcare_hospitals
        import healthcare_rows

        yield healthcare_rows, healthcare_hospitals, healthcare_ecg
        for name in set(sys.modules) - before:
            if name.startswith("healthcare"):
                del sys.modules[name]
        sys.path[:] = path


def test_rows_that_are_asked_once_leave_the_tasks_as_the_unit(parts) -> None:
    values = np.random.default_rng(0).integers(0, 2, (40, 5)).astype(float)
    rows = np.arange(200).reshape(40, 5)
    found = parts[0].crossed(values, rows, np.zeros((40, 5)))
    wanted = values.mean(1).std(ddof=1) / np.sqrt(40) * 2.0227
    assert found["mean"] == values.mean() and abs(found["interval"] / wanted - 1) < 0.01


def test_the_interval_covers_where_rows_repeat(parts) -> None:
    """Rows have a level of their own, tasks too: means over new rows and tasks lie within it 95 times in 100."""
    rng, hits, narrow = np.random.default_rng(1), [], []
    for _ in range(300):
        level, rows = rng.normal(0, 1, 60), np.stack([rng.permutation(60)[:10] for _ in range(50)])
        values = level[rows] + rng.normal(0, 0.3, 50)[:, None] + rng.normal(0, 0.3, rows.shape)
        found = parts[0].crossed(values, rows, np.zeros(rows.shape))
        hits.append(abs(found["mean"]) <= found["interval"])
        narrow.append(abs(found["mean"]) <= 2 * values.mean(1).std(ddof=1) / np.sqrt(50))
    assert 0.91 < np.mean(hits) < 0.985 and np.mean(narrow) < 0.85


def test_the_share_of_a_stratum_is_no_noise(parts) -> None:
    strata = np.tile([0, 1], (30, 5))
    found = parts[0].crossed(strata.astype(float), np.arange(300).reshape(30, 10), strata)
    assert found == {"mean": 0.5, "interval": 0.0}


def test_the_area_is_that_of_scikit_learn_and_delongs(parts) -> None:
    rng = np.random.default_rng(2)
    y = np.array([0, 1] * 15 + [0] * 10)
    scores = (y + rng.normal(0, 1, 40)).round(1)  # some of them equal
    pairs = parts[0].Pairs(y)
    pairs.add(np.arange(40), scores)
    found = parts[0].area([pairs.means()])
    assert abs(found["mean"] - roc_auc_score(y, scores)) < 1e-6
    ill, healthy = scores[y == 1], scores[y == 0]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in healthy] for a in ill])
    variance = np.var(psi.mean(1), ddof=1) / len(ill) + np.var(psi.mean(0), ddof=1) / len(healthy)
    assert abs(found["interval"] - 1.959964 * np.sqrt(variance)) < 1e-5
    assert parts[0].area([pairs.means()], [pairs.means()]) == {"mean": 0.0, "interval": 0.0}


def test_draws_are_averaged_pair_by_pair(parts) -> None:
    pairs = parts[0].Pairs(np.array([1, 0, 1, 0]))
    pairs.add(np.array([0, 1, 2]), np.array([3.0, 2.0, 1.0]))
    pairs.add(np.array([0, 1, 3]), np.array([1.0, 2.0, 1.0]))
    # patients 0 and 1: won, then lost; 0 and 3: equal; 2 and 1: lost; 2 and 3 were never asked together
    assert pairs.means() == {"ill": [0.5, round((0 + 1 / 3) / 2, 6)], "healthy": [0.25, round((0.5 + 1 / 3) / 2, 6)]}


def test_warping_is_the_least_over_all_paths(parts) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 6, 5))
    for band in (1, 4):
        for x, y, found in zip(a, b, parts[2].warped(a, b, band), strict=True):
            assert abs(found - least(x, y, band)) < 1e-12
    assert np.allclose(parts[2].warped(a, b, 0), np.square(a - b).sum(1))


def least(x: np.ndarray, y: np.ndarray, band: int) -> float:
    """By trying every path."""
    n, found = len(x), []
    for moves in itertools.product(((1, 0), (0, 1), (1, 1)), repeat=2 * n - 2):
        i = j = 0
        cost = (x[0] - y[0]) ** 2
        for di, dj in moves:
            if (i, j) == (n - 1, n - 1):
                break
            i, j = i + di, j + dj
            if i >= n or j >= n or abs(i - j) > band:
                break
            cost += (x[i] - y[j]) ** 2
        if (i, j) == (n - 1, n - 1):
            found.append(cost)
    return min(found)


def test_padding_is_nobodys_neighbour(parts) -> None:
    x = torch.tensor([[[0.0, 1.0, 0.0], [5.0, 5.0, 4.0], [1.0, 0.0, 0.0]]])
    support = examples(x, torch.tensor([[0, 1, 1]]), torch.tensor([[1.0, 1.0, 0.0]]))
    task = Task(support, examples(torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[1]])))
    for warp in (False, True):
        assert parts[2].nearest(warp, task, 0).tolist() == [[0]]


def test_a_ward_is_read_in_one_order(parts, test_data: Path, tmp_path: Path) -> None:
    hospitals = parts[1]
    path = hospitals.cleaned(test_data, tmp_path)
    at = hospitals.ward(path, "switzerland")
    assert (len(at.y), len(at.others_y), int((at.y == 0).sum())) == (123, 797, 8)
    assert np.isnan(at.cells[:, 4]).all()  # no cholesterol was written down there
    age, sex = at.cells[:, 0], at.cells[:, 1]
    assert np.array_equal(at.x[:, 0], age) and np.array_equal(at.x[:, 1], sex)
    assert np.array_equal(at.others_x[:, 0], at.others_cells[:, 0])
    other = hospitals.ward(path, "cleveland")
    assert not np.array_equal(other.others_x[:, 4], at.others_x[: len(other.others_x), 4])
    # a file in another order is brought into the same one
    table = test_data / "heart_disease_4sites" / "heart_4sites.csv"
    header, *lines = table.read_text().splitlines()
    mixed = tmp_path / "mixed" / "heart_disease_4sites"
    mixed.mkdir(parents=True)
    (mixed / "heart_4sites.csv").write_text("\n".join([header, *lines[::2], *lines[1::2]]) + "\n")
    again = hospitals.ward(hospitals.cleaned(mixed.parent, tmp_path / "again"), "va")
    assert np.array_equal(again.x[:, 0], again.cells[:, 0]) and again.y.sum() == 149
