"""Image completion: a picture as a function of the place, seen at a few pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.source import Source, Spec, Split
from quickstudy.core.task import Examples, Task
from quickstudy.tasks.glyphs import SIZE, Glyphs
from quickstudy.tasks.sampling import Count, branch, count_range, whole


class Completion(Source):
    """Regression tasks of one picture each: x is the place of a pixel, (across, down) in [-1, 1], y its grey value in
    [0, 1]; some pixels are shown, others asked (arXiv 1807.01613, section 4.2).

    The pictures are those of `glyphs`, letters of other writing systems for each split, every letter equally likely.
    size: pixels a side, 28 or a divisor of it, averaged. shot and query count pixels, drawn at random without
    replacement; rows beyond a task's own have weight 0.
    """

    papers = ("garnelo2018cnp",)
    _letters: Glyphs | None = None

    def __init__(self, shot: Count = "10-200", query: Count = 200, size: int = SIZE, drawings: int = 20):
        self.shot = shot
        self.query = query
        self.size = size
        self.drawings = drawings

    @property
    def spec(self) -> Spec:
        return Spec("regression", x_shape=(2,), y_size=1)

    def names(self, split: Split) -> list[str]:
        """The letters whose pictures a split holds."""
        return self._glyphs().names(split)

    def places(self) -> Tensor:
        """The middle of every pixel, row by row: (pixel, 2)."""
        if self.size < 1 or SIZE % self.size:
            raise UserError(f"size is {self.size} pixels: give {SIZE}, or a number that divides it.")
        at = (2 * torch.arange(self.size, device=self.device) + 1) / self.size - 1
        down, across = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([across, down], -1).flatten(0, 1)

    def pictures(self, split: Split, tasks: int, rng: torch.Generator) -> Tensor:
        """The pictures (task, size, size) of the tasks that `sample` draws with the same generator."""
        return self._drawn(split, tasks, branch(rng, split, device=self.device))

    def sample(self, split: Split, tasks: int, rng: torch.Generator) -> Task:
        (fewest, most), (_, asked) = count_range(self.shot, "shot"), count_range(self.query, "query")
        places = self.places()
        if most + asked > len(places):
            raise UserError(
                f"shot + query is {most + asked} pixels and a picture has {len(places)}: lower shot or query."
            )
        rng = branch(rng, split, device=self.device)
        grey = self._drawn(split, tasks, rng).flatten(1)
        pixels = torch.rand(tasks, len(places), generator=rng, device=rng.device).topk(most + asked, -1).indices
        x, y = places[pixels], grey.gather(1, pixels).unsqueeze(-1)
        weight = (torch.arange(most, device=x.device) < whole(fewest, most, (tasks, 1), rng)).to(x.dtype)
        mask = weight.unsqueeze(-1)
        support = Examples(x[:, :most] * mask, y[:, :most] * mask, weight)
        return Task(support, Examples(x[:, most:], y[:, most:], torch.ones(tasks, asked, device=x.device)))

    def sample_pooled(self, split: Split, rows: int, rng: torch.Generator) -> Examples:
        """One pixel of each of `rows` pictures, as (1, rows, ...)."""
        places, rng = self.places(), branch(rng, split, device=self.device)
        grey = self._drawn(split, rows, rng).flatten(1)
        pixel = torch.randint(len(places), (rows, 1), generator=rng, device=rng.device)
        return Examples(
            places[pixel].transpose(0, 1), grey.gather(1, pixel).unsqueeze(0), torch.ones(1, rows, device=rng.device)
        )

    def _drawn(self, split: Split, tasks: int, rng: torch.Generator) -> Tensor:
        pictures = self._glyphs().sample_pooled(split, tasks, rng).x
        assert isinstance(pictures, Tensor)
        return F.avg_pool2d(pictures[0], SIZE // self.size).squeeze(1)

    def _glyphs(self) -> Glyphs:
        if self._letters is None or self._letters.drawings != self.drawings:
            self._letters = Glyphs(drawings=self.drawings)
        return self._letters.to(self.device)
