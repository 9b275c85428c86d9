"""Rows that stay on the disk: .npy files mapped into memory, which may be larger than it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.tasks.images import channels_first
from quickstudy.tasks.npz import X_KEYS, Y_KEYS


class MappedRows:
    """The rows of an .npy file, of which only those asked for are read, into memory of their own.

    shape: (row, *x_shape), as `channels_first` has it. Bytes stay bytes, other numbers become float32. A copy, and
    another process to which this is sent, opens the file again.

    Raises UserError for a file that is missing or damaged, or holds anything but rows of numbers.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self.path, self.device = path, torch.device(device)
        mapped = map_npy(path)
        self.array, self.offset = np.asarray(mapped), int(mapped.offset)
        if self.array.dtype.kind not in "fiub":
            raise UserError(f"{path}: the inputs are {self.array.dtype}, not numbers: give an array of numbers.")
        if self.array.ndim < 2:
            raise UserError(
                f"{path}: the inputs have shape {self.array.shape}: give one row for each example."
            )
        one = torch.empty((1, *self.array.shape[1:]), device="meta")
        self.shape = torch.Size((len(self.array), *channels_first(one).shape[1:]))

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedRows, (self.path, self.device)

    def to(self, device: torch.device | str) -> MappedRows:
        """These rows, to be given out on `device`."""
        return self if torch.device(device) == self.device else MappedRows(self.path, device)

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """The rows at `rows` (n,), as torch's own method gives them.

        Raises UserError if one of them holds a NaN or an infinite value.
        """
        assert dim == 0
        numbers = rows.cpu().numpy()
        self._announce(numbers)
        taken = self.array[numbers]
        x = torch.from_numpy(taken if taken.dtype == np.uint8 else taken.astype(np.float32, copy=False))
        if x.is_floating_point():
            good = torch.isfinite(x).flatten(1).all(1)
            if not bool(good.all()):
                number = int(numbers[~good.numpy()][0])
                raise UserError(
                    f"{self.path}: row {number} holds a NaN or an infinite value: remove or fill such rows first."
                )
        return channels_first(x).to(self.device)

    def _announce(self, numbers: np.ndarray) -> None:
        """Tell the system which rows are read next: it fetches them all at once, and not one after the other."""
        size = self.array.strides[0]
        if hasattr(os, "posix_fadvise") and self.array.flags.c_contiguous:
            with suppress(OSError), open(self.path, "rb") as file:
                for number in np.unique(numbers).tolist():
                    os.posix_fadvise(file.fileno(), self.offset + number * size, size, os.POSIX_FADV_WILLNEED)


def map_arrays(folder: Path) -> tuple[MappedRows, np.ndarray]:
    """The x (or images) and the y (or labels) of a folder that holds each as an .npy file.

    Raises UserError if one of them is missing, damaged or foreign.
    """
    files = [
        next((folder / f"{key}.npy" for key in keys if (folder / f"{key}.npy").is_file()), None)
        for keys in (X_KEYS, Y_KEYS)
    ]
    x, y = files
    if x is None:
        raise UserError(
            f"{folder} holds no x.npy: save the inputs there with numpy.save, or take the tasks named folder "
            "for a folder of images."
        )
    if y is None:
        raise UserError(f"{folder} holds no y.npy: save the label of every row of {x.name} there with numpy.save.")
    return MappedRows(x), np.asarray(map_npy(y))


def map_npy(path: Path) -> np.memmap:
    """An .npy file as a read-only array that stays on the disk.

    Raises UserError for a missing, damaged or foreign file, and one of Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises nearly anything on a damaged file
        raise UserError(
            f"cannot read {path}: it is no .npy file, is damaged or cut short, or holds Python objects; "
            "save numbers with numpy.save."
        ) from error
    if not isinstance(array, np.memmap):
        array.close()
        raise UserError(f"{path} is an archive of arrays: save one array with numpy.save.")
    return array
