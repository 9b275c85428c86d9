"""How far a mean over tasks may be from that over all there could be, when tasks share classes.

Many tasks drawn from few classes say much about these classes and little about others: the interval over tasks is
then too narrow. Where a source can say what its tasks were drawn from, the unit is the class (or its group, as the
alphabet of a character), else the task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from quickstudy.core.errors import UserError
from quickstudy.core.source import Source, Split
from quickstudy.evaluate import BLOCK
from quickstudy.tasks.pool import ClassSource

FEWEST = 6
"""Units below which a spread over them says nothing."""


@dataclass(frozen=True)
class Units:
    """What tasks were drawn from: the unit of an interval.

    name: "task", "class" or "group"; members: (task, unit), whether a unit is in a task; None where each task is a
    unit of its own. note: what the interval leaves out, "" for nothing.
    """

    name: str
    members: np.ndarray | None = None
    note: str = ""

    @property
    def count(self) -> int | None:
        """How many units were met; None where each task is one."""
        return None if self.members is None else int(self.members.any(0).sum())


def units_of(source: Source, split: Split, tasks: int, seed: int) -> Units:
    """The units of the tasks that `evaluate` meets with the same split, tasks and seed.

    Classes with groups (alphabets) are counted by group, since those of one group resemble each other. Too few units
    to judge by, or a source that does not say what its tasks share, leave each task a unit of its own, with a note.
    """
    if not isinstance(source, ClassSource):
        return Units("task", note="")
    pool = source.prepare()
    classes = pool.splits[split]
    name, label = "class", np.arange(len(classes))
    if pool.groups is not None and len(classes):
        groups = np.unique(pool.groups[classes].cpu().numpy(), return_inverse=True)[1]
        if groups.max() + 1 >= FEWEST:
            name, label = "group", groups
    members = np.zeros((tasks, int(label.max(initial=0)) + 1), bool)
    for start in range(0, tasks, BLOCK):
        rng = source.rng(seed, split, "evaluate", start // BLOCK)
        drawn = source.draw(split, min(BLOCK, tasks - start), rng)
        for task, (numbers, way) in enumerate(zip(drawn.classes.tolist(), drawn.way.tolist(), strict=True), start):
            # numbers beyond the split's own are training classes standing among them (generalised zero-shot)
            members[task, [label[c] for c in numbers[:way] if c < len(label)]] = True
    members = members[:, members.any(0)]
    shares = members.sum(0)
    if members.shape[1] < FEWEST or bool((shares == tasks).any()):
        plural = {"class": "classes", "group": "groups"}[name]
        note = f"its {split} tasks come from {members.shape[1]} {plural} alone: what holds for others is not said"
        return Units("task", note=note)
    return Units(name, members)


def unit_interval(values: Sequence[float] | np.ndarray, units: Units) -> float:
    """Half the width of the 95 % interval of the mean of one value a task, the units being what is drawn at random.

    The mean over tasks of several classes each is a U-statistic of the classes. Its variance by the jackknife
    (Arvesen 1969), with m_c the mean over the n - n_c tasks without unit c, of C units:

        V = (C - 1) / C sum_c (m_c - m)^2  -  s^2 / n ((C - 1) / C sum_c n_c / (n - n_c)  -  1)

    The second term takes out what the tasks' own noise (s^2 / n in truth) adds to the first; V is never below s^2 / n.
    half = t_{0.975, C-1} sqrt(V). Infinite for fewer than two tasks.

    >>> round(unit_interval([1.0, 2.0, 3.0], Units("task")), 3)
    2.484
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return math.inf
    own = float(np.var(values, ddof=1)) / n
    if units.members is None:
        return float(stdtrit(n - 1, 0.975) * math.sqrt(own))
    members = units.members
    if len(members) != n:
        raise UserError(f"there are {n} values and the units are of {len(members)} tasks: give a value for each task.")
    count, inside = members.shape[1], members.sum(0)
    without = (values.sum() - members.T.astype(float) @ values) / (n - inside)
    jackknife = (count - 1) / count * float(np.square(without - values.mean()).sum())
    noise = own * ((count - 1) / count * float((inside / (n - inside)).sum()) - 1)
    return float(stdtrit(count - 1, 0.975) * math.sqrt(max(jackknife - noise, own)))
