"""What `quickstudy predict --coverage` adds: calibrated probabilities, sets, and no label in doubt."""

from __future__ import annotations

import warnings
from pathlib import Path

from jsonargparse import Namespace
from torch import Tensor

from quickstudy.adaptation import AdaptedTask
from quickstudy.core.errors import UserError
from quickstudy.questions.trust import UNKNOWN, Trust, intervals, place_for, probabilities, sets, unlike

LEVEL = 0.9
"""The coverage where only --trust is given."""


def asked_for(options: Namespace) -> bool:
    """Whether sets were asked for."""
    return options.coverage is not None or options.trust is not None


def believed(
    options: Namespace, task: AdaptedTask, x: Tensor, rows: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """The heads and cells of the columns to add to predictions for rows x.

    Of classes, the probabilities in `rows` become calibrated ones and the label "?" where the set holds several.
    Raises UserError if there is no calibration of this learner.
    """
    learner = options.checkpoint or (task.card.get("checkpoint") or {}).get("path") or "learner"
    place = options.trust or place_for(learner)
    if not options.trust and not Path(place).is_file():
        raise UserError(f"there is no {place}: make it with `quickstudy calibrate`, or say where it is with --trust.")
    trust = Trust.read(place)
    level = LEVEL if options.coverage is None else options.coverage
    said = unlike(task, trust)
    if said:
        warnings.warn(said, stacklevel=2)
    percent = f"{100 * level:.4g} %"
    if not task.classes:
        low, high = intervals(task, x, trust, level)
        ends = [("" if low.shape[1] == 1 else f" {j}") for j in range(low.shape[1])]
        heads = [f"{end}{j} ({percent})" for j in ends for end in ("low", "high")]
        both = zip(low.tolist(), high.tolist(), strict=True)
        return heads, [[f"{v:.6g}" for pair in zip(*ends, strict=True) for v in pair] for ends in both]
    kept = sets(task, x, trust, level)
    for row, odds, one in zip(rows, probabilities(task, x, trust).tolist(), kept, strict=True):
        row[2:] = [f"{p:.4f}" for p in odds]
        row[1] = row[1] if len(one) == 1 else UNKNOWN
    return [f"set ({percent})"], [[" or ".join(one)] for one in kept]
