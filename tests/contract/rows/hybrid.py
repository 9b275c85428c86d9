"""Hybrid methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, Row, blobs, conv, mlp, pairs
from quickstudy.core import GaussianRegression
from quickstudy.learners import LEO, VERSA, CNAPs, ProtoMAML, PrototypeMemory


def leo(**options) -> LEO:
    return LEO(mlp(), blobs(), **{"latents": 3, "inner_steps": 2, "inner_lr": 0.3, "finetune_lr": 0.1, **options})


ROWS: dict[str, Row] = {
    "proto_maml": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=1)),
    "proto_maml-5-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=5)),
    "proto_maml-no-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=0)),
    "proto_maml-checkpoint": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="checkpoint")),
    "proto_maml-sweep": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="sweep")),
    "proto_maml-first-order": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2, first_order=True)),
    "proto_maml-ragged": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2), ragged=True),
    "proto_maml-conv-batch": Row(lambda: ProtoMAML(conv("batch"), pairs(), inner_steps=1), IMAGE, ragged=True),
    "versa": Row(lambda: VERSA(mlp(), blobs(), width=5)),
    "versa-ragged": Row(lambda: VERSA(mlp(), blobs(), width=5, draws=3), ragged=True),
    "versa-regression-ragged": Row(lambda: VERSA(mlp(), GaussianRegression(2), width=5), ragged=True),
    "versa-conv-running": Row(lambda: VERSA(conv("running"), pairs(), width=5), IMAGE),
    "leo": Row(lambda: leo(encoder=0.0)),
    "leo-encoder-penalty-ragged": Row(lambda: leo(encoder=0.5), ragged=True),
    "leo-no-steps": Row(lambda: leo(inner_steps=0, finetune_steps=0)),
    "leo-conv-running": Row(lambda: LEO(conv("running"), pairs(), 3, 1, 0.1, 1, 0.1, encoder=0.0), IMAGE),
    "cnaps": Row(lambda: CNAPs(mlp(), blobs(), width=5)),
    "cnaps-ragged": Row(lambda: CNAPs(mlp(), blobs(), width=5), ragged=True),
    "cnaps-conv-batch-ragged": Row(lambda: CNAPs(conv("batch"), pairs(), width=5), IMAGE, ragged=True),
    "cnaps-conv-running": Row(lambda: CNAPs(conv("running"), pairs(), width=5), IMAGE),
    "prototype_memory": Row(lambda: PrototypeMemory(mlp(), blobs())),
    "prototype_memory-fades-ragged": Row(lambda: PrototypeMemory(mlp(), blobs(), 0.3, parts=2), ragged=True),
    "prototype_memory-two-slots": Row(lambda: PrototypeMemory(mlp(), blobs(), capacity=2)),
    "prototype_memory-conv-batch": Row(lambda: PrototypeMemory(conv("batch"), pairs()), IMAGE),
}
