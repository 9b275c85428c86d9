"""What is found in a user's data before anything is trained on it: counts, duplicates, leaks, and what to do."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.inventory import Inventory
from quickstudy.core.source import SPLITS, Source

BLOCK = 4096
"""Rows read at once."""
NAMED = 3
"""Examples that a sentence names."""
COMPARED = 20_000
"""Rows of the train split that those of other splits are compared with for near duplicates, at most."""
TELLING = 4
"""Numbers in a row below which equal rows are no wonder, as equal times of two series."""
DIRECTIONS = 48
"""Random directions that rows are seen along, to find near ones among many."""
NEAR = 0.02
"""Rows nearer than this share of the typical distance to the nearest row are called nearly the same."""


@dataclass(frozen=True)
class Finding:
    """Something a user should know. grave: scores would mislead, or training would fail; said: one sentence."""

    about: str
    grave: bool
    said: str


@dataclass(frozen=True)
class DataCard:
    """What a source holds. facts: name and value, in words; findings: the grave ones first."""

    facts: dict[str, str]
    findings: list[Finding]

    def card(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {"facts": self.facts, "findings": [asdict(finding) for finding in self.findings]}


def data_card(source: Source) -> DataCard:
    """Look through all rows of a source.

    Raises UserError where the data cannot be read.
    """
    spec, found = source.spec, source.inventory()
    facts = {"kind": spec.kind, "a row is": f"numbers of shape {tuple(spec.x_shape)}"}
    if found is None:
        return DataCard({**facts, "data": "tasks are made on the spot, as many as are asked for"}, [])
    size = torch.bincount(found.owner, minlength=len(found.names))
    facts["rows"] = f"{len(found.owner):,}"
    plural = {"class": "classes", "task": "tasks"}[found.unit]
    for split in SPLITS:
        sizes = size[found.splits[split]] if split in found.splits else size[:0]
        few = f", {int(sizes.min())} to {int(sizes.max())} rows each" if len(sizes) else ""
        facts[f"{split} {plural}"] = f"{len(sizes):,}{few}"
    findings = [Finding("left out", False, said) for said in found.left_out]
    findings += [*_thin(source, found, size), *_same(found), *_nearly_same(found), *_plain(found, size)]
    return DataCard(facts, sorted(findings, key=lambda finding: not finding.grave))


def _thin(source: Source, found: Inventory, size: Tensor) -> Iterator[Finding]:
    """Splits and classes that no task can be drawn from."""
    for split in SPLITS:
        if not len(found.splits.get(split, ())):
            more = "classes" if found.unit == "class" else "tasks"
            yield Finding("splits", True, f"The {split} split is empty: give more {more}, or a larger share to it.")
    if found.unit == "class":
        lonely = [found.names[i] for i in (size == 1).nonzero().flatten().tolist()]
        if lonely:
            yield Finding(
                "rows", True, f"{_count(lonely, 'class', 'classes')} with a single row, which cannot be both learnt "
                f"from and asked: {_some(lonely)}.",
            )  # fmt: skip
    way, shot, query = (getattr(source, name, None) for name in ("way", "shot", "query"))
    if found.unit == "class" and all(isinstance(v, int) for v in (way, shot, query)):
        small = [found.names[i] for i in ((size > 1) & (size < shot + query)).nonzero().flatten().tolist()]  # type: ignore
        if small:
            yield Finding(
                "rows", True, f"{_count(small, 'class', 'classes')} with fewer than the {shot} + {query} rows that a "  # type: ignore
                f"task asks for: {_some(small)}; give them more rows, leave them out, or lower shot or query.",
            )  # fmt: skip


def _same(found: Inventory) -> Iterator[Finding]:
    """Rows that are there more than once."""
    if found.read(torch.tensor([0])).numel() < TELLING:
        return
    places: dict[bytes, list[int]] = defaultdict(list)
    for start in range(0, len(found.owner), BLOCK):
        at = torch.arange(start, min(start + BLOCK, len(found.owner)))
        flat = found.read(at).flatten(1).contiguous()
        if found.y is not None:
            flat = torch.cat([flat, found.y[at].to(flat.dtype)], 1)
        for i, row in enumerate(flat.view(torch.uint8).numpy()):
            places[hashlib.blake2b(row.tobytes(), digest_size=12).digest()].append(start + i)
    split_of = _split_of(found)
    groups = [rows for rows in places.values() if len(rows) > 1]
    owners = [{int(found.owner[row]) for row in rows} for rows in groups]
    across = [g for g, own in zip(groups, owners, strict=True) if len({split_of.get(o) for o in own}) > 1]
    if across:
        yield Finding(
            "leak", True, f"{len(across):,} {'row is' if len(across) == 1 else 'rows are'} in more than one split, so "
            f"that what is asked was trained on: {_examples(found, across)}; remove one of each.",
        )  # fmt: skip
    named = [g for g, own in zip(groups, owners, strict=True) if len(own) > 1]
    if named and found.unit == "class":
        yield Finding(
            "labels", True, f"{len(named):,} {'row bears' if len(named) == 1 else 'rows bear'} more than one label: "
            f"{_examples(found, named)}; keep the right one of each.",
        )  # fmt: skip
    within = sum(len(g) - len(own) for g, own in zip(groups, owners, strict=True))  # of one class
    if within:
        kept = [g for g, own in zip(groups, owners, strict=True) if len(g) > len(own)]
        yield Finding(
            "duplicates", within > 0.05 * len(found.owner),
            f"{within:,} {'row repeats' if within == 1 else 'rows repeat'} another one of the same {found.unit}: "
            f"{_examples(found, kept)}; a task may then ask what its support shows.",
        )  # fmt: skip


def _nearly_same(found: Inventory) -> Iterator[Finding]:
    """Rows of valid and test that are nearly a row of train, for instance a photo saved twice."""
    split_of = _split_of(found)
    of = torch.tensor([SPLITS.index(s) if (s := split_of.get(int(o))) in SPLITS else -1 for o in found.owner.tolist()])
    rng = torch.Generator().manual_seed(0)
    parts = []
    for inside in (of == 0, of > 0):
        rows = inside.nonzero().flatten()
        parts.append(rows[torch.randperm(len(rows), generator=rng)[:COMPARED]])
    known, asked = parts
    size = found.read(torch.tensor([0])).numel()
    if len(known) < 2 or len(asked) < 2 or size < TELLING:
        return
    shrink = torch.randn(size, min(size, DIRECTIONS), generator=rng) / min(size, DIRECTIONS) ** 0.5
    train = _shrunk(found, known, shrink)
    near, which = [], []
    for rows in asked.split(512):
        distance, place = torch.cdist(_shrunk(found, rows, shrink), train).min(1)
        near.append(distance)
        which.append(known[place])
    distance, which = torch.cat(near), torch.cat(which)
    limit = NEAR * float(distance.median())
    close = (distance < 2 * limit).nonzero().flatten()  # distances that are roughly kept: looked at again, in full
    pairs = []
    for a, b in zip(asked[close].tolist(), which[close].tolist(), strict=True):
        one, other = found.read(torch.tensor([a, b])).flatten(1).float()
        if 0 < float((one - other).norm()) < limit:
            pairs.append([a, b])
    if pairs:
        yield Finding(
            "leak", True, f"{len(pairs):,} rows of valid and test are nearly the same as one of train: "
            f"{_examples(found, pairs)}; look at them, and remove copies.",
        )  # fmt: skip


def _shrunk(found: Inventory, rows: Tensor, shrink: Tensor) -> Tensor:
    parts = [found.read(part).flatten(1).float() @ shrink for part in rows.split(BLOCK)]
    return torch.cat(parts)


def _plain(found: Inventory, size: Tensor) -> Iterator[Finding]:
    """Rows and values in which nothing is to be seen, and classes much larger than others."""
    blank = []
    for start in range(0, len(found.owner), BLOCK):
        flat = found.read(torch.arange(start, min(start + BLOCK, len(found.owner)))).flatten(1)
        if flat.shape[1] > 1:
            blank += [[start + i] for i in (flat == flat[:, :1]).all(1).nonzero().flatten().tolist()]
    if blank:
        yield Finding("blank", False, f"{len(blank):,} rows hold one value throughout: {_examples(found, blank)}.")
    if found.y is not None:
        flat_tasks = [
            found.names[unit] for unit in range(len(found.names))
            if size[unit] > 1 and bool((found.y[found.owner == unit] == found.y[found.owner == unit][:1]).all())
        ]  # fmt: skip
        if flat_tasks:
            yield Finding(
                "target", False, f"{_count(flat_tasks, 'task', 'tasks')} in which the target never changes: "
                f"{_some(flat_tasks)}.",
            )  # fmt: skip
    sizes = size[size > 0]
    if len(sizes) > 1 and int(sizes.max()) > 20 * int(sizes.min()):
        large, small = int(size.argmax()), int(torch.where(size > 0, size, size.max()).argmin())
        yield Finding(
            "balance", False, f"{found.names[large]!r} has {int(size[large]):,} rows and {found.names[small]!r} has "
            f"{int(size[small]):,}: scores of tasks from both say little of the large one.",
        )  # fmt: skip


def _split_of(found: Inventory) -> dict[int, str]:
    return {int(unit): split for split, units in found.splits.items() for unit in units.tolist()}


def _examples(found: Inventory, groups: Sequence[Sequence[int]]) -> str:
    said = []
    for group in groups[:NAMED]:
        rows = [f"{found.row_name(row)} of {found.names[int(found.owner[row])]!r}" for row in group[:NAMED]]
        said.append(" = ".join(rows))
    more = f" and {len(groups) - NAMED:,} more" if len(groups) > NAMED else ""
    return "; ".join(said) + more


def _count(things: Sequence[object], one: str, many: str) -> str:
    return f"{len(things):,} {one if len(things) == 1 else many}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(repr(name) for name in names[:NAMED]) + more
