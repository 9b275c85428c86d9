"""Labelled arrays as a source of tasks, and labelled or new examples from a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import check_finite
from quickstudy.tasks.folder import read_folder
from quickstudy.tasks.images import SUFFIXES, channels_first, fit_shape, read_images, scaled_pixels
from quickstudy.tasks.mapped import MappedRows, map_arrays
from quickstudy.tasks.npz import X_KEYS, Y_KEYS, read_npz
from quickstudy.tasks.pool import ClassSource, Pool, held_out
from quickstudy.tasks.sampling import Count


class Arrays(ClassSource):
    """Tasks from labelled rows: an .npz file with x (or images) and y (or labels), a folder, or arrays in memory.

    A folder holds x.npy (or images.npy) and y.npy (or labels.npy): there x may be larger than memory, for its rows
    stay on the disk until a task has them, and are then looked at for the first time (a NaN, say).
    x: (row, *x_shape), numbers; (row, h, w) and (row, h, w, c) become (row, c, h, w), bytes become [0, 1], as do
    images of real numbers that go to 255 (with a warning).
    y: (row,), whole numbers or text. Whole classes are held out for valid and test.

    >>> source = Arrays.of(torch.randn(60, 4), [i % 6 for i in range(60)], way=2, query=3,
    ...     valid_fraction=1/3, test_fraction=1/3)
    >>> source.sample("test", 8, source.rng(0)).query.x.shape
    torch.Size([8, 6, 4])
    """

    _given: tuple[Tensor, np.ndarray] | None = None

    def __init__(
        self,
        path: str = "",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @classmethod
    def of(
        cls,
        x: Any,
        y: Any,
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> Self:
        """A source of the arrays `x` and `y` themselves (numpy, torch or lists).

        Its `path` is "memory:" and a fingerprint: the description of such a source can be saved, not rebuilt.
        """
        x, y = numbers(x, "x"), np.asarray(y)
        digest = hashlib.sha256(x.contiguous().numpy().tobytes() + "\n".join(map(str, y.tolist())).encode())
        source = cls(
            f"memory:{digest.hexdigest()[:16]}",
            way,
            shot,
            query,
            imbalance,
            scheme,
            valid_fraction,
            test_fraction,
            split_seed,
        )
        source._given = (x, y)
        return source

    def load(self) -> Pool:
        """The rows and their classes.

        Raises UserError if the file or an array in it is missing or damaged, or x and y do not match.
        """
        if self._given is not None:
            (x, y), where = self._given, "x"
        elif self.path.startswith("memory"):
            raise UserError(
                f"the arrays {self.path!r} were given in memory and are not stored: "
                "make the source again with Arrays.of(x, y), or save x and y to an .npz file and give its path."
            )
        elif not self.path:
            raise UserError("arrays needs a path: give an .npz file, or a folder of .npy files, that holds x and y.")
        else:
            where, (x, y) = self.path, read_rows(Path(self.path))
        names, label = labelled(x, y, where)
        splits = held_out(len(names), self.valid_fraction, self.test_fraction, self.split_seed)
        rows = scaled_pixels(channels_first(x), where) if isinstance(x, Tensor) else x
        return Pool.of(rows, label, names, splits, where=where)


def read_rows(path: Path) -> tuple[Tensor | MappedRows, np.ndarray]:
    """The x and y of an .npz file, or of a folder, whose x stays on the disk.

    Raises UserError if either is missing or damaged.
    """
    x, y = map_arrays(path) if path.is_dir() else read_arrays(path)
    if y is None:
        raise UserError(f"{path} holds no labels: add an array named y (or labels).")
    return x, y


def labelled(x: Tensor | MappedRows, y: np.ndarray, where: str) -> tuple[list[str], Tensor]:
    """`class_numbers` of labels that are one for each row of x.

    Raises UserError if they are not.
    """
    if y.ndim != 1 or len(y) != len(x):
        raise UserError(f"{where}: y has shape {y.shape} and x has {len(x)} rows: give one label for each row of x.")
    return class_numbers(y, where)


def class_numbers(y: np.ndarray, where: str) -> tuple[list[str], Tensor]:
    """The names of the classes, sorted, and the class number of every row.

    Raises UserError for labels that are neither whole numbers nor text.
    """
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    if y.dtype.kind not in "iubUS":
        raise UserError(f"{where}: labels must be whole numbers or text, and these are {y.dtype}.")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    values, label = np.unique(y, return_inverse=True)
    return [str(v) for v in values.tolist()], torch.from_numpy(label.reshape(-1).astype(np.int64))


def read_arrays(path: Path) -> tuple[Tensor, np.ndarray | None]:
    """The x and, if there are any, the y of an .npz file.

    Raises UserError for a missing, damaged or foreign file, or one without x.
    """
    found = read_npz(path, X_KEYS + Y_KEYS)
    x = next((found[k] for k in X_KEYS if k in found), None)
    if x is None:
        raise UserError(f"{path} holds {', '.join(found)} and no x: name the array of inputs x (or images).")
    return numbers(x, str(path)), next((found[k] for k in Y_KEYS if k in found), None)


def read_labelled(
    path: str | os.PathLike[str], x_shape: tuple[int, ...], invert: bool = False
) -> tuple[Tensor, list[str] | None, list[str]]:
    """Examples from an .npz file, a folder of class folders, a flat folder of images, or one image.

    Returns x (n, *x_shape) as float32, the label of every row (None if the path holds none), and a name for
    every row. Images are resized to `x_shape` and made grey or RGB; `invert` turns dark ink on white bright.

    Raises UserError if there is nothing to read or it does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no file or folder {path}: check the path.")
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        if len(x_shape) != 3:
            raise UserError(
                f"the learner was trained on rows of shape {x_shape}, not images: give an .npz file."
            )
        if path.is_dir():
            return read_folder(path, x_shape, invert)
        return read_images([path], x_shape, invert), None, [path.name]
    if path.suffix.lower() != ".npz":
        raise UserError(f"cannot read {path}: give an .npz file (numpy.savez), a folder of images, or an image.")
    x, y = read_arrays(path)
    if len(x) == 0:
        raise UserError(f"{path} holds no rows: give at least one.")
    check_finite(x, str(path))
    if len(x_shape) == 3:
        x = scaled_pixels(channels_first(x), str(path))
    x = fit_shape(x, x_shape, str(path))
    labels = None
    if y is not None:
        if y.ndim != 1 or len(y) != len(x):
            raise UserError(
                f"{path}: y has shape {y.shape} and x has {len(x)} rows: give one label for each row."
            )
        names, label = class_numbers(y, str(path))
        labels = [names[i] for i in label.tolist()]
    return 1 - x if invert else x, labels, [f"row {i}" for i in range(len(x))]


