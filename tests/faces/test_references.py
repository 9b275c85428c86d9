"""What the catalogue says of itself: papers, cost, when to choose a method; `list` and `cite` print it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

import quickstudy as qs
from quickstudy import learners, nets, tasks
from quickstudy.cli.main import main
from quickstudy.core.references import _entries, field, references
from quickstudy.learners import FAMILIES, LEARNERS

CLASSES = [cls for slot in ("learner", "net", "tasks") for cls in qs.catalogue(slot).values()]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_says_when_and_what_and_whence(name: str) -> None:
    cls = LEARNERS[name]
    assert (cls.choose.endswith(".") and cls.cost and "papers" in vars(cls)) or name in FAMILIES["baseline"]
    assert cls.__doc__ and len(cls.__doc__.splitlines()) > 3


def test_no_two_are_chosen_for_the_same_reason() -> None:
    said = [cls.choose for cls in LEARNERS.values()]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_key_has_an_entry(cls: type) -> None:
    for entry in references(cls):
        assert all(field(entry, name) for name in ("title", "author", "year")), entry


@pytest.mark.parametrize("folder", [*(Path(learners.__file__).parent / f for f in FAMILIES), *(
    Path(str(m.__file__)).parent for m in (nets, tasks))], ids=lambda p: p.name)  # fmt: skip
def test_every_entry_is_used(folder: Path) -> None:
    used = {key for cls in CLASSES if Path(inspect.getfile(cls)).parent == folder for key in getattr(cls, "papers", ())}
    assert set(_entries(folder / "references.bib")) <= used


class Mine:
    papers = ("@misc{mine, title = {Mine}, author = {Me}, year = {2026}}",)


def test_a_class_of_ones_own_brings_its_entry() -> None:
    assert field(references(Mine)[0], "title") == "Mine"


def test_cite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    source = tasks.Sinusoid()
    qs.save(qs.make("maml", source.spec), tmp_path / "m.safetensors", source)
    assert main(["cite", str(tmp_path / "m.safetensors")]) == 0
    said = capsys.readouterr().out
    assert said.count("@") == 1 and "finn2017maml" in said  # the method and the tasks are of one paper
    assert main(["cite", str(tmp_path / "nothing.safetensors")]) == 2


def test_the_page_of_a_learner(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "learners", "protonet"]) == 0
    said = capsys.readouterr().out
    wanted = ("when to choose it", "adapting costs", "--learner.turns", "@inproceedings{snell")
    assert all(words in said for words in wanted)
