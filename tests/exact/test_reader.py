"""A reader travels with the learner: what it fitted comes back with the checkpoint, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.adaptation import reader_for
from quickstudy.core.errors import UserError
from quickstudy.core.reader import Reader, Rows
from quickstudy.tasks import READERS, TASKS
from quickstudy.tasks.files import Files
from quickstudy.tasks.functions import Sinusoid


class Shifted(Reader):
    """Reads numbers, one a line, from which what was fitted is taken."""

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def read(self, path: str) -> Rows:
        assert self.fitted is not None
        x = torch.tensor([[float(line)] for line in Path(path).read_text().split()])
        return Rows((x - self.fitted["middle"]) * self.scale, None, None, [f"line {i}" for i in range(len(x))])


class Sines(Sinusoid):
    def reader(self) -> Reader:
        made = Shifted(2.0)
        made.load_fitted({"middle": torch.tensor([0.1])})
        return made


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(READERS.classes, "shifted", Shifted)
    monkeypatch.setitem(TASKS.classes, "sines", Sines)
    source = Sines()
    checkpoint.save(qs.make("cnp", source.spec), tmp_path / "a.safetensors", source)
    return tmp_path / "a.safetensors"


def test_a_reader_comes_back(saved: Path, tmp_path: Path) -> None:
    found = checkpoint.load(saved)
    (tmp_path / "rows.txt").write_text("1.1\n0.1\n")
    reader = reader_for(found.card, found.reader, "it")
    assert isinstance(reader, Shifted)
    assert torch.equal(reader.read(str(tmp_path / "rows.txt")).x, (torch.tensor([[1.1], [0.1]]) - 0.1) * 2)
    with pytest.raises(UserError, match="--invert"):
        reader_for(found.card, found.reader, "it", invert=True)


def test_what_a_reader_fitted_is_no_part_of_the_learner(saved: Path) -> None:
    assert not any("middle" in name for name in checkpoint.load(saved).learner.state_dict())
    assert "/reader/middle" in checkpoint.read(saved, "learner")[0]


def test_a_checkpoint_without_a_reader_reads_files(tmp_path: Path) -> None:
    source = Sinusoid()
    checkpoint.save(qs.make("cnp", source.spec), tmp_path / "a.safetensors", source)
    found = checkpoint.load(tmp_path / "a.safetensors")
    reader = reader_for(found.card, found.reader, "it")
    assert found.reader is None and isinstance(reader, Files)
    assert (reader.x_shape, reader.regression) == ((1,), True)


def test_a_reader_that_is_not_known_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(READERS.classes, "shifted")
    with pytest.raises(UserError, match="unknown reader"):
        checkpoint.load(saved)
