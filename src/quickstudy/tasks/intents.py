"""What a sentence asks for, among intents never seen: few-shot and zero-shot tasks from tables of text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split
from quickstudy.tasks.encoded import EncodedSource
from quickstudy.tasks.pool import Pool, held_out
from quickstudy.tasks.records import read_records
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.text import HASHED
from quickstudy.tasks.zero_shot import DescribedPool, DescribedSource

OUT_OF_SCOPE = "oos"
"""The label of CLINC150's sentences that ask for none of its intents: they are left out."""
PUBLISHED = "class_splits.json"


class Intents(EncodedSource, DescribedSource):
    """Tasks from sentences and their intents: a table (.tsv) with a header and the columns text and label, as CLINC150
    (Larson and others, EMNLP 2019), HWU64 (Liu and others 2019, arXiv 1903.05566) and SNIPS come.

    This is the source named text for the class splits, and the zero-shot tasks, of those three.
    Whole intents are held out, so a column of the table that splits its rows is not looked at; rows labelled "oos" are
    left out. fold: 1 to 5, the class splits of ProtAugment (Dopierre and others, ACL 2021) in the class_splits.json
    beside the table (labels that these leave out are in none); 0 deals the intents at random by `split_seed`.

    x: the sentence as a vector. encoder: "hashed", of the runs of letters in it (tasks/text.py), of `size` numbers; or
    the folder of a sentence-transformers model, if that package is installed. Vectors are kept in the cache. layers,
    tokens: as in `text`, for tasks that show examples.

    zero_shot: the support shows no sentence of an intent but its name in words, or what `sentences` says of it (a table
    with the columns label and text), encoded alike. seen, asked, kept_back: as in `described`.
    """

    papers = ("larson2019evaluation", "liu2021benchmarking", "coucke2018snips", "dopierre2021protaugment")

    def __init__(
        self,
        path: str = "",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 5,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        zero_shot: bool = False,
        sentences: str = "",
        encoder: str = HASHED,
        size: int = 256,
        layers: int = 0,
        tokens: int = 32,
        seen: int = 0,
        asked: str = "all",
        kept_back: float = 0.2,
        fold: int = 1,
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
        self.zero_shot = zero_shot
        self.sentences = sentences
        self.encoder = encoder
        self.size = size
        self.layers = layers
        self.tokens = tokens
        self.seen = seen
        self.asked = asked
        self.kept_back = kept_back
        self.fold = fold
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    def load(self) -> Pool:
        """The encoded sentences, their intents and, for zero-shot tasks, the encoded descriptions of those.

        Raises UserError if a table is missing, damaged or lacks a column, or does not fit its class splits.
        """
        if not self.path:
            raise UserError("intents needs a path: give a table (.tsv) with the columns text and label.")
        if self.zero_shot and self.layers:
            raise UserError(f"layers is {self.layers}, which is for tasks that show examples: give 0 with zero_shot.")
        texts, labels = read_table(self.path)
        names = sorted(set(labels))
        number = {name: i for i, name in enumerate(names)}
        if self.fold:
            splits = published_split(Path(self.path).parent / PUBLISHED, self.fold, names)
        else:
            splits = held_out(len(names), self.valid_fraction, self.test_fraction, self.split_seed)
        trained = {names[c] for c in splits["train"].tolist()}
        known = [text for text, label in zip(texts, labels, strict=True) if label in trained]
        said = self._descriptions(names) if self.zero_shot else []
        vectors = self.encoded([*texts, *said], known)
        x, descriptions = vectors[: len(texts)], vectors[len(texts) :]
        pool = Pool.of(x, torch.tensor([number[label] for label in labels]), names, splits, where=self.path)
        if not self.zero_shot:
            return replace(pool, texts=texts)
        parts = (pool.x, pool.rows, pool.counts, names, splits)
        return DescribedPool(*parts, texts=texts, descriptions=descriptions)

    def _descriptions(self, names: list[str]) -> list[str]:
        if not self.sentences:
            return [in_words(name) for name in names]
        sentences, of = read_table(self.sentences)
        given = dict(zip(of, sentences, strict=True))
        missing = [name for name in names if name not in given]
        if missing:
            raise UserError(f"{self.sentences} says nothing of the intent {missing[0]!r}: {nearest(missing[0], given)}")
        return [given[name] for name in names]


def read_table(path: str) -> tuple[list[str], list[str]]:
    """The texts and the labels of a table with such columns, without those out of scope.

    Raises UserError if it is missing, no such table, or a row lacks one of them.
    """
    records = read_records(path, ("text", "label"))
    labels = records.labels("label", "label_column")
    inside = [i for i, label in enumerate(labels) if label != OUT_OF_SCOPE]
    return records.only(inside).texts("text", "text_column"), [labels[i] for i in inside]


def in_words(label: str) -> str:
    """The name of a class as a text.

    >>> in_words("card_declined"), in_words("PlayMusic"), in_words("alarm/query")
    ('card declined', 'play music', 'alarm query')
    """
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label)
    return " ".join(re.split(r"[\W_]+", parts)).strip().lower() or label


def published_split(path: Path, fold: int, names: list[str]) -> dict[Split, Tensor]:
    """The numbers of the classes `names` in each split of a fold of class_splits.json; labels match by their letters.

    Raises UserError if there is no such file or fold, or it splits other classes.
    """
    try:
        sets = json.loads(path.read_text("utf-8"))
        folds = {name: found[f"{fold:02}"] for name, found in sets.items() if f"{fold:02}" in found}
        words = {n: {_letters(label) for part in SPLITS for label in found[part]} for n, found in folds.items()}
    except OSError:
        raise UserError(f"there is no {path}: give --tasks.fold 0 to deal the intents at random.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} holds no class splits: get it anew, or give fold 0.") from None
    own = {_letters(name): i for i, name in enumerate(names)}
    fitting = [name for name, known in words.items() if known and known <= own.keys()]
    if not fitting:
        raise UserError(f"{path} has no fold {fold} of these {len(names)} intents: give fold 1 to 5, or 0.")
    chosen = folds[max(fitting, key=lambda name: len(words[name]))]
    return {split: torch.tensor(sorted(own[_letters(label)] for label in chosen[split])) for split in SPLITS}


def _letters(label: str) -> str:
    return "".join(c for c in label.lower() if c.isalnum())
