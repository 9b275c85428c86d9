"""Small things that were said badly, or done twice: each with the sentence, or the count, that is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import quickstudy as qs
import quickstudy_program
from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.tasks.arrays import Arrays, read_labelled

FAST = ["--train.steps=2", "--train.valid_every=0", "--net=mlp", "--quiet"]


def test_ctrl_c_during_the_first_imports_is_one_line() -> None:
    stopped = (
        "import sys, quickstudy_program\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.startswith('quickstudy'):\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "quickstudy_program.program()\n"
    )
    folder = str(Path(quickstudy_program.__file__).parent)
    run = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 130 and run.stderr == "quickstudy: interrupted.\n" and run.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.steps=0"], "--train.steps is 0"),
        (["--train.meta_batch=0"], "--train.meta_batch is 0"),
        (["--train.lr=-1"], "--train.lr is -1"),
        (["--train.valid_every=0", "--train.patience=3"], "give --train.valid_every"),
        (["--train.accumulate=9"], "--train.accumulate is 9"),
    ],
)
def test_options_of_training_are_named_as_written(refused, tmp_path: Path, words: list[str], said: str) -> None:
    found = refused("train", f"--out={tmp_path / 'run'}", "--learner=maml", "--tasks=sinusoid", "--quiet", *words)
    assert said in found and "----" not in found and "--train.--" not in found


def test_float_images_up_to_255_mean_what_bytes_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 16, 16)).astype(np.uint8)
    y = np.arange(12) % 6
    np.savez(tmp_path / "bytes.npz", x=pixels, y=y)
    np.savez(tmp_path / "floats.npz", x=pixels.astype(np.float32), y=y)
    np.savez(tmp_path / "unit.npz", x=pixels.astype(np.float32) / 255, y=y)
    options = {"way": 2, "shot": 1, "query": 1, "valid_fraction": 0.0, "test_fraction": 0.0}

    def drawn(name: str) -> torch.Tensor:
        source = Arrays(str(tmp_path / f"{name}.npz"), **options)
        return source.sample("train", 3, source.rng(0)).query.x

    with pytest.warns(UserWarning, match=r"floats\.npz holds images of real numbers up to 255.*scaled"):
        floats = drawn("floats")
    assert torch.equal(floats, drawn("bytes")) and torch.allclose(floats, drawn("unit"))
    with pytest.warns(UserWarning, match="scaled"):
        x = read_labelled(tmp_path / "floats.npz", (1, 16, 16))[0]
    assert torch.equal(x, read_labelled(tmp_path / "bytes.npz", (1, 16, 16))[0])
    rows = Arrays.of(255 * torch.rand(12, 4), y, **options)  # vectors are no images
    assert rows.prepare().x.max() > 1
    standardised = Arrays.of(100 * torch.randn(12, 1, 8, 8), y, **options)
    assert standardised.prepare().x.min() < -10


def test_a_sub_folder_that_is_no_class_is_told_as_such(refused, tmp_path: Path, capsys) -> None:
    learner = qs.make("protonet", qs.Spec("classification", (1, 16, 16), way=2, train_classes=2))
    source = Arrays.of(torch.rand(20, 1, 16, 16), [i % 10 for i in range(20)], way=2, shot=1, query=1)
    checkpoint.save(learner, tmp_path / "best.safetensors", source)
    for folder in ("support/cat", "support/dog", "new/monday"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (16, 16), 60 * i + 10 * len(folder)).save(tmp_path / folder / f"{i}.png")
    out = tmp_path / "task.safetensors"
    assert main(["adapt", str(tmp_path / "best.safetensors"), str(tmp_path / "support"), f"--out={out}"]) == 0
    said = refused("predict", out, tmp_path / "new")
    assert "has the sub-folder 'monday', which is no class" in said and "cat, dog" in said and "new/monday" in said
    assert main(["predict", str(out), str(tmp_path / "new" / "monday")]) == 0


def test_evaluate_reads_its_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--tasks=sinusoid", "--learner=maml", f"--out={tmp_path / 'run'}", *FAST]
    assert main(["train", *words]) == 0
    read, calls = checkpoint.read, []
    monkeypatch.setattr(checkpoint, "read", lambda *given: (calls.append(given), read(*given))[1])
    best = tmp_path / "run" / "best.safetensors"
    assert main(["evaluate", str(best), "--test_tasks=2", "--baselines=none"]) == 0
    assert len(calls) == 1
    assert checkpoint.glance(best) == read(best, "learner")[1]


def test_a_learner_of_pooled_rows_names_the_class_it_has_no_column_for() -> None:
    learner = qs.make("linear_probe", qs.Spec("classification", (4,), way=2, train_classes=3))
    rows = qs.examples(torch.randn(1, 5, 4), torch.tensor([[0, 1, 2, 3, 4]]))
    with pytest.raises(qs.UserError, match=r"tells 3 training classes apart, and a row is of class 4"):
        learner.meta_loss(qs.Task(rows, rows))
    assert isinstance(learner.head, nn.Linear) and learner.head.out_features == 3
