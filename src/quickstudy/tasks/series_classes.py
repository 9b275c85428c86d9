"""Whole series in classes (heartbeats, movements, what a machine draws): which class is a new one of?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from quickstudy.core.errors import UserError
from quickstudy.core.reader import Reader, Rows
from quickstudy.core.source import Split
from quickstudy.tasks.domains import domains_of, split_domains
from quickstudy.tasks.grouped import deal
from quickstudy.tasks.pool import ClassSource, Pool
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.series_file import as_rows, read_recordings, series_files, whole
from quickstudy.tasks.sheet import listed


class SeriesClasses(ClassSource):
    """Tasks from whole series, a line each with its class first, as the UCR archive has them (Dau and others 2018,
    arXiv 1810.07758): a file (.tsv, .txt, .csv, or .ts), or a folder of such files and folders, a data set each.

    The classes of a task come from one data set, and equal labels of two sets are two classes. NAME_TRAIN and NAME_TEST
    are read together, for whole classes are held out, never rows. hold_out: "classes" of each set, or whole "domains",
    which are data sets; those named in valid_sets and test_sets (with commas, or a list) are held out whole. Sets that
    share people or things belong on one side: name them. fewest: classes with fewer series are left out.

    x: (length,), the series drawn out or together to `length` steps along straight lines and, with `standardise`, each
    to mean 0 and standard deviation 1: how long and how large it was is then lost. What comes next in a series, or lies
    between, is asked by `series`.
    """

    papers = ("dau2019ucr",)
    group_word: ClassVar[str] = "data set"
    within_alphabet = True

    def __init__(
        self,
        path: str = "",
        way: Count = 2,
        shot: Count = 5,
        query: Count = 10,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        length: int = 128,
        standardise: bool = True,
        fewest: int = 1,
        hold_out: str = "classes",
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        valid_sets: str | Sequence[str] = "",
        test_sets: str | Sequence[str] = "",
        split_seed: int = 0,
    ):
        self.path = path
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.length = length
        self.standardise = standardise
        self.fewest = fewest
        self.hold_out = hold_out
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.valid_sets = valid_sets
        self.test_sets = test_sets
        self.split_seed = split_seed

    def load(self) -> Pool:
        """All series and their classes.

        Raises UserError if a file is missing or damaged, a series has no class, or an option does not fit.
        """
        if self.length < 2:
            raise UserError(f"length is {self.length}: give the steps that every series is to have, at least 2.")
        values, labels, sets = [], [], []
        for name, files in series_files(self.path).items():
            for file in files:
                found = read_recordings(file)
                if "" in found.labels:
                    line = found.names[found.labels.index("")]
                    raise UserError(f"{file}, {line}, says no class: give one, or take the line out.")
                values += found.values
                labels += [f"{name}/{label}" for label in found.labels]
                sets += [name] * len(found.values)
        counts = Counter(labels)
        kept = [i for i, label in enumerate(labels) if counts[label] >= self.fewest]
        if not kept:
            raise UserError(f"no class of {self.path} has {self.fewest} series: lower fewest.")
        names = sorted({labels[i] for i in kept})
        number = {name: i for i, name in enumerate(names)}
        label = torch.tensor([number[labels[i]] for i in kept])
        domains, groups = domains_of([sets[i] for i in kept], label, len(names))
        x = torch.from_numpy(as_rows([values[i] for i in kept], self.length, self.standardise))
        return Pool.of(x, label, names, self._splits(domains, groups), groups, where=self.path)

    def _splits(self, domains: list[str], groups: torch.Tensor) -> dict[Split, torch.Tensor]:
        fractions = (self.valid_fraction, self.test_fraction)
        valid, test = listed(self.valid_sets), listed(self.test_sets)
        if not (valid or test):
            return split_domains(domains, groups, self.hold_out, *fractions, self.split_seed)
        dealt = deal(domains, *fractions, valid, test, self.split_seed)
        return {split: torch.isin(groups, chosen).nonzero().flatten() for split, chosen in dealt.items()}

    def reader(self) -> SeriesClassesReader:
        return SeriesClassesReader(self.length, self.standardise)


class SeriesClassesReader(Reader):
    """Whole series from a file, as the source reads them; in one to predict the class of every line is "?"."""

    given_as = "cells"

    def __init__(self, length: int, standardise: bool = True):
        self.length = length
        self.standardise = standardise

    def read(self, path: str) -> Rows:
        found = read_recordings(path)
        known = [label != "" for label in found.labels]
        if any(known) and not all(known):
            raise UserError(
                f"{path}, {found.names[known.index(False)]}, says no class and other lines do: put the series to learn "
                "from in one file, and those to predict in another."
            )
        x = torch.from_numpy(as_rows(found.values, self.length, self.standardise))
        return Rows(x, found.labels if all(known) else None, None, found.names)

    def given(self, rows: Any) -> torch.Tensor:
        """Series (n, step), NaN where a value is missing and behind the end of a shorter one."""
        values = [whole(row, f"row {i} of X") for i, row in enumerate(np.asarray(rows, dtype=float))]
        return torch.from_numpy(as_rows(values, self.length, self.standardise))

    def unlabelled(self, path: str) -> str:
        return "give the class as the first cell of every line"
