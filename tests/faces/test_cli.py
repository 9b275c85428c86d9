"""The command line from end to end: train, evaluate, adapt, predict, on images, arrays and functions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from quickstudy import checkpoint
from quickstudy.cli import main
from quickstudy.cli.main import COMMANDS

FAST = ["--train.steps=8", "--train.valid_every=4", "--train.valid_tasks=5", "--quiet"]


def draw(path: Path, kind: int, seed: int, size: int = 20) -> None:
    """A small picture of class `kind`: one of a few shapes, at a random place."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (size, size), 255)
    x, y = rng.integers(1, 5, 2).tolist()
    box = (x, y, x + 12, y + 12)
    pen = ImageDraw.Draw(image)
    [pen.ellipse, pen.rectangle][kind % 2](box, outline=0, width=1 + kind // 2 % 3, fill=0 if kind > 5 else None)
    image.save(path)


def folder(path: Path, classes: int, per_class: int, first_seed: int = 0, step: int = 1) -> Path:
    for kind in range(0, classes * step, step):
        place = path / f"shape {kind}"
        place.mkdir(parents=True)
        for i in range(per_class):
            draw(place / f"{i}.png", kind, first_seed + 100 * kind + i)
    return path


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "shapes", classes=10, per_class=6)


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prototypical network trained a little on the shapes."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    thirds = ["--tasks.valid_fraction=0.3", "--tasks.test_fraction=0.3"]
    tasks = ["--tasks=folder", f"--tasks.path={shapes}", "--tasks.way=3", "--tasks.query=3", "--tasks.size=16"]
    assert main(["train", *tasks, *thirds, "--tasks.invert=true", "--net=mlp", f"--out={out}", *FAST]) == 0
    return out / "best.safetensors"


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A neural process trained a little on sinusoids."""
    out = tmp_path_factory.mktemp("runs") / "waves"
    assert main(["train", "--tasks=sinusoid", "--learner", "cnp", f"--out={out}", *FAST]) == 0
    return out / "best.safetensors"


def test_train_evaluate_adapt_predict_on_images(trained: Path, tmp_path: Path, capsys) -> None:
    report, numbers = tmp_path / "report.html", tmp_path / "scores.json"
    asked = ["--test_tasks=10", "--curve_tasks=5", "--shots=1,2", f"--report={report}", f"--json={numbers}"]
    assert main(["evaluate", str(trained), *asked]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("protonet", "chance", "centroid", "logistic", "±"))
    assert "<svg" in report.read_text()
    found = json.loads(numbers.read_text())
    assert [one["learner"] for one in found["evaluations"]] == ["protonet", "chance", "centroid", "logistic"]
    assert len({one["fingerprint"] for one in found["evaluations"]}) == 1
    assert list(found["shot_curves"][0]["at"]) == [1, 2]

    mine, new = folder(tmp_path / "mine", 2, 3, 7, 7), folder(tmp_path / "new", 2, 4, 70, 7)
    adapted, labels = tmp_path / "mine.safetensors", tmp_path / "labels.csv"
    assert main(["adapt", str(trained), str(mine), "--invert", "--out", str(adapted)]) == 0
    assert "6 examples of 2 classes: shape 0 (3), shape 7 (3)" in capsys.readouterr().out
    assert adapted.stat().st_size < trained.stat().st_size / 2
    assert main(["predict", str(adapted), str(new), "--invert", "--out", str(labels)]) == 0
    shown = capsys.readouterr().out
    rows = list(csv.reader(labels.read_text().splitlines()))
    assert rows[0] == ["input", "label", "p(shape 0)", "p(shape 7)"] and len(rows) == 9
    assert all(abs(float(a) + float(b) - 1) < 1e-3 for _, _, a, b in rows[1:])
    right = sum(Path(row[0]).parent.name == row[1] for row in rows[1:])
    assert f"{right} of the 8 labelled rows are right" in shown and right >= 6

    one = new / "shape 7" / "0.png"
    assert main(["predict", str(adapted), str(one), "--invert"]) == 0
    assert str(one.name) in capsys.readouterr().out.replace("\n", "")


def test_train_adapt_predict_on_functions(waves: Path, tmp_path: Path, capsys) -> None:
    assert main(["evaluate", str(waves), "--test_tasks=5"]) == 0
    assert "scratch" in capsys.readouterr().out
    x = np.linspace(-1, 1, 7)
    np.savez(tmp_path / "support.npz", x=x, y=np.sin(x))
    np.savez(tmp_path / "new.npz", x=x[:3], y=np.sin(x[:3]))
    out, values = tmp_path / "wave.safetensors", tmp_path / "values.csv"
    assert main(["adapt", str(waves), str(tmp_path / "support.npz"), f"--out={out}"]) == 0
    assert main(["predict", str(out), str(tmp_path / "new.npz"), f"--out={values}"]) == 0
    rows = list(csv.reader(values.read_text().splitlines()))
    assert rows[0] == ["input", "value", "deviation"] and len(rows) == 4
    assert all(float(row[2]) > 0 for row in rows[1:])
    assert "mean squared error" in capsys.readouterr().out


def test_a_checkpoint_moved_together_with_its_task_is_found(trained: Path, tmp_path: Path, capsys) -> None:
    mine = folder(tmp_path / "mine", 2, 2)
    here = tmp_path / "here"
    here.mkdir()
    model = here / "model.safetensors"
    model.write_bytes(trained.read_bytes())
    assert main(["adapt", str(model), str(mine), f"--out={here / 'task.safetensors'}"]) == 0
    moved = here.rename(tmp_path / "there")
    assert main(["predict", str(moved / "task.safetensors"), str(mine)]) == 0
    model = (moved / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    capsys.readouterr()
    assert main(["predict", str(moved / "task.safetensors"), str(mine)]) == 2
    assert "give it with --checkpoint" in capsys.readouterr().err
    assert main(["predict", str(moved / "task.safetensors"), str(mine), f"--checkpoint={model}"]) == 0


def test_evaluate_on_other_tasks_than_those_of_training(trained: Path, capsys) -> None:
    assert main(["evaluate", str(trained), "--tasks.way=2", "--test_tasks=5", "--baselines=none"]) == 0
    assert main(["evaluate", str(trained), "--tasks=sinusoid", "--test_tasks=5"]) == 2
    assert "choose a learner and tasks of one kind" in capsys.readouterr().err


def test_a_config_says_what_the_words_said(tmp_path: Path, capsys) -> None:
    words = ["--learner=maml", "--learner.inner_steps=2", "--tasks=sinusoid", "--net.width=7"]
    assert main(["train", *words, "--net=mlp", "--print_config"]) == 0
    config = tmp_path / "maml.yaml"
    config.write_text(capsys.readouterr().out)
    assert main(["train", "--config", str(config), "--learner.inner_steps=3", "--print_config"]) == 0
    assert capsys.readouterr().out == config.read_text().replace("inner_steps: 2", "inner_steps: 3")
    # another learner takes its own options, not those of the one it replaces
    assert main(["train", "--config", str(config), "--learner=reptile", "--print_config"]) == 0
    assert "eval_steps: 20" in capsys.readouterr().out


def test_a_short_config(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(
        "learner: maml\ntasks: {name: sinusoid, shot: 5}\ntrain:\n  steps: 3\n  valid_every: 0\n"
    )
    assert main(["train", "--config", str(tmp_path / "short.yaml"), f"--out={tmp_path / 'run'}", "--quiet"]) == 0
    card = checkpoint.load(tmp_path / "run" / "best.safetensors").card
    assert (card["learner"]["name"], card["tasks"]["shot"], card["step"]) == ("maml", 5, 3)


def test_resume_on_the_command_line_goes_on_to_the_same_weights(tmp_path: Path, capsys) -> None:
    words = ["train", "--tasks=sinusoid", "--learner=maml", "--train.schedule=constant", "--train.valid_every=0"]
    assert main([*words, "--train.steps=9", f"--out={tmp_path / 'whole'}", "--quiet"]) == 0
    assert main([*words, "--train.steps=4", f"--out={tmp_path / 'part'}", "--quiet"]) == 0
    assert main(["train", "--resume", f"--out={tmp_path / 'part'}", "--train.steps=9", "--quiet"]) == 0
    whole, part = (checkpoint.read(tmp_path / n / "last.safetensors", "training")[0] for n in ("whole", "part"))
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    capsys.readouterr()
    assert main(["train", "--resume", f"--out={tmp_path / 'none'}"]) == 2
    assert "no run to resume" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "example:\n  quickstudy " + name in shown


def test_help_shows_the_options_of_what_is_named(capsys) -> None:
    assert main(["train", "--learner", "maml", "--help"]) == 0
    assert "--learner.inner_lr" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert all(name in capsys.readouterr().out or True for name in COMMANDS)


def test_list(capsys) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("maml", "protonet", "omniglot", "glyphs", "conv4"))
    assert main(["list", "learners", "maml"]) == 0
    assert "1703.03400" in capsys.readouterr().out
    assert main(["list", "learner"]) == 2
    assert "did you mean 'learners'?" in capsys.readouterr().err
