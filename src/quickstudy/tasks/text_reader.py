"""One new task's texts as they lie on the disk: tables with or without labels, and plain text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.reader import Reader, Rows
from quickstudy.tasks.records import Records, clipped, missing, of_frame, read_records, read_text
from quickstudy.tasks.text import HASHED, Encoder, Hashed, Sentences
from quickstudy.tasks.token_states import TokenStates


class TextReader(Reader):
    """Reads a table (.csv, .tsv, .jsonl) with a column of texts and, if it is labelled, one of labels; or a .txt file
    with a text in each line. A text becomes the vector that it would have become in training, to the last bit.

    encoder: "hashed", whose weights and directions are `fitted`; or the folder of a sentence encoder, which must still
    be there and have this `digest`; layers, tokens: as the sources of texts take them. A label column without a single
    value is no labels.
    """

    given_as = "texts"

    def __init__(
        self,
        encoder: str = HASHED,
        digest: str = "",
        text_column: str = "text",
        label_column: str = "label",
        layers: int = 0,
        tokens: int = 32,
    ):
        self.encoder = encoder
        self.digest = digest
        self.text_column = text_column
        self.label_column = label_column
        self.layers = layers
        self.tokens = tokens

    @classmethod
    def of(cls, encoder: Encoder, text_column: str, label_column: str) -> TextReader:
        """A reader that encodes as this encoder does."""
        if isinstance(encoder, TokenStates):
            place = (encoder.folder, encoder.folder_digest)
            return cls(*place, text_column, label_column, encoder.layers, encoder.tokens)
        if isinstance(encoder, Sentences):
            return cls(encoder.folder, encoder.digest, text_column, label_column)
        reader = cls(HASHED, "", text_column, label_column)
        if isinstance(encoder, Hashed):
            reader.load_fitted({"weights": encoder.weights, "directions": encoder.directions})
        return reader

    def made(self) -> Encoder:
        """The encoder.

        Raises UserError if the folder of a sentence encoder was moved or holds another one.
        """
        if self.layers:
            return TokenStates(self.encoder, self.layers, self.tokens, self.digest)
        if self.encoder != HASHED:
            return Sentences(self.encoder, self.digest)
        if self.fitted is None:
            raise UserError("this reader was fitted to no texts: take that of a trained learner.")
        return Hashed(self.fitted["weights"], self.fitted["directions"])

    def load_fitted(self, tensors: dict[str, Tensor]) -> None:
        weights, directions = tensors.get("weights"), tensors.get("directions")
        if self.encoder == HASHED and (
            weights is None or directions is None or weights.dim() != 1 or directions.dim() != 2
            or len(weights) != len(directions) or len(weights) == 0 or directions.shape[1] == 0
            or (weights.dtype, directions.dtype) != (torch.float32, torch.float16)
        ):  # fmt: skip
            raise UserError("the weights and directions of its texts are missing or damaged: use the original file.")
        super().load_fitted(tensors)

    def read(self, path: str) -> Rows:
        records = self._records(path)
        texts = records.texts(self.text_column, "text_column")
        labels = None
        if not all(missing(value) for value in records.columns.get(self.label_column, [])):
            labels = records.labels(self.label_column, "label_column")
            _refuse_both(records, texts, labels)
        names = [f"{name}, {clipped(text)}" for name, text in zip(records.names, texts, strict=True)]
        return Rows(self.made().encode(texts).float(), labels, None, names)

    def given(self, rows: Any) -> Tensor:
        """The vectors of texts: a list, an array or a series of them, or a frame with the column of texts."""
        if hasattr(rows, "columns") or not isinstance(rows, Iterable):
            records = of_frame(rows, "X")
        else:
            texts = list(rows)
            records = Records({self.text_column: texts}, [f"row {i}" for i in range(len(texts))], "X")
        return self.made().encode(records.texts(self.text_column, "text_column")).float()

    def unlabelled(self, path: str) -> str:
        if Path(path).suffix.lower() == ".txt":
            return f"give a table with the columns {self.text_column} and {self.label_column}"
        found = self._records(path).columns
        if self.label_column in found:
            return f"fill in its column {self.label_column}"
        others = [name for name in found if name != self.text_column]
        hint = nearest(self.label_column, others).rstrip(".?") if others else "there is no other column"
        return f"give it a column named {self.label_column} ({hint})"

    def _records(self, path: str) -> Records:
        if Path(path).suffix.lower() != ".txt" or Path(path).is_dir():
            return read_records(path, (self.text_column, self.label_column))
        lines = [(f"line {i}", line) for i, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
        if not lines:
            raise UserError(f"{path} is empty: give a text in each line.")
        return Records({self.text_column: [line for _, line in lines]}, [name for name, _ in lines], path)


def _refuse_both(records: Records, texts: list[str], labels: list[str]) -> None:
    """Raise UserError for a text that stands under two labels: no learner could tell which one is meant."""
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        j = first.setdefault(text, i)
        if labels[j] != labels[i]:
            raise UserError(
                f"{records.where}: {clipped(text)!r} is {labels[j]!r} in {records.names[j]} and {labels[i]!r} in "
                f"{records.names[i]}: keep one of the two."
            )
