"""What every source of texts shares: an encoder fitted to the training classes, and the reader that takes it along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.reader import Reader
from quickstudy.core.source import Spec
from quickstudy.tasks.pool import ClassSource
from quickstudy.tasks.text import HASHED, Encoder, Hashed, Sentences
from quickstudy.tasks.text_reader import TextReader
from quickstudy.tasks.token_states import TokenStates


class EncodedSource(ClassSource):
    """A source whose rows are texts as vectors, or as what goes into an encoder's last layers (`layers`; see `Texts`).

    A concrete source stores encoder, size, layers and tokens, and calls `encoded`.
    """

    encoder: str
    size: int
    layers: int
    tokens: int
    text_column: str = "text"
    label_column: str = "label"
    _read_by: TextReader | None = None

    @property
    def spec(self) -> Spec:
        spec, encoder = super().spec, self._cache().get("encoder")
        if not isinstance(encoder, TokenStates):
            return spec
        return replace(spec, encoded=False, net="text_layers", net_options=encoder.net_options())

    def encoded(self, texts: Sequence[str], known: Sequence[str]) -> Tensor:
        """The texts as rows, (text, size), by an encoder fitted to those of the training classes, `known`."""
        encoder = self._read_by.made() if self._read_by else self._encoder(known)
        self._cache()["encoder"] = encoder
        return encoder.encode(texts, keep=True)

    def _encoder(self, known: Sequence[str]) -> Encoder:
        """The encoder that the options name: "hashed", fitted to these texts, or the folder of a sentence encoder.

        Raises UserError for a size below 1 or a folder without a model.
        """
        if self.layers and self.encoder == HASHED:
            raise UserError(f"layers is {self.layers} and a hashed text has none: give an encoder's folder, or 0.")
        if self.layers:
            return TokenStates(self.encoder, self.layers, self.tokens)
        if self.encoder != HASHED:
            return Sentences(self.encoder)
        if self.size < 1:
            raise UserError(f"size is {self.size}: give the length of a text's vector, at least 1.")
        return Hashed.fit_kept(known, self.size)

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
