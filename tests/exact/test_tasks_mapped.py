"""Rows on the disk: the same tasks as from memory, in little of it, and looked at only when they are drawn."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.core.errors import UserError
from quickstudy.core.source import SPLITS
from quickstudy.tasks.arrays import Arrays
from quickstudy.tasks.mapped import MappedRows

CLASSES, EACH = 12, 9
THIRDS = {"valid_fraction": 1 / 3, "test_fraction": 1 / 3}
SHAPES = {
    "vectors": ((7,), np.float32),
    "doubles": ((7,), ">f8"),
    "whole numbers": ((3,), np.int16),
    "grey bytes": ((8, 6), np.uint8),
    "colour bytes, channels last": ((8, 6, 3), np.uint8),
    "channels first": ((3, 8, 6), np.float32),
    "yes and no": ((5,), bool),
}


def save(folder: Path, x: np.ndarray, y: object, names: tuple[str, str] = ("x", "y")) -> str:
    np.save(folder / f"{names[0]}.npy", x)
    np.save(folder / f"{names[1]}.npy", np.asarray(y))
    return str(folder)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fortran", [False, True], ids=["", "column by column"])
def test_tasks_are_those_of_memory(shape: str, fortran: bool, tmp_path: Path) -> None:
    sizes, kind = SHAPES[shape]
    x = np.random.default_rng(0).integers(0, 2 if kind is bool else 256, (CLASSES * EACH, *sizes)).astype(kind)
    x = x / np.float32(255) if kind is np.float32 and len(sizes) == 3 else x  # images of real numbers lie in [0, 1]
    y = [f"class {i % CLASSES}" for i in range(len(x))]
    path = save(tmp_path, np.asfortranarray(x) if fortran else x, y)
    for options in ({"way": 3, "query": 4}, {"way": "2-4", "shot": "1-3", "query": 2}):
        inside, outside = Arrays.of(x, y, **options, **THIRDS), Arrays(path, **options, **THIRDS)
        assert inside.spec == outside.spec
        for split in SPLITS:
            assert inside.names(split) == outside.names(split)
            ours, theirs = (s.sample(split, 5, s.rng(0, split)) for s in (outside, inside))
            for part, expected in zip(ours, theirs, strict=True):
                for tensor, wanted in zip(part, expected, strict=True):
                    assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted)
            pooled = (s.sample_pooled(split, 20, s.rng(1, split)).x for s in (outside, inside))
            assert torch.equal(*pooled)


def test_a_task_is_a_copy(tmp_path: Path) -> None:
    x = np.arange(108 * 4, dtype=np.float32).reshape(108, 4)
    source = Arrays(save(tmp_path, x, np.arange(108) % CLASSES), way=2, query=3, **THIRDS)
    source.sample("train", 2, source.rng(0)).query.x.zero_()
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)


def anonymous() -> int:
    """Bytes of this process's own memory, mapped files left out."""
    status = Path("/proc/self/status")
    found = [line for line in status.read_text().splitlines() if line.startswith("RssAnon")] if status.exists() else []
    if not found:
        pytest.skip("this system does not tell a process's own memory from mapped files")
    return 1024 * int(found[0].split()[1])


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    rows, each = 9600, 600
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (rows, 84, 84, 3))
    assert x.nbytes > 200e6
    x[::100] = 7  # not all of it is a hole of the file
    x.flush()
    del x
    np.save(tmp_path / "y.npy", np.arange(rows) // each)
    before = anonymous()
    source = Arrays(str(tmp_path), way=2, query=15, **THIRDS)
    for step in range(40):  # 4 x 32 images each time: 108 MB of bytes over all
        source.sample("train", 4, source.rng(0, step))
    assert anonymous() - before < 60e6
    inside = Arrays.of(np.load(tmp_path / "x.npy"), np.arange(rows) // each, **THIRDS)
    assert anonymous() - before > 150e6, "what is measured here sees data in memory"
    del inside


def test_a_bad_value_is_found_in_the_row_that_a_task_has(tmp_path: Path) -> None:
    x = np.zeros((108, 4), np.float32)
    x[50:] = np.nan
    path = save(tmp_path, x, np.arange(108) // 9)
    source = Arrays(path, way=2, query=3, **THIRDS)
    assert source.spec.x_shape == (4,)
    with pytest.raises(UserError, match=r"x.npy: row [5-9]\d+ holds a NaN or an infinite value: remove"):
        for step in range(20):
            source.sample("train", 4, source.rng(step))
    good = MappedRows(tmp_path / "x.npy").index_select(0, torch.tensor([49, 0]))
    assert torch.equal(good, torch.zeros(2, 4))
    with pytest.raises(UserError, match="row 77"):
        MappedRows(tmp_path / "x.npy").index_select(0, torch.tensor([3, 77, 78]))


def test_other_names_and_copies(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((108, 4))
    path = save(tmp_path, x, np.arange(108) % CLASSES, ("images", "labels"))
    source = Arrays(path, way=2, query=3, **THIRDS)
    first = source.sample("train", 2, source.rng(0)).query.x
    for other in (copy.deepcopy(source), source.to("cpu"), source.reshaped(way=2)):
        assert torch.equal(other.sample("train", 2, other.rng(0)).query.x, first)
    assert len(source.prepare().x.__reduce__()[1]) == 2  # a path and a device: no row is sent to another process
