"""Metric-based methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, POINT, Row, blobs, conv, mlp, pairs, waves
from quickstudy.learners import R2D2, ProtoNet

ROWS: dict[str, Row] = {
    "protonet": Row(lambda: ProtoNet(mlp(), blobs())),
    "protonet-ragged": Row(lambda: ProtoNet(mlp(), blobs()), ragged=True),
    "protonet-turns": Row(lambda: ProtoNet(mlp(), blobs(), turns=True)),
    "protonet-turns-ragged": Row(lambda: ProtoNet(mlp(), blobs(), turns=True), ragged=True),
    "protonet-conv-batch": Row(lambda: ProtoNet(conv("batch"), pairs()), IMAGE),
    "protonet-conv-batch-ragged": Row(lambda: ProtoNet(conv("batch"), pairs()), IMAGE, ragged=True),
    "protonet-turns-conv-running": Row(lambda: ProtoNet(conv("running"), pairs(), turns=True), IMAGE),
    "protonet-conv-running": Row(lambda: ProtoNet(conv("running"), pairs()), IMAGE),
    "protonet-conv-group": Row(lambda: ProtoNet(conv("group"), pairs()), IMAGE),
    "r2d2": Row(lambda: R2D2(mlp(), blobs())),
    "r2d2-ragged": Row(lambda: R2D2(mlp(), blobs()), ragged=True),
    "r2d2-regression": Row(lambda: R2D2(mlp(None, POINT), waves()), POINT),
    "r2d2-no-intercept": Row(lambda: R2D2(mlp(None, POINT), waves(), 0.3, intercept=False), POINT, ragged=True),
    "r2d2-conv-batch": Row(lambda: R2D2(conv("batch"), pairs()), IMAGE),
    "r2d2-conv-running": Row(lambda: R2D2(conv("running"), pairs()), IMAGE),
}
