"""Tasks from texts and their labels: a table on the disk, or a frame in memory."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split
from quickstudy.tasks.domains import HELD_OUT, domains_of, split_domains
from quickstudy.tasks.encoded import EncodedSource
from quickstudy.tasks.pool import Pool, held_out
from quickstudy.tasks.records import Records, clipped, of_frame, read_records
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.text import HASHED

DUPLICATES = ("refuse", "drop", "keep")
SPLIT_NAMES: dict[str, Split] = {
    **{split: split for split in SPLITS}, "training": "train", "val": "valid", "validation": "valid", "dev": "valid",
    "testing": "test",
}  # fmt: skip


class Texts(EncodedSource):
    """Tasks from a table of texts and labels: .csv, .tsv or JSON lines (tasks/records.py), or a frame (`of`).

    x: the text as a vector. encoder: "hashed", of the runs of letters in it, `size` numbers, with nothing else to be
    installed; or the folder of a sentence-transformers model. The encoder is frozen, and what is learnt is the network
    on top of it (`--net projection`, say). The cache keeps vectors.

    layers: how many of a sentence encoder's last layers are learnt as well (of models made as BERT; 0: none). A row is
    then what goes into these, (tokens, width), the vectors of its first `tokens` tokens, in half precision and in
    memory: 2 tokens width bytes a text (25 kB for MiniLM). The network for such rows is `text_layers`, which begins as
    the encoder's own: train it at a small rate (`--train.lr 0.0001`). Plain baselines make no sense of such rows.

    Whole classes are held out for valid and test: by chance, or as `split_column` says, which then gives every row of
    a class the same one of train, valid, test. domain_column: the classes of a task come from one domain, and equal
    labels of two domains are two classes; `hold_out` "domains" holds out whole domains, "classes" some of each.
    duplicates: "drop" keeps the first of equal texts of a class (a text under two labels stays under both) and warns,
    "keep" keeps all, "refuse" takes no text that stands there twice. fewest: classes with fewer texts are left out.

    >>> rows = [{"text": f"{verb} the {noun} {i}", "label": verb} for i, noun in enumerate(["lamp", "door", "oven"] * 3)
    ...     for verb in ["open", "close", "paint", "lift", "wash", "sell"]]
    >>> source = Texts.of(rows, way=2, query=3, size=8, valid_fraction=1/3, test_fraction=1/3)
    >>> source.sample("test", 4, source.rng(0)).query.x.shape
    torch.Size([4, 6, 8])
    """

    _given: Records | None = None
    group_word: ClassVar[str] = "domain"

    def __init__(
        self,
        path: str = "",
        text_column: str = "text",
        label_column: str = "label",
        split_column: str = "",
        domain_column: str = "",
        hold_out: str = "classes",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 5,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        encoder: str = HASHED,
        size: int = 256,
        layers: int = 0,
        tokens: int = 32,
        duplicates: str = "drop",
        fewest: int = 1,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.text_column = text_column
        self.label_column = label_column
        self.split_column = split_column
        self.domain_column = domain_column
        self.hold_out = hold_out
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.encoder = encoder
        self.size = size
        self.layers = layers
        self.tokens = tokens
        self.duplicates = duplicates
        self.fewest = fewest
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @classmethod
    def of(
        cls,
        frame: Any,
        text_column: str = "text",
        label_column: str = "label",
        split_column: str = "",
        domain_column: str = "",
        hold_out: str = "classes",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 5,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        encoder: str = HASHED,
        size: int = 256,
        layers: int = 0,
        tokens: int = 32,
        duplicates: str = "drop",
        fewest: int = 1,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> Self:
        """A source of a table in memory: a pandas or polars frame, an Arrow table, a Hugging Face dataset, a dict of
        columns, or a list of dicts.

        Its `path` is "memory:" and a fingerprint: the description of such a source can be saved, not rebuilt.
        """
        given = of_frame(frame)
        digest = hashlib.sha256(json.dumps(given.columns, default=str).encode()).hexdigest()
        columns = (text_column, label_column, split_column, domain_column, hold_out)
        episode = (way, shot, query, imbalance, scheme, encoder, size, layers, tokens, duplicates, fewest)
        fractions = (valid_fraction, test_fraction, split_seed)
        source = cls(f"memory:{digest[:16]}", *columns, *episode, *fractions)
        source._given = given
        return source

    @property
    def within_alphabet(self) -> bool:  # type: ignore[override]
        """Whether the classes of a task come from one group, which here is a domain."""
        return bool(self.domain_column)

    def load(self) -> Pool:
        """The encoded texts and their classes.

        Raises UserError if the table is missing, damaged or lacks a column, or an option does not fit it.
        """
        for name, known in (("hold_out", HELD_OUT), ("duplicates", DUPLICATES)):
            if getattr(self, name) not in known:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: {nearest(getattr(self, name), known)}")
        records, texts, labels = self._rows()
        names = sorted(set(labels))
        number = {name: i for i, name in enumerate(names)}
        label = torch.tensor([number[name] for name in labels])
        domains, groups = self._domains(records, label, names)
        splits = self._splits(records, label, names, domains, groups)
        trained = set(splits["train"].tolist())
        known = [text for text, c in zip(texts, label.tolist(), strict=True) if c in trained]
        pool = Pool.of(self.encoded(texts, known), label, names, splits, groups, where=records.where)
        return replace(pool, texts=texts)

    def _rows(self) -> tuple[Records, list[str], list[str]]:
        """The rows that count, their texts and the names of their classes."""
        records = self._table()
        texts = records.texts(self.text_column, "text_column")
        labels = records.labels(self.label_column, "label_column")
        if self.domain_column:
            domains = records.labels(self.domain_column, "domain_column")
            labels = [f"{domain}/{label}" for domain, label in zip(domains, labels, strict=True)]
        rows = list(range(len(texts)))
        if self.duplicates != "keep":
            rows = once(records, texts, labels, refuse=self.duplicates == "refuse")
        counts = dict.fromkeys(labels, 0)
        for i in rows:
            counts[labels[i]] += 1
        rows = [i for i in rows if counts[labels[i]] >= self.fewest]
        if not rows:
            raise UserError(f"no class of {records.where} has {self.fewest} texts: lower fewest.")
        return records.only(rows), [texts[i] for i in rows], [labels[i] for i in rows]

    def _table(self) -> Records:
        if self._given is not None:
            return self._given
        if self.path.startswith("memory:"):
            raise UserError(
                f"the texts {self.path!r} were given in memory and are not stored: make the source again with "
                "Texts.of(frame), or save them to a .csv file and give its path."
            )
        if not self.path:
            raise UserError("text needs a path: give a table (.csv, .tsv, .jsonl) with columns of texts and labels.")
        columns = (self.text_column, self.label_column, self.split_column, self.domain_column)
        return read_records(self.path, [name for name in columns if name])

    def _domains(self, records: Records, label: Tensor, names: list[str]) -> tuple[list[str], Tensor | None]:
        """The names of the domains, and the number of each class's."""
        if not self.domain_column:
            if self.hold_out == "domains":
                raise UserError("hold_out is 'domains' and no column says them: give domain_column.")
            return [], None
        return domains_of(records.labels(self.domain_column, "domain_column"), label, len(names))

    def _splits(
        self, records: Records, label: Tensor, names: list[str], domains: list[str], groups: Tensor | None
    ) -> dict[Split, Tensor]:
        if self.split_column:
            splits = split_by_column(records, self.split_column, label, names)
            if self.hold_out == "domains" and groups is not None:
                _whole_domains(splits, groups, domains)
            return splits
        fractions = (self.valid_fraction, self.test_fraction)
        if groups is None:
            return held_out(len(names), *fractions, self.split_seed)
        return split_domains(domains, groups, self.hold_out, *fractions, self.split_seed)


