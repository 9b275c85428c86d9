"""Unseen patients from 5, 10 and 20 readings: the severity of Parkinson's disease from voice, and glucose.

    python benchmarks/patients.py                       # both, about 12 minutes of processor time
    python benchmarks/patients.py --seconds 1 --tasks 40 --learners cnp r2d2 --name patients_short

Parkinson: 42 patients (Tsanas and others 2009, IEEE TBME 57(4)), motor_UPDRS from the time, age, sex and 16 measures of
voice; glucose: 57 people with a sensor (Hall and others 2018, PLoS Biology 16(7)), the next hour from the readings
before. Patients are held out whole; what is learnt from comes before what is asked. One training for all three counts.
Mixed-effects regression (statsmodels) is among the plain methods.
Settings (how far the scale of a patient follows the readings) are chosen on the valid patients, and so is the plain
baseline that all are compared with. Patients are the unit: tasks of one patient are averaged first.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixed_effects import Answer, fitted, rows_of
from results import FOLDER, data_folder, machine, write

from quickstudy.core.errors import UserError
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Split
from quickstudy.evaluate import BLOCK, draw_block, evaluate
from quickstudy.learners import make
from quickstudy.scores import interval
from quickstudy.tasks.grouped import GroupedSource
from quickstudy.tasks.series import Series
from quickstudy.tasks.table import Table
from quickstudy.train import train

SHOTS = (5, 10, 20)
SIMPLE = ("mean", "last", "mixed")
PLAIN = (*SIMPLE, "ridge", "scratch", "pooled")
"""What one would do without learning across patients, or without adapting."""
LEARNERS = ("ridge", "scratch", "pooled", "cnp", "anp", "tnp", "anil", "maml", "alpaca", "dkt", "r2d2")
TITLES = {
    "mean": "mean of the patient's readings", "last": "the patient's last reading",
    "mixed": "mixed-effects regression",
    "ridge": "ridge regression a patient",
    "scratch": "a network a patient", "pooled": "one network for all patients", "cnp": "CNP", "anp": "ANP",
    "tnp": "TNP-D", "anil": "ANIL", "maml": "MAML", "alpaca": "ALPaCA", "dkt": "DKT", "r2d2": "R2-D2",
}  # fmt: skip
SCALES = (0.3, 2.0, math.inf)
OPTIONS: dict[str, dict[str, Any]] = {"maml": {"inner_lr": 0.05}, "scratch": {"inner_lr": 0.05}}
ABOUT = {
    "parkinson": "Parkinson's disease: motor UPDRS (points) at 20 later recordings",
    "glucose": "Glucose (mg/dL) over the next hour, 12 readings",
}


def source_of(data: str, scale_rows: float) -> GroupedSource:
    """The tasks, with from 5 to 20 readings to learn from."""
    shares: dict[str, Any] = {"valid_fraction": 0.2, "test_fraction": 1 / 3, "scale_rows": scale_rows}
    if data == "parkinson":
        path = data_folder() / "parkinsons_telemonitoring" / "parkinsons_updrs.csv.gz"
        options: dict[str, Any] = {"time_column": "test_time", "ignore": "total_UPDRS", "kind": "regression"}
        return Table(str(path), "subject#", "motor_UPDRS", "5-20", 20, **options, **shares)
    path = data_folder() / "cgm" / "hall2018.csv.gz"
    return Series(str(path), "id", "time", "gl", shot="5-20", query=12, **shares)


def patients(source: GroupedSource, split: Split, tasks: int, seed: int) -> list[str]:
    """Whose each task is that an evaluation meets."""
    found: list[str] = []
    for index in range(math.ceil(tasks / BLOCK)):
        rng = source.rng(seed, split, "evaluate", index)
        found += source.owners(split, min(BLOCK, tasks - index * BLOCK), rng)
    return found


def by_patient(values: list[float], owners: list[str]) -> dict[str, float]:
    """The mean over the tasks of every patient."""
    return {name: float(np.mean([v for v, o in zip(values, owners, strict=True) if o == name])) for name in set(owners)}


def measured(learner: MetaLearner, source: GroupedSource, split: Split, tasks: int, seed: int) -> dict[str, Any]:
    """Every measure at each number of readings, by patient."""
    found: dict[str, Any] = {}
    for shot in SHOTS:
        asked = source.reshaped(shot=shot)
        scores = evaluate(learner, asked, split, tasks, seed)
        owners = patients(asked, split, tasks, seed)
        found[str(shot)] = {name: by_patient(values, owners) for name, values in scores.measures.items()}
    return found


def answered(source: GroupedSource, split: Split, tasks: int, seed: int, answer: Answer) -> dict[str, Any]:
    """Every measure at each number of readings, by patient, of what answers task by task."""
    found: dict[str, Any] = {}
    for shot in SHOTS:
        asked = source.reshaped(shot=shot)
        values: dict[str, list[float]] = {"mse": [], "coverage_90": []}
        for index in range(math.ceil(tasks / BLOCK)):
            for x, y, query, truth in rows_of(draw_block(asked, split, tasks, seed, index)):
                mean, deviation = answer(x, y, query)
                values["mse"].append(float(np.square(truth - mean).mean()))
                if deviation is not None:
                    values["coverage_90"].append(float((np.abs(truth - mean) <= 1.6448536 * deviation).mean()))
        owners = patients(asked, split, tasks, seed)
        found[str(shot)] = {name: by_patient(v, owners) for name, v in values.items() if v}
    return found


def mixed_forms(source: GroupedSource, seed: int) -> dict[str, Answer]:
    """Mixed-effects regression in every form, by what each is called."""
    forms: dict[str, Answer] = {}
    for windows, slope, alone in itertools.product((False, True), repeat=3):
        groups, effects = "windows" if windows else "patients", "intercept and slope" if slope else "intercept"
        called = f"groups: {groups}; fixed: {'time' if alone else 'all columns'}; random: {effects}"
        if not alone or source.spec.x_shape[0] > 1:
            forms[called] = fitted(source, windows, slope, alone, seed)
    return forms


def simple(name: str, data: str, tasks: int, seed: int) -> dict[str, Any]:
    """What is not trained step by step; of mixed-effects regression the form that is best on the valid patients."""
    source = source_of(data, 10.0)
    answers: dict[str, Callable[[], Answer]] = {
        "mean": lambda: lambda x, y, asked: (np.full(len(asked), y.mean()), None),
        "last": lambda: lambda x, y, asked: (np.full(len(asked), y[-1]), None),
    }
    forms = {"": answers[name]()} if name != "mixed" else mixed_forms(source, seed)
    tried = {form: loss(answered(source, "valid", tasks, seed, answer)) for form, answer in forms.items()}
    best = min(tried, key=lambda form: tried[form])
    test = answered(source, "test", tasks, seed, forms[best])
    kept = {} if name != "mixed" else tried
    return {"valid": tried[best], "test": test, "scale_rows": None, "steps": 0, "tried": kept}


def trained(name: str, source: GroupedSource, seconds: float, seed: int) -> tuple[MetaLearner, int]:
    """A learner after so many seconds of processor time, validation not counted, and its steps."""
    torch.manual_seed(seed)
    learner = make(name, source.spec, **OPTIONS.get(name, {}))
    if not learner.trained:
        return learner, 0
    options: dict[str, Any] = {"seed": seed, "progress": False, "clip": 10.0, "meta_batch": 16}
    spent = 0.0
    for probe in (3, 20):  # the first steps also find and load things
        begin = time.process_time()
        train(copy.deepcopy(learner), source, steps=probe, valid_every=0, **options)
        spent = (time.process_time() - begin) / probe
    steps = max(50, int(seconds / spent))
    run = train(learner, source, steps=steps, valid_every=math.ceil(steps / 4), valid_tasks=100, **options)
    return learner, run.steps


def loss(found: dict[str, Any]) -> float:
    """The mean squared error over patients and numbers of readings."""
    return float(np.mean([np.mean(list(at["mse"].values())) for at in found.values()]))


def entry(name: str, data: str, seconds: float, tasks: int, seed: int) -> dict[str, Any]:
    """What a learner comes to in the setting that is best on the valid patients."""
    if name in SIMPLE:
        return simple(name, data, tasks, seed)
    best: dict[str, Any] = {"valid": math.inf}
    tried: dict[str, float] = {}
    for rows in SCALES if name != "pooled" else (math.inf,):
        source = source_of(data, rows)
        try:
            learner, steps = trained(name, source, seconds, seed)
        except UserError:  # training broke off: its loss was no number any more
            tried[str(rows)] = math.inf
            continue
        found = loss(measured(learner, source, "valid", tasks, seed))
        tried[str(rows)] = found
        if found < best["valid"]:
            best = {"valid": found, "scale_rows": str(rows), "steps": steps, "learner": learner, "source": source}
    if "learner" not in best:  # its predictions are not finite, whatever the setting
        return {"valid": None, "tried": {}}
    test = measured(best.pop("learner"), best.pop("source"), "test", tasks, seed)
    return {**best, "test": test, "tried": tried}


def summary(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over patients with their 95 % intervals, and paired differences from the best plain baseline."""
    diverged = [name for name, one in entries.items() if one["valid"] is None]
    entries = {name: one for name, one in entries.items() if name not in diverged}
    plain = min((n for n in PLAIN if n in entries), key=lambda n: entries[n]["valid"])
    rows: dict[str, Any] = {}
    for name, one in entries.items():
        rows[name] = {key: one[key] for key in ("scale_rows", "steps", "valid", "tried")}
        for shot, measures in one["test"].items():
            at = {m: _mean(list(values.values())) for m, values in measures.items()}
            against = entries[plain]["test"][shot]["mse"]
            at["difference"] = _mean([value - against[who] for who, value in measures["mse"].items()])
            rows[name][shot] = at
    names = entries[plain]["test"][str(SHOTS[0])]["mse"]
    return {"plain": plain, "test_patients": len(names), "rows": rows, "diverged": diverged}


