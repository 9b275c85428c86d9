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
DASHES = ("-", "--", ":")


def training_figure(logs: Mapping[str, Sequence[Mapping[str, Any]]], measure: str) -> Figure | None:
    """Loss and scores over the outer steps, of each run; None if no log holds either.

    A row is {step, and any of: loss, score, valid...}; a key that is not a number is passed over.
    """
    panels: dict[str, list[tuple[str, str, np.ndarray, np.ndarray]]] = {"loss": [], "score": []}
    for run, log in logs.items():
        for key in ("loss", "score", "valid_loss", "valid_score", "valid"):
            steps, values = _series(log, key)
            if len(steps):
                values = 100 * values if measure in PERCENT and not key.endswith("loss") else values
                panels["loss" if key.endswith("loss") else "score"].append((run, key, steps, values))
    panels = {name: lines for name, lines in panels.items() if lines}
    if not panels:
        return None
    runs = list(logs)
    drawn = figure(4.6, 1.9 * len(panels) + 0.25 * (len(runs) > 1))
    first: Axes | None = None
    for index, (name, lines) in enumerate(panels.items()):
        last = index == len(panels) - 1
        label = heading(measure) if name == "score" else name
        plot = axes(drawn, "outer step" if last else "", label, len(panels), 1, index + 1)
        if first is None:
            first = plot
        plot.sharex(first)
        if not last:
            plot.tick_params(labelbottom=False)
        for run, key, steps, values in lines:
            valid = key.startswith("valid")
            said = "validation" if valid else "training"
            colour = COLOURS[valid] if len(runs) == 1 else COLOURS[runs.index(run) % len(COLOURS)]
            marker = "o" if (valid and len(steps) < 40) or len(steps) == 1 else None
            label = said if len(runs) == 1 else f"{run}, {said}"
            plot.plot(steps, values, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)
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


def shot_figure(curves: Mapping[str, Curve], axis: str | None = None) -> Figure:
    """The headline measure against the number of support rows, a line a learner with its interval.

    axis: what is counted, where it is not what the measure is usually counted by.
    """
    first = next(iter(curves.values()))
    name = axis or ("examples of each class" if first.measure in PERCENT else "examples")
    drawn = figure(4.6, 3.0 + 0.16 * max(0, len(curves) - 4))
    plot = axes(drawn, name, heading(first.measure))
    for index, (label, curve) in enumerate(curves.items()):
        _line(plot, curve, label, COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)])
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


def _line(plot: Axes, curve: Curve, label: str, colour: str, dash: str = "-") -> None:
    scale = 100.0 if curve.measure in PERCENT else 1.0
    mean = scale * np.array(curve.means)
    half = scale * np.nan_to_num(np.array(curve.intervals), posinf=0.0)
    plot.fill_between(curve.at, mean - half, mean + half, color=colour, alpha=0.22, linewidth=0)
    plot.plot(curve.at, mean, color=colour, marker="o", markersize=4, linewidth=1.6, linestyle=dash, label=label)


def reliability_figure(bins: Mapping[str, Reliability]) -> Figure:
    """How often an answer was right against how sure it was; a dot's area is the share of a learner's answers."""
    points = {}
    for name, one in bins.items():
        weight = np.array(one.weight)
        real = weight > 0
        sizes = 8 + 220 * weight[real] / weight.sum()
        points[name] = np.array(one.confidence)[real], np.array(one.accuracy)[real], sizes
    return _believed(points, "how sure it was", "how often it was right")


def coverage_figure(shares: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """How often values lay in intervals against what those should hold; of each learner (stated, found)."""
    points = {name: (np.array(a), np.array(b), np.full(len(a), 20.0)) for name, (a, b) in shares.items()}
    return _believed(points, "what the interval should hold", "what it held")


def _believed(points: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], x: str, y: str) -> Figure:
    drawn = figure(3.4, 3.2 + 0.2 * (len(points) > 1) * len(points))
    plot = axes(drawn, x, y)
    plot.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    for index, (name, (across, up, sizes)) in enumerate(points.items()):
        colour = COLOURS[index % len(COLOURS)]
        plot.plot(across, up, color=colour, linewidth=1, label=name)
        plot.scatter(across, up, s=sizes, color=colour, alpha=0.8, zorder=3)
    plot.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    if len(points) > 1:
        drawn.legend(loc="outside upper center", fontsize=8)
    return drawn