def read_values(path: str | os.PathLike[str], x_shape: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """Rows of a regression task from an .npz file: x (n, *x_shape), and y (n, targets) or None, as float32.

    Raises UserError if the file is missing or damaged, the rows have another shape, or a value is not finite.
    """
    path = Path(path)
    found = read_npz(path, X_KEYS + Y_KEYS)
    given = next((found[k] for k in X_KEYS if k in found), None)
    if given is None or given.dtype.kind not in "fiub":
        raise UserError(f"{path} holds {', '.join(found)} and no numbers named x: name the array of inputs x.")
    x = torch.from_numpy(np.asarray(given, np.float32))
    x = x.unsqueeze(1) if x.dim() == 1 else x
    if tuple(x.shape[1:]) != x_shape or not len(x):
        raise UserError(f"{path} holds x of shape {tuple(x.shape)} and the learner takes {x_shape}: give such rows.")
    check_finite(x, f"{path}, x")
    y = next((found[k] for k in Y_KEYS if k in found), None)
    if y is None:
        return x, None
    if y.dtype.kind not in "fiub" or len(y) != len(x):
        raise UserError(f"{path}: y has shape {y.shape} and type {y.dtype}: give a number for each of {len(x)} rows.")
    values = torch.from_numpy(np.asarray(y, np.float32)).reshape(len(x), -1)
    check_finite(values, f"{path}, y")
    return x, values


def numbers(x: Any, where: str) -> Tensor:
    """An array as uint8 or float32, on the CPU."""
    x = x.detach().cpu() if isinstance(x, Tensor) else np.asarray(x)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise UserError(f"{where}: the inputs are {x.dtype}, not numbers: give an array of numbers.")
        x = torch.from_numpy(np.ascontiguousarray(x if x.dtype == np.uint8 else x.astype(np.float32)))
    if x.dim() < 2:
        raise UserError(f"{where}: the inputs have shape {tuple(x.shape)}: give one row for each example.")
    return x if x.dtype == torch.uint8 else x.float()
