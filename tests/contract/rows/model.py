"""Model-based methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, POINT, VECTOR, Row, blobs, conv, mlp, pairs, waves
from quickstudy.core import Classification, GaussianRegression, Objective
from quickstudy.learners import ANP, CNP, MANN, SNAIL, TNP, ConvCNP, FastWeights, InContext, MetaNetworks, Tabular


def snail(objective: Objective, x_shape: tuple[int, ...] = VECTOR) -> SNAIL:
    return SNAIL(mlp(None, x_shape), objective, length=10, filters=2, keys=(3, 2), values=(2, 3))


def mann(objective: Classification, **options) -> MANN:
    return MANN(mlp(), objective, hidden=3, slots=4, width=2, heads=2, **options)


def meta_networks(first_order: bool) -> MetaNetworks:
    return MetaNetworks(mlp(), blobs(), width=3, units=3, first_order=first_order)


def tabular(objective: Classification) -> Tabular:
    return Tabular(objective, width=4, depth=2, reading=1, heads=2)


ROWS: dict[str, Row] = {
    "cnp": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT),
    "cnp-ragged": Row(lambda: CNP(GaussianRegression(1), POINT, width=8, depth=2), POINT, ragged=True),
    "cnp-vectors": Row(lambda: CNP(GaussianRegression(2), VECTOR, width=8, depth=1)),
    "anp": Row(lambda: ANP(GaussianRegression(1), POINT, 8, 1, heads=2), POINT),
    "anp-ragged": Row(lambda: ANP(GaussianRegression(1), POINT, 8, 1, heads=2), POINT, ragged=True),
    "anp-latent-ragged": Row(
        lambda: ANP(GaussianRegression(1), POINT, 8, 1, heads=2, latent=True, draws=4), POINT, ragged=True
    ),
    "anp-latent-mean": Row(lambda: ANP(GaussianRegression(2), VECTOR, 4, 1, 0, heads=1, latent=True, draws=0)),
    "tnp": Row(lambda: TNP(GaussianRegression(1), POINT, 8, 2, heads=2, embed_depth=1), POINT),
    "tnp-ragged": Row(lambda: TNP(GaussianRegression(1), POINT, 8, 2, heads=2, embed_depth=1), POINT, ragged=True),
    "tnp-vectors": Row(lambda: TNP(GaussianRegression(2), VECTOR, 8, 1, heads=1, embed_depth=1)),
    "conv_cnp": Row(lambda: ConvCNP(GaussianRegression(1), POINT, 4, 2, 3, points=16, density=3.0), POINT),
    "conv_cnp-ragged": Row(
        lambda: ConvCNP(GaussianRegression(2), POINT, 4, 1, 3, points=17, density=3.0), POINT, ragged=True
    ),
    "conv_cnp-plane": Row(
        lambda: ConvCNP(GaussianRegression(1), (2,), 4, 2, 3, points=12, density=2.0), (2,), ragged=True
    ),
    "in_context": Row(lambda: InContext(mlp(), blobs(), 8, 2, heads=2)),
    "in_context-ragged": Row(lambda: InContext(mlp(), blobs(), 8, 2, heads=2), ragged=True),
    "in_context-regression": Row(
        lambda: InContext(mlp(None, POINT), GaussianRegression(1), 8, 2, heads=1), POINT, ragged=True
    ),
    "in_context-squares": Row(lambda: InContext(mlp(), waves(), 8, 1, heads=2)),
    "in_context-conv-running": Row(lambda: InContext(conv("running"), pairs(), 8, 1, heads=2), IMAGE, ragged=True),
    "in_context-conv-batch": Row(lambda: InContext(conv("batch"), pairs(), 8, 1, heads=2), IMAGE),
    "tabular": Row(lambda: tabular(blobs()), (2, 3)),
    "tabular-ragged": Row(lambda: tabular(blobs()), (2, 3), ragged=True),
    "tabular-pairs": Row(lambda: tabular(pairs()), (2, 4)),
    "tabular-vectors-ragged": Row(lambda: tabular(blobs()), ragged=True),
    "snail": Row(lambda: snail(blobs())),
    "snail-ragged": Row(lambda: snail(blobs()), ragged=True),
    "snail-regression-ragged": Row(lambda: snail(waves(), POINT), POINT, ragged=True),
    "snail-gaussian": Row(lambda: snail(GaussianRegression(1), POINT), POINT),
    "snail-conv-running": Row(lambda: SNAIL(conv("running"), pairs(), 5, 2, (2, 2), (2, 2)), IMAGE, ragged=True),
    "snail-conv-batch": Row(lambda: SNAIL(conv("batch"), pairs(), 5, 2, (2, 2), (2, 2)), IMAGE),
    "mann": Row(lambda: mann(blobs())),
    "mann-ragged": Row(lambda: mann(blobs(), sharpness=1.0), ragged=True),
    "mann-in-sequence": Row(lambda: mann(blobs(), in_sequence=True), ragged=True),
    "mann-conv-running": Row(lambda: MANN(conv("running"), pairs(), 3, 3, 2, 1), IMAGE, ragged=True),
    "fast_weights": Row(lambda: FastWeights(mlp(), blobs(), hidden=4)),
    "fast_weights-ragged": Row(lambda: FastWeights(mlp(), blobs(), hidden=4, steps=2), ragged=True),
    "fast_weights-regression-ragged": Row(
        lambda: FastWeights(mlp(None, POINT), waves(), hidden=4, rate=0.1, normalise=False), POINT, ragged=True
    ),
    "fast_weights-gaussian": Row(lambda: FastWeights(mlp(), GaussianRegression(2), hidden=4)),
    "fast_weights-conv-running": Row(lambda: FastWeights(conv("running"), pairs(), hidden=4), IMAGE, ragged=True),
    "meta_networks": Row(lambda: meta_networks(first_order=True)),
    "meta_networks-ragged": Row(lambda: meta_networks(first_order=True), ragged=True),
    "meta_networks-exact-ragged": Row(lambda: meta_networks(first_order=False), ragged=True),
    "meta_networks-conv-running": Row(
        lambda: MetaNetworks(conv("running"), pairs(), 4, 3, first_order=False), IMAGE, ragged=True
    ),
}
