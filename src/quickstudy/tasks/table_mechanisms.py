"""How the tables of the prior come about: families of mechanisms that give columns and classes, many tables at once.

Every function takes the number of tables `m`, of rows `n`, of columns `f`, the number of classes of each table
`ways` (m,), and the generator that all its random numbers come from; it gives x (m, n, f) and y (m, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Mechanism: TypeAlias = Callable[[int, int, int, Tensor, torch.Generator], tuple[Tensor, Tensor]]
SCORES = 10
"""Scores that a mechanism gives each row, and so the most classes of a table."""
HIDDEN, LAYERS = 16, 3
TREES, LEVELS = 6, 3
ROOTS = 6
CLUSTERS = 3


def normal(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=rng, device=rng.device)


def between(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Numbers uniform between low and high."""
    return torch.rand(shape, generator=rng, device=rng.device) * (high - low) + low


def scale(low: float, high: float, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Positive numbers whose logarithm is uniform between those of low and high."""
    return between(math.log(low), math.log(high), shape, rng).exp()


def chance(share: float | Tensor, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """True with that probability."""
    return torch.rand(shape, generator=rng, device=rng.device) < share


def standard(x: Tensor) -> Tensor:
    """x (m, n, f) with mean 0 and deviation 1 over the rows of each table; constant columns become 0."""
    x = x - x.mean(1, keepdim=True)
    return x / x.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)


def shares(x: Tensor) -> Tensor:
    """The place of every value within its column, in (0, 1)."""
    return (x.argsort(1).argsort(1) + 0.5) / x.shape[1]


def proportions(ways: Tensor, rng: torch.Generator) -> Tensor:
    """How frequent the classes of each table are, (m, SCORES): from alike to very unlike; 0 from `ways` on."""
    m = len(ways)
    spread = between(0.0, 1.2, (m, 1), rng)
    raw = (spread * normal((m, SCORES), rng)).exp() * (torch.arange(SCORES, device=ways.device) < ways.unsqueeze(1))
    return raw / raw.sum(1, keepdim=True)


def classes(scores: Tensor, ways: Tensor, rng: torch.Generator) -> Tensor:
    """Classes (m, n) from scores (m, n, SCORES).

    With noise, in half of the tables the classes are ranges of the first score, else the largest of `ways` scores
    says the class.
    """
    m, n, _ = scores.shape
    scores = standard(scores)
    scores = standard(scores + scale(0.02, 1.0, (m, 1, 1), rng) * normal((m, n, SCORES), rng))
    edges = proportions(ways, rng).cumsum(1)[:, :-1]
    place = shares(scores[..., :1])
    ranges = (place > edges.unsqueeze(1)).sum(-1)
    possible = torch.arange(SCORES, device=ways.device) < ways.unsqueeze(1)
    offset = between(0.0, 0.7, (m, 1), rng) * normal((m, SCORES), rng)
    largest = (scores + offset.unsqueeze(1)).masked_fill(~possible.unsqueeze(1), -torch.inf).argmax(-1)
    return torch.where(chance(0.5, (m, 1), rng), ranges, largest)


def inputs(m: int, n: int, f: int, rng: torch.Generator) -> Tensor:
    """Columns that lean on common causes and clusters, with marginals of several shapes."""
    common = between(-0.4, 1.0, (m, 1, 1), rng).clamp_min(0)
    factors = normal((m, n, 3), rng) @ normal((m, 3, f), rng) / math.sqrt(3)
    x = (1 - common).sqrt() * normal((m, n, f), rng) + common.sqrt() * factors
    member = torch.randint(4, (m, n, 1), generator=rng, device=rng.device).expand(-1, -1, f)
    centres = scale(0.5, 2.5, (m, 1, 1), rng) * normal((m, 4, f), rng)
    x = standard(torch.where(chance(0.25, (m, 1, 1), rng), x + centres.gather(1, member), x))
    shape = torch.rand((m, 1, f), generator=rng, device=rng.device)
    plain = between(0.3, 1.0, (m, 1, 1), rng)
    for above, form in (
        (0.75, torch.erf(x / math.sqrt(2))),
        (0.5, x * (0.5 * x.abs()).exp()),
        (0.25, x + 2 * x.sign()),
        (0.0, x.clamp(-4, 4).exp()),
    ):
        x = torch.where((shape - plain) / (1 - plain).clamp_min(1e-6) > above, form, x)
        shape = torch.where((shape - plain) / (1 - plain).clamp_min(1e-6) > above, 0.0, shape)
    return standard(x).clamp(-6, 6)


def relevant(m: int, f: int, rng: torch.Generator) -> Tensor:
    """How much each column matters, (m, f, 1): 0 for many, and always something."""
    ticket = torch.rand((m, f, 1), generator=rng, device=rng.device)
    share = between(0.15, 1.2, (m, 1, 1), rng)
    matters = (ticket < share) | (ticket == ticket.amin(1, keepdim=True))
    size = (between(0.0, 1.0, (m, 1, 1), rng) * normal((m, f, 1), rng)).exp() * matters
    return size / size.square().sum(1, keepdim=True).sqrt()


def activated(h: Tensor, rng: torch.Generator) -> Tensor:
    """h (m, n, width) through one of six functions, another for every column of every table, or one for all."""
    m, _, width = h.shape
    kind = torch.randint(6, (m, 1, width), generator=rng, device=rng.device)
    kind = torch.where(chance(0.5, (m, 1, 1), rng), kind[..., :1], kind)
    out = h.tanh()
    for number, form in enumerate((h, h.relu(), h.sin(), h.abs(), (-h.square()).exp()), start=1):
        out = torch.where(kind == number, form, out)
    return out


def linear(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores that are linear in the columns."""
    x = inputs(m, n, f, rng)
    return x, classes(x @ (relevant(m, f, rng) * normal((m, f, SCORES), rng)), ways, rng)


def network(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores by a random network of one to three layers."""
    x = inputs(m, n, f, rng)
    depth = torch.randint(1, LAYERS + 1, (m, 1, 1), generator=rng, device=rng.device)
    h = x @ (relevant(m, f, rng) * normal((m, f, HIDDEN), rng)) * scale(0.5, 3.0, (m, 1, 1), rng)
    h = activated(h + between(0.0, 1.0, (m, 1, 1), rng) * normal((m, 1, HIDDEN), rng), rng)
    for layer in range(1, LAYERS):
        weights = normal((m, HIDDEN, HIDDEN), rng) * chance(0.6, (m, HIDDEN, HIDDEN), rng)
        deeper = activated(standard(h) @ weights * scale(0.5, 2.0, (m, 1, 1), rng) / math.sqrt(HIDDEN), rng)
        h = torch.where(depth > layer, deeper, h)
    return x, classes(h @ normal((m, HIDDEN, SCORES), rng), ways, rng)


def trees(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scores by sums of random trees, of one question a level."""
    x = inputs(m, n, f, rng)
    asked = TREES * LEVELS
    column = torch.multinomial(relevant(m, f, rng).squeeze(-1), asked, replacement=True, generator=rng)
    values = x.gather(2, column.unsqueeze(1).expand(-1, n, -1))
    row = torch.randint(n, (m, 1, asked), generator=rng, device=rng.device)
    bits = (values > values.gather(1, row)).view(m, n, TREES, LEVELS)
    depth = torch.randint(1, LEVELS + 1, (m, 1, 1, 1), generator=rng, device=rng.device)
    level = torch.arange(LEVELS, device=rng.device)
    leaf = (bits * (level < depth) * 2**level).sum(-1)
    share = (between(0.3, 2.0, (m, 1, 1, 1), rng) * normal((m, TREES, 1, 1), rng)).exp()
    values = (share * normal((m, TREES, 2**LEVELS, SCORES), rng)).flatten(1, 2)
    place = (leaf + 2**LEVELS * torch.arange(TREES, device=rng.device)).flatten(1)
    drawn = values.gather(1, place.unsqueeze(-1).expand(-1, -1, SCORES))
    return x, classes(drawn.view(m, n, TREES, SCORES).sum(2), ways, rng)


def waves(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Smooth scores: sums of cosines, a draw near a Gaussian process."""
    x, terms = inputs(m, n, f, rng), 2 * HIDDEN
    at = x @ (relevant(m, f, rng) * normal((m, f, terms), rng)) * scale(0.4, 2.0, (m, 1, 1), rng)
    h = (at + between(0.0, 2 * math.pi, (m, 1, terms), rng)).cos()
    return x, classes(h @ normal((m, terms, SCORES), rng), ways, rng)


def causal(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Structural causal models: columns and scores are nodes of one random graph, causes and effects of each other."""
    width = max(2 * HIDDEN, f)
    h = inputs(m, n, ROOTS, rng) * chance(between(0.2, 1.0, (m, 1, 1), rng), (m, 1, ROOTS), rng)
    nodes = [h]
    noise = scale(0.03, 0.6, (m, 1, 1), rng)
    kept = between(0.1, 0.8, (m, 1, 1), rng)
    for _ in range(2):
        size = h.shape[2]
        weights = normal((m, size, width), rng) * chance(kept, (m, size, width), rng)
        fed = (size * kept).sqrt()
        h = activated(h @ weights / fed * scale(0.5, 2.0, (m, 1, 1), rng), rng)
        h = standard(h) + noise * scale(0.3, 2.0, (m, 1, width), rng) * normal((m, n, width), rng)
        nodes.append(h)
    everything = torch.cat(nodes, -1)
    ticket = torch.rand((m, everything.shape[2]), generator=rng, device=rng.device)
    chosen = ticket.argsort(1)[:, : f + SCORES].unsqueeze(1).expand(-1, n, -1)
    drawn = everything.gather(2, chosen)
    return standard(drawn[..., :f]).clamp(-6, 6), classes(drawn[..., f:], ways, rng)


def mixture(m: int, n: int, f: int, ways: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The class first: each class is one to three Gaussian clusters in the columns that matter."""
    y = torch.multinomial(proportions(ways, rng), n, replacement=True, generator=rng)
    several = torch.randint(1, CLUSTERS + 1, (m, 1), generator=rng, device=rng.device)
    member = (between(0.0, 1.0, (m, n), rng) * several).long() + CLUSTERS * y
    apart = scale(0.7, 6.0, (m, 1, 1), rng) / math.sqrt(2)
    centres = apart * relevant(m, f, rng).transpose(1, 2) * normal((m, SCORES * CLUSTERS, f), rng)
    common = between(-0.6, 0.9, (m, 1, 1), rng).clamp_min(0)
    noise = (1 - common).sqrt() * normal((m, n, f), rng)
    noise = noise + common.sqrt() * (normal((m, n, 2), rng) @ normal((m, 2, f), rng)) / math.sqrt(2)
    widths = (between(-0.5, 0.7, (m, 1, 1), rng).clamp_min(0) * normal((m, SCORES, f), rng)).exp()
    noise = noise * widths.gather(1, y.unsqueeze(-1).expand(-1, -1, f))
    return noise + centres.gather(1, member.unsqueeze(-1).expand(-1, -1, f)), y


MECHANISMS: tuple[tuple[Mechanism, float], ...] = (
    (linear, 0.22),
    (network, 0.18),
    (trees, 0.12),
    (waves, 0.06),
    (causal, 0.28),
    (mixture, 0.14),
)
"""Every family, and how often it is drawn."""
