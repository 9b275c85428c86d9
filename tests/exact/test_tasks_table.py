"""Tables and series as numbers: what is fitted, to which rows, and what a reader makes of new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import quickstudy as qs
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.tasks.series import Series
from quickstudy.tasks.table import Table

ROWS = """who,when,dose,arm,code,y
a,1,1.0,x,1,10
a,2,,x,2,11
a,3,3.0,z,1,12
b,1,5.0,?,2,20
b,2,5.0,x,1,21
b,3,6.0,z,2,23
c,1,1000.0,new,9,500
c,2,,x,1,501
c,3,1000.0,z,2,502
d,1,7.0,x,1,1
d,2,8.0,x,2,2
d,3,9.0,x,1,3
"""
GIVEN = {"shot": 1, "query": 1, "valid_tasks": "d", "test_tasks": "c"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "t.csv").write_text(ROWS)
    return str(tmp_path / "t.csv")


def test_everything_is_fitted_to_the_training_tasks(path: str) -> None:
    source = Table(path, "who", "y", kind="regression", categorical="code", ignore="when", **GIVEN)
    rows = source.prepare()
    # dose and its indicator; arm: missing, x, z; code: 1, 2
    mean = (1 + 3 + 5 + 5 + 6) / 5
    assert_close(rows.x[:3], torch.tensor([[1, 0, 0, 1, 0, 1, 0], [mean, 1, 0, 1, 0, 0, 1], [3, 0, 0, 0, 1, 1, 0.0]]))
    assert_close(rows.x[3], torch.tensor([5, 0, 1, 0, 0, 0, 1.0]))
    # of a test task: words that training tasks do not have are none of them
    assert_close(rows.x[6:8], torch.tensor([[1000, 0, 0, 0, 0, 0, 0], [mean, 1, 0, 1, 0, 1, 0.0]]))
    scaling = rows.spec.scaling
    assert scaling is not None
    y = np.array([10, 11, 12, 20, 21, 23.0])
    assert scaling.y_mean == pytest.approx((y.mean(),)) and scaling.y_deviation == pytest.approx((y.std(),))
    assert scaling.x_mean == pytest.approx(rows.x[:6].mean(0).tolist())
    assert source.task_names("train") == ["a", "b"] and source.task_names("test") == ["c"]


def test_a_reader_reads_as_the_source_did(path: str, tmp_path: Path) -> None:
    source = Table(path, "who", "y", kind="regression", time_column="when", categorical="code", **GIVEN)
    lines = ROWS.splitlines()
    (tmp_path / "one.csv").write_text("\n".join([lines[0], *lines[7:10]]))
    rows = source.reader().read(str(tmp_path / "one.csv"))
    assert torch.equal(rows.x, source.prepare().x[6:9])
    assert rows.values is not None and torch.equal(rows.values, source.prepare().y[6:9])


def test_a_class_means_the_same_in_every_task(path: str) -> None:
    source = Table(path, "who", "arm", ignore="y,when", **GIVEN, kind="classification")
    with pytest.raises(Exception, match="the class 'new'"), pytest.warns(UserWarning, match="1 rows"):
        source.spec  # noqa: B018
    source = Table(path, "who", "code", ignore="y,when,arm", **{**GIVEN, "test_tasks": "", "test_fraction": 0.0})
    with pytest.raises(Exception, match="the class '9'"):
        source.spec  # noqa: B018


def test_a_new_task_numbers_its_classes_as_training_did(tmp_path: Path) -> None:
    rows = [f"{who},{n},{'wxz'[n % 3]}" for who in "abcd" for n in range(9)]
    (tmp_path / "t.csv").write_text("\n".join(["who,dose,arm", *rows]) + "\n")
    source = Table(str(tmp_path / "t.csv"), "who", "arm", kind="classification", **GIVEN)
    learner = qs.make("maml", source.spec)
    trained = Checkpoint(learner, {}, source.reader())
    x = torch.zeros(3, *source.spec.x_shape)
    task = qs.adapt(trained, x, ["z", "x", "z"])  # the second class of training is not shown
    assert task.classes == source.classes() == ["w", "x", "z"] and task.card["counts"] == {"w": 0, "x": 1, "z": 2}
    again = qs.adapt(Checkpoint(learner, {}), x, ["z", "x", "z"], classes=["w", "x", "z"])
    assert torch.equal(task.probabilities(x), again.probabilities(x))
    with pytest.raises(UserError, match="shows one class"):
        qs.adapt(trained, x, ["x", "x", "x"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_in_memory_is_read_as_its_file(path: str, library: str) -> None:
    frame = pytest.importorskip(library).read_csv(path)
    options = {"task_column": "who", "target": "y", "kind": "regression", "categorical": "arm", **GIVEN}
    of_file, in_memory = Table(path, **options), Table(**options).on(frame)
    assert_close(of_file.prepare().x, in_memory.prepare().x)
    assert_close(of_file.prepare().y, in_memory.prepare().y)
    assert of_file.spec == in_memory.spec and in_memory.path.startswith("memory:")
    readings = Series("", "who", "when", "y", covariates="dose", shot=1, query=1, valid_tasks="d", test_tasks="c")
    assert readings.on(frame).prepare().x.shape[0] == 12


def series(tmp_path: Path, **options) -> Series:
    """Two patients whose value is the time, at uneven times."""
    rng = np.random.default_rng(0)
    lines = ["who,time,value"]
    for who in ("a", "b", "c", "d", "e"):
        for t in np.cumsum(rng.integers(1, 5, 30)).tolist():
            lines.append(f"{who},{t},{t}")
    lines[1:] = [lines[1:][i] for i in rng.permutation(len(lines) - 1)]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    return Series(str(tmp_path / "s.csv"), "who", **options)


def test_a_forecast_is_of_the_next_readings(tmp_path: Path) -> None:
    source = series(tmp_path, shot="2-5", query=3)
    task = source.sample("train", 200, source.rng(0))
    last = torch.where(task.support.weight > 0, task.support.y[..., 0], -1).amax(1)
    assert (last < task.query.y[..., 0].amin(1)).all()
    assert (task.query.y[..., 0].diff(dim=1) > 0).all()


def test_all_within_the_past(tmp_path: Path) -> None:
    source = series(tmp_path, query=2, past=6.0)
    task = source.sample("train", 300, source.rng(0))
    real = task.support.weight > 0
    apart = task.query.y[:, :1, 0] - task.support.y[..., 0]
    assert (apart[real] <= 6).all() and (apart[real] > 0).all() and real.sum(1).unique().numel() > 1


def test_time_is_held_out(tmp_path: Path) -> None:
    source = series(tmp_path, shot=2, query=1, hold_out="time", valid_fraction=0.25, test_fraction=0.25)
    asked = {s: source.sample(s, 300, source.rng(0)).query.y for s in ("train", "valid", "test")}
    assert asked["train"].max() < asked["valid"].min() and asked["valid"].max() < asked["test"].min()
    # and what is fitted is fitted to what lies before
    everything = source.prepare().y
    assert source.spec.scaling is not None
    known = everything[everything < asked["valid"].min()]
    assert source.spec.scaling.y_mean[0] == pytest.approx(float(known.mean()), rel=0.02)
    pooled = source.sample_pooled("train", 500, source.rng(0))
    assert pooled.y.max() <= known.max()


def test_rows_of_one_moment_are_never_on_both_sides(tmp_path: Path) -> None:
    lines = ["who,when,a,y"]
    for who in "abcde":
        lines += [f"{who},{i // 3},{i % 7},{i + 100 * (i // 3)}" for i in range(24)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for target, kind in (("y", "regression"), ("a", "classification")):
        source = Table(str(tmp_path / "t.csv"), "who", target, "7-9", 3, kind, time_column="when")
        task = source.sample("train", 100, source.rng(0))
        when = (part.x[..., 0] for part in task)  # type: ignore[index]
        support, query = next(when), next(when)
        latest = torch.where(task.support.weight > 0, support, -1).amax(1)
        assert (latest < torch.where(task.query.weight > 0, query, 99).amin(1)).all()
