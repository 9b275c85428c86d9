"""The command line handles what a user has with care: no file is lost, options are found out early, tables fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.cli import main
from quickstudy.core.errors import UserError, nearest
from quickstudy.core.files import check_place, write_whole

FAST = ["--train.steps=2", "--train.valid_every=0", "--quiet"]


def class_folder(path: Path, *names: str, per_class: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = class_folder(tmp_path_factory.mktemp("data") / "good", *"abcdef")
    shape = ["--tasks.way=2", "--tasks.query=2", "--tasks.size=16", "--tasks.invert=true"]
    thirds = ["--tasks.valid_fraction=0.34", "--tasks.test_fraction=0.33"]
    tasks = ["--tasks=folder", f"--tasks.path={data}", *shape, *thirds]
    assert main(["train", *tasks, "--net=mlp", f"--out={data.parent / 'run'}", *FAST]) == 0
    return data.parent / "run" / "best.safetensors"


def test_an_output_never_takes_the_place_of_an_input(refused, trained: Path, tmp_path: Path) -> None:
    two, task, before = class_folder(tmp_path / "two", "a", "b"), tmp_path / "task.safetensors", trained.read_bytes()
    assert "would be lost" in refused("adapt", trained, two, "--out", trained)
    assert "would be lost" in refused("adapt", trained, two, "--out", trained.parent / "last.safetensors")
    assert "ends in .safetensors" in refused("adapt", trained, two, "--out", two / "a" / "0.png")
    assert "is a folder" in refused("adapt", trained, two, "--out", tmp_path)
    assert "ends in .safetensors" in refused("adapt", trained, two, "--out", "")
    assert main(["adapt", str(trained), str(two), "--invert", f"--out={task}"]) == 0
    adapted = task.read_bytes()
    assert "would be lost" in refused("predict", task, two, "--invert", "--out", task)
    assert "ends in .csv" in refused("predict", task, two, "--invert", "--out", tmp_path / "b.png")
    assert "name of a checkpoint" in refused("evaluate", trained, "--json", trained)
    assert (trained.read_bytes(), task.read_bytes()) == (before, adapted)


def test_devices_and_links_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, real, link = tmp_path / "pipe", tmp_path / "real", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"abc")
    assert os.read(reader, 9) == b"abc" and pipe.is_fifo()
    os.close(reader)
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink() and real.read_bytes() == b"new"
    if Path("/dev/full").is_char_device():
        with pytest.raises(UserError, match="No space left"):
            write_whole("/dev/full", b"abc")
        assert Path("/dev/full").is_char_device()
    check_place(tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b").exists()
    with pytest.raises(UserError, match="is a folder"):
        check_place(tmp_path)


def test_a_refused_start_leaves_no_options_behind(refused, tmp_path: Path, capsys) -> None:
    words = ["train", "--tasks=sinusoid", "--learner=maml", f"--out={tmp_path / 'run'}", *FAST]
    assert "shot is" in refused(*words, "--tasks.shot=0")
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "shot is" in refused(*words, "--tasks.shot=0", "--overwrite")
    assert (tmp_path / "run" / "config.yaml").read_text() == kept
    assert main(["train", "--resume", f"--out={tmp_path / 'run'}", "--quiet"]) == 0
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(*words, f"--out={tmp_path / 'file'}")


def test_options_given_to_a_resumed_run_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", "--tasks=sinusoid", "--learner=maml", "--train.schedule=constant", f"--out={out}", *FAST]
    assert main(words) == 0
    assert main(["train", "--resume", f"--out={out}", "--train.steps=5", "--quiet"]) == 0
    assert "steps: 5\n" in (out / "config.yaml").read_text()


def test_options_of_the_network_that_the_tasks_choose(refused, tmp_path: Path, capsys) -> None:
    words = ["train", "--tasks=sinusoid", "--learner=maml", f"--out={tmp_path / 'run'}", *FAST]
    assert "--net.norm is no option of mlp" in refused(*words, "--net.norm=running")
    assert main([*words, "--net.width=7"]) == 0
    capsys.readouterr()
    assert main(["train", "--net.norm=group", "--print_config"]) == 0
    assert "norm: group\n" in capsys.readouterr().out
    assert "did you mean '--net.norm'?" in refused("train", "--net.nrm=group")


def test_several_checkpoints_beside(trained: Path, tmp_path: Path, refused, capsys) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(trained.read_bytes())
    few = ["--test_tasks=4", "--baselines=none"]
    for beside in ([f"--beside={copy}"], [f"--beside=[{copy}]"], ["--beside", str(copy)], [f'--beside=["{copy}"]']):
        capsys.readouterr()
        assert main(["evaluate", str(trained), *few, *beside]) == 0
        assert "cannot tell" in capsys.readouterr().out
    assert main(["evaluate", f"--beside={copy}", str(trained), "--tasks.way=2", *few]) == 0
    assert "needs a value" in refused("evaluate", trained, "--beside")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots=0,1"], "--shots is '0,1'"),
        (["--shots=1,"], "--shots is '1,'"),
        (["--steps=-3"], "--steps is -3"),
        (["--steps=3"], "does not adapt in steps"),
        (["--test_tasks=0"], "--test_tasks is 0"),
        (["--curve_tasks=0"], "--curve_tasks is 0"),
        ([f"--seed={10**30}"], "--seed is 1000"),
        (["--json=/dev"], "is a folder"),
        (["--te=3"], "did you mean '--test_tasks'?"),
        (["--checkpoint=x"], "give it without --checkpoint"),
        (["more"], "cannot place more"),
        (["--tasks.way=1"], "at least 2 classes"),
    ],
)
def test_what_is_wrong_is_found_before_the_work(refused, trained: Path, capsys, words: list[str], said: str) -> None:
    assert said in refused("evaluate", trained, *words)
    assert not capsys.readouterr().out


def test_training_options(refused, tmp_path: Path) -> None:
    out = f"--out={tmp_path / 'run'}"
    assert f"--train.seed is {10**30}" in refused("train", f"--train.seed={10**30}", out)
    sines = ["train", "--tasks=sinusoid", "--learner=maml", out, *FAST]
    assert "inner_steps is -1" in refused(*sines, "--learner.inner_steps=-1")
    assert "width is 1000000000" in refused(*sines, "--net=mlp", "--net.width=1000000000")
    assert "--config needs" in refused("train", "--config")
    assert "--config needs" in refused("train", "--config=", "--quiet")
    assert "--resume needs the folder" in refused("train", "--resume", "--out", "--quiet")
    assert "--resume takes no value" in refused("train", "--resume=true", out)
    assert "--tasks.path needs a value" in refused("train", "--tasks=folder", "--tasks.path")
    assert "needs support (a folder of class folders" in refused("adapt", "x")
    assert "cannot use the folder" in refused(*sines, "--out=/proc/none")


def test_folders_given_for_files(refused, trained: Path, tmp_path: Path) -> None:
    assert f"give {trained}" in refused("evaluate", trained.parent)
    assert "is a folder and no checkpoint" in refused("adapt", tmp_path, trained)
    assert "give the best.safetensors" in refused("evaluate", trained.parent / "last.safetensors")
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 16, 16)))
    assert "add an array named y" in refused("adapt", trained, tmp_path / "x.npz")
    (tmp_path / "t.csv").write_text("a,b\n")
    assert "numpy.savez" in refused("adapt", trained, tmp_path / "t.csv")


def test_strange_names_and_what_is_left_out(trained: Path, tmp_path: Path, capsys) -> None:
    odd = class_folder(tmp_path / "odd", "[bold]x", "a b ü日本", "[")
    (odd / "empty").mkdir()
    Image.new("L", (16, 16)).save(odd / "loose.png")
    task = tmp_path / "my task.safetensors"
    assert main(["adapt", str(trained), str(odd), "--invert", f"--out={task}"]) == 0
    said = capsys.readouterr()
    assert f"next: quickstudy predict '{task}' FILES --invert" in said.out
    assert "without an image: empty" in said.err and "loose.png" in said.err
    assert main(["predict", str(task), str(odd)]) == 0
    said = capsys.readouterr()
    assert "p([bold]x)" in said.out and "was made with --invert" in said.err


def test_many_classes(trained: Path, tmp_path: Path, capsys) -> None:
    many, task = class_folder(tmp_path / "many", *map(str, range(30)), per_class=1), tmp_path / "t.safetensors"
    assert main(["adapt", str(trained), str(many), f"--out={task}"]) == 0
    said = capsys.readouterr()
    assert "and 20 more" in said.out and "add --invert if these are alike" in said.err
    assert main(["predict", str(task), str(many)]) == 0
    assert "p(label)" in capsys.readouterr().out
    assert nearest("x", map(str, range(100, 130))).endswith("119 and 10 more.")


@pytest.mark.parametrize("columns", ["40", "80"])
def test_tables_fit_the_terminal(trained: Path, monkeypatch, capsys, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["evaluate", str(trained), "--test_tasks=4", "--shots=1,2", "--curve_tasks=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(("chance", "centroid", "logistic"))]
    assert sum(any(word in row for word in ("worse", "better", "cannot tell")) for row in rows) == 3
    assert any(line.startswith("accuracy % by number of examples, over 3 tasks") for line in lines)


@pytest.mark.slow
def test_two_processes_and_a_full_output(tmp_path: Path) -> None:
    tool = [sys.executable, "-m", "quickstudy"]
    words = ["train", "--tasks=sinusoid", "--learner=maml", "--train.devices=2", f"--out={tmp_path / 'run'}", *FAST]
    done = subprocess.run([*tool, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout.count("trained maml on sinusoid") == 1
    assert "Initializing" not in done.stderr and "deprecated" not in done.stderr
    if Path("/dev/full").is_char_device():
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*tool, "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left" in done.stderr
