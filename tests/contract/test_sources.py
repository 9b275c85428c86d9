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
    Pictures,
    Prior,
    Series,
    SeriesClasses,
    Sinusoid,
    Table,
    TablePrior,
    Tables,
    Texts,
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
    "pictures": lambda data: Pictures(str(data / "album.csv"), **EPISODE, **THIRDS, size=8, domain_column=""),
    "pictures-within-domain": lambda data: Pictures(
        str(data / "album.csv"), way=2, shot=2, query=3, **THIRDS, size=8
    ),
    "pictures-folder": lambda data: Pictures(str(data / "splits"), **EPISODE, size=8, grey=True, invert=True),
    "arrays": lambda data: Arrays(str(data / "rows.npz"), **EPISODE, **THIRDS),
    "arrays-variable": lambda data: Arrays(
        str(data / "rows.npz"), way="2-4", shot="1-3", query="2-4", **THIRDS
    ),
    "arrays-imbalanced": lambda data: Arrays(str(data / "rows.npz"), 3, 4, 2, imbalance=1.0, **THIRDS),
    "arrays-meta-dataset": lambda data: Arrays(str(data / "rows.npz"), **META_DATASET, **THIRDS),
    "arrays-in-memory": lambda data: Arrays.of(*rows(), **EPISODE, **THIRDS),
    "arrays-on-disk": lambda data: Arrays(str(data / "mapped"), **EPISODE, **THIRDS),
    "text": lambda data: Texts(str(data / "intents.tsv"), **EPISODE, **THIRDS, size=8),
    "text-within-domain": lambda data: Texts(
        str(data / "intents.tsv"), **EPISODE, **THIRDS, size=8, domain_column="domain", duplicates="drop"
    ),
    "text-in-memory": lambda data: Texts.of(said(), **EPISODE, **THIRDS, size=8),
    "intents": lambda data: Intents(str(data / "intents.tsv"), **EPISODE, **THIRDS, fold=0, size=8),
    "intents-zero-shot": lambda data: Intents(
        str(data / "intents.tsv"), way=3, query=3, **THIRDS, fold=0, size=8, zero_shot=True
    ),
    "table": lambda data: table(data, "score", ignore="ill", categorical="arm"),
    "table-in-time": lambda data: table(data, "score", ignore="ill", time_column="day"),
    "table-classes": lambda data: table(data, "ill", ignore="score"),
    "table-per-class": lambda data: table(data, "ill", 2, 2, ignore="score", scheme="per_class"),
    "table-classes-in-time": lambda data: table(data, "ill", shot="4-6", ignore="score", time_column="day"),
    "table-named": lambda data: table(data, "score", shot="2-5", valid_tasks="p1,p2", test_tasks="p3", scale_rows=0.0),
    "tables": lambda data: Tables(str(data / "tables"), "kind", 6, "2-4", ignore="size", **THIRDS),
    "tables-per-class": lambda data: Tables(
        str(data / "tables"), "kind", 2, 2, scheme="per_class", ignore="size", width=9, **THIRDS
    ),
    "tables-regression": lambda data: Tables(
        str(data / "tables"), "size", 6, 4, kind="regression", ignore="kind", **THIRDS
    ),
    "series": lambda data: series(data),
    "series-past": lambda data: series(data, past=6.0, covariates="arm,dose"),
    "series-between": lambda data: series(data, shot="2-4", kind="interpolate"),
    "series-in-time": lambda data: series(data, 2, 1, hold_out="time"),
    "series-past-in-time": lambda data: series(data, hold_out="time", past=4.0, query="1-2"),
    "series_classes": lambda data: SeriesClasses(str(data / "shapes"), **{**EPISODE, "way": 2}, length=9),
    "series_classes-whole-sets": lambda data: SeriesClasses(
        str(data / "shapes"), **EPISODE, length=9, standardise=False, valid_sets="waves0", test_sets="waves1"
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
    "table_prior": lambda data: TablePrior(features="8-14"),
    "table_prior-classes": lambda data: TablePrior(way=3, shot="3-8", query=5, features=12, cells=0),
    "completion": lambda data: Completion(drawings=6),
    "completion-small": lambda data: Completion(20, 29, size=7, drawings=6),
}


