"""Functions told by a few of their values: CNP, ANP, ConvCNP and TNP on pictures of letters and on Gaussian processes.

    python benchmarks/completion.py                                         # about 12 minutes of processor time
    python benchmarks/completion.py --share 0.01 --tasks 40 --name trial    # a short form of it
    python benchmarks/completion.py --split valid --sources pictures --learners tnp --lr 3e-3 --tasks 200 --name trial
                                                             # how rates were chosen; writes no result

Writes benchmarks/results/completion.json, and docs/completion.png: log likelihood, squared error, and how much the 50
and the 90 % interval cover, on unseen tasks, beside plain baselines. Training goes on where it was broken off (--out).
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from results import machine, write
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from tables import number, percent, read, table
from torch import Tensor
from torch.distributions import Normal

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source, Split
from quickstudy.core.task import Examples, Task
from quickstudy.evaluate import draw, evaluating
from quickstudy.report.drawing import figure, png, style
from quickstudy.scores import interval
from quickstudy.tasks import Completion, GaussianProcess

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "completion.png"
FLOOR = 0.01
"""The least deviation anyone states, as `make` gives it to the learners."""
LEARNERS = {"cnp": "CNP", "anp": "ANP", "conv_cnp": "ConvCNP", "tnp": "TNP"}
PLAIN = {
    "mean": "mean of the context",
    "nearest": "nearest context point",
    "regressor": "GP regressor, fitted task by task",
    "exact": "exact posterior",
}
SOURCES = {"pictures": Completion(shot="5-60", query=100, size=14), "functions": GaussianProcess()}
SAID = {
    "pictures": "Letters of unseen writing systems at 14 x 14 pixels, 5 to 60 of which are shown and 100 others asked; "
    "grey values in [0, 1]",
    "functions": "Functions of a Gaussian process (RBF kernel, length scale 0.4, variance 1, noise 0.02, x in [-2, 2]) "
    "from 3 to 50 points",
}
Answer = Callable[[Examples, Tensor], tuple[Tensor, Tensor]]
"""(support, x of the query) -> mean and deviation of each target, both (task, n, 1)."""


@dataclass(frozen=True)
class Setting:
    """How a learner is trained: steps that take each about as much processor time, its options, and its rate."""

    steps: int
    lr: float = 1e-3
    options: dict[str, Any] = field(default_factory=dict)
    meta_batch: int = 16


SETTINGS = {
    "pictures": {
        "cnp": Setting(6800),
        "anp": Setting(5000, 3e-3),
        # one place of the grid a pixel, and three beyond each border
        "conv_cnp": Setting(2200, 3e-3, {"points": 20, "density": 7.0, "kernel": 5}),
        "tnp": Setting(1400),
    },
    "functions": {
        "cnp": Setting(4800),
        "anp": Setting(2800),
        "conv_cnp": Setting(3000),
        "tnp": Setting(1000),
    },
}


def of_learner(learner: MetaLearner) -> Answer:
    """What a trained learner says."""
    objective = learner.objective
    assert isinstance(objective, qs.GaussianRegression)

    def answer(support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(learner, seed=0):
            return objective.mean_and_deviation(learner.predict(learner.adapt(support), x))

    return answer


def context_mean(support: Examples, x: Tensor) -> Tensor:
    weight = support.weight.unsqueeze(-1)
    mean = (support.y * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    return mean.expand(-1, x.shape[1], -1)


def nearest(support: Examples, x: Tensor) -> Tensor:
    far = torch.cdist(x, cast(Tensor, support.x)).masked_fill(support.weight.unsqueeze(1) == 0, math.inf)
    return support.y.gather(1, far.argmin(-1, keepdim=True))


def with_usual_error(guess: Callable[[Examples, Tensor], Tensor], source: Source) -> Answer:
    """A guess with one deviation for all: the root of its mean squared error on 500 training tasks."""
    tasks = source.sample("train", 500, source.rng("the usual error"))
    usual = (guess(tasks.support, cast(Tensor, tasks.query.x)) - tasks.query.y).square().mean().sqrt()

    def answer(support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = guess(support, x)
        return mean, usual.clamp_min(FLOOR).expand_as(mean)

    return answer


def regressor(support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
    """scikit-learn's regressor: an RBF kernel with noise, its three scales fitted to the context of each task."""
    found = []
    for t in range(support.tasks):
        real = (support.weight[t] > 0).numpy()
        kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(0.4, (1e-2, 1e1)) + WhiteKernel(1e-2, (FLOOR**2, 1.0))
        # fixed scales of y: a context of one colour alone has no scale of its own
        fitted = GaussianProcessRegressor(kernel, alpha=1e-8, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            y = support.y[t].numpy()[real, 0].astype(np.float64)
            fitted.fit(cast(Tensor, support.x)[t].numpy()[real].astype(np.float64), y - y.mean())
            mean, deviation = fitted.predict(x[t].numpy().astype(np.float64), return_std=True)
        found.append(torch.from_numpy(np.stack([mean + y.mean(), np.clip(deviation, FLOOR, None)], -1)).float())
    mean, deviation = torch.stack(found).unbind(-1)
    return mean.unsqueeze(-1), deviation.unsqueeze(-1)


def exact(source: GaussianProcess) -> Answer:
    """What is known of a new value: the function's own posterior, and the noise."""

    def answer(support: Examples, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = source.posterior(support, x)
        return mean, (deviation.square() + source.noise**2).sqrt()

    return answer


def measured(answer: Answer, source: Source, split: Split, tasks: int) -> dict[str, Any]:
    """Mean and 95 % interval of each measure, the tasks being the unit; the tasks are those of `evaluate`."""
    values: dict[str, list[float]] = {"log_likelihood": [], "mse": [], "coverage_50": [], "coverage_90": []}
    for block in draw(source, split, tasks, seed=0):
        y = block.query.y
        mean, deviation = answer(block.support, cast(Tensor, block.query.x))
        off = (y - mean).abs()
        each = {
            "log_likelihood": Normal(mean, deviation).log_prob(y),
            "mse": off.square(),
            "coverage_50": off <= 0.6744898 * deviation,
            "coverage_90": off <= 1.6448536 * deviation,
        }
        for name, value in each.items():
            values[name] += value.double().mean((1, 2)).tolist()
    return {name: {"mean": float(np.mean(v)), "interval": interval(v)} for name, v in values.items()}


def trained(key: str, setting: Setting, source: Source, folder: Path) -> tuple[MetaLearner, float]:
    """A trained learner, and the processor seconds that took: those of the last part, if it was broken off."""
    torch.manual_seed(0)
    learner = qs.make(key, source.spec, **setting.options)
    card = folder / "setting.json"
    text, same = json.dumps(asdict(setting)), card.exists() and json.loads(card.read_text())
    resume = bool(same) and same["setting"] == text and (folder / "last.safetensors").exists()
    begin = time.process_time()
    options: dict[str, Any] = {"steps": setting.steps, "meta_batch": setting.meta_batch, "lr": setting.lr, "clip": 10.0}
    more: dict[str, Any] = {"warmup": min(100, setting.steps), "valid_every": math.ceil(setting.steps / 5)}
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        card.write_text(json.dumps({"setting": text, "seconds": 0.0}))
    before = json.loads(card.read_text())["seconds"]
    qs.train(learner, source, out=folder, resume=resume, overwrite=not resume, save_every=200, **options, **more)
    spent = before + time.process_time() - begin
    card.write_text(json.dumps({"setting": text, "seconds": spent}))
    return learner, spent


def chosen(name: str, args: argparse.Namespace) -> dict[str, Setting]:
    """The settings of one source, or what the command line makes of them."""
    made = {key: SETTINGS[name][key] for key in args.learners or LEARNERS}
    for key, setting in made.items():
        options = {**setting.options, **json.loads(args.options)}
        steps = max(1, int((args.steps or setting.steps) * args.share))
        made[key] = replace(setting, steps=steps, lr=args.lr or setting.lr, options=options)
    return made


def of_source(name: str, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Answer]]:
    """The rows of one source, and who gave the answers."""
    source, split = SOURCES[name], cast(Split, args.split)
    answers: dict[str, Answer] = {}
    seconds: dict[str, float] = {}
    for key, setting in chosen(name, args).items():
        learner, seconds[key] = trained(key, setting, source, args.out / args.name / name / key)
        answers[key] = of_learner(learner)
    if not args.learners:
        answers["mean"] = with_usual_error(context_mean, source)
        answers["nearest"] = with_usual_error(nearest, source)
        answers["regressor"] = regressor
        if isinstance(source, GaussianProcess):
            answers["exact"] = exact(source)
    rows = {}
    for key, answer in answers.items():
        row = measured(answer, source, split, args.tasks)
        rows[key] = {**row, "processor_seconds": round(seconds.get(key, 0))}
        said = "  ".join(f"{m} {number(row[m], 4)}" for m in row)
        print(f"{name} {key}: {said}  ({rows[key]['processor_seconds']} s)", flush=True)
    return rows, answers


def picture(answers: dict[str, Answer], context: int = 40) -> bytes:
    """Four letters of the test split: the context, what each learner makes of it, and the truth; as a PNG."""
    source = cast(Completion, SOURCES["pictures"]).reshaped(shot=context, query=1)
    words = ("a picture of completion",)
    whole = source.pictures("test", 4, source.rng(*words))
    task = cast(Task, source.sample("test", 4, source.rng(*words)))
    size, places = source.size, source.places()
    shown = torch.full((4, size * size), math.nan)
    at = torch.cdist(cast(Tensor, task.support.x), places.expand(4, -1, -1)).argmin(-1)
    columns = {"context": shown.scatter(1, at, task.support.y.squeeze(-1)).view_as(whole)}
    for key in [*LEARNERS, "regressor"]:
        title = LEARNERS.get(key, "GP regressor")
        columns[title] = answers[key](task.support, places.expand(4, -1, -1))[0].view_as(whole)
    columns["truth"] = whole
    with style():
        drawn = figure(len(columns) * 0.9, 4 * 0.9 + 0.25)
        plots = np.atleast_2d(drawn.subplots(4, len(columns)))
        for column, (title, pictures) in enumerate(columns.items()):
            plots[0, column].set_title(title)
            for row in range(4):
                plots[row, column].set(xticks=[], yticks=[], facecolor="#5b7ea8")
                plots[row, column].imshow(pictures[row].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        return png(drawn, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--learners", nargs="+", default=[], choices=list(LEARNERS), help="only these, no baselines")
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--split", default="test", choices=["valid", "test"])
    parser.add_argument("--share", type=float, default=1.0, help="of the steps")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--options", default="{}", help="of the learner, as JSON")
    parser.add_argument("--name", default="completion")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    found = {name: of_source(name, args) for name in args.sources}
    if args.split != "test" or args.learners or len(found) < len(SOURCES):
        return
    rows = {name: rows for name, (rows, _) in found.items()}
    settings = {name: {key: asdict(one) for key, one in chosen(name, args).items()} for name in found}
    write(args.name, {"test_tasks": args.tasks, "rows": rows, "settings": settings, **machine()})
    drawn = picture(found["pictures"][1])
    write_whole(PICTURE if args.name == "completion" else args.out / args.name / "completion.png", drawn)


def section() -> str:
    """The tables as Markdown, or nothing where there is no result."""
    found = read("completion")
    if not found:
        return ""
    titles = LEARNERS | PLAIN
    head = ["learner", "log likelihood", "mean squared error", "50 % interval covers, %", "90 % interval covers, %"]
    head += ["training, processor s"]
    parts = ["## Neural processes: pictures and functions completed", ""]
    for name, rows in found["rows"].items():
        lines = [
            [
                titles[key],
                number(row["log_likelihood"]),
                number(row["mse"], 4),
                percent(row["coverage_50"]),
                percent(row["coverage_90"]),
                str(row["processor_seconds"] or ""),
            ]
            for key, row in rows.items()
        ]
        parts += [f"{SAID[name]}:", "", table(head, lines), ""]
    parts += [
        "![Letters from 40 pixels: the context, what each makes of it, the truth](completion.png)",
        "",
        f"{found['test_tasks']:,} unseen tasks each, the same for all; nats a value. The mean and the nearest point "
        "are given one deviation for all tasks, their root mean squared error on training tasks; the GP regressor is "
        "scikit-learn's, an RBF kernel with noise whose scales are fitted to the context of each task: where all that "
        "is shown has one value it is surer than it should be, which its log likelihood pays for. Every learner "
        f"was trained for about as many seconds of processor time, on {found['threads']} thread(s) of "
        f"{found['hardware']}, at one rate for all, with the defaults of each: a minute, where the papers take hours. "
        "`python benchmarks/completion.py --share 0.5`",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    keep_memory()
    main()
