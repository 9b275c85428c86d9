"""Plain baselines: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, POINT, VECTOR, Row, blobs, conv, mlp, pairs, waves
from quickstudy.core import GaussianRegression, Regression
from quickstudy.learners import (
    Centroid,
    Chance,
    LinearProbe,
    Logistic,
    NearestDescription,
    Pooled,
    Ridge,
    Scratch,
)

GRID = (2, 3)
"""A shape of descriptions that has to be flattened."""

ROWS: dict[str, Row] = {
    "chance": Row(lambda: Chance(blobs())),
    "chance-ragged": Row(lambda: Chance(blobs()), ragged=True),
    "chance-regression": Row(lambda: Chance(waves()), POINT),
    "chance-gaussian": Row(lambda: Chance(GaussianRegression(1)), POINT, ragged=True),
    "centroid": Row(lambda: Centroid(blobs())),
    "centroid-images-ragged": Row(lambda: Centroid(blobs()), IMAGE, ragged=True),
    "logistic": Row(lambda: Logistic(blobs())),
    "logistic-pairs": Row(lambda: Logistic(pairs())),
    "logistic-ragged": Row(lambda: Logistic(blobs()), ragged=True),
    "ridge": Row(lambda: Ridge(waves()), POINT),
    "ridge-vectors-ragged": Row(lambda: Ridge(Regression(2)), ragged=True),
    "nearest_description": Row(lambda: NearestDescription(blobs(), VECTOR, VECTOR), description_shape=VECTOR),
    "nearest_description-ragged": Row(lambda: NearestDescription(blobs(), GRID, GRID, 3.0), GRID, True, GRID),
    "scratch": Row(lambda: Scratch(mlp(blobs()), blobs(), inner_steps=10), ragged=True),
    "scratch-regression": Row(lambda: Scratch(mlp(waves(), POINT), waves(), inner_steps=10), POINT),
    "pooled": Row(lambda: Pooled(mlp(waves(), POINT), waves()), POINT),
    "pooled-ragged": Row(lambda: Pooled(mlp(waves(), POINT), waves()), POINT, ragged=True),
    "linear_probe": Row(lambda: LinearProbe(mlp(), blobs(), classes=7)),
    "linear_probe-ragged": Row(lambda: LinearProbe(mlp(), blobs(), classes=7), ragged=True),
    "linear_probe-regression": Row(lambda: LinearProbe(mlp(None, POINT), waves()), POINT),
    "linear_probe-conv-running": Row(lambda: LinearProbe(conv("running"), pairs(), classes=5), IMAGE),
}