def _mean(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "interval": interval(values)}


def section(name: str = "patients") -> str:
    """The figures as Markdown; "" if there are none."""
    from tables import number, percent, read, table

    found = read(name)
    if not found:
        return ""
    parts = ["## Unseen patients", ""]
    for data, one in found["data"].items():
        lines = []
        for key, row in sorted(one["rows"].items(), key=lambda item: item[1][str(SHOTS[1])]["mse"]["mean"]):
            cells = [f"{number(row[str(s)]['mse'], 1)} ({_verdict(row[str(s)]['difference'])})" for s in SHOTS]
            lines.append([TITLES[key], *cells, percent(row[str(SHOTS[1])].get("coverage_90"))])
        header = ["mean squared error from", *(f"{s} readings" for s in SHOTS), "90 % interval covers, %, from 10"]
        said = f"**{ABOUT[data]}.** {one['test_patients']} unseen patients, {one['train_patients']} to train on. "
        gone = ", ".join(TITLES[name] for name in one["diverged"])
        parts += [said + (f"Without finite predictions: {gone}." if gone else ""), "", table(header, lines), ""]
    plain = ", ".join(f"{data}: {TITLES[one['plain']]}" for data, one in found["data"].items())
    parts += [
        f"± is the 95 % interval over patients, the tasks of a patient averaged ({found['tasks']} tasks). In brackets: "
        "whether it is better (+) or worse (-) than the plain baseline that was best on the valid patients "
        f"({plain}), paired by patient; = where the interval does not tell. The motor scores of Parkinson's disease "
        "were interpolated between visits by those who published them, which makes the last reading hard to beat. "
        f"{found['seconds']:g} seconds of processor time a training on {found['hardware']}. "
        "`python benchmarks/patients.py`",
    ]
    return "\n".join(parts)


