"""Zero-shot methods: one row a learner, with the variants that matter."""

from __future__ import annotations

from contract.rows.made import IMAGE, VECTOR, Row, blobs, conv, mlp, pairs
from quickstudy.learners import DAP, ESZSL, DeViSE, SemanticProtoNet

WORDS, GRID = (4,), (2, 3)
"""The shapes of descriptions: a vector, and one that has to be flattened."""

ROWS: dict[str, Row] = {
    "semantic_protonet": Row(lambda: SemanticProtoNet(mlp(), blobs(), WORDS), description_shape=WORDS),
    "semantic_protonet-ragged": Row(
        lambda: SemanticProtoNet(mlp(), blobs(), GRID, unit=False, depth=1, width=5), VECTOR, True, GRID
    ),
    "semantic_protonet-conv-running": Row(
        lambda: SemanticProtoNet(conv("running"), pairs(), WORDS), IMAGE, description_shape=WORDS
    ),
    "semantic_protonet-conv-batch-ragged": Row(
        lambda: SemanticProtoNet(conv("batch"), pairs(), WORDS), IMAGE, True, WORDS
    ),
    "eszsl": Row(lambda: ESZSL(blobs(), VECTOR, WORDS), description_shape=WORDS),
    "eszsl-ragged": Row(lambda: ESZSL(blobs(), VECTOR, GRID, gamma=0.3, penalty=0.1, others=-1), VECTOR, True, GRID),
    "eszsl-images": Row(lambda: ESZSL(pairs(), IMAGE, WORDS), IMAGE, description_shape=WORDS),
    "devise": Row(lambda: DeViSE(mlp(), blobs(), WORDS), description_shape=WORDS),
    "devise-ragged": Row(lambda: DeViSE(mlp(), blobs(), GRID, margin=0.3), VECTOR, True, GRID),
    "devise-conv-running": Row(lambda: DeViSE(conv("running"), pairs(), WORDS), IMAGE, description_shape=WORDS),
    "dap": Row(lambda: DAP(mlp(), blobs(), WORDS), description_shape=WORDS),
    "dap-ragged": Row(lambda: DAP(mlp(), blobs(), GRID), VECTOR, True, GRID),
    "dap-conv-running": Row(lambda: DAP(conv("running"), pairs(), WORDS), IMAGE, description_shape=WORDS),
}
