"""Letters known by their attributes alone: a zero-shot task that needs no download."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import torch

from quickstudy.core.errors import UserError
from quickstudy.tasks.attributes import drawing_attributes
from quickstudy.tasks.download import cache_folder
from quickstudy.tasks.glyphs import Glyphs
from quickstudy.tasks.npz import read_npz, write_npz
from quickstudy.tasks.sampling import Count
from quickstudy.tasks.zero_shot import DescribedPool, DescribedSource

VERSION = 1


class GlyphAttributes(DescribedSource):
    """Zero-shot tasks on the letters of `glyphs`: a class is described by 22 attributes, all in [0, 1].

    The attributes (tasks/attributes.py: parts, holes, symmetry, where the ink is, ends and forks of strokes) are
    computed, not asked of people: the mean over `describing` of the `drawings` of the letter, which are then never
    asked for. Splits are by writing system, as in `glyphs`. x: (1, 28, 28).

    seen, asked, kept_back: generalised zero-shot tasks, as in `described`.
    """

    def __init__(
        self,
        way: Count = 5,
        query: Count = 5,
        seen: int = 0,
        asked: str = "all",
        kept_back: float = 0.4,
        drawings: int = 20,
        describing: int = 5,
        split_seed: int = 0,
    ):
        self.way = way
        self.query = query
        self.seen = seen
        self.asked = asked
        self.kept_back = kept_back
        self.drawings = drawings
        self.describing = describing
        self.split_seed = split_seed

    def load(self) -> DescribedPool:
        """All drawings but those that describe, and the attributes; made once and kept in the cache."""
        if not 1 <= self.describing < self.drawings:
            raise UserError(
                f"describing is {self.describing} and drawings is {self.drawings}: give at least 1, and fewer than "
                "there are drawings."
            )
        pool = Glyphs(drawings=self.drawings).load()
        made = f"{VERSION}-{self.drawings}-{self.describing}-matplotlib-{matplotlib.__version__}"
        path = cache_folder() / f"glyph-attributes-v{made}.npz"
        try:
            attributes = torch.from_numpy(read_npz(path, ("attributes",))["attributes"])
        except UserError:  # not made yet, or damaged
            shown = pool.rows[:, : self.describing]
            assert isinstance(pool.x, torch.Tensor)
            parts = [drawing_attributes(pool.x[rows.flatten()].squeeze(1)) for rows in shown.split(200)]
            attributes = torch.cat(parts).unflatten(0, shown.shape).mean(1)
            write_npz(path, attributes=attributes.numpy())
        rest = replace(pool, rows=pool.rows[:, self.describing :], counts=pool.counts - self.describing)
        pool = (rest.x, rest.rows, rest.counts, rest.names, rest.splits, rest.groups)
        return DescribedPool(*pool, descriptions=attributes)
