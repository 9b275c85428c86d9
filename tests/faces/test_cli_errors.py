"""Whatever a user gets wrong ends in one sentence and exit code 2, and nothing they had is lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import quickstudy as qs
from quickstudy.cli import main

FAST = ["--train.steps=2", "--train.valid_every=0", "--net=mlp", "--quiet"]


def class_folder(path: Path, classes: int = 6, per_class: int = 4, size: int = 16) -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (path / f"class {c}").mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 255, (size, size), np.uint8)
            Image.fromarray(pixels).save(path / f"class {c}" / f"{i}.png")
    return path


def on(path: Path, *more: str) -> list[str]:
    thirds = ["--tasks.valid_fraction=0.34", "--tasks.test_fraction=0.33"]
    shape = ["--tasks.way=2", "--tasks.query=2", "--tasks.size=16"]
    tasks = ["--tasks=folder", f"--tasks.path={path}", *shape, *thirds]
    return ["train", *tasks, f"--out={path.parent / 'run'}", *FAST, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = class_folder(tmp_path_factory.mktemp("data") / "good")
    assert main(on(path)) == 0
    return path.parent / "run" / "best.safetensors"


def test_folders(refused, tmp_path: Path) -> None:
    assert "there is no folder" in refused(*on(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(*on(tmp_path / "empty"))
    few = class_folder(tmp_path / "few", classes=3)
    assert "way is 2" in refused(*on(few))
    thin = class_folder(tmp_path / "thin", per_class=2)
    assert "has 2 rows and shot + query is 3" in refused(*on(thin))
    bad = class_folder(tmp_path / "bad")
    (bad / "class 3" / "1.png").write_bytes(b"no image")
    assert "class 3/1.png" in refused(*on(bad))
    mixed = class_folder(tmp_path / "mixed")
    Image.new("L", (40, 20)).save(mixed / "class 1" / "0.png")
    assert "40 x 20" in refused(*on(mixed, "--tasks.mixed_sizes=refuse"))
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert main(on(mixed)) == 0  # resized by default


def test_an_unreadable_image_can_be_skipped(tmp_path: Path, capsys) -> None:
    bad = class_folder(tmp_path / "bad")
    (bad / "class 3" / "1.png").write_bytes(b"no image")
    assert main(on(bad, "--tasks.skip_unreadable=true")) == 0
    assert "warning: left out an unreadable image" in capsys.readouterr().err


def test_a_nan_in_an_array(refused, tmp_path: Path, trained: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    x[7, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(60) % 6)
    words = ["--tasks=arrays", f"--tasks.path={tmp_path / 'nan.npz'}", f"--out={tmp_path / 'run'}", *FAST]
    assert "row 7 holds a NaN" in refused("train", *words)
    image = np.full((2, 1, 16, 16), np.inf, np.float32)
    np.savez(tmp_path / "inf.npz", x=image, y=np.array(["a", "b"]))
    assert "infinite" in refused("adapt", trained, tmp_path / "inf.npz")


def test_adapt(refused, trained: Path, tmp_path: Path) -> None:
    good = class_folder(tmp_path / "good", classes=3)
    assert "no checkpoint at" in refused("adapt", tmp_path / "none.safetensors", good)
    assert "there is no file or folder" in refused("adapt", trained, tmp_path / "none")
    assert "shows one class" in refused("adapt", trained, class_folder(tmp_path / "one", classes=1))
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (16, 16)).save(flat / "a.png")
    assert "has no labels" in refused("adapt", trained, flat)
    np.savez(tmp_path / "rows.npz", x=np.zeros((4, 3), np.float32), y=[0, 0, 1, 1])
    assert "shape" in refused("adapt", trained, tmp_path / "rows.npz")
    kept = tmp_path / "kept.safetensors"
    assert main(["adapt", str(trained), str(good), f"--out={kept}"]) == 0
    before = kept.read_bytes()
    (good / "class 0" / "0.png").write_bytes(b"no image")
    assert "0.png" in refused("adapt", trained, good, f"--out={kept}")
    assert kept.read_bytes() == before


def test_a_label_unknown_to_predict(refused, trained: Path, tmp_path: Path) -> None:
    two = class_folder(tmp_path / "two", classes=2)
    task = tmp_path / "task.safetensors"
    assert main(["adapt", str(trained), str(two), f"--out={task}"]) == 0
    said = refused("predict", task, class_folder(tmp_path / "three", classes=3))
    assert "the label 'class 2'" in said and "did you mean" in said


def test_checkpoints(refused, trained: Path, tmp_path: Path) -> None:
    content = trained.read_bytes()
    half = tmp_path / "half.safetensors"
    half.write_bytes(content[: len(content) // 2])
    assert "cut short" in refused("evaluate", half)
    (tmp_path / "text.safetensors").write_text("hello")
    assert "no readable checkpoint" in refused("evaluate", tmp_path / "text.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickle.safetensors")
    assert "no readable checkpoint" in refused("evaluate", tmp_path / "pickle.safetensors")
    edited = tmp_path / "edited.safetensors"
    edited.write_bytes(content.replace(b'\\"way\\": 2', b'\\"way\\": 9', 1))
    assert edited.read_bytes() != content
    assert "was changed after it was written" in refused("evaluate", edited)
    assert "'learner' and 'adapted' is needed" in refused("predict", trained, tmp_path)


def test_options(refused, trained: Path, tmp_path: Path) -> None:
    assert "did you mean '--train.steps'?" in refused("train", "--train.stpes=3")
    assert "did you mean 'protonet'?" in refused("train", "--learner", "protonett")
    assert "did you mean 'omniglot'?" in refused("train", "--tasks=omniglt")
    assert "did you mean 'conv4'?" in refused("train", "--net=conv")
    assert "--train.steps is 'many': give a whole number" in refused("train", "--train.steps=many")
    assert "'constant', 'cosine'" in refused("train", "--train.schedule=linear")
    assert "did you mean 'train'?" in refused("tarin")
    assert "--learner needs a name" in refused("train", "--learner", "--quiet")
    assert "did you mean '--test_tasks'?" in refused("evaluate", trained, "--tests_tasks=3")
    assert "checkpoint" in refused("evaluate")
    assert "unknown learner 'centroids'" in refused("evaluate", trained, "--baselines=centroids", "--test_tasks=2")
    assert "numbers from 1 with commas" in refused("evaluate", trained, "--shots=a", "--test_tasks=2")
    assert "device" in refused("evaluate", trained, "--device=tpu9")
    assert "takes regression tasks" in refused("train", "--learner=cnp", "--tasks=glyphs")
    assert "cannot read the config" in refused("train", "--config", tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    assert "no YAML (line" in refused("train", "--config", tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    assert "holds no options" in refused("train", "--config", tmp_path / "list.yaml")


def test_a_run_is_not_overwritten(refused, trained: Path) -> None:
    before = trained.read_bytes()
    assert "holds a run already" in refused(*on(trained.parent.parent / "good"))
    assert trained.read_bytes() == before
    assert main(on(trained.parent.parent / "good", "--overwrite")) == 0


def test_a_full_disk_while_saving(refused, trained: Path, tmp_path: Path, monkeypatch) -> None:
    good, task = class_folder(tmp_path / "good", classes=2), tmp_path / "task.safetensors"
    assert main(["adapt", str(trained), str(good), f"--out={task}"]) == 0
    before = task.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = refused("adapt", trained, good, f"--out={task}")
    assert "No space left on device" in said and "untouched" in said
    assert task.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good", "task.safetensors"]


def test_a_state_of_another_learner(refused, trained: Path, tmp_path: Path) -> None:
    good, task = class_folder(tmp_path / "good", classes=2), tmp_path / "task.safetensors"
    assert main(["adapt", str(trained), str(good), f"--out={task}"]) == 0
    other = tmp_path / "other.safetensors"
    learnt = qs.load(trained)
    with torch.no_grad():
        next(learnt.learner.parameters()).add_(1)
    qs.checkpoint.write(other, "learner", dict(learnt.learner.state_dict()), {"learner": learnt.card["learner"]})
    assert "adapted with another learner" in refused("predict", task, good, f"--checkpoint={other}")