def once(records: Records, texts: Sequence[str], labels: Sequence[str], refuse: bool = False) -> list[int]:
    """The rows without those whose text and label stood there before.

    Raises UserError, if asked to, for the first text that stands there twice, whatever its labels.
    """
    first: dict[str, int] = {}
    known: set[tuple[str, str]] = set()
    rows = []
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        j = first.setdefault(text, i)
        if refuse and j != i:
            both = f"as {label!r}" if labels[j] == label else f"as {labels[j]!r} and as {label!r}"
            raise UserError(
                f"{records.where}: {clipped(text)!r} stands in {records.names[j]} and {records.names[i]}, {both}: "
                "leave one out, or set duplicates to drop or keep."
            )
        if (text, label) not in known:
            known.add((text, label))
            rows.append(i)
    again, both = len(texts) - len(rows), len(rows) - len(first)
    if again or both:
        said = [f"texts that repeat another of their class, left out: {again}"] * bool(again)
        said += [f"texts under more than one label, kept: {both}"] * bool(both)
        warnings.warn(f"{records.where}: {'; '.join(said)} (`quickstudy data check` names some)", stacklevel=2)
    return rows


def split_by_column(records: Records, column: str, label: Tensor, names: list[str]) -> dict[Split, Tensor]:
    """The classes of each split, from a column that says it of every row.

    Raises UserError for a name that is no split, or a class that is in two of them.
    """
    said: dict[int, tuple[Split, str]] = {}
    values = records.labels(column, "split_column")
    for value, number, row in zip(values, label.tolist(), records.names, strict=True):
        if value.lower() not in SPLIT_NAMES:
            hint = nearest(value.lower(), SPLIT_NAMES)
            raise UserError(f"{records.where}, {row}: the split is {clipped(value)!r}: {hint}")
        split = SPLIT_NAMES[value.lower()]
        before, at = said.setdefault(number, (split, row))
        if before != split:
            raise UserError(
                f"{records.where}: class {names[number]!r} is in {before} ({at}) and in {split} ({row}): whole classes "
                "are held out, so give a class one split, or leave split_column out."
            )
    return {
        split: torch.tensor(sorted(c for c, (found, _) in said.items() if found == split), dtype=torch.long)
        for split in SPLITS
    }


def _whole_domains(splits: dict[Split, Tensor], groups: Tensor, domains: list[str]) -> None:
    held = {split: set(groups[classes].tolist()) for split, classes in splits.items()}
    for i, a in enumerate(SPLITS):
        for b in SPLITS[i + 1 :]:
            for shared in sorted(held[a] & held[b]):
                raise UserError(
                    f"the domain {domains[shared]!r} is in {a} and in {b}: give it one split, or set hold_out to "
                    "classes."
                )
