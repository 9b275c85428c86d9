"""What every source of texts shares: an encoder fitted to the training classes, and the reader that takes it along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from quickstudy.core.reader import Reader
from quickstudy.tasks.pool import ClassSource
from quickstudy.tasks.text import encoder_for
from quickstudy.tasks.text_reader import TextReader


class EncodedSource(ClassSource):
    """A source whose rows are texts as vectors. A concrete source stores encoder and size, and calls `encoded`."""

    encoder: str
    size: int
    text_column: str = "text"
    label_column: str = "label"
    _read_by: TextReader | None = None

    def encoded(self, texts: Sequence[str], known: Sequence[str]) -> Tensor:
        """The vectors of these texts, (text, size), by an encoder fitted to those of the training classes, `known`."""
        encoder = self._read_by.made() if self._read_by else encoder_for(self.encoder, known, self.size)
        self._cache()["encoder"] = encoder
        return encoder.encode(texts, keep=True)

    def reader(self) -> Reader:
        self.prepare()
        return TextReader.of(self._cache()["encoder"], self.text_column, self.label_column)

    def read_by(self, reader: Reader | None) -> Self:
        """This source with its texts encoded as the reader of a trained learner encodes them: what the training
        classes of another table say then decides nothing of it. A reader of anything but texts changes nothing.
        """
        if not isinstance(reader, TextReader):
            return self
        other = self.reshaped()
        other._read_by, other._pools = reader, None
        return other
