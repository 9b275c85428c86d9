"""Classes that lie in domains: equal labels of two domains are two classes, and either may be held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split
from quickstudy.tasks.pool import held_out

HELD_OUT = ("classes", "domains")


def domains_of(domains: Sequence[str], label: Tensor, classes: int) -> tuple[list[str], Tensor]:
    """The names of the domains, sorted, and the number of each class's, from the domain and the class of each row."""
    names = sorted(set(domains))
    number = {name: i for i, name in enumerate(names)}
    groups = torch.zeros(classes, dtype=torch.long)
    groups[label] = torch.tensor([number[domain] for domain in domains])
    return names, groups


def split_domains(
    names: Sequence[str], groups: Tensor, hold_out: str, valid_fraction: float, test_fraction: float, seed: int
) -> dict[Split, Tensor]:
    """The classes of each split: whole domains held out, or some classes of each domain.

    Raises UserError for another `hold_out`, or fractions that leave nothing to train on.

    >>> groups = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> split = split_domains("abc", groups, "domains", 0.0, 1 / 3, 0)
    >>> len(split["test"]), len(groups[split["test"]].unique())
    (2, 1)
    """
    if hold_out not in HELD_OUT:
        raise UserError(f"unknown hold_out {hold_out!r}: {nearest(hold_out, HELD_OUT)}")
    if hold_out == "domains":
        dealt = held_out(len(names), valid_fraction, test_fraction, seed)
        return {split: torch.isin(groups, chosen).nonzero().flatten() for split, chosen in dealt.items()}
    parts: dict[Split, list[Tensor]] = {split: [] for split in SPLITS}
    for number, name in enumerate(names):
        inside = (groups == number).nonzero().flatten()
        for split, chosen in held_out(len(inside), valid_fraction, test_fraction, f"{seed}/{name}").items():
            parts[split].append(inside[chosen])
    return {split: torch.cat(found).sort().values for split, found in parts.items()}
