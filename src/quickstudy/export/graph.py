"""What is exported, as a torch module of plain tensors in and out; and its ONNX graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification, GaussianRegression, values_of
from quickstudy.core.task import State, examples
from quickstudy.core.tracing import tracing
from quickstudy.evaluate import name_of

SUPPORT, QUERY = "support", "query"
"""The names of the two axes that may have any length."""


class Whole(nn.Module):
    """adapt and predict: (support_x (n, *x_shape), support_y (n,) or (n, y_size), query_x (m, *x_shape)) -> answers."""

    def __init__(self, learner: MetaLearner):
        super().__init__()
        self.learner = learner

    def forward(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> tuple[Tensor, ...]:
        state = self.learner.adapt(examples(support_x.unsqueeze(0), support_y.unsqueeze(0)))
        return answers(self.learner, self.learner.predict(state, query_x.unsqueeze(0)))


class Asked(nn.Module):
    """predict for one adapted task, whose state is constant: query_x (m, *x_shape) -> answers."""

    def __init__(self, learner: MetaLearner, state: State, classes: int):
        super().__init__()
        self.learner = learner
        self.classes = classes
        self.names = list(state)
        for i, tensor in enumerate(state.values()):
            self.register_buffer(f"state_{i}", tensor)

    def forward(self, query_x: Tensor) -> tuple[Tensor, ...]:
        state = {name: getattr(self, f"state_{i}") for i, name in enumerate(self.names)}
        found = answers(self.learner, self.learner.predict(state, query_x.unsqueeze(0)))
        return (found[0][:, : self.classes],) if self.classes else found


def answers(learner: MetaLearner, prediction: Tensor) -> tuple[Tensor, ...]:
    """What a user wants of a prediction (1, m, size): probabilities; values; or values and their deviations."""
    if isinstance(learner.objective, Classification):
        return (prediction[0].softmax(-1),)
    return tuple(part[0] for part in values_of(learner.objective, prediction) if part is not None)


def output_names(learner: MetaLearner) -> list[str]:
    """The names of what `answers` gives."""
    if isinstance(learner.objective, Classification):
        return ["probabilities"]
    return ["values", "deviations"] if isinstance(learner.objective, GaussianRegression) else ["values"]


def graph_of(module: Whole | Asked, inputs: Mapping[str, Tensor]) -> Any:
    """The ONNX model (a protocol buffer) of a module, its numbers of rows left open.

    inputs: rows to trace it with, by name; their numbers must differ from every other size.
    Raises UserError where torch cannot write it as ONNX, with torch's reason.
    """
    from quickstudy.export.solving import translations

    axes = {SUPPORT: torch.export.Dim(SUPPORT, min=2), QUERY: torch.export.Dim(QUERY, min=2)}
    shapes = {name: {0: axes[name.partition("_")[0]]} for name in inputs}
    try:
        with quiet(), tracing(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=tuple(shapes.values()),
                input_names=list(inputs),
                output_names=output_names(module.learner),
                custom_translation_table=translations(),
                verbose=False,
            )
        assert program is not None
        return program.model_proto
    except Exception as error:  # whatever tracing stumbles over
        name, said = name_of(module.learner, "learner"), reason(error)
        whole = isinstance(module, Whole)
        do = "give --task to export what it learnt of one task" if whole else "serve it with `quickstudy serve`"
        raise UserError(f"{name} cannot be written as ONNX ({said}): {do}.") from None


WHY = {
    ".numpy()": "what it fits to a task is fitted by scikit-learn",
    "data-dependent": "its steps depend on the values that it meets",
    "generator": "it draws random numbers",
    "batch_norm_update_stats": "its network takes its statistics from the rows at hand",
}
"""What stands in torch's sentences, and what it means here."""


def reason(error: BaseException) -> str:
    """What lies at the bottom of an error: in our words where it is known, else the first line of torch's."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[0][:160].rstrip(".:")
    return next((words for part, words in WHY.items() if part in str(error)), said)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's progress and its notes on packages of its own to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
