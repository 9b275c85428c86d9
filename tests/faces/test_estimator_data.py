"""The scikit-learn face on images, texts, frames and sine waves: data as users hold it in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.model_selection import cross_val_score

import quickstudy as qs
from faces.test_table_errors import lines, write
from quickstudy import FewShotClassifier, FewShotRegressor, checkpoint
from quickstudy.adaptation import adapt
from quickstudy.questions.trust import calibrate
from quickstudy.tasks.table import Table


def test_images_come_flat_or_as_images() -> None:
    torch.manual_seed(0)
    made = qs.make("protonet", qs.Spec("classification", (3, 16, 16), way=2), net="conv4", net_options={"channels": 4})
    bytes_ = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16)).astype(np.uint8)
    y = list("ababab")
    task = adapt(qs.checkpoint.Checkpoint(made, {}), torch.from_numpy(bytes_) / 255, y)
    wanted = task.probabilities(torch.from_numpy(bytes_) / 255).numpy()
    forms = {
        "bytes": bytes_,
        "flat": bytes_.reshape(6, -1),
        "numbers": bytes_ / 255,
        "channels last": bytes_.transpose(0, 2, 3, 1),
        "tensor": torch.from_numpy(bytes_),
        "list": (bytes_ / 255).tolist(),
    }
    for name, X in forms.items():
        found = FewShotClassifier(made).fit(X, y)
        assert np.allclose(found.predict_proba(X), wanted, atol=1e-5), name
        assert found.n_features_in_ == 768
    with pytest.raises(ValueError, match="X contains NaN"):
        FewShotClassifier(made).fit(np.full((6, 3, 16, 16), np.nan), y)
    with pytest.raises(ValueError, match=r"rows of shape \(9, 10, 10\)"):
        found.predict(np.zeros((2, 9, 10, 10)))


THINGS = ["a pizza", "the soup", "this cake", "my coffee", "a salad", "some rice", "the pasta", "fish", "eggs", "bread"]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A learner of texts, and a table of one task."""
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))

    def table(path: Path, verbs: list[str]) -> Path:
        rows = [f"{verb} {thing},{verb}" for verb in verbs for thing in THINGS]
        return write(path, ["said,meant", *rows])

    options = {"text_column": "said", "label_column": "meant", "way": 2, "size": 16}
    source = qs.tasks.Texts(str(table(tmp_path / "train.csv", ["eat", "cook", "order", "like", "cancel"])), **options)
    checkpoint.save(qs.make("protonet", source.spec), tmp_path / "best.safetensors", source)
    return tmp_path / "best.safetensors", table(tmp_path / "new.csv", ["buy", "sell"])


def test_texts_come_as_lists_arrays_and_frames(texts: tuple[Path, Path]) -> None:
    best, new = texts
    trained = qs.load(best)
    rows = trained.reader.read(str(new))  # type: ignore[union-attr]
    wanted = adapt(trained, rows.x, rows.labels).probabilities(rows.x).numpy()  # type: ignore[arg-type]
    frame = pd.read_csv(new)
    said, meant = frame["said"], frame["meant"]
    for X in (said.tolist(), said.to_numpy(), said, frame[["said"]], pl.DataFrame({"said": said.tolist()}), rows.x):
        found = FewShotClassifier(best).fit(X, meant)
        assert np.array_equal(found.predict_proba(X), wanted)
    assert len(cross_val_score(FewShotClassifier(best), said.tolist(), meant.tolist(), cv=2)) == 2
    bits = FewShotClassifier(best).fit(said[:15].tolist(), meant[:15]).partial_fit(said[15:].tolist(), meant[15:])
    assert np.allclose(bits.predict_proba(said), wanted, atol=1e-5)
    tags = FewShotClassifier(best).__sklearn_tags__().input_tags
    assert tags.string and not tags.two_d_array
    for X, why in ((["buy", None], "no text in the column"), ([1, 2], "is no text"), ([], "no texts")):
        with pytest.raises(ValueError, match=why):
            FewShotClassifier(best).fit(X, ["a", "b"][: len(X)])


@pytest.mark.parametrize("frames", [pd.DataFrame, pl.DataFrame])
def test_frames_are_read_as_files_of_the_same_columns(tmp_path: Path, frames: Any) -> None:
    source = Table(str(write(tmp_path / "t.csv", lines())), "site", "score", 6, 6)
    learner = qs.make("ridge", source.spec)
    checkpoint.save(learner, tmp_path / "best.safetensors", source)
    trained = qs.load(tmp_path / "best.safetensors")
    file = write(tmp_path / "site3.csv", [line for line in lines() if line.startswith(("site,", "site3,"))])
    rows = trained.reader.read(str(file))  # type: ignore[union-attr]
    task = adapt(trained, rows.x, rows.values)  # type: ignore[arg-type]
    frame = pd.read_csv(file)
    X, y = frames(frame[["sex", "dose", "ill", "age"]].to_dict("list")), frame["score"].to_numpy()
    found = FewShotRegressor(tmp_path / "best.safetensors").fit(X, y)
    assert np.allclose(found.predict(X), task.values(rows.x)[0][:, 0].numpy(), rtol=1e-5)
    assert found.feature_names_in_.tolist() == ["sex", "dose", "ill", "age"] and found.n_features_in_ == 4
    with pytest.raises(ValueError, match="no column 'age'"):
        FewShotRegressor(tmp_path / "best.safetensors").fit(X[["sex", "dose", "ill"]], y)
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(X[["sex", "dose", "ill"]])


