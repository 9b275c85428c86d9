"""Hybrid methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, Row, blobs, conv, mlp, pairs
from quickstudy.learners import ProtoMAML

ROWS: dict[str, Row] = {
    "proto_maml": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=1)),
    "proto_maml-5-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=5)),
    "proto_maml-no-steps": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=0)),
    "proto_maml-checkpoint": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="checkpoint")),
    "proto_maml-sweep": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=3, memory="sweep")),
    "proto_maml-first-order": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2, first_order=True)),
    "proto_maml-ragged": Row(lambda: ProtoMAML(mlp(), blobs(), inner_steps=2), ragged=True),
    "proto_maml-conv-batch": Row(lambda: ProtoMAML(conv("batch"), pairs(), inner_steps=1), IMAGE, ragged=True),
}
