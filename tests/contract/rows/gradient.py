"""Gradient-based methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, POINT, VECTOR, Row, blobs, conv, mlp, pairs, resnet, transformer, waves
from quickstudy.core import GaussianRegression, Objective
from quickstudy.learners import (
    ANIL,
    BOIL,
    CAVIA,
    IMAML,
    MAML,
    MAMLPlusPlus,
    MetaCurvature,
    MetaLSTM,
    MetaSGD,
    Reptile,
    WarpGrad,
)
from quickstudy.nets import Projection
from quickstudy.nets.norm import Norm


def maml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> MAML:
    return MAML(mlp(objective, x_shape), objective, inner_lr=0.1, **options)


def anil(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> ANIL:
    return ANIL(mlp(None, x_shape), objective, **options)


def imaml(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> IMAML:
    return IMAML(mlp(objective, x_shape), objective, inner_lr=0.1, **options)


def conv_maml(norm: Norm, **options) -> MAML:
    return MAML(conv(norm, pairs()), pairs(), inner_lr=0.05, **options)


def plus(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> MAMLPlusPlus:
    return MAMLPlusPlus(mlp(objective, x_shape), objective, 3, **options)


def lstm(objective: Objective, x_shape: tuple[int, ...] = VECTOR, **options) -> MetaLSTM:
    return MetaLSTM(mlp(objective, x_shape), objective, 3, 0.1, hidden=3, **options)


ROWS: dict[str, Row] = {
    "maml": Row(lambda: maml(blobs(), inner_steps=1)),
    "maml-5-steps": Row(lambda: maml(blobs(), inner_steps=5)),
    "maml-checkpoint": Row(lambda: maml(blobs(), inner_steps=5, memory="checkpoint")),
    "maml-sweep": Row(lambda: maml(blobs(), inner_steps=5, memory="sweep")),
    "maml-sweep-ragged": Row(lambda: maml(waves(), POINT, inner_steps=3, memory="sweep"), POINT, ragged=True),
    "maml-truncated": Row(lambda: maml(blobs(), inner_steps=5, memory="truncated:2")),
    "maml-implicit": Row(lambda: maml(blobs(), inner_steps=5, memory="implicit")),
    "maml-eval-steps": Row(lambda: maml(blobs(), inner_steps=1, eval_steps=3)),
    "maml-first-order": Row(lambda: maml(blobs(), inner_steps=1, first_order=True)),
    "maml-first-order-5-steps": Row(lambda: maml(blobs(), inner_steps=5, first_order=True)),
    "maml-ragged": Row(lambda: maml(blobs(), inner_steps=2), ragged=True),
    "maml-regression": Row(lambda: maml(waves(), POINT, inner_steps=1), POINT),
    "maml-regression-ragged": Row(lambda: maml(waves(), POINT, inner_steps=5), POINT, ragged=True),
    "maml-gaussian": Row(lambda: maml(GaussianRegression(1), POINT, inner_steps=1), POINT),
    "maml-conv-batch": Row(lambda: conv_maml("batch", inner_steps=1), IMAGE),
    "maml-conv-batch-ragged": Row(lambda: conv_maml("batch", inner_steps=1), IMAGE, ragged=True),
    "maml-conv-batch-checkpoint": Row(lambda: conv_maml("batch", inner_steps=2, memory="checkpoint"), IMAGE),
    "maml-conv-batch-sweep": Row(lambda: conv_maml("batch", inner_steps=2, memory="sweep"), IMAGE, ragged=True),
    "maml-conv-running": Row(lambda: conv_maml("running", inner_steps=1), IMAGE),
    "maml-conv-group": Row(lambda: conv_maml("group", inner_steps=1), IMAGE),
    "maml-transformer": Row(lambda: MAML(transformer(blobs()), blobs(), inner_steps=2), ragged=True),
    "maml-resnet12": Row(lambda: MAML(resnet("batch", pairs()), pairs(), inner_steps=1), IMAGE, ragged=True),
    "anil": Row(lambda: anil(blobs(), inner_steps=1)),
    "anil-5-steps": Row(lambda: anil(blobs(), inner_steps=5)),
    "anil-eval-steps": Row(lambda: anil(blobs(), inner_steps=1, eval_steps=3)),
    "anil-first-order": Row(lambda: anil(blobs(), inner_steps=3, first_order=True)),
    "anil-ragged": Row(lambda: anil(blobs(), inner_steps=3), ragged=True),
    "anil-regression": Row(lambda: anil(waves(), POINT, inner_steps=1), POINT),
    "anil-regression-ragged": Row(lambda: anil(waves(), POINT, inner_steps=5), POINT, ragged=True),
    "anil-regression-first-order": Row(lambda: anil(waves(), POINT, inner_steps=5, first_order=True), POINT),
    "anil-gaussian-ragged": Row(lambda: anil(GaussianRegression(1), POINT, inner_steps=2), POINT, ragged=True),
    "anil-conv-batch": Row(lambda: ANIL(conv("batch"), pairs(), inner_steps=2), IMAGE, ragged=True),
    "anil-conv-running": Row(lambda: ANIL(conv("running"), pairs(), inner_steps=2), IMAGE),
    "anil-conv-running-ragged": Row(lambda: ANIL(conv("running"), pairs(), inner_steps=2), IMAGE, ragged=True),
    "anil-conv-group": Row(lambda: ANIL(conv("group"), pairs(), inner_steps=2), IMAGE),
    "imaml": Row(lambda: imaml(blobs(), inner_steps=4)),
    "imaml-eval-steps": Row(lambda: imaml(blobs(), inner_steps=2, eval_steps=5)),
    "imaml-ragged": Row(lambda: imaml(blobs(), inner_steps=4), ragged=True),
    "imaml-regression": Row(lambda: imaml(waves(), POINT, inner_steps=4), POINT),
    "imaml-regression-ragged": Row(lambda: imaml(waves(), POINT, inner_steps=4, cg_steps=2), POINT, ragged=True),
    "imaml-gaussian": Row(lambda: imaml(GaussianRegression(1), POINT, inner_steps=3), POINT),
    "imaml-conv-batch": Row(lambda: IMAML(conv("batch", pairs()), pairs(), 2, cg_steps=2), IMAGE, ragged=True),
    "imaml-conv-group": Row(lambda: IMAML(conv("group", pairs()), pairs(), 2, cg_steps=2), IMAGE),
    "reptile": Row(lambda: Reptile(mlp(blobs()), blobs(), inner_steps=3, eval_steps=4)),
    "reptile-regression": Row(
        lambda: Reptile(mlp(waves(), POINT), waves(), 3, eval_steps=4), POINT, ragged=True
    ),
    "reptile-conv-batch": Row(lambda: Reptile(conv("batch", pairs()), pairs(), 2, eval_steps=2), IMAGE),
    "meta_sgd": Row(lambda: MetaSGD(mlp(blobs()), blobs(), inner_lr=0.1)),
    "meta_sgd-sweep-ragged": Row(lambda: MetaSGD(mlp(blobs()), blobs(), 3, 0.1, memory="sweep"), ragged=True),
    "meta_sgd-regression-ragged": Row(lambda: MetaSGD(mlp(waves(), POINT), waves(), 2), POINT, ragged=True),
    "meta_sgd-first-order": Row(lambda: MetaSGD(mlp(blobs()), blobs(), 2, 0.1, first_order=True)),
    "meta_sgd-conv-batch": Row(lambda: MetaSGD(conv("batch", pairs()), pairs()), IMAGE, ragged=True),
    "boil": Row(lambda: BOIL(mlp(), blobs())),
    "boil-sweep-ragged": Row(lambda: BOIL(mlp(), blobs(), 3, 0.1, memory="sweep"), ragged=True),
    "boil-regression-ragged": Row(lambda: BOIL(mlp(None, POINT), waves(), 2, 0.1), POINT, ragged=True),
    "boil-first-order": Row(lambda: BOIL(mlp(), blobs(), 2, 0.1, first_order=True)),
    "boil-conv-batch": Row(lambda: BOIL(conv("batch"), pairs(), inner_lr=0.05), IMAGE, ragged=True),
    "cavia": Row(lambda: CAVIA(mlp(blobs()), blobs(), context=2)),
    "cavia-sweep-ragged": Row(lambda: CAVIA(mlp(blobs()), blobs(), 2, 3, 0.1, memory="sweep"), ragged=True),
    "cavia-regression-ragged": Row(lambda: CAVIA(mlp(waves(), POINT), waves(), 3), POINT, ragged=True),
    "cavia-first-order": Row(lambda: CAVIA(mlp(waves(), POINT), waves(), 2, 2, 0.5, first_order=True), POINT),
    "cavia-projection-ragged": Row(lambda: CAVIA(Projection(VECTOR, 3, width=4), blobs(), 2), ragged=True),
    "cavia-conv-batch": Row(lambda: CAVIA(conv("batch", pairs()), pairs(), 2, 1, 0.1), IMAGE, ragged=True),
    "maml_plus_plus": Row(lambda: plus(blobs())),
    "maml_plus_plus-sweep-ragged": Row(lambda: plus(blobs(), memory="sweep"), ragged=True),
    "maml_plus_plus-annealed": Row(lambda: plus(blobs(), first_order_tasks=9)),
    "maml_plus_plus-regression-ragged": Row(lambda: plus(waves(), POINT, eval_steps=5), POINT, ragged=True),
    "maml_plus_plus-conv-batch": Row(lambda: MAMLPlusPlus(conv("batch", pairs()), pairs(), 2), IMAGE, ragged=True),
    "meta_curvature": Row(lambda: MetaCurvature(mlp(blobs()), blobs(), 1)),
    "meta_curvature-sweep-ragged": Row(lambda: MetaCurvature(mlp(blobs()), blobs(), 3, memory="sweep"), ragged=True),
    "meta_curvature-regression": Row(lambda: MetaCurvature(mlp(waves(), POINT), waves(), 2), POINT, ragged=True),
    "meta_curvature-first-order": Row(lambda: MetaCurvature(mlp(blobs()), blobs(), 2, first_order=True)),
    "meta_curvature-conv-batch": Row(lambda: MetaCurvature(conv("batch", pairs()), pairs(), 1), IMAGE, ragged=True),
    "warp_grad": Row(lambda: WarpGrad(mlp(blobs()), blobs(), 1)),
    "warp_grad-sweep-ragged": Row(lambda: WarpGrad(mlp(blobs()), blobs(), 1, memory="sweep"), ragged=True),
    "warp_grad-3-steps": Row(lambda: WarpGrad(mlp(blobs()), blobs(), 3)),
    "warp_grad-regression": Row(lambda: WarpGrad(mlp(waves(), POINT), waves(), 2), POINT, ragged=True),
    "warp_grad-first-order": Row(lambda: WarpGrad(mlp(blobs()), blobs(), 2, first_order=True)),
    "warp_grad-projection": Row(lambda: WarpGrad(Projection(VECTOR, 3, width=4), blobs(), 1), ragged=True),
    "warp_grad-conv-batch": Row(lambda: WarpGrad(conv("batch", pairs()), pairs(), 1), IMAGE, ragged=True),
    "meta_lstm": Row(lambda: lstm(blobs(), first_order=False)),
    "meta_lstm-first-order-ragged": Row(lambda: lstm(blobs()), ragged=True),
    "meta_lstm-regression-ragged": Row(lambda: lstm(waves(), POINT, first_order=False), POINT, ragged=True),
    "meta_lstm-conv-batch": Row(lambda: MetaLSTM(conv("batch", pairs()), pairs(), 1, hidden=2), IMAGE, ragged=True),
}
