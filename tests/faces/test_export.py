"""ONNX files: what runs in onnxruntime says what torch says, and what cannot be written says why."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import quickstudy as qs
from contract.rows import ROWS
from quickstudy import checkpoint
from quickstudy.adaptation import adapt
from quickstudy.checkpoint import Checkpoint
from quickstudy.cli import main
from quickstudy.export import export_learner, export_task, written
from quickstudy.export.graph import Whole, graph_of

WHOLE = (
    "matching", "matching-context", "relation", "r2d2", "r2d2-regression", "simple_cnaps", "simple_shot", "feat",
    "lr_d2", "label_propagation", "bd_cspn", "laplacian_shot", "cnp", "anp", "tnp", "in_context", "tabular",
    "cnaps", "alpaca", "mixture_alpaca", "dkt", "ridge", "centroid", "chance", "protonet-resnet12",
)  # fmt: skip
NOT = {
    "logistic": "logistic cannot be written as ONNX .* fitted by scikit-learn",
    "versa": "versa cannot be written as ONNX .it draws random numbers",
    "snail": "snail cannot be written as ONNX",
    "metaoptnet": "its steps depend on the values that it meets",
    "protonet-conv-batch": "its network takes its statistics from the rows at hand",
    "maml": "maml takes gradients at test time",
    "dap": "dap is adapted to descriptions",
}
TASKS = ("logistic", "ridge", "maml-first-order", "dkt", "tnp", "protonet-conv-running")


def made(row: str) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(ROWS[row].make(), {"spec": {"x_shape": ROWS[row].x_shape}, "digest": "of-" + row})


def support(row: str, n: int, shown: int) -> tuple[torch.Tensor, torch.Tensor]:
    objective, rng = made(row).learner.objective, qs.generator("rows", row, n)
    y = torch.arange(n) % shown if objective.kind == "classification" else torch.randn(n, 1, generator=rng)
    return torch.randn(n, *ROWS[row].x_shape, generator=rng), y


def agrees(path: Path, row: str, n: int = 11, m: int = 6) -> None:
    """The file, on rows of other numbers than it was written with, says what `adapt` says of the same rows."""
    trained = made(row)
    x, y = support(row, n, 2)
    asked = torch.randn(m, *ROWS[row].x_shape, generator=qs.generator("asked"))
    found = onnxruntime.InferenceSession(path).run(None, {
        "support_x": x.numpy(), "support_y": y.numpy(), "query_x": asked.numpy()})  # fmt: skip
    if trained.learner.objective.kind == "classification":
        way = trained.learner.objective.way  # type: ignore[attr-defined]
        task = adapt(trained, x, [str(v) for v in y.tolist()], classes=[str(k) for k in range(way)])
        wanted = [task.probabilities(asked)]
        assert not np.asarray(found[0])[:, 2:].any()  # what the support does not show
    else:
        wanted = [v for v in adapt(trained, x, y).values(asked) if v is not None]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.allclose(one, other.numpy(), atol=1e-4, rtol=1e-3)


def card(path: Path) -> dict[str, Any]:
    props = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(props["classes"]) == json.loads(props["quickstudy"]).get("classes", [])
    return json.loads(props["quickstudy"])


def test_a_learner_is_one_file_for_every_task(tmp_path: Path) -> None:
    done = export_learner(made("protonet"), tmp_path / "proto.onnx")
    assert done.difference < 1e-4 and done.inputs == {
        "support_x": ["support", 3], "support_y": ["support"], "query_x": ["query", 3]}  # fmt: skip
    agrees(tmp_path / "proto.onnx", "protonet")
    agrees(tmp_path / "proto.onnx", "protonet", 40, 3)
    said = card(tmp_path / "proto.onnx")
    assert said["learner"] == "protonet" and said["digest"] == "of-protonet" and said["adapts"]
    assert said["outputs"] == {"probabilities": ["query", 3]} and said["difference"] == done.difference


def test_a_task_of_a_learner_that_descends_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    trained = made("maml")
    best, file = tmp_path / "best.safetensors", tmp_path / "task.onnx"
    checkpoint.save(trained.learner, best)
    x, y = support("maml", 9, 2)  # of the three classes that it was trained for
    names = ["dog", "ant"]
    task = adapt(qs.load(best), x, [names[v] for v in y.tolist()])
    task.save(tmp_path / "task.safetensors")
    assert "adapt it to a task, and export that with --task" in refused("export", best, "--onnx", file)
    assert not file.exists()
    assert main(["export", str(best), "--task", str(tmp_path / "task.safetensors"), "--onnx", str(file)]) == 0
    assert "largest difference from torch on random rows" in capsys.readouterr().out
    asked = torch.randn(7, 3)
    found = onnxruntime.InferenceSession(file).run(None, {"query_x": asked.numpy()})
    assert np.allclose(found[0], task.probabilities(asked).numpy(), atol=1e-5)
    assert card(file)["classes"] == ["ant", "dog"] and not card(file)["adapts"]
    assert card(file)["outputs"] == {"probabilities": ["query", 2]} and found[0].shape == (7, 2)
    assert card(file)["digest"] == qs.load(best).card["digest"]


def test_a_wrong_file_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.onnx"
    path.write_bytes(b"what was there")

    def other(module: Whole, inputs: dict[str, torch.Tensor]) -> Any:
        return graph_of(Whole(made("centroid").learner).eval(), inputs)

    monkeypatch.setattr(written, "graph_of", other)
    with pytest.raises(qs.UserError, match=r"off by .* from what torch says: nothing was written"):
        export_learner(made("protonet"), path)
    assert path.read_bytes() == b"what was there"
    monkeypatch.setattr(written, "graph_of", lambda module, inputs: onnx.ModelProto())
    with pytest.raises(qs.UserError, match="does not run"):
        export_learner(made("protonet"), path)
    assert path.read_bytes() == b"what was there" and len(list(tmp_path.iterdir())) == 1


def test_what_a_user_gets_wrong(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ends in .onnx" in refused("export", "tabular", "--onnx", tmp_path / "x.pt")
    assert "--way is 1" in refused("export", "tabular", "--onnx", tmp_path / "x.onnx", "--way", 1)
    assert "no checkpoint at" in refused("export", tmp_path / "no.safetensors", "--onnx", tmp_path / "x.onnx")
    assert "give it with --width" in refused("export", "tabular", "--onnx", tmp_path / "x.onnx")
    checkpoint.save(made("dap").learner, tmp_path / "dap.safetensors")
    assert "adapted to descriptions" in refused("export", tmp_path / "dap.safetensors", "--onnx", tmp_path / "x.onnx")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(qs.UserError, match=r"pip install quickstudy\[onnx\]"):
        export_learner(made("protonet"), tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("row", WHOLE)
def test_learners_that_are_written_whole(row: str, tmp_path: Path) -> None:
    export_learner(made(row), tmp_path / "x.onnx")
    agrees(tmp_path / "x.onnx", row)


@pytest.mark.slow
@pytest.mark.parametrize("row", NOT)
def test_learners_that_are_not(row: str, tmp_path: Path) -> None:
    with pytest.raises(qs.UserError, match=NOT[row]):
        export_learner(made(row), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("row", TASKS)
def test_tasks_that_are_written(row: str, tmp_path: Path) -> None:
    x, y = support(row, 9, made(row).learner.objective.size if row != "ridge" else 0)
    given = [str(v) for v in y.tolist()] if not y.is_floating_point() else y
    task = adapt(made(row), x, given)
    export_task(task, tmp_path / "x.onnx")
    asked = torch.randn(5, *ROWS[row].x_shape)
    found = onnxruntime.InferenceSession(tmp_path / "x.onnx").run(None, {"query_x": asked.numpy()})
    wanted = task.probabilities(asked) if task.classes else task.values(asked)[0]
    assert np.allclose(found[0], wanted.numpy(), atol=1e-4, rtol=1e-3)
