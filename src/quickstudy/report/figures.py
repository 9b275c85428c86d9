"""The figures of a report; each is to be called, and rendered, inside `drawing.style()`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quickstudy.calibration import Reliability
from quickstudy.curves import Curve
from quickstudy.report.drawing import COLOURS, INK, axes, figure
from quickstudy.scores import PERCENT
from quickstudy.tables import heading

MOST_POINTS = 300


def training_figure(log: Sequence[Mapping[str, Any]], measure: str) -> Figure | None:
    """Loss and scores over the outer steps; None if the log holds neither.

    A row is {step, and any of: loss, score, valid...}; a key that is not a number is passed over.
    """
    series = {name: _series(log, name) for name in ("loss", "score", "valid_loss", "valid_score", "valid")}
    loss = {k: v for k, v in series.items() if k.endswith("loss") and len(v[0])}
    score = {k: v for k, v in series.items() if not k.endswith("loss") and len(v[0])}
    panels = [(name, lines) for name, lines in (("loss", loss), ("score", score)) if lines]
    if not panels:
        return None
    drawn = figure(4.6, 1.9 * len(panels))
    first: Axes | None = None
    for index, (name, lines) in enumerate(panels):
        last = index == len(panels) - 1
        label = measure if name == "score" else name
        plot = axes(drawn, "outer step" if last else "", label, len(panels), 1, index + 1)
        if first is None:
            first = plot
        plot.sharex(first)
        if not last:
            plot.tick_params(labelbottom=False)
        for key, (steps, values) in lines.items():
            valid = key.startswith("valid")
            colour, said = (COLOURS[1], "validation") if valid else (COLOURS[0], "training")
            marker = "o" if valid and len(steps) < 40 else None
            plot.plot(steps, values, color=colour, label=said, linewidth=1.4, marker=marker, markersize=3)
        if len(lines) > 1:
            plot.legend(fontsize=8)
    return drawn


def _series(log: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one key, averaged over neighbours down to at most `MOST_POINTS`."""
    rows = [(r["step"], r[name]) for r in log if _is_number(r.get("step")) and _is_number(r.get(name))]
    steps, values = np.array(rows, dtype=float).reshape(-1, 2).T
    size = math.ceil(len(steps) / MOST_POINTS) or 1
    if size == 1:
        return steps, values
    cuts = range(0, len(steps), size)
    lengths = np.diff([*cuts, len(steps)])
    ends = np.array(cuts) + lengths - 1
    return steps[ends], np.add.reduceat(values, cuts) / lengths


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shot_figure(curves: Mapping[str, Curve]) -> Figure:
    """The headline measure against the number of support rows, a line a learner with its interval."""
    first = next(iter(curves.values()))
    name = "examples of each class" if first.measure in PERCENT else "examples"
    drawn = figure(4.6, 3.0)
    plot = axes(drawn, name, heading(first.measure))
    for index, (label, curve) in enumerate(curves.items()):
        _line(plot, curve, label, COLOURS[index % len(COLOURS)])
    shots = sorted({shot for curve in curves.values() for shot in curve.at})
    plot.set_xscale("log")
    plot.set_xticks(shots, [str(shot) for shot in shots])
    plot.minorticks_off()
    drawn.legend(loc="outside upper center", ncols=2, fontsize=8)
    return drawn


def adaptation_figure(curve: Curve) -> Figure:
    """The headline measure against the number of inner steps, with its interval."""
    drawn = figure(4.6, 2.6)
    plot = axes(drawn, "inner steps", heading(curve.measure))
    _line(plot, curve, curve.learner, COLOURS[0])
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn


def _line(plot: Axes, curve: Curve, label: str, colour: str) -> None:
    scale = 100.0 if curve.measure in PERCENT else 1.0
    mean = scale * np.array(curve.means)
    half = scale * np.nan_to_num(np.array(curve.intervals), posinf=0.0)
    plot.fill_between(curve.at, mean - half, mean + half, color=colour, alpha=0.22, linewidth=0)
    plot.plot(curve.at, mean, color=colour, marker="o", markersize=4, linewidth=1.6, label=label)


def reliability_figure(bins: Reliability) -> Figure:
    """How often an answer was right against how sure it was; a dot's area is the share of answers."""
    drawn = figure(3.4, 3.2)
    plot = axes(drawn, "how sure it was", "how often it was right")
    weight = np.array(bins.weight)
    real = weight > 0
    plot.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    sure, right = np.array(bins.confidence)[real], np.array(bins.accuracy)[real]
    plot.plot(sure, right, color=COLOURS[0], linewidth=1)
    plot.scatter(sure, right, s=8 + 220 * weight[real] / weight.sum(), color=COLOURS[0], alpha=0.8, zorder=3)
    plot.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    return drawn
