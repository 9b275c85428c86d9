"""Rows as JSON gives them: what one may be, and how they become what the learner was trained on."""

from __future__ import annotations

import base64
import binascii
import math
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from quickstudy.adaptation import reader_for
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError
from quickstudy.serve.limits import Limits
from quickstudy.tasks.files import Files
from quickstudy.tasks.picture_reader import PictureReader

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Images that are read; others have decoders that do more than they should."""
Kind = Literal["texts", "images", "arrays", "cells", "frame"]


class Intake:
    """Reads rows for one trained learner.

    kind: "texts"; "images", files in base64 or arrays of grey levels from 0 to 1; "arrays" of numbers; "cells", as many
    numbers or nulls in each row, the same columns in all rows of a task; "frame", objects with the columns of training.
    support: the rows to adapt to, which for zero-shot learners describe a class each.
    Raises UserError where the checkpoint does not say what its rows are like.
    """

    def __init__(self, trained: Checkpoint, limits: Limits, support: bool = False):
        self.trained = trained
        self.limits = limits
        self.support = support
        self.reader = reader_for(trained.card, trained.reader, str(trained.card.get("path", "the learner")), support)
        spec = trained.card.get("spec") or {}
        shape = spec.get("description_shape" if support and spec.get("kind") == "zero-shot" else "x_shape") or ()
        self.x_shape = tuple(int(n) for n in shape)
        pictures = isinstance(self.reader, PictureReader) or (isinstance(self.reader, Files) and self.images_fit)
        self.kind: Kind = "images" if pictures else self.reader.given_as
        self.invertible = self.kind == "images" and isinstance(self.reader, Files)

    @property
    def images_fit(self) -> bool:
        """Whether a row has the shape of an image."""
        return len(self.x_shape) == 3 and self.x_shape[0] in (1, 3)

    @property
    def columns(self) -> list[str]:
        """The columns that an object must have."""
        return [column["name"] for column in getattr(self.reader, "columns", ())]

    def read(self, rows: Sequence[Any], invert: bool = False) -> tuple[Tensor, int]:
        """Rows as (n, *x_shape), and how many columns they had where that is the task's own affair, else 0.

        invert: images show dark ink on white, and the learner was trained on bright ink.
        Raises UserError for rows of another kind, too large, or with a value that is not finite.
        """
        if invert and not self.invertible:
            raise UserError("invert is about plain images, which this learner was not trained on: leave it out.")
        if self.kind == "texts":
            return self._texts(rows), 0
        if self.kind == "frame":
            return self._frame(rows), 0
        if self.kind == "cells":
            return self._cells(rows)
        files = sum(isinstance(row, str) for row in rows)
        if self.kind == "images" and files == len(rows):
            return self._images(rows, invert), 0
        if files or isinstance(self.reader, PictureReader):
            wants = "image files in base64" if self.kind == "images" else "arrays of numbers"
            raise UserError(f"a row is not of the kind that this learner takes, or rows are mixed: give {wants}.")
        x = self._arrays(rows)
        return (1 - x if invert else x), 0

    def _texts(self, rows: Sequence[Any]) -> Tensor:
        for i, row in enumerate(rows):
            if not isinstance(row, str) or not row.strip():
                raise UserError(f"row {i} is no text: give a text in every row.")
            if len(row) > self.limits.letters:
                raise UserError(f"row {i} has {len(row)} letters and {self.limits.letters} are the most: shorten it.")
        return self.reader.given(list(rows))

    def _frame(self, rows: Sequence[Any]) -> Tensor:
        needed = self.columns
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise UserError(f"row {i} is no object: give its cells by the names of the columns.")
            lacking = next((name for name in needed if name not in row), None)
            if lacking is not None:
                raise UserError(f"row {i} has no {lacking!r}: give every column, with null where a cell is missing.")
            for name in needed:
                self._check_cell(row[name], f"{name!r} of row {i}")
        return self.reader.given([{name: row[name] for name in needed} for row in rows])

    def _check_cell(self, cell: Any, where: str) -> None:
        if not (cell is None or isinstance(cell, str | int | float)):
            raise UserError(f"{where} is no cell: give a number, a text or null.")
        if isinstance(cell, float) and not math.isfinite(cell):
            raise UserError(f"{where} is not finite: give null where a cell is missing.")
        if isinstance(cell, str) and len(cell) > self.limits.letters:
            raise UserError(f"{where} has {len(cell)} letters and {self.limits.letters} are the most: shorten it.")

    def _cells(self, rows: Sequence[Any]) -> tuple[Tensor, int]:
        plain = [[math.nan if cell is None else cell for cell in row] if isinstance(row, list) else row for row in rows]
        known = [[0 if cell is None else cell for cell in row] if isinstance(row, list) else row for row in rows]
        width = len(plain[0]) if isinstance(plain[0], list) else 0
        if not width:
            raise UserError("row 0 is no list of numbers: give the cells of a row as one.")
        numbers(known, (width,))  # refuses what is not finite, for a missing cell is null
        return self.reader.given(np.array(plain, dtype=np.float64)), width

    def _arrays(self, rows: Sequence[Any]) -> Tensor:
        if self.x_shape == (1,) and not any(isinstance(row, list) for row in rows):
            rows = [[row] for row in rows]
        return numbers(rows, self.x_shape)

    def _images(self, rows: Sequence[str], invert: bool) -> Tensor:
        files, pixels = [], 0
        for i, row in enumerate(rows):
            try:
                file = base64.b64decode(row.partition(",")[2] if row.startswith("data:") else row, validate=True)
            except (binascii.Error, ValueError):
                raise UserError(f"row {i} is no base64: give the bytes of an image file in it.") from None
            pixels += _pixels(file, i)
            if pixels > self.limits.pixels:
                raise UserError(
                    f"the images have more than {self.limits.pixels} pixels together (at row {i}): send fewer at once, "
                    "or make them smaller."
                )
            files.append(file)
        if not invert:
            return self.reader.given_images(files)
        card, where = self.trained.card, str(self.trained.card.get("path", "the learner"))
        return reader_for(card, None, where, self.support, invert=True).given_images(files)


def numbers(rows: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    """Nested lists as (n, *shape), float32.

    Raises UserError where they are no finite numbers of that shape.
    """
    try:
        found = np.array(rows)
    except ValueError:  # of uneven lengths
        found = np.array(None)
    if found.dtype.kind not in "iuf" or found.shape[1:] != shape:
        wanted = f"numbers of shape {list(shape)}" if shape else "one number"
        raise UserError(f"a row is not {wanted}: give that in every row.")
    with np.errstate(over="ignore"):
        x = torch.from_numpy(found.astype(np.float32))
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x)).reshape(len(x), -1).any(1).nonzero()[0])
        raise UserError(f"row {row} holds a value that is not finite: give finite numbers alone.")
    return x


def _pixels(file: bytes, number: int) -> int:
    """How many pixels an image says it has; nothing is decoded. Raises UserError if it is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own limit: ours is stricter
            with Image.open(BytesIO(file), formats=FORMATS) as image:
                return image.width * image.height
    except Exception:  # Pillow raises nearly anything on a damaged file, and DecompressionBombError
        raise UserError(
            f"row {number} is no image that is read here, or far too large: give one of {', '.join(FORMATS)}."
        ) from None