def test_a_number_that_names_a_category_may_come_with_gaps(tmp_path: Path) -> None:
    rows = ["site,code,y"] + [f"s{i % 4},{i % 3},{i * 0.1:.1f}" for i in range(40)]
    source = Table(str(write(tmp_path / "t.csv", rows)), "site", "y", 3, 3, categorical="code")
    reader = source.reader()
    whole, gaps = pd.DataFrame({"code": [0, 1, 2]}), pd.DataFrame({"code": [0.0, 1.0, 2.0, np.nan, 7.0]})
    assert torch.equal(reader.given(whole), torch.eye(3))
    assert torch.equal(reader.given(gaps), torch.cat([torch.eye(3), torch.zeros(2, 3)]))
    assert torch.equal(reader.given(gaps.convert_dtypes()), reader.given(gaps))


def waves(tasks: int, noise: float, seed: int) -> qs.Task:
    source = qs.tasks.Sinusoid(shot=10, query=20, noise=noise)
    return source.sample("test", tasks, source.rng(seed))


def covered(regressor: FewShotRegressor, tasks: qs.Task, coverage: float) -> float:
    inside = []
    for i in range(len(tasks.support.y)):
        support, query = (part for part in tasks)
        fitted = regressor.fit(support.x[i].numpy(), support.y[i, :, 0].numpy())
        low, high = fitted.predict_interval(query.x[i].numpy(), coverage)
        truth = query.y[i, :, 0].numpy()
        inside.append(((low <= truth) & (truth <= high)).mean())
    return float(np.mean(inside))


@pytest.mark.slow
def test_intervals_cover_on_sine_waves(tmp_path: Path) -> None:
    source = qs.tasks.Sinusoid(shot=10, query=20, noise=0.3)
    torch.manual_seed(0)
    alpaca = qs.make("alpaca", source.spec, net_options={"width": 32}, noise=0.3)
    qs.train(alpaca, source, steps=300, meta_batch=16, lr=3e-3, valid_every=0)
    tasks = waves(40, 0.3, 1)
    assert abs(covered(FewShotRegressor(alpaca), tasks, 0.9) - 0.9) < 0.07
    assert abs(covered(FewShotRegressor(), tasks, 0.9) - 0.9) < 0.08  # a line fitted to a wave
    calibrate(alpaca, source, "valid", 300, seed=3).write(tmp_path / "trust.json")
    trusting = FewShotRegressor(alpaca, trust=str(tmp_path / "trust.json"))
    for coverage in (0.5, 0.9):
        assert abs(covered(trusting, tasks, coverage) - coverage) < 0.05


def test_intervals_are_exact_where_the_prior_is_the_truth() -> None:
    torch.manual_seed(0)
    alpaca: Any = qs.make("alpaca", qs.Spec("regression", (2,)), net_options={"width": 8}, noise=0.5)
    x = torch.randn(60, 45, 2)
    with torch.no_grad():
        line = alpaca.objective.floor + alpaca.noise
        y = (alpaca.features(x, None) @ torch.randn(60, 9, 1).double() + torch.randn(60, 45, 1)) * line
    tasks = qs.Task(qs.examples(x[:, :5], y[:, :5]), qs.examples(x[:, 5:], y[:, 5:]))
    for coverage in (0.5, 0.9):
        assert abs(covered(FewShotRegressor(alpaca), tasks, coverage) - coverage) < 0.03


def test_intervals_of_left_out_rows_cover_lines_with_noise() -> None:
    rng = np.random.default_rng(0)
    found = {0.5: [], 0.9: []}
    for _ in range(60):
        x, slope = rng.normal(size=(62, 3)), 3 * rng.normal(size=3)
        y = x @ slope + 5 + rng.normal(size=62)
        fitted = FewShotRegressor().fit(x[:12], y[:12])
        for coverage, inside in found.items():
            low, high = fitted.predict_interval(x[12:], coverage)
            inside.append(((low <= y[12:]) & (y[12:] <= high)).mean())
    assert all(abs(np.mean(inside) - coverage) < 0.07 for coverage, inside in found.items())


def test_calibrated_probabilities_and_sets_are_those_of_trust(tmp_path: Path) -> None:
    from quickstudy.questions import trust as trusted

    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(30, 4))
    x = (centres.repeat(12, 0) + rng.normal(size=(360, 4))).astype(np.float32)
    source = qs.tasks.Arrays.of(torch.from_numpy(x), np.arange(30).repeat(12).tolist(), way=3, shot=3, query=5,
                                valid_fraction=0.4, test_fraction=0.3)  # fmt: skip
    torch.manual_seed(0)
    learner = qs.make("protonet", source.spec)
    trust = calibrate(learner, source, "valid", 90, seed=0)
    trust.write(tmp_path / "trust.json")
    X, y = x[:36], np.repeat([10, 20, 30], 12)
    estimator = FewShotClassifier(learner, trust=str(tmp_path / "trust.json")).fit(X, y)
    rows = torch.from_numpy(X)
    assert np.array_equal(estimator.predict_proba(X), trusted.probabilities(estimator.task_, rows, trust).numpy())
    sets = estimator.predict_set(X, 0.9)
    names = trusted.sets(estimator.task_, rows, trust)
    assert [one.tolist() for one in sets] == [[int(name) for name in one] for one in names]
    assert np.mean([label in one for label, one in zip(y, sets, strict=True)]) > 0.85
