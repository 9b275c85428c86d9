"""What can be said of a drawing without knowing what it shows: its shape, parts, holes, symmetry and strokes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

ZONES = ("top", "middle", "bottom"), ("left", "centre", "right")
ATTRIBUTES = (
    *("wide", "full", "in parts", "in three parts", "with a hole", "with two holes"),
    *("left is right", "top is bottom", "half a turn"),
    *(f"ink {row} {column}" for row in ZONES[0] for column in ZONES[1]),
    *("strokes across", "strokes rising", "ends", "forks"),
)
"""The names of the columns of `drawing_attributes`."""
GREY = 96
SPECK = 3
SIDE = 24
"""Ink is brighter than GREY; what has fewer pixels than SPECK is no part and no hole; boxes are scaled to SIDE."""
MOST = 6


def drawing_attributes(images: Tensor) -> Tensor:
    """ATTRIBUTES of each drawing: images (n, height, width) of bytes, ink bright -> (n, 22), all in [0, 1].

    wide: width / (width + height) of the ink's box. full: the share of its box that is ink. Parts and holes are
    counted (connected by corners, and by sides). Symmetries are the ink that a mirrored (or turned) box shares with the
    box, over the ink of either. Zones are the ink in each ninth of the box. Strokes across: 1 if all are, 0 if all go
    up; rising: 1 for /, 0 for \\, 1/2 for neither. ends, forks: of the ink thinned to lines, from none (0) to 6 (1).

    >>> ring = torch.zeros(1, 28, 28, dtype=torch.uint8)
    >>> ring[0, 6:22, 6:22], ring[0, 10:18, 10:18] = 255, 0
    >>> found = dict(zip(ATTRIBUTES, drawing_attributes(ring)[0].tolist()))
    >>> found["with a hole"], found["with two holes"], found["wide"], found["ends"]
    (1.0, 0.0, 0.5, 0.0)
    """
    ink = images > GREY
    parts = _components(ink.numpy(), corners=True)
    holes = _components(F.pad(~ink, (1, 1, 1, 1), value=True).numpy(), corners=False) - 1
    box, high, wide = _box(ink)
    mirrored = [box.flip(2), box.flip(1), box.flip(1, 2)]
    same = [torch.minimum(box, m).sum((1, 2)) / torch.maximum(box, m).sum((1, 2)).clamp_min(1e-6) for m in mirrored]
    zones = F.avg_pool2d(box.unsqueeze(1), SIDE // 3).flatten(1)
    across, rising = _strokes(ink)
    ends, forks = _points(thinned(ink))
    columns = [wide / (wide + high).clamp_min(1), box.mean((1, 2))]
    columns += [torch.from_numpy(parts >= least).float() for least in (2, 3)]
    columns += [torch.from_numpy(holes >= least).float() for least in (1, 2)]
    rest = [across, rising, ends.clamp_max(MOST) / MOST, forks.clamp_max(MOST) / MOST]
    return torch.cat([torch.stack([*columns, *same], 1), zones, torch.stack(rest, 1)], 1)


def _components(pictures: np.ndarray, corners: bool) -> np.ndarray:
    """How many connected components of SPECK pixels or more each picture (n, h, w) has."""
    plane = ndimage.generate_binary_structure(2, 2 if corners else 1)
    joined = np.stack([np.zeros_like(plane), plane, np.zeros_like(plane)])  # pictures never touch each other
    found, count = ndimage.label(pictures, joined)  # type: ignore[misc]
    label = np.asarray(found, dtype=np.int64)
    size = np.bincount(label.ravel(), minlength=count + 1)
    picture = np.zeros(count + 1, dtype=np.int64)
    picture[label.ravel()] = np.repeat(np.arange(len(pictures)), pictures[0].size)
    large = (np.arange(count + 1) > 0) & (size >= SPECK)
    return np.bincount(picture[large], minlength=len(pictures))


def _box(ink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ink's box stretched to (n, SIDE, SIDE), and its height and width in pixels, at least 1."""
    ends = []
    for axis in (2, 1):
        some = ink.any(axis)
        first = some.float().argmax(1)
        ends.append((first, some.shape[1] - 1 - some.flip(1).float().argmax(1)))
    (top, bottom), (left, right) = ends
    step = (torch.arange(SIDE) + 0.5) / SIDE
    size = ink.shape[1], ink.shape[2]
    place = [
        (first.unsqueeze(1) + step * (last - first + 1).unsqueeze(1)) / side * 2 - 1
        for (first, last), side in zip(ends, size, strict=True)
    ]
    shape = len(ink), SIDE, SIDE
    grid = torch.stack([place[1].unsqueeze(1).expand(shape), place[0].unsqueeze(2).expand(shape)], -1)
    box = F.grid_sample(ink.float().unsqueeze(1), grid, mode="nearest", align_corners=False).squeeze(1)
    return box, (bottom - top + 1).float(), (right - left + 1).float()


def _strokes(ink: Tensor) -> tuple[Tensor, Tensor]:
    """Which way the edges of the ink run: across, and rising."""
    smooth = F.avg_pool2d(F.pad(ink.float().unsqueeze(1), (2, 2, 2, 2)), 3, 1).squeeze(1)
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    energy = (across.square() + down.square()).sum((1, 2)).clamp_min(1e-6)
    return down.square().sum((1, 2)) / energy, 0.5 + (across * down).sum((1, 2)) / energy


def thinned(ink: Tensor) -> Tensor:
    """Ink (n, h, w) worn down to lines one pixel wide, connected as before; small blots are lost (Zhang and
    Suen, CACM 1984)."""
    lines, before = ink.clone(), None
    while before is None or not torch.equal(lines, before):
        before = lines.clone()
        for first in (True, False):
            around = _around(lines)
            north, east, south, west = (around[i] for i in (0, 2, 4, 6))
            many = _count(around)
            keep = (north & east & south, east & south & west)
            if not first:
                keep = (north & east & west, north & south & west)
            lines = lines & ~((many >= 2) & (many <= 6) & (_turns(around) == 1) & ~keep[0] & ~keep[1])
    return lines


def _around(lines: Tensor) -> Tensor:
    """The eight neighbours of every pixel, (8, n, h, w), from the north clockwise."""
    h, w = lines.shape[1:]
    wider = F.pad(lines, (1, 1, 1, 1))
    steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    return torch.stack([wider[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in steps])


def _turns(around: Tensor) -> Tensor:
    """How often ink begins on the way round a pixel."""
    return _count(~around & around.roll(-1, 0))


def _count(around: Tensor) -> Tensor:
    """How many of the eight hold, as bytes: ten times as fast as the sum of booleans."""
    return around.view(torch.uint8).sum(0, dtype=torch.uint8)


def _points(lines: Tensor) -> tuple[Tensor, Tensor]:
    """How many ends, and how many forks, the lines of each drawing have; neighbouring pixels of a fork are one."""
    turns = _turns(_around(lines))
    ends = (lines & (turns == 1)).sum((1, 2)).float()
    forks = lines & (turns >= 3)
    apart = forks & ~(_around(forks)[[0, 6, 7, 1]].any(0))
    return ends, apart.sum((1, 2)).float()
