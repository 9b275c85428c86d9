"""The picture of a learning curve with its forecast."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from quickstudy.questions.forecast import Forecast
from quickstudy.questions.shots import ShotScores
from quickstudy.report.drawing import COLOURS, INK, axes, figure
from quickstudy.scores import PERCENT
from quickstudy.tables import heading


def forecast_figure(scores: ShotScores, found: Forecast, most: int, target: float | None = None) -> Figure:
    """What was measured, with its 95 % intervals, over the forecast up to `most` examples with its 90 % interval; a
    line at the target. To be called inside `drawing.style()`."""
    scale = 100.0 if scores.measure in PERCENT else 1.0
    drawn = figure(4.6, 3.0)
    named = "examples of each class" if scores.each == "class" else "examples"
    plot = axes(drawn, named, heading(scores.measure))
    at = np.unique(np.geomspace(1, max(most, scores.shots[-1]), 60))
    middle, low, high = (scale * (1 - part if scores.sign > 0 else part) for part in found.interval(at))
    plot.fill_between(at, low, high, color=COLOURS[0], alpha=0.22, linewidth=0)
    plot.plot(at, middle, color=COLOURS[0], linewidth=1.4, label="forecast, 90 % interval")
    means, halves = (scale * np.asarray(part) for part in (scores.means(), scores.intervals()))
    plot.errorbar(
        scores.shots, means, np.nan_to_num(halves, posinf=0.0), fmt="o", color=COLOURS[1], markersize=4,
        label="measured, 95 % interval",
    )  # fmt: skip
    if target is not None:
        plot.axhline(scale * target, color=INK, linestyle="--", linewidth=1, label="target")
    plot.set_xscale("log")
    if scores.sign < 0:
        plot.set_yscale("log")
    drawn.legend(loc="outside upper center", ncols=2, fontsize=8)
    return drawn
