"""Labelled arrays with a description of each class, as a source of zero-shot tasks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split, check_finite
from quickstudy.tasks.arrays import class_numbers, labelled, numbers, read_rows
from quickstudy.tasks.images import channels_first
from quickstudy.tasks.mapped import MappedRows, map_npy
from quickstudy.tasks.npz import read_npz
from quickstudy.tasks.pool import held_out
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.zero_shot import DescribedPool, DescribedSource

DESCRIPTION_KEYS = ("descriptions", "attributes")
"""Names under which the descriptions are looked for, the preferred one first."""


class Described(DescribedSource):
    """Zero-shot tasks from labelled rows and one description for each class: an .npz file, a folder of .npy files, or
    arrays in memory.

    x (or images): (row, *x_shape); y (or labels): (row,), whole numbers or text, as `arrays` takes them.
    descriptions (or attributes): (class, *description_shape), numbers, for the classes in the order of `classes`, an
    array of labels, or without it of the sorted labels. split: (class,), train, valid or test for each of those
    classes; without it whole classes are held out at random.

    seen: how many classes of a valid or test task are training classes (generalised zero-shot); asked: whether all
    rows of such tasks are asked for, or those of the "seen" or the "unseen" classes; kept_back: the share of the rows
    of each training class that is kept for that.

    >>> x, y = torch.randn(60, 4), [i % 6 for i in range(60)]
    >>> source = Described.of(x, y, torch.randn(6, 3), way=2, query=3, valid_fraction=1/3, test_fraction=1/3)
    >>> task = source.sample("test", 8, source.rng(0))
    >>> task.support.x.shape, task.query.x.shape
    (torch.Size([8, 2, 3]), torch.Size([8, 6, 4]))
    """

    papers = ("xian2019zero",)
    _given: tuple[Tensor | MappedRows, dict[str, np.ndarray]] | None = None

    def __init__(
        self,
        path: str = "",
        way: Count = 5,
        query: Count = 15,
        seen: int = 0,
        asked: str = "all",
        kept_back: float = 0.2,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.way = way
        self.query = query
        self.seen = seen
        self.asked = asked
        self.kept_back = kept_back
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @classmethod
    def of(
        cls,
        x: Any,
        y: Any,
        descriptions: Any,
        classes: Any = None,
        split: Any = None,
        way: Count = 5,
        query: Count = 15,
        seen: int = 0,
        asked: str = "all",
        kept_back: float = 0.2,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> Self:
        """A source of the arrays themselves (numpy, torch or lists).

        Its `path` is "memory:" and a fingerprint: the description of such a source can be saved, not rebuilt.
        """
        given = {"y": y, "descriptions": descriptions, "classes": classes, "split": split}
        arrays = {name: np.asarray(value) for name, value in given.items() if value is not None}
        rows = numbers(x, "x")
        digest = hashlib.sha256(rows.contiguous().numpy().tobytes())
        for name, array in arrays.items():
            digest.update(f"{name}{array.dtype.str}{array.tolist()}".encode())
        path = f"memory:{digest.hexdigest()[:16]}"
        source = cls(path, way, query, seen, asked, kept_back, valid_fraction, test_fraction, split_seed)
        source._given = rows, arrays
        return source

    def load(self) -> DescribedPool:
        """The rows, their classes and the description of each.

        Raises UserError if the file or an array in it is missing or damaged, or they do not match.
        """
        where = self.path if self._given is None else "the data"
        x, found = self._read() if self._given is None else self._given
        names, label = labelled(x, found["y"], where)
        rows = torch.from_numpy(_order(found, names, where))
        descriptions = torch.from_numpy(_matrix(found["descriptions"], where))[rows]
        check_finite(descriptions, f"{where}, descriptions")
        splits = held_out(len(names), self.valid_fraction, self.test_fraction, self.split_seed)
        if "split" in found:
            splits = _given_splits(found["split"], rows, where)
        pool = DescribedPool.of(channels_first(x) if isinstance(x, Tensor) else x, label, names, splits, where=where)
        return DescribedPool(pool.x, pool.rows, pool.counts, names, splits, descriptions=descriptions)

    def _read(self) -> tuple[Tensor | MappedRows, dict[str, np.ndarray]]:
        path = Path(self.path)
        if self.path.startswith("memory"):
            raise UserError(
                f"the arrays {self.path!r} were given in memory and are not stored: make the source again with "
                "Described.of(x, y, descriptions), or save them to an .npz file and give its path."
            )
        if not self.path:
            raise UserError(
                "described needs a path: give an .npz file, or a folder of .npy files, with x, y and descriptions."
            )
        keys = (*DESCRIPTION_KEYS, "classes", "split")
        x, y = read_rows(path)
        if path.is_dir():
            more = {key: np.asarray(map_npy(file)) for key in keys if (file := path / f"{key}.npy").is_file()}
        else:
            try:
                more = read_npz(path, keys)
            except UserError:  # x could be read: there is none of the others
                more = {}
        key = next((key for key in DESCRIPTION_KEYS if key in more), None)
        if key is None:
            raise UserError(f"{path} describes no class: add an array named descriptions, with a row for each class.")
        return x, {**more, "y": y, "descriptions": more[key]}


def _order(found: dict[str, np.ndarray], names: list[str], where: str) -> np.ndarray:
    """The row of the descriptions that each of the classes `names` has."""
    count = len(found["descriptions"]) if found["descriptions"].ndim else 0
    if "classes" not in found:
        if count != len(names):
            raise UserError(
                f"{where} holds {count} descriptions and {len(names)} classes: give one row for each class, or an "
                "array named classes that says whose each is."
            )
        return np.arange(count)
    known, number = class_numbers(found["classes"].reshape(-1), f"{where}, classes")
    if not count == len(known) == len(number):
        raise UserError(
            f"{where} holds {count} descriptions and classes names {len(number)}, {len(known)} of them different: "
            "give one row and one label for each class."
        )
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(f"{where} does not describe the class {missing[0]!r}: {nearest(missing[0], known)}")
    place = number.argsort().numpy()
    return place[[known.index(name) for name in names]]


def _given_splits(words: np.ndarray, rows: Tensor, where: str) -> dict[Split, Tensor]:
    """The classes of each split, where the data says which."""
    said = [word.decode() if isinstance(word, bytes) else str(word) for word in words.reshape(-1).tolist()]
    wrong = [word for word in said if word not in SPLITS]
    if wrong or len(said) <= int(rows.max()):
        problem = f"holds {wrong[0]!r}" if wrong else f"has {len(said)} words"
        raise UserError(f"{where}: split {problem}: give train, valid or test for each of the described classes.")
    found: dict[Split, Tensor] = {}
    for split in SPLITS:
        found[split] = torch.tensor([i for i, row in enumerate(rows.tolist()) if said[row] == split], dtype=torch.long)
    return found


def _matrix(descriptions: np.ndarray, where: str) -> np.ndarray:
    if descriptions.dtype.kind not in "fiub" or descriptions.ndim < 2:
        raise UserError(
            f"{where}: the descriptions have shape {descriptions.shape} and are {descriptions.dtype}: give a row of "
            "numbers for each class."
        )
    return np.array(descriptions, dtype=np.float32)