def rows() -> tuple[np.ndarray, list[str]]:
    """Random rows of five numbers, and a class for each."""
    rng = np.random.default_rng(0)
    names = [f"class {i // PER_CLASS:02}" for i in range(CLASSES * PER_CLASS)]
    return rng.standard_normal((len(names), 5), dtype=np.float32), names


def said() -> dict[str, list]:
    """A sentence for each row, its class, and the number of that."""
    y = rows()[1]
    texts = [f"{'please ' * (i % 3)}say {name.replace('class', 'word')} {i}" for i, name in enumerate(y)]
    return {"text": texts, "label": y, "place": [i // PER_CLASS for i in range(len(y))]}


def table(data: Path, target: str, shot: int | str = 4, query: int = 3, **options) -> Table:
    """Tasks from the rows of patients."""
    return Table(str(data / "patients.csv"), "patient", target, shot, query, **{**THIRDS, **options})


def series(data: Path, shot: int | str = 4, query: int | str = 3, **options) -> Series:
    """Tasks from the days of patients."""
    episode = {"shot": shot, "query": query, **THIRDS, **options}
    return Series(str(data / "patients.csv"), "patient", "day", "score", **episode)


def write_tables(folder: Path) -> None:
    """Patients with a column of every kind, and tables with columns of their own."""
    rng = np.random.default_rng(2)
    lines = ["patient,day,arm,dose,age,ill,score"]
    for p in range(CLASSES):
        for day in np.cumsum(rng.integers(1, 4, 22)).tolist():
            arm, dose = "abc"[int(rng.integers(3))], "" if rng.random() < 0.2 else f"{rng.normal():.3f}"
            lines.append(f"p{p},{day},{arm},{dose},{20 + 3 * p},{'yes' if rng.random() < 0.5 else 'no'},{rng.normal()}")
    (folder / "patients.csv").write_text("\n".join(lines) + "\n")
    (folder / "tables").mkdir()
    for i in range(9):
        names = [f"column{j}" for j in range(2 + i % 4)]
        rows = [",".join([*names, "kind", "size"])]
        for _ in range(30):
            cells = ["?" if rng.random() < 0.1 else f"{rng.normal():.4f}" for _ in names]
            rows.append(",".join([*cells, f"class{int(rng.integers(2 + i % 2))}", f"{100 * i + rng.normal():.4f}"]))
        if i % 3:  # what else may be in a folder: other columns first, and other endings
            (folder / "tables" / f"table{i}.csv").write_text("\n".join(rows) + "\n")
        else:
            (folder / "tables" / f"table{i}.tsv").write_text("\n".join(rows).replace(",", "\t") + "\n")


def write_shapes(folder: Path) -> None:
    """Three sets of series, ten classes each, some of them shorter than others."""
    rng = np.random.default_rng(3)
    for number in range(3):
        for part in ("TRAIN", "TEST"):
            place = folder / f"waves{number}" / f"waves{number}_{part}.tsv"
            place.parent.mkdir(parents=True, exist_ok=True)
            rows = [[c, *rng.normal(c, 1, 12).round(3), "NaN" if c % 2 else 0.5] for c in range(10) for _ in range(6)]
            place.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")


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
    write_tables(folder)
    write_shapes(folder / "shapes")
    words = [f"{text}\t{name}\tdomain {place % 2}" for text, name, place in zip(*said().values(), strict=True)]
    (folder / "intents.tsv").write_text("\n".join(["text\tlabel\tdomain", *words]) + "\n")
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
    album = [f"folder/class{i:02}/{j}.png,class{i:02},domain {i % 2}" for i in range(CLASSES) for j in range(6)]
    (folder / "album.csv").write_text("\n".join(["path,label,domain", *album]) + "\n")
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
