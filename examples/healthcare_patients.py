"""A new patient from 5, 10 and 20 of his readings: how ill he will be, or what his glucose will do.

The tasks, the choice of settings on the valid patients and the intervals over patients are those of
benchmarks/patients.py; here on more tasks, with mixed-effects regression among the plain methods.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from healthcare_rows import benchmark, kept

METHODS = ("mean", "last", "mixed", "ridge", "pooled", "dkt", "anp", "alpaca", "r2d2")


def patients(data: Path, out: Path, short: bool = False) -> dict[str, Any]:
    """The mean squared error of all methods on both data sets, over patients that were never seen."""
    os.environ["QUICKSTUDY_TEST_DATA"] = str(data)  # where benchmarks/ look
    script = benchmark("patients")
    seconds, tasks = (0.05, 20) if short else (5.0, 600)
    names = ("mean", "mixed", "r2d2") if short else METHODS
    found: dict[str, Any] = {}
    for of in script.ABOUT:
        entries = {
            name: kept(out, f"{of}-{name}-{seconds:g}-{tasks}", partial(script.entry, name, of, seconds, tasks, 0))
            for name in names
        }
        trained_on = len(script.source_of(of, 10.0).task_names("train"))
        found[of] = {**script.summary(entries), "train_patients": trained_on}
    return {"seconds": seconds, "tasks": tasks, "data": found, "titles": script.TITLES, "about": script.ABOUT}
