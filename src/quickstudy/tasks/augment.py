"""More training data out of what is there: images of training tasks moved about, classes mirrored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.task import Examples, Task


def mirror_classes(task: Task, way: int, rng: torch.Generator) -> Task:
    """Mirror each class of each task, left to right, with probability one half: a mirrored class is another one.

    x: (task, n, channels, h, w).
    """
    device = task.support.y.device
    mirrored = torch.rand(task.support.tasks, way, generator=rng, device=device) < 0.5

    def turn(rows: Examples) -> Examples:
        x = _images(rows)
        chosen = mirrored.gather(1, rows.y)[..., None, None, None]
        return rows._replace(x=torch.where(chosen, x.flip(-1), x))

    return Task(turn(task.support), turn(task.query))


def jitter(rows: Examples, most: float, rng: torch.Generator) -> Examples:
    """Turn, stretch, shear and shift every image a little, each at random.

    most: the largest turn in radians, the largest stretch and shear as a share, the largest shift as a share of
    half the width. What comes in from outside is 0. x: (task, n, channels, h, w).
    """
    if not 0 < most <= 1:
        raise UserError(f"jitter is {most}: give a share from 0 (none) to 1.")
    x = _images(rows)
    images = x.flatten(0, 1)
    n = len(images)
    noise = (2 * torch.rand(6, n, generator=rng, device=x.device) - 1) * most
    turn, wide, high, shear, right, down = noise
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack([cos * (1 + wide), shear - sin * (1 + high), right], 1)
    second = torch.stack([sin * (1 + wide), cos * (1 + high), down], 1)
    grid = F.affine_grid(torch.stack([first, second], 1).to(x.dtype), list(images.shape), align_corners=False)
    return rows._replace(x=F.grid_sample(images, grid, align_corners=False).view_as(x))


def _images(rows: Examples) -> Tensor:
    x = rows.x
    if not isinstance(x, Tensor) or x.dim() != 5:
        raise UserError("mirrors and jitter need images: leave them off for other rows.")
    return x
