"""Zero-shot sources: a description is that of its class, seen classes are asked for by rows never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.core import Classification
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS
from quickstudy.core.task import Task
from quickstudy.evaluate import evaluate
from quickstudy.scores import harmonic_mean, interval
from quickstudy.tasks import Described

CLASSES, EACH = 12, 20
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3}


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (class, number of the row), the class, and the description (class, -class)."""
    y = np.arange(CLASSES * EACH) % CLASSES
    x = np.stack([y, np.arange(len(y))], 1).astype(np.float32)
    return x, y, np.stack([np.arange(CLASSES), -np.arange(CLASSES)], 1).astype(np.float32)


def source(**options) -> Described:
    return Described.of(*arrays(), **{"way": 3, "query": 2, **THIRDS, **options})


def classes_of(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """The class of every label, and of every row of the query by its label."""
    assert isinstance(task.support.x, torch.Tensor)
    assert torch.equal(task.support.y, torch.arange(task.support.y.shape[1]).expand_as(task.support.y))
    described = task.support.x[..., 0]
    return described, described.gather(1, task.query.y)


@pytest.mark.parametrize("options", [{}, {"way": "2-4"}, {"way": 4, "seen": 2}, {"way": "3-4", "seen": 1}], ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_every_row_is_of_the_class_that_its_label_describes(split, options) -> None:
    made = source(**options)
    task = made.sample(split, 50, made.rng(0))
    described, asked = classes_of(task)
    real = task.query.weight > 0
    assert torch.equal(asked[real], task.query.x[..., 0][real])  # type: ignore[index]
    assert not task.query.x[~real].any()  # type: ignore[index]
    assert torch.equal(task.query.y.sort(1).values, task.query.y)
    own, trained = ({int(c) for c in made.names(part)} for part in (split, "train"))
    for t in range(50):
        shown = described[t][task.support.weight[t] > 0].long().tolist()
        assert len(set(shown)) == len(shown)
        seen = made.seen if split != "train" else 0
        assert len(set(shown) - own) == seen and set(shown) - own <= trained
        for k in range(described.shape[1]):
            rows = task.query.weight[t][task.query.y[t] == k].sum()
            assert rows == (2 if task.support.weight[t, k] > 0 else 0)
    assert made.spec.kind == "zero-shot" and made.spec.description_shape == made.spec.x_shape == (2,)
    assert torch.equal(made.descriptions(split)[:, 0], torch.tensor([float(c) for c in made.names(split)]))


def test_rows_kept_back_are_never_trained_on_and_all_others_are() -> None:
    made = source(way=4, seen=3, kept_back=0.3)
    trained: set[float] = set()
    for number in range(60):
        task = made.sample("train", 8, made.rng("train", number))
        pooled = made.sample_pooled("train", 64, made.rng("pooled", number))
        trained |= {*task.query.x[..., 1].flatten().tolist(), *pooled.x[..., 1].flatten().tolist()}  # type: ignore
    asked: set[float] = set()
    for split in ("valid", "test"):
        task = made.sample(split, 400, made.rng(split))
        seen = torch.isin(task.query.x[..., 0], made.descriptions("train")[:, 0])  # type: ignore[index]
        asked |= set(task.query.x[..., 1][seen].tolist())  # type: ignore[index]
    assert not trained & asked
    assert len(asked) == 4 * 6 and len(trained) == 4 * 14


def test_where_a_seen_class_stands_tells_nothing() -> None:
    made = source(way=4, seen=1)
    described, _ = classes_of(made.sample("test", 4000, made.rng(0)))
    place = torch.isin(described, made.descriptions("train")[:, 0]).float().mean(0)
    assert (place - 0.25).abs().max() < 0.03  # the standard error is 0.007


class Nearest(MetaLearner):
    """Knows every row's class, but takes unseen classes for the first seen one `wrong` times in a hundred."""

    kinds = ("zero-shot",)
    any_way = True

    def __init__(self, wrong: int = 0):
        super().__init__()
        self.objective, self.wrong = Classification(4), wrong

    def adapt(self, support, prior=None):
        return {"described": support.x[..., 0]}

    def predict(self, state, x, weight=None):
        right = -(x[..., :1] - state["described"].unsqueeze(1)).abs()
        lost = (x[..., 1:] % 100 < self.wrong) & (x[..., :1] % 2 == 0)
        return torch.where(lost, -right, right)


def test_seen_and_unseen_are_measured_on_the_same_tasks_and_joined_by_their_harmonic_mean() -> None:
    made = source(way=4, seen=2)
    parts = {asked: made.reshaped(asked=asked) for asked in ("all", "seen", "unseen")}
    tasks = {asked: part.sample("test", 20, part.rng(0)) for asked, part in parts.items()}
    for task in tasks.values():
        assert torch.equal(task.support.x, tasks["all"].support.x)  # type: ignore[arg-type]
    assert torch.equal(tasks["seen"].query.weight + tasks["unseen"].query.weight, tasks["all"].query.weight)
    trained = made.descriptions("train")[:, 0]
    for asked, wanted in (("seen", True), ("unseen", False)):
        rows = tasks[asked].query.x[tasks[asked].query.weight > 0]  # type: ignore[index]
        assert len(rows) and bool((torch.isin(rows[:, 0], trained) == wanted).all())
    found = {asked: evaluate(Nearest(40), part, tasks=200) for asked, part in parts.items()}
    s, u = found["seen"].mean(), found["unseen"].mean()
    assert 0 < s < 1 and 0 < u < 1 and found["all"].mean() == pytest.approx((s + u) / 2)
    # seen rows are told much better than unseen ones
    found |= {"seen": evaluate(Nearest(5), parts["seen"], tasks=200)}
    found |= {"unseen": evaluate(Nearest(95), parts["unseen"], tasks=200)}
    s, u = found["seen"].mean(), found["unseen"].mean()
    value, half = harmonic_mean(found["seen"], found["unseen"])
    assert s > u + 0.2 and value == pytest.approx(2 / (1 / s + 1 / u))
    # the interval by leaving one task out at a time
    pairs = np.array([found["seen"].values(), found["unseen"].values()])
    without = (pairs.sum(1, keepdims=True) - pairs) / (pairs.shape[1] - 1)
    left = 2 * without[0] * without[1] / without.sum(0)
    assert half == pytest.approx(interval((left * (pairs.shape[1] - 1)).tolist()), rel=0.01)
    assert found["all"].shot == 0
    with pytest.raises(UserError, match="not of the same tasks"):
        harmonic_mean(found["seen"], evaluate(Nearest(), parts["unseen"], tasks=20))


def test_from_files_classes_may_stand_in_any_order_and_bring_their_split(tmp_path: Path) -> None:
    x, y, descriptions = arrays()
    order = np.random.default_rng(0).permutation(CLASSES)
    names = np.array([f"kind {c:02}" for c in range(CLASSES)])
    words = np.array([SPLITS[c % 3] for c in range(CLASSES)])
    more = {"descriptions": descriptions[order], "classes": names[order], "split": words[order]}
    np.savez(tmp_path / "all.npz", x=x, y=names[y], **more)
    (tmp_path / "folder").mkdir()
    for name, array in {"x": x, "y": names[y], **more}.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    ways = Described(str(tmp_path / "all.npz"), 3, 2), Described(str(tmp_path / "folder"), 3, 2)
    for made in ways:
        assert made.names("valid") == ["kind 01", "kind 04", "kind 07", "kind 10"]
        assert made.descriptions("test")[:, 0].tolist() == [2, 5, 8, 11]
        assert made.spec.train_classes == 4
    a, b = (made.sample("test", 5, made.rng(0)) for made in ways)
    assert torch.equal(a.support.x, b.support.x) and torch.equal(a.query.x, b.query.x)  # type: ignore[arg-type]
    assert Described.of(x, y, descriptions[order], classes=order).descriptions("test")[:, 0].tolist() == [
        float(c) for c in Described.of(x, y, descriptions).names("test")
    ]


def test_what_does_not_fit_is_said_in_a_sentence(tmp_path: Path) -> None:
    x, y, descriptions = arrays()

    def refused(wanted: str, **options) -> None:
        made = Described.of(**{"x": x, "y": y, "descriptions": descriptions, **THIRDS, "way": 3, "query": 2, **options})
        with pytest.raises(UserError, match=wanted) as told:
            made.sample("test", 1, made.rng(0))
        assert "\n" not in str(told.value) and str(told.value).endswith((".", "?"))

    refused("holds 11 descriptions and 12 classes", descriptions=descriptions[1:])
    refused("does not describe the class '0'", descriptions=descriptions[1:], classes=range(1, 12))
    refused("classes names 12, 11 of them different", classes=[0, 0, *range(2, 12)])
    refused("the descriptions have shape .* give a row of numbers", descriptions=descriptions[:, 0])
    refused("row 3 holds a NaN", descriptions=np.where(descriptions == 3, np.nan, descriptions))
    refused("split holds 'dev'", split=["dev"] * 12)
    refused("split has 3 words", split=["train", "valid", "test"])
    refused("y has shape", y=y[1:])
    refused("seen is 3 and way is 3", seen=3)
    refused("unknown asked 'sene': did you mean 'seen'", seen=1, asked="sene")
    refused("asked is 'seen' and no class", asked="seen")
    refused("kept_back is 1", kept_back=1)
    refused("way is 1: ", way=1)
    refused("the test split has 4 classes and way is 5", way=5)
    refused("has 20 rows and query is 21 .* or lower query", query=21)
    refused("of the kept-back train split has 4 rows and query is 5 ", query=5, seen=1)
    with pytest.raises(UserError, match="no option 'shot'"):
        source().reshaped(shot=5)
    with pytest.raises(UserError, match=r"^described needs a path"):
        _ = Described().spec
    np.savez(tmp_path / "bare.npz", x=x, y=y)
    with pytest.raises(UserError, match=r"bare\.npz describes no class: add an array named descriptions"):
        _ = Described(str(tmp_path / "bare.npz")).spec
