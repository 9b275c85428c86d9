"""What training refuses, before anything is written."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.record import read_log
from quickstudy.resume import BEST, LAST, Saved


def maml() -> qs.MetaLearner:
    return qs.learners.MAML(qs.nets.MLP((1,), out=1, width=8), qs.Regression(), inner_steps=1)


def train(learner: qs.MetaLearner, source: qs.Source | None = None, **options: Any) -> Any:
    defaults = {"steps": 6, "meta_batch": 4, "valid_every": 0, "progress": False}
    return qs.train(learner, source or qs.tasks.Sinusoid(), **defaults | options)


def blobs(**options: Any) -> qs.Source:
    """24 classes of vectors."""
    x = torch.randn(288, 6, generator=torch.Generator().manual_seed(0))
    return qs.tasks.Arrays.of(x, torch.arange(288) // 12, **{"way": 3, "shot": 2, "query": 4} | options)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps is 0 and must be at least 1"),
    ({"lr": -1e-3}, "lr is -0.001: give a positive number"),
    ({"lr": math.nan}, "lr is nan: give a positive number"),
    ({"clip": 0.0}, "clip is 0.0: give a positive number"),
    ({"weight_decay": -0.1}, "weight_decay is -0.1: give a positive number"),
    ({"warmup": -1}, "warmup is -1 and must be at least 0"),
    ({"valid_every": -5}, "valid_every is -5 and must be at least 0"),
    ({"save_every": 0}, "save_every is 0 and must be at least 1"),
    ({"accumulate": 5}, "accumulate is 5 and a process has only 4 tasks"),
    ({"meta_batch": 3, "devices": 2}, "meta_batch 3 cannot be shared by 2 processes"),
    ({"patience": 3}, "patience counts validations and valid_every is 0"),
    ({"schedule": "cosin"}, "unknown schedule 'cosin': did you mean 'cosine'"),
    ({"precision": "16"}, "unknown precision '16'"),
    ({"accelerator": "cud"}, "cannot train on 1 x 'cud'"),
    ({"resume": True, "overwrite": True}, "give one of them"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED, ids=lambda v: "" if isinstance(v, str) else str(v))
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(qs.UserError, match=sentence):
        train(maml(), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_options_at_the_edge_are_taken() -> None:
    run = train(maml(), steps=2, warmup=5, valid_every=9, valid_tasks=1, accumulate=4, patience=1)
    assert [r["step"] for r in run.log if "valid" in r] == [2]  # the last step is validated in any case


def frozen() -> qs.MetaLearner:
    learner = maml()
    learner.requires_grad_(False)
    return learner


def protonet(way: int = 3, **options: Any) -> qs.MetaLearner:
    return qs.learners.ProtoNet(qs.nets.MLP((6,), **options), qs.Classification(way))


UNFIT: dict[str, tuple[Any, Any, str]] = {
    "untrained": (lambda: qs.learners.Chance(qs.Regression()), qs.tasks.Sinusoid, "nothing to train"),
    "frozen": (frozen, qs.tasks.Sinusoid, "nothing to train"),
    "kind": (maml, blobs, "does regression"),
    "way": (protonet, lambda: blobs(way=4, valid_fraction=0.3), "built for 3 classes and the training tasks have 4"),
    "valid too small": (lambda: protonet(5), lambda: blobs(way=5, valid_fraction=0.1), "valid"),
    "train too small": (lambda: protonet(20), lambda: blobs(way=20), "train"),
    "unnamed": (
        lambda: qs.learners.MAML(qs.nets.RowNet(torch.nn.Linear(1, 1), 1), qs.Regression()),
        qs.tasks.Sinusoid,
        "RowNet is not in the net catalogue",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    learner, source, sentence = UNFIT[name]
    train(maml(), steps=1, out=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(qs.UserError, match=sentence):
        train(learner(), source(), out=tmp_path, overwrite=True, valid_every=5)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(maml(), steps=10, out=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {BEST, LAST, "log.jsonl"}
    for gone in (None, LAST):
        if gone:
            (tmp_path / gone).unlink()
        with pytest.raises(qs.UserError, match=r"holds a run already: add resume .* or overwrite .* another folder"):
            train(maml(), steps=1, out=tmp_path)
    assert (tmp_path / BEST).read_bytes() == before[BEST]
    train(maml(), steps=1, out=tmp_path, overwrite=True)
    assert Saved.read(tmp_path).card["progress"]["step"] == 1
    assert len(read_log(tmp_path / "log.jsonl")) == 1


def test_an_overwritten_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(maml(), steps=1, out=tmp_path, tensorboard=True)
    (tmp_path / "config.yaml").touch()  # not training's own
    monkeypatch.setattr(sys.modules["quickstudy.train"], "rate", lambda *_: 1 / 0)  # killed before its first save
    with pytest.raises(ZeroDivisionError):
        train(maml(), steps=1, out=tmp_path, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "log.jsonl"}
    assert read_log(tmp_path / "log.jsonl") == []
