"""Whether `quickstudy audit` notices tasks unlike those of training: planted shifts, false alarms, and what they cost.

    python benchmarks/audits.py              # about four minutes on one core
    python benchmarks/audits.py --short      # a trial: few steps and tasks, nothing is written

A shift is planted into support and query of test tasks. The alarm sees the support alone; the true drop in score is
that of the learner on the query. Writes benchmarks/results/audits.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from results import data_folder, machine, write
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from small_learners import RECIPES, trained
from torch import Tensor

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, generator
from quickstudy.evaluate import draw, evaluating, ready
from quickstudy.questions.audit import Auditor
from quickstudy.scores import interval

ALARM = 0.05
Batches = Iterator[qs.Task]


def turned(x: Tensor, degrees: float) -> Tensor:
    """Images (task, n, c, h, w) turned about their middle."""
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    flat = x.flatten(0, 1)
    grid = F.affine_grid(matrix.expand(len(flat), 2, 3), list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, align_corners=False).view(x.shape)


def noisy(x: Tensor) -> Tensor:
    return (x + 0.3 * torch.randn(x.shape, generator=generator(0, "noise", len(x)))).clamp(0, 1)


PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "turned by 45 degrees": lambda x: turned(x, 45),
    "turned by 90 degrees (a class of its own in training)": lambda x: turned(x, 90),
    "noise of 0.3": noisy,
    "inverted": lambda x: 1 - x,
    "half the pixels gone": lambda x: x * (torch.arange(x.shape[-1]) < x.shape[-1] // 2),
}


def changed(source: Source, tasks: int, change: Callable[[Tensor], Tensor]) -> Batches:
    for task in draw(source, "test", tasks, 0):
        yield qs.Task(*(rows._replace(x=change(rows.x)) for rows in task))


def waves(
    tasks: int, shot: int, high: tuple[float, float] = (0.1, 5.0), fast: float = 1.0, line: bool = False
) -> Batches:
    """Sine waves of other amplitudes or frequencies than those of training, or lines."""
    for start in range(0, tasks, 20):
        rng = generator(0, "waves", start, str(high), str(fast), str(line))
        n = min(20, tasks - start)
        a = high[0] + (high[1] - high[0]) * torch.rand(n, 1, 1, generator=rng)
        p = math.pi * torch.rand(n, 1, 1, generator=rng)
        x = 10 * torch.rand(n, 2 * shot, 1, generator=rng) - 5
        y = a * (p - 1.5) * x / 3 if line else a * torch.sin(fast * x - p)
        yield qs.Task(qs.examples(x[:, :shot], y[:, :shot]), qs.examples(x[:, shot:], y[:, shot:]))


def sentences(shot: int, tasks: int, reader_of: Source) -> Batches:
    """Intents of other domains and another assistant (HWU64), encoded as those of CLINC150 are."""
    other = qs.tasks.Intents(str(data_folder() / "intents" / "hwu64.tsv"), way=5, shot=shot, query=5)
    reader = reader_of.reader()
    if hasattr(other, "read_by") and reader is not None:
        other = other.read_by(reader)
    yield from draw(other, "test", tasks, 0)


def blanked(x: Tensor) -> Tensor:
    """Vectors of which every other number is lost."""
    return x * (torch.arange(x.shape[-1]) % 2)


def shifts(name: str, source: Source, tasks: int) -> dict[str, Batches]:
    shot: Any = source.shot  # type: ignore[attr-defined]
    if name.startswith("omniglot"):
        found = {shift: changed(source, tasks, change) for shift, change in PICTURES.items()}
        found["letters of fonts"] = draw(qs.tasks.Glyphs(way=5, shot=shot, query=5), "test", tasks, 0)
        inside = source.reshaped(within_alphabet=True)
        found["one alphabet a task"] = draw(inside, "test", tasks, 0)
        return found
    if name.startswith("sinusoid"):
        return {
            "amplitude 5 to 10": waves(tasks, shot, high=(5.0, 10.0)),
            "amplitude 10 to 20": waves(tasks, shot, high=(10.0, 20.0)),
            "frequency 1.5": waves(tasks, shot, fast=1.5),
            "frequency 3": waves(tasks, shot, fast=3.0),
            "lines": waves(tasks, shot, line=True),
            "drawn afresh, unchanged": waves(tasks, shot),
        }
    return {
        "intents of HWU64": sentences(shot, tasks, source),
        "half the numbers lost": changed(source, tasks, blanked),
    }


def measured(auditor: Auditor, learner: MetaLearner, batches: Batches) -> dict[str, np.ndarray]:
    """The alarm's score and p-value of each task, and the learner's score on its query."""
    scores, p, true, why = [], [], [], []
    for task in batches:
        for verdict in auditor.verdicts(auditor.profile(task.support)):
            scores.append(verdict.score)
            p.append(verdict.p)
            why.append(verdict.why)
        with evaluating(learner, 0):
            out = learner.predict(learner.adapt(task.support), task.query.x, task.query.weight)
            true += learner.objective.score(out, task.query).tolist()
    return {"score": np.array(scores), "p": np.array(p), "true": np.array(true), "why": np.array(why)}


def row(found: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> dict[str, Any]:
    labels = np.r_[np.zeros(len(plain["score"])), np.ones(len(found["score"]))]
    drop = plain["true"].mean() - found["true"]
    names, times = np.unique(found["why"], return_counts=True)
    return {
        "auroc": float(roc_auc_score(labels, np.r_[plain["score"], found["score"]])),
        "alarms": float((found["p"] <= ALARM).mean()),
        "drop": {"mean": float(drop.mean()), "interval": interval(drop.tolist())},
        "why": str(names[times.argmax()]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--known", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    args = parser.parse_args()
    tasks, known, fewer = (40, 60, 50) if args.short else (args.tasks, args.known, 1)
    rows: dict[str, Any] = {}
    for name, shots in {"omniglot protonet": (1, 5), "clinc150 protonet": (5,), "sinusoid maml": (10,)}.items():
        learner, plain_source = trained(name, args.out, fewer)
        for shot in shots:
            source = plain_source.reshaped(shot=shot)
            fitted = ready(learner, source)
            auditor = Auditor(learner, source, known).prepare()
            plain = measured(auditor, fitted, draw(source, "test", tasks, 0))
            every, found = [plain], {"none: test tasks": row(plain, plain)}
            for shift, batches in shifts(name, source, tasks).items():
                every.append(measured(auditor, fitted, batches))
                found[shift] = row(every[-1], plain)
                print(name, shot, shift, found[shift])
            together = [np.concatenate([one[key] for one in every]) for key in ("score", "true")]
            rho = float(spearmanr(together[0], -together[1]).statistic)
            own = float(spearmanr(plain["score"], -plain["true"]).statistic)
            print(name, shot, found["none: test tasks"], "spearman", rho, "without a shift", own)
            rows[f"{name}, {shot} {'points' if name.startswith('sin') else 'shot'}"] = {
                "recipe": RECIPES[name].words(),
                "shifts": found,
                "measure": "mse" if name.startswith("sin") else "accuracy",
                "spearman": rho,
                "spearman_without_shift": own,
            }
    if not args.short:
        write("audits", {"tasks": tasks, "known": known, "alarm": ALARM, "rows": rows, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import number, percent, read, table

    found = read("audits")
    if not found:
        return ""
    cells, said = [], []
    for name, one in found["rows"].items():
        for shift, values in one["shifts"].items():
            drop = percent(values["drop"]) if one["measure"] == "accuracy" else number(values["drop"])
            none = shift.startswith("none")
            cells.append([
                name, shift, "" if none else f"{values['auroc']:.2f}", f"{100 * values['alarms']:.1f}", drop,
                "" if none else values["why"],
            ])  # fmt: skip
        said.append(f"{name}: {one['spearman']:.2f} over all, {one['spearman_without_shift']:.2f} without a shift")
    heads = ["learner, tasks", "planted shift", "area under ROC", "alarms, %", "drop in score", "what rings"]
    return "\n".join(
        [
            "## Whether a new task is like those of training",
            "",
            table(heads, cells),
            "",
            f"{found['tasks']} test tasks a row, the alarm set for {100 * found['alarm']:.0f} % of validation tasks "
            f"({found['known']} of them, and as many training tasks, to compare with). The area is that between "
            "shifted and plain test tasks, by the alarm's score; the drop is in accuracy (points of per cent) or mean "
            "squared error, ± the 95 % interval. Spearman correlation of the alarm's score with the loss of score, "
            f"task by task: {'; '.join(said)}. {found['hardware']}. `python benchmarks/audits.py`",
        ]
    )


if __name__ == "__main__":
    keep_memory()
    main()
