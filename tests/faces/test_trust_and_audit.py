"""calibrate, audit and label-next from the command line, and what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from quickstudy.cli import main

FAST = ["--train.steps=30", "--train.valid_every=0", "--quiet"]


def rows(path: Path, classes: range, each: int, seed: int, shift: float = 0.0, labelled: bool = True) -> Path:
    """Rows of classes round means that their numbers decide."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.array(classes), each)
    mean = np.stack([2 * np.random.default_rng(c).normal(size=5) for c in y])
    x = (mean + 0.7 * rng.normal(size=mean.shape) + shift).astype(np.float32)
    labels = {"y": np.array([f"c{c:02}" for c in y])} if labelled else {}
    np.savez(path, x=x, **labels)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learner of classes, one of values, and a task of each."""
    folder = tmp_path_factory.mktemp("trust")
    data = rows(folder / "data.npz", range(40), 10, 0)
    tasks = ["--tasks=arrays", f"--tasks.path={data}", "--tasks.way=3", "--tasks.shot=2", "--tasks.query=4"]
    thirds = ["--tasks.valid_fraction=0.3", "--tasks.test_fraction=0.3"]
    assert main(["train", *tasks, *thirds, f"--out={folder / 'classes'}", *FAST]) == 0
    assert main(["train", "--tasks=sinusoid", "--learner=cnp", f"--out={folder / 'waves'}", *FAST]) == 0
    rows(folder / "support.npz", range(3), 2, 1)
    rows(folder / "pool.npz", range(3), 6, 2, labelled=False)
    rows(folder / "far.npz", range(3), 2, 1, shift=40.0)
    x = np.linspace(-4, 4, 10, dtype=np.float32)[:, None]
    np.savez(folder / "wave.npz", x=x, y=2 * np.sin(x))
    for learner, support in (("classes", "support"), ("waves", "wave")):
        words = [folder / learner / "best.safetensors", folder / f"{support}.npz", "--out"]
        assert main(["adapt", *map(str, words), str(folder / f"{learner}.safetensors")]) == 0
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_calibrate_and_predict(place: Path, capsys) -> None:
    learner = place / "classes" / "best.safetensors"
    few = ["--fit_tasks=60", "--test_tasks=40"]
    assert run("calibrate", learner, *few, "--shots=1,2", "--json", place / "shown.json") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3-way 1-shot" in said and "3-way 2-shot" in said and "learnt from 60 valid tasks" in said
    found = json.loads((place / "shown.json").read_text())["test"]
    assert [one["shot"] for one in found] == [[1, 1], [2, 2]] and len(found[0]["levels"]) == 6
    assert all(level["coverage"] > level["level"] - 0.15 for one in found for level in one["levels"])
    out = place / "labels.csv"
    assert run("predict", place / "classes.safetensors", place / "pool.npz", "--coverage=0.95", "--out", out) == 0
    table = list(csv.DictReader(out.read_text().splitlines()))
    for row in table:
        held = row["set (95 %)"].split(" or ")
        assert row["label"] == (held[0] if len(held) == 1 else "?")
        assert abs(sum(float(row[f"p(c{c:02})"]) for c in range(3)) - 1) < 1e-3
    assert "set (95 %)" in capsys.readouterr().out


def test_values_get_intervals(place: Path, capsys) -> None:
    trust = place / "waves.json"
    learner = place / "waves" / "best.safetensors"
    assert run("calibrate", learner, "--fit_tasks=60", "--test_tasks=40", "--trust", trust) == 0
    assert f"--trust {trust}" in capsys.readouterr().out
    out = place / "values.csv"
    assert run("predict", place / "waves.safetensors", place / "wave.npz", "--trust", trust, "--out", out) == 0
    for row in csv.DictReader(out.read_text().splitlines()):
        assert float(row["low (90 %)"]) < float(row["value"]) < float(row["high (90 %)"])


def test_calibrate_refuses(place: Path, refused) -> None:
    learner = place / "classes" / "best.safetensors"
    assert "at least 30" in refused("calibrate", learner, "--fit_tasks=5")
    assert "learn from valid" in refused("calibrate", learner, "--split=test")
    assert "between 0 and 1" in refused("calibrate", learner, "--levels=90")
    assert "0.5 to below 1" in refused("calibrate", learner, "--sure=1.5")
    assert "name of a checkpoint" in refused("calibrate", learner, "--trust", learner)
    assert "whole number" in refused("calibrate", learner, "--shots=one")
    waves = place / "waves" / "best.safetensors"
    assert "leave it out" in refused("calibrate", waves, "--ways=5")
    task = place / "waves.safetensors"
    assert "quickstudy calibrate" in refused("predict", task, place / "wave.npz", "--coverage=0.9")
    (place / "bad.json").write_text("[]")
    assert "make it again" in refused("predict", task, place / "wave.npz", "--trust", place / "bad.json")


def test_audit(place: Path, capsys) -> None:
    learner = place / "classes" / "best.safetensors"
    assert run("audit", learner, "--audit_tasks=40", "--json", place / "audit.json") == 0
    said = capsys.readouterr().out
    assert "training tasks that differ" in said and "test classes look like" in said
    found = json.loads((place / "audit.json").read_text())
    assert 1 < found["width"]["effective"] <= 40 and set(found["width"]["covered"]) == {"valid", "test"}
    assert run("audit", learner, "--support", place / "support.npz", "--audit_tasks=40") == 0
    assert "no alarm" in capsys.readouterr().out
    assert run("audit", learner, "--support", place / "far.npz", "--audit_tasks=40", "--json", place / "far.json") == 0
    assert "ALARM" in capsys.readouterr().out
    assert json.loads((place / "far.json").read_text())["alarm"] is True
    waves = place / "waves" / "best.safetensors"
    assert run("audit", waves, "--support", place / "wave.npz", "--audit_tasks=40") == 0


def test_audit_refuses(place: Path, refused) -> None:
    learner = place / "classes" / "best.safetensors"
    assert "at least 20" in refused("audit", learner, "--audit_tasks=3")
    assert "between 0 and 1" in refused("audit", learner, "--alarm=5")
    assert "--support" in refused("audit", learner, "--invert")
    assert "no labels" in refused("audit", learner, "--support", place / "pool.npz", "--audit_tasks=40")
    rows(place / "many.npz", range(3), 30, 1)
    assert "can be drawn" in refused("audit", learner, "--support", place / "many.npz", "--audit_tasks=40")


def test_label_next(place: Path, capsys) -> None:
    task, pool, out = place / "classes.safetensors", place / "pool.npz", place / "next.csv"
    assert run("label-next", task, pool, "--count=3", "--out", out) == 0
    assert len(list(csv.DictReader(out.read_text().splitlines()))) == 3 and "1. " in capsys.readouterr().out
    learner, support = place / "classes" / "best.safetensors", place / "support.npz"
    for strategy in ("random", "entropy", "k-centre", "diverse", "lookahead"):
        assert run("label-next", learner, pool, "--support", support, "--strategy", strategy, "--count=2") == 0
    assert run("label-next", task, pool, "--support", support, "--strategy=lookahead") == 0
    assert run("label-next", place / "waves.safetensors", place / "wave.npz", "--strategy=entropy") == 0


def test_label_next_refuses(place: Path, refused) -> None:
    task, pool = place / "classes.safetensors", place / "pool.npz"
    assert "did you mean 'entropy'" in refused("label-next", task, pool, "--strategy=entropie")
    assert "at least 1" in refused("label-next", task, pool, "--count=0")
    assert "ends in .csv" in refused("label-next", task, pool, "--out", pool)
    assert "--support" in refused("label-next", place / "classes" / "best.safetensors", pool)
    waves = place / "waves.safetensors"
    assert "about classes" in refused("label-next", waves, place / "wave.npz", "--strategy=margin")
