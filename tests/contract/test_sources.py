"""Every source of the catalogue against every check: one row a source, with the variants that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy.core.source import Source
from quickstudy.tasks import (
    TASKS,
    Arrays,
    Completion,
    Described,
    Folder,
    GaussianProcess,
    GlyphAttributes,
    Glyphs,
    Harmonics,
    Intents,
    Mixture,
    Omniglot,
    Prior,
    Sinusoid,
)
from quickstudy.testing import SourceCheck, check_source, source_checks

CLASSES, PER_CLASS = 15, 12
EPISODE = {"way": 3, "shot": 2, "query": 3}
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3}
META_DATASET = {"way": "2-4", "scheme": "meta_dataset"}

ROWS: dict[str, Callable[[Path], Source]] = {
    "glyphs": lambda data: Glyphs(**EPISODE, drawings=6),
    "glyphs-within-alphabet": lambda data: Glyphs(**EPISODE, drawings=6, within_alphabet=True),
    "omniglot": lambda data: Omniglot(str(data / "characters.npz"), **EPISODE, split="background"),
    "omniglot-unrotated": lambda data: Omniglot(
        str(data / "characters.npz"), **EPISODE, split="background", rotations=False, within_alphabet=True
    ),
    "folder": lambda data: Folder(str(data / "folder"), **EPISODE, **THIRDS, size=8),
    "folder-ready-splits": lambda data: Folder(str(data / "splits"), **EPISODE, size=8, grey=False),
    "arrays": lambda data: Arrays(str(data / "rows.npz"), **EPISODE, **THIRDS),
    "arrays-variable": lambda data: Arrays(
        str(data / "rows.npz"), way="2-4", shot="1-3", query="2-4", **THIRDS
    ),
    "arrays-imbalanced": lambda data: Arrays(str(data / "rows.npz"), 3, 4, 2, imbalance=1.0, **THIRDS),
    "arrays-meta-dataset": lambda data: Arrays(str(data / "rows.npz"), **META_DATASET, **THIRDS),
    "arrays-in-memory": lambda data: Arrays.of(*rows(), **EPISODE, **THIRDS),
    "arrays-on-disk": lambda data: Arrays(str(data / "mapped"), **EPISODE, **THIRDS),
    "intents": lambda data: Intents(str(data / "intents.tsv"), **EPISODE, **THIRDS, fold=0, size=8),
    "intents-zero-shot": lambda data: Intents(
        str(data / "intents.tsv"), way=3, query=3, **THIRDS, fold=0, size=8, zero_shot=True
    ),
    "described": lambda data: Described(str(data / "described.npz"), way=3, query=3, **THIRDS),
    "described-on-disk": lambda data: Described(str(data / "mapped"), way=3, query=3, **THIRDS),
    "described-variable": lambda data: Described(str(data / "described.npz"), "2-4", "2-4", **THIRDS),
    "described-seen": lambda data: Described.of(*rows(), descriptions(), way=4, query=3, seen=2, **THIRDS),
    "described-unseen-asked": lambda data: Described(
        str(data / "described.npz"), "3-4", 2, seen=1, asked="unseen", kept_back=0.4, **THIRDS
    ),
    "glyph_attributes": lambda data: GlyphAttributes(query=3, drawings=6, describing=2),
    "sinusoid": lambda data: Sinusoid(),
    "sinusoid-variable": lambda data: Sinusoid(shot="2-6", noise=0.1),
    "harmonics": lambda data: Harmonics(),
    "mixture": lambda data: Mixture(shot=(3, 5)),
    "gaussian_process": lambda data: GaussianProcess(query=8),
    "prior": lambda data: Prior(),
    "prior-gp": lambda data: Prior("gp", shot=5, features=2),
    "prior-classes": lambda data: Prior.of(sides, way=3, shot="3-9", query=6),
    "completion": lambda data: Completion(drawings=6),
    "completion-small": lambda data: Completion(20, 29, size=7, drawings=6),
}


def rows() -> tuple[np.ndarray, list[str]]:
    """Random rows of five numbers, and a class for each."""
    rng = np.random.default_rng(0)
    names = [f"class {i // PER_CLASS:02}" for i in range(CLASSES * PER_CLASS)]
    return rng.standard_normal((len(names), 5), dtype=np.float32), names


def descriptions() -> np.ndarray:
    """Two by two random numbers for each class."""
    return np.random.default_rng(1).random((CLASSES, 2, 2), dtype=np.float32)


def sides(rng: torch.Generator, tasks: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A prior as a user writes it: which of three directions a point lies in, some of them rare."""
    x = torch.randn(tasks, rows, 2, generator=rng)
    direction = torch.randn(tasks, 2, 3, generator=rng)
    return x, (x @ direction + torch.tensor([0.0, 0.0, -2.0])).argmax(-1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small files of every format, and a cache of their own."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    x, y = rows()
    np.savez(folder / "rows.npz", x=x, y=np.array(y))
    (folder / "mapped").mkdir()
    np.save(folder / "mapped" / "x.npy", x)
    np.save(folder / "mapped" / "y.npy", np.array(y))
    np.save(folder / "mapped" / "descriptions.npy", descriptions())
    np.savez(folder / "described.npz", x=x, y=np.array(y), attributes=descriptions(), classes=np.unique(y)[::-1])
    words = [f"{'please ' * (i % 3)}say {name.replace('class', 'word')} {i}\t{name}" for i, name in enumerate(y)]
    (folder / "intents.tsv").write_text("\n".join(["text\tlabel", *words]) + "\n")
    characters = [f"Alphabet{i // 5}/character{i % 5 + 1:02}" for i in range(CLASSES * 2)]
    np.savez(
        folder / "characters.npz",
        images=rng.integers(0, 256, (len(characters) * 6, 28, 28), dtype=np.uint8),
        label=np.repeat(np.arange(len(characters)), 6).astype(np.int16),
        class_names=np.array(characters),
        class_is_evaluation=np.arange(len(characters)) >= CLASSES,
    )
    for i in range(CLASSES):
        for place in (folder / "folder", folder / "splits" / ("train", "valid", "test")[i % 3]):
            (place / f"class{i:02}").mkdir(parents=True)
            for j in range(6):
                pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"class{i:02}" / f"{j}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICKSTUDY_CACHE", str(folder / "cache"))
        yield folder


@pytest.mark.parametrize("check", source_checks(), ids=lambda check: check.name)
@pytest.mark.parametrize("row", ROWS)
def test_source(row: str, check: SourceCheck, data: Path) -> None:
    check.run(ROWS[row](data))


def test_every_source_has_a_row(data: Path) -> None:
    assert {row.split("-")[0] for row in ROWS} == set(TASKS)
    for name, make in ROWS.items():
        assert type(make(data)) is TASKS[name.split("-")[0]], name


def test_check_source_runs_them_all() -> None:
    before = torch.random.get_rng_state()
    check_source(Sinusoid(shot=3, query=4))
    assert torch.equal(before, torch.random.get_rng_state())
