"""Bayesian and hierarchical methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, POINT, VECTOR, Row, blobs, conv, mlp, pairs, waves
from quickstudy.core import GaussianRegression, Objective
from quickstudy.learners import ABML, BMAML, DKT, HSML, PLATIPUS, ALPaCA, MixtureALPaCA, MixtureMAML


def mixture(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> MixtureMAML:
    return MixtureMAML(mlp(objective, x_shape), objective, components=2, **options)


def bmaml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> BMAML:
    return BMAML(mlp(objective, x_shape), objective, particles=3, **options)


def hsml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> HSML:
    return HSML(mlp(objective, x_shape), objective, levels=(3, 2, 1), size=4, **options)


def abml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> ABML:
    return ABML(mlp(objective, x_shape), objective, deviation=0.1, kl_weight=0.01, draws=2, eval_draws=3, **options)


def platipus(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> PLATIPUS:
    net = mlp(objective, x_shape)
    return PLATIPUS(net, objective, deviation=0.1, kl_weight=0.01, draws=2, eval_draws=3, **options)


ROWS: dict[str, Row] = {
    "mixture_maml": Row(lambda: mixture(blobs(), inner_steps=1)),
    "mixture_maml-before-ragged": Row(lambda: mixture(blobs(), inner_steps=2, judge="before"), ragged=True),
    "mixture_maml-hard": Row(lambda: mixture(blobs(), inner_steps=2, temperature=0.0)),
    "mixture_maml-first-order": Row(lambda: mixture(blobs(), inner_steps=2, first_order=True)),
    "mixture_maml-sweep-ragged": Row(lambda: mixture(waves(), POINT, inner_steps=2, memory="sweep"), POINT, True),
    "mixture_maml-gaussian": Row(lambda: mixture(GaussianRegression(1), POINT, inner_steps=1), POINT),
    "mixture_maml-conv-batch": Row(
        lambda: MixtureMAML(conv("batch", pairs()), pairs(), components=2, inner_steps=1), IMAGE, ragged=True
    ),
    "mixture_alpaca": Row(lambda: MixtureALPaCA(mlp(None, POINT), GaussianRegression(1), 2), POINT),
    "mixture_alpaca-ragged": Row(lambda: MixtureALPaCA(mlp(), GaussianRegression(2), 3, floor=0.1), ragged=True),
    "mixture_alpaca-conv-batch": Row(
        lambda: MixtureALPaCA(conv("batch"), GaussianRegression(1), 2), IMAGE, ragged=True
    ),
    "hsml": Row(lambda: hsml(blobs(), inner_steps=1)),
    "hsml-ragged": Row(lambda: hsml(blobs(), inner_steps=2, gates="unit"), ragged=True),
    "hsml-regression-ragged": Row(lambda: hsml(waves(), POINT, inner_steps=2, memory="sweep"), POINT, ragged=True),
    "hsml-first-order": Row(lambda: hsml(blobs(), inner_steps=1, first_order=True)),
    "hsml-conv-batch": Row(
        lambda: HSML(conv("batch", pairs()), pairs(), levels=(2, 1), size=4, inner_steps=1, gates="unit"), IMAGE, True
    ),
    "bmaml": Row(lambda: bmaml(blobs(), inner_steps=2, precision=0.1)),
    "bmaml-mixture-ragged": Row(lambda: bmaml(blobs(), inner_steps=2, chaser=False), ragged=True),
    "bmaml-mixture-first-order": Row(lambda: bmaml(blobs(), inner_steps=2, chaser=False, first_order=True)),
    "bmaml-regression-ragged": Row(lambda: bmaml(waves(), POINT, inner_steps=2, leader_steps=2), POINT, ragged=True),
    "bmaml-gaussian": Row(lambda: bmaml(GaussianRegression(1), POINT, inner_steps=1, chaser=False), POINT),
    "bmaml-conv-batch": Row(
        lambda: BMAML(conv("batch", pairs()), pairs(), particles=2, inner_steps=1, chaser=False), IMAGE, ragged=True
    ),
    "abml": Row(lambda: abml(blobs(), inner_steps=2)),
    "abml-ragged": Row(lambda: abml(blobs(), inner_steps=1, eval_steps=3), ragged=True),
    "abml-first-order": Row(lambda: abml(blobs(), inner_steps=2, first_order=True)),
    "abml-regression-ragged": Row(lambda: abml(waves(), POINT, inner_steps=2), POINT, ragged=True),
    "abml-gaussian": Row(lambda: abml(GaussianRegression(1), POINT, inner_steps=1), POINT),
    "abml-conv-batch": Row(
        lambda: ABML(conv("batch", pairs()), pairs(), inner_steps=1, draws=2, eval_draws=2), IMAGE, ragged=True
    ),
    "platipus": Row(lambda: platipus(blobs(), inner_steps=1)),
    "platipus-ragged": Row(lambda: platipus(blobs(), inner_steps=2), ragged=True),
    "platipus-no-steps": Row(lambda: platipus(blobs(), inner_steps=0)),
    "platipus-first-order": Row(lambda: platipus(blobs(), inner_steps=1, first_order=True)),
    "platipus-regression-ragged": Row(lambda: platipus(waves(), POINT, inner_steps=2, memory="sweep"), POINT, True),
    "platipus-gaussian": Row(lambda: platipus(GaussianRegression(1), POINT, inner_steps=1), POINT),
    "platipus-conv-batch": Row(
        lambda: PLATIPUS(conv("batch", pairs()), pairs(), inner_steps=0, eval_draws=2), IMAGE, ragged=True
    ),
    "alpaca": Row(lambda: ALPaCA(mlp(None, POINT), GaussianRegression(1)), POINT),
    "alpaca-ragged": Row(lambda: ALPaCA(mlp(), GaussianRegression(2), 0.3, intercept=False), ragged=True),
    "alpaca-conv-running": Row(lambda: ALPaCA(conv("running"), GaussianRegression(1)), IMAGE),
    "dkt": Row(lambda: DKT(mlp(), blobs())),
    "dkt-ragged": Row(lambda: DKT(mlp(), blobs(), "linear"), ragged=True),
    "dkt-regression-ragged": Row(lambda: DKT(mlp(None, POINT), GaussianRegression(1)), POINT, ragged=True),
    "dkt-spectral": Row(lambda: DKT(mlp(), GaussianRegression(2), "spectral")),
    "dkt-conv-batch": Row(lambda: DKT(conv("batch"), pairs(), "cosine"), IMAGE),
}
