"""Reading and writing .npz files: nothing pickled is ever loaded, nothing is left half-written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole

X_KEYS = ("x", "images", "image", "data")
Y_KEYS = ("y", "labels", "label")
"""Names under which inputs and labels are looked for, the preferred one first."""


def read_npz(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file that are named in `keys` and are there.

    Raises UserError for a missing, damaged or foreign file, one with none of them, and Python objects.
    """
    if not path.exists():
        raise UserError(f"there is no file {path}: check the path.")
    try:
        # Opened here, for numpy leaves a damaged file open.
        with open(path, "rb") as file:
            data = np.load(file, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise UserError(f"{path} is a single array: save x and y together with numpy.savez.")
            with data:
                found = {key: data[key] for key in keys if key in data.files}
                held = sorted(data.files)
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have errors of their own
        raise UserError(
            f"cannot read {path}: it is no .npz file, is damaged, or holds Python objects; "
            "save numbers with numpy.savez."
        ) from error
    if not found:
        names = ", ".join(held) or "nothing"
        raise UserError(f"{path} holds {names} and none of {', '.join(keys)}: give a file with such arrays.")
    return found


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz, whole or not at all.

    Raises UserError if it cannot be written.
    """
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
