"""Writing an ONNX file, once it was seen to say what torch says."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.adapted import AdaptedTask, row_shape
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import generator
from quickstudy.evaluate import dtype_of, evaluating, name_of
from quickstudy.export.graph import QUERY, SUPPORT, Asked, Whole, graph_of, output_names
from quickstudy.version import VERSION

SIZES = ((3, 2), (5, 40), (12, 7))
"""Rows a class in the support, and rows asked, of the random tasks on which the file must say what torch says."""
NEAR = 1e-3
"""How far off the file may be: of 1 for probabilities, of the largest answer for values."""


@dataclass(frozen=True)
class Exported:
    """What was written: inputs and outputs with their shapes, the largest difference from torch, and the card."""

    path: str
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    difference: float
    card: dict[str, Any]


def export_learner(trained: Checkpoint, path: str | Path, way: int = 0, x_shape: Sequence[int] = ()) -> Exported:
    """Write adapt and predict of a learner as one ONNX graph.

    Inputs: support_x (support, *x_shape), support_y (support,) class numbers as int64 or (support, y_size) values,
    query_x (query, *x_shape), with any numbers of rows from 2 on. Outputs: probabilities (query, way); or values and,
    where the learner gives them, deviations (query, y_size). A class that the support does not show has probability 0.

    way: the most classes of a task; 0 for as many as the learner was trained on. x_shape: for a learner that takes rows
    of any shape. Left out: padding and weights of rows; scores of a calibration; readers of texts and tables.

    The file is compared with torch on random rows of several numbers, and not written where they differ.
    Raises UserError for a learner that adapts by gradients, or that torch cannot write as ONNX.
    """
    _needs_onnx()
    check_place(path)
    learner = trained.learner
    name = name_of(learner, "learner")
    if learner.descends:
        raise UserError(
            f"{name} takes gradients at test time, which ONNX has not: adapt it to a task, and export that with --task."
        )
    if (trained.card.get("spec") or {}).get("kind") == "zero-shot" or tuple(learner.kinds) == ("zero-shot",):
        raise UserError(f"{name} is adapted to descriptions: export what it learnt of one task, with --task.")
    if isinstance(learner.objective, Classification) and way:
        learner = learner.for_way(way)
    shape = _row_shape(learner, trained.card, x_shape)
    module = Whole(learner).eval()
    tasks = [_task(learner, shape, shot, rows, i) for i, (shot, rows) in enumerate(SIZES)]
    return _write(path, module, learner, trained.card, tasks, {})


def export_task(task: AdaptedTask, path: str | Path, x_shape: Sequence[int] = ()) -> Exported:
    """Write predict of a learner for one adapted task as an ONNX graph, what was learnt of the task as constants.

    Input: query_x (query, *x_shape). Outputs and the comparison with torch are those of `export_learner`; the names of
    the classes are in the file's metadata, in the order of the columns. x_shape: for a learner of rows of any shape.

    Raises UserError for a learner that takes gradients to predict, or that torch cannot write as ONNX.
    """
    _needs_onnx()
    check_place(path)
    learner, origin = task.learner, task.card.get("checkpoint") or {}
    shape = _row_shape(learner, origin, x_shape)
    queries = [{f"{QUERY}_x": _rows(shape, rows, i)} for i, (_, rows) in enumerate(SIZES)]
    module = Asked(learner, task.state, len(task.classes)).eval()
    return _write(path, module, learner, origin, queries, {"classes": task.classes})


def _write(
    path: str | Path,
    module: Whole | Asked,
    learner: MetaLearner,
    card: Mapping[str, Any],
    tasks: Sequence[Mapping[str, Tensor]],
    facts: Mapping[str, Any],
) -> Exported:
    kind, dtype = learner.objective.kind, dtype_of(learner) or torch.float32
    tasks = [{k: v.to(dtype) if v.is_floating_point() else v for k, v in task.items()} for task in tasks]
    with evaluating(learner, seed=0):
        model = graph_of(module, tasks[0])
    axes = {name: name.partition("_")[0] for name in tasks[0]}
    inputs = {name: [axes[name], *t.shape[1:]] for name, t in tasks[0].items()}
    size = learner.objective.size if kind == "classification" else learner.objective.y_size  # type: ignore
    width = len(facts.get("classes", ())) or size
    outputs: dict[str, list[int | str]] = {name: [QUERY, width] for name in output_names(learner)}
    about = {
        "quickstudy": VERSION,
        "learner": name_of(learner, "learner"),
        "digest": card.get("digest"),
        "kind": kind,
        "adapts": isinstance(module, Whole),
        "inputs": inputs,
        "outputs": outputs,
        **facts,
    }
    difference = _compared(model.SerializeToString(), module, learner, tasks)
    about["difference"] = difference
    for key, value in (("quickstudy", json.dumps(about)), ("classes", json.dumps(facts.get("classes", [])))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    write_whole(path, model.SerializeToString())
    return Exported(str(path), inputs, outputs, difference, about)


def _compared(
    file: bytes, module: Whole | Asked, learner: MetaLearner, tasks: Sequence[Mapping[str, Tensor]]
) -> float:
    """The largest difference from torch, as a share of 1 or of the largest value.

    Raises UserError where it is too large, or the file does not run.
    """
    import onnxruntime

    name, worst = name_of(learner, "learner"), 0.0
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for task in tasks:
            given = {k: v.numpy() for k, v in task.items()}
            found = session.run(None, given)
            with evaluating(learner, seed=0):
                wanted = [out.numpy() for out in module(*task.values())]
            for one, other in zip(found, wanted, strict=True):
                scale = 1.0 if learner.objective.kind == "classification" else max(float(np.abs(other).max()), 1e-6)
                gap = float(np.abs(np.asarray(one, np.float64) - other).max()) / scale
                worst = max(worst, gap if np.isfinite(gap) else np.inf)
    except Exception as error:  # the runtime's errors have no class of their own
        said = str(error).strip().splitlines()[0][:160]
        raise UserError(f"the ONNX file of {name} does not run ({said}): nothing was written.") from None
    if not worst <= NEAR:
        raise UserError(f"the ONNX file of {name} is off by {worst:.2g} from what torch says: nothing was written.")
    return worst


def _task(learner: MetaLearner, shape: tuple[int, ...], shot: int, rows: int, number: int) -> dict[str, Tensor]:
    """Random rows of a task, its classes in turn; in the last one the last of three classes or more is not shown."""
    objective, rng = learner.objective, generator("export", number)
    if not isinstance(objective, Classification):
        n = 3 * shot + 4
        y = torch.randn(n, objective.y_size, generator=rng)  # type: ignore[attr-defined]
    else:
        shown = objective.way - (number == len(SIZES) - 1 and objective.way > 2)
        n = max(shot * shown, 4)
        y = torch.arange(n) % shown
    return {f"{SUPPORT}_x": _rows(shape, n, number), f"{SUPPORT}_y": y, f"{QUERY}_x": _rows(shape, rows, -number - 1)}


def _rows(shape: tuple[int, ...], rows: int, number: int) -> Tensor:
    rng = generator("export rows", number)
    return torch.rand(rows, *shape, generator=rng) if len(shape) == 3 else torch.randn(rows, *shape, generator=rng)


def _row_shape(learner: MetaLearner, card: Mapping[str, Any], given: Sequence[int]) -> tuple[int, ...]:
    found = row_shape(learner, card) or given
    if not found:
        name = name_of(learner, "learner")
        raise UserError(f"{name} takes rows of any width, and a file has one: give it with --width.")
    return tuple(found)


def _needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed: install what ONNX needs with `pip install quickstudy[onnx]`.")
