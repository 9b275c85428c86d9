"""The scikit-learn face: its own checks, its company, and that everything is what `adapt` says."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import quickstudy as qs
from quickstudy import FewShotClassifier, FewShotRegressor, checkpoint
from quickstudy.adaptation import adapt
from quickstudy.checkpoint import Checkpoint

REPEATED = "check_sample_weight_equivalence_on_dense_data"
FAILS = {
    "ridge": {REPEATED: "a row's weight is its importance: leaving it out leaves out the whole of it, where of two "
              "equal rows one stays, so that another penalty may be chosen"},
    "tabular": {REPEATED: "computed in float32, whose rounding is more than the 1e-7 asked for; they agree to 1e-5 "
                "(test_a_weight_of_two_is_two_rows)"},
}  # fmt: skip


def expected(estimator: Any) -> dict[str, str]:
    return FAILS.get(estimator.checkpoint, {})


@parametrize_with_checks(
    [FewShotClassifier("centroid"), FewShotClassifier("logistic"), FewShotRegressor()], expected_failed_checks=expected
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([FewShotClassifier()], expected_failed_checks=expected)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks_of_the_shipped_learner(estimator: Any, check: Any) -> None:
    check(estimator)


def few(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))[:n]
    return X[order], np.array(["setosa", "versi", "virginica"])[y[order]]


def learner(name: str, kind: str = "classification", **options: Any) -> qs.MetaLearner:
    torch.manual_seed(0)
    way = 3 if kind == "classification" else 0
    return qs.make(name, qs.Spec(kind, (4,), way=way), net="mlp", net_options={"width": 8}, **options)  # type: ignore


def test_it_predicts_what_adapt_predicts(tmp_path: Path) -> None:
    X, y = few()
    path = tmp_path / "best.safetensors"
    checkpoint.save(learner("protonet"), path)
    for given in (path, str(path), qs.load(path), qs.load(path).learner):
        estimator = FewShotClassifier(given).fit(X, y)
        task = adapt(qs.load(path), torch.from_numpy(X), y.tolist())
        assert np.array_equal(estimator.predict_proba(X), task.probabilities(torch.from_numpy(X)).numpy())
        assert estimator.predict(X).tolist() == task.labels(torch.from_numpy(X))
    estimator.task_.save(tmp_path / "task.safetensors")
    numbers = np.unique(y, return_inverse=True)[1] * 9 + 2  # 2, 11, 20: not in the order of their names
    found = FewShotClassifier(path).fit(X, numbers)
    assert np.array_equal(found.predict_proba(X), estimator.predict_proba(X))
    assert found.predict(X).dtype == numbers.dtype and set(found.predict(X)) <= {2, 11, 20}
    points, values = torch.from_numpy(X), torch.from_numpy(X[:, :1] ** 2)
    for name in ("alpaca", "cnp", "maml"):
        made = learner(name, "regression")
        mean, deviation = adapt(Checkpoint(made, {}), points, values).values(points)
        regressor = FewShotRegressor(made).fit(X, values[:, 0].numpy())
        assert np.array_equal(regressor.predict(X), mean[:, 0].numpy())
        if deviation is not None:
            assert np.array_equal(regressor.predict(X, return_std=True)[1], deviation[:, 0].numpy())


def test_the_shipped_tabular_learner_reads_gaps_as_the_command_line_does(tmp_path: Path) -> None:
    X, y = few()
    X[::5, 1] = np.nan
    estimator = FewShotClassifier().fit(X, y)
    lines = ["a,b,c,d,target"] + [",".join(["" if v != v else repr(float(v)) for v in row] + [c])
                                   for row, c in zip(X, y, strict=True)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    trained = qs.pretrained()
    rows = trained.reader.read(str(tmp_path / "t.csv"))  # type: ignore[union-attr]
    task = adapt(trained, rows.x, rows.labels)  # type: ignore[arg-type]
    assert np.array_equal(estimator.predict_proba(X), task.probabilities(rows.x).numpy())
    assert estimator.score(X, y) > 0.9
    with pytest.raises(ValueError, match="infinity"):
        estimator.predict(np.full((1, 4), np.inf))
    with pytest.raises(qs.UserError, match="X has 600 columns and the learner takes 512"):
        FewShotClassifier().fit(np.zeros((4, 600)), [0, 1, 0, 1])


def test_a_weight_of_two_is_two_rows() -> None:
    X, y = few()
    weight = np.arange(24) % 3
    for name, near in (("tabular", 1e-5), ("centroid", 1e-12), ("logistic", 1e-4)):
        weighted = FewShotClassifier(name).fit(X, y, sample_weight=weight)
        repeated = FewShotClassifier(name).fit(X.repeat(weight, 0), y.repeat(weight))
        assert np.allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=near)
        assert not np.allclose(weighted.predict_proba(X), FewShotClassifier(name).fit(X, y).predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("name", ["protonet", "tabular", "logistic", "maml", "centroid"])
def test_partial_fit_of_classes_ends_where_fit_does(name: str) -> None:
    X, y = few()
    given: Any = learner(name) if name in ("protonet", "maml") else name
    whole, bits = FewShotClassifier(given).fit(X, y), FewShotClassifier(given)
    one = y == "setosa"  # the first rows show one class alone
    order = np.concatenate([np.flatnonzero(one)[:2], np.flatnonzero(~one), np.flatnonzero(one)[2:]])
    for part in (order[:2], order[2:11], order[11:]):
        bits.partial_fit(X[part], y[part], classes=np.unique(y))
        hidden = ~np.isin(bits.classes_, y[order[:2]]) if len(part) == 2 else np.zeros(3, bool)
        assert (bits.predict_proba(X)[:, hidden] == 0).all()
    assert np.allclose(bits.predict_proba(X), whole.predict_proba(X), atol=1e-5)
    assert (bits.rows_ is None) == (name in ("protonet", "tabular", "centroid"))
    assert bits.task_.card["counts"] == whole.task_.card["counts"]
    begun = FewShotClassifier(given).fit(X[order[:12]], y[order[:12]]).partial_fit(X[order[12:]], y[order[12:]])
    assert np.allclose(begun.predict_proba(X), whole.predict_proba(X), atol=1e-5)
    with pytest.raises(qs.UserError, match="y holds the class 'rose', which is none of classes_"):
        begun.partial_fit(X[:1], ["rose"])
    with pytest.raises(ValueError, match="not what it was"):
        begun.partial_fit(X[:1], y[:1], classes=["a", "b"])


@pytest.mark.parametrize("name", ["alpaca", "dkt", "ridge", "r2d2", "cnp"])
def test_partial_fit_of_values_ends_where_fit_does(name: str) -> None:
    X = few()[0]
    y = X @ np.array([1.0, -0.5, 0.3, 0.2])
    given: Any = name if name == "ridge" else learner(name, "regression")
    whole, bits = FewShotRegressor(given).fit(X, y), FewShotRegressor(given)
    for part in (slice(0, 3), slice(3, 10), slice(10, 24)):
        bits.partial_fit(X[part], y[part])
    assert np.allclose(bits.predict(X), whole.predict(X), atol=1e-4)
    std, wanted = (e.predict(X, return_std=True)[1] for e in (bits, whole))
    assert (std > 0).all() and bits.task_.card["rows"] == 24
    if name != "r2d2":  # whose spread is of rows when they came
        assert np.allclose(std, wanted, rtol=1e-3)


def test_weights_that_come_late_are_joined_to_rows_that_had_none() -> None:
    X, y = few()
    weight = np.linspace(0.5, 2, 12)
    late = FewShotClassifier("logistic").fit(X[:12], y[:12]).partial_fit(X[12:], y[12:], sample_weight=weight)
    whole = FewShotClassifier("logistic").fit(X, y, sample_weight=np.concatenate([np.ones(12), weight]))
    assert np.array_equal(late.predict_proba(X), whole.predict_proba(X))


def test_company_of_scikit_learn(tmp_path: Path) -> None:
    X, y = few(40)
    search = GridSearchCV(
        FewShotClassifier("logistic"), {"options": [{"strength": 1e-4}, {"strength": 10.0}]}, cv=3, n_jobs=1
    ).fit(X, y)
    assert search.best_params_ == {"options": {"strength": 10.0}} and search.best_score_ > 0.85
    columns = ColumnTransformer([("kept", StandardScaler(), [0, 2, 3])])
    pipeline = make_pipeline(columns, FewShotClassifier())
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.85
    calibrated = CalibratedClassifierCV(FewShotClassifier("centroid"), cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.85
    fitted = pipeline.fit(X, y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(fitted))):  # noqa: S301 (ours)
        assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))
    proto = FewShotClassifier(learner("protonet"))
    copied = clone(proto)
    assert copied.checkpoint is not proto.checkpoint and not hasattr(copied.fit(X, y), "feature_names_in_")
    assert np.array_equal(copied.predict_proba(X), proto.fit(X, y).predict_proba(X))
    assert proto.get_params() == {"checkpoint": proto.checkpoint, "options": None, "trust": None}


def test_several_targets() -> None:
    X, Y = make_regression(30, 3, n_targets=2, noise=1.0, random_state=0)
    both = FewShotRegressor().fit(X, Y)
    assert both.predict(X).shape == (30, 2) and both.score(X, Y) > 0.99
    with pytest.raises(ValueError, match="fit a regressor for each target"):
        both.predict(X, return_std=True)
    one = FewShotRegressor().fit(X, Y[:, :1])
    assert one.predict(X).shape == (30, 1) and one.predict_interval(X)[0].shape == (30, 1)


def refusals() -> dict[str, tuple[Any, str]]:
    X, y = few()
    ones = np.ones(len(X))
    return {
        "one class": (lambda: FewShotClassifier().fit(X, ones), "shows one class"),
        "no such file": (lambda: FewShotClassifier("runs/none.safetensors").fit(X, y), "no checkpoint at"),
        "misspelt": (lambda: FewShotClassifier("logistik").fit(X, y), "did you mean 'logistic'"),
        "untrained": (lambda: FewShotClassifier("maml").fit(X, y), "maml has to be trained first"),
        "kind": (lambda: FewShotRegressor("tabular").fit(X, ones), "use FewShotClassifier"),
        "kind by name": (lambda: FewShotClassifier("ridge").fit(X, y), "takes regression tasks"),
        "type": (lambda: FewShotClassifier(3).fit(X, y), "checkpoint is a int"),  # type: ignore[arg-type]
        "options": (lambda: FewShotClassifier(options={"width": 3}).fit(X, y), "options are for learners"),
        "option": (lambda: FewShotClassifier("logistic", {"power": 3}).fit(X, y), "has no option 'power'"),
        "shape": (lambda: FewShotClassifier(learner("protonet")).fit(X[:, :3], y), r"X has 3 columns and .* \(4,\)"),
        "way": (lambda: FewShotClassifier(learner("maml")).fit(X[:5], list("abcde")), "at most 3 classes"),
        "weights": (lambda: FewShotClassifier().fit(X, y, sample_weight=-ones), "a weight of 0 or more"),
        "targets": (lambda: FewShotRegressor(learner("alpaca", "regression")).fit(X, X[:, :2]), "predicts 1 number"),
        "one row": (lambda: FewShotRegressor().fit(X[:1], ones[:1]).predict(X, return_std=True), "from one row"),
        "coverage": (lambda: FewShotRegressor().fit(X, ones).predict_interval(X, 90), "give a probability"),
        "first classes": (lambda: FewShotClassifier().partial_fit(X, y), "classes must be passed"),
        "sets": (lambda: FewShotClassifier("centroid").fit(X, y).predict_set(X), "quickstudy calibrate"),
        "trust": (lambda: FewShotClassifier("centroid", trust="no.json").fit(X, y).predict(X), "cannot read no.json"),
    }  # fmt: skip


@pytest.mark.parametrize("what", refusals())
def test_what_does_not_fit_is_refused_in_a_sentence(what: str) -> None:
    call, said = refusals()[what]
    with pytest.raises(qs.UserError, match=said) as found:
        call()
    assert isinstance(found.value, ValueError) and re.search(r"[.?]$", str(found.value))


def test_not_fitted_is_scikit_learns_word() -> None:
    for call in (FewShotClassifier().predict, FewShotRegressor().predict, FewShotRegressor().predict_interval):
        with pytest.raises(NotFittedError):
            call(np.zeros((2, 3)))