def _verdict(difference: dict[str, float]) -> str:
    if abs(difference["mean"]) <= difference["interval"]:
        return "="
    return "+" if difference["mean"] < 0 else "-"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0, help="of processor time a training")
    parser.add_argument("--tasks", type=int, default=300, help="test tasks for each number of readings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", default=list(ABOUT), choices=list(ABOUT))
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS))
    parser.add_argument("--name", default="patients", help="of the file of results")
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    figures: dict[str, Any] = {**machine(), "seconds": given.seconds, "tasks": given.tasks, "data": {}}
    begin = time.process_time()
    for data in given.data:
        entries = {}
        for name in (*SIMPLE, *given.learners):
            kept = Path("runs") / given.name / f"{data}-{name}-{given.seconds:g}-{given.tasks}-{given.seed}.json"
            if kept.exists():  # a run that was broken off goes on
                entries[name] = json.loads(kept.read_text())
                continue
            entries[name] = entry(name, data, given.seconds, given.tasks, given.seed)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, json.dumps(entries[name]).encode())
            print(f"{data} {name}: valid {entries[name]['valid']} {entries[name]['tried']}", flush=True)
        trained_on = len(source_of(data, 10.0).task_names("train"))
        figures["data"][data] = {**summary(entries), "train_patients": trained_on}
    figures["processor_seconds"] = round(time.process_time() - begin)
    write(given.name, figures)
    print(f"wrote {FOLDER / given.name}.json after {figures['processor_seconds']} seconds of processor time")


if __name__ == "__main__":
    main()
