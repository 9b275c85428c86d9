"""Tasks that come in clusters: whether learners find them untold, what that gains, and adapting to a domain first.

    python benchmarks/hierarchy.py              # about twelve minutes on one core
    python benchmarks/hierarchy.py --short      # a trial: few steps and tasks, nothing is written

Four parts. families: sinusoids, lines, quadratics and cubics. scripts: characters of Omniglot, all of a task from one
alphabet, the alphabets of test tasks being unseen ones. systems: the same with six alphabets that training tasks come
from too, and unseen characters of them. domains: functions that share what a domain is, adapted to by
the domain's examples and then the task's. Options were chosen on validation tasks. Writes
benchmarks/results/hierarchy.json after every part; `--only` keeps the others' figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np
import torch
from results import FOLDER, data_folder, machine, write
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import quickstudy as qs
from quickstudy.allocator import keep_memory
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import SPLITS, Split, generator
from quickstudy.core.task import Inputs, concatenate, map_tensors
from quickstudy.evaluate import BLOCK, evaluating
from quickstudy.inner.apply import apply_shared
from quickstudy.learners import HSML, ProtoNet
from quickstudy.scores import interval
from quickstudy.tasks import Mixture, Omniglot
from quickstudy.tasks.pool import Pool

COMPONENTS = {"families": 6, "scripts": 4, "systems": 8}
DESCENT = {"inner_steps": 1, "inner_lr": 0.01}
GRID = torch.linspace(-4, 4, 9)


def purity(found: np.ndarray, true: np.ndarray) -> float:
    """The share of tasks that are of the commonest family of their cluster."""
    return sum(np.bincount(true[found == c]).max() for c in np.unique(found)) / len(true)


def clusters(found: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Purity and normalised mutual information, with 95 % intervals over resampled tasks, and what chance gives: the
    same clusters on families in random order."""
    rng = np.random.default_rng(0)
    row: dict[str, Any] = {"table": [np.bincount(true[found == c], minlength=true.max() + 1).tolist()
                                     for c in np.unique(found)]}  # fmt: skip
    for name, measure in (("purity", purity), ("nmi", lambda f, t: normalized_mutual_info_score(t, f))):
        again = (rng.integers(len(true), size=len(true)) for _ in range(300))
        spread = np.std([measure(found[i], true[i]) for i in again])
        chance = np.mean([measure(found, rng.permutation(true)) for _ in range(100)])
        row[name] = {"mean": float(measure(found, true)), "interval": 1.96 * float(spread), "chance": float(chance)}
    return row


def belongs(learner: MetaLearner, support: qs.Examples) -> np.ndarray:
    """The cluster that a learner puts each task in."""
    if isinstance(learner, HSML):
        return learner.clusters(support).argmax(1).numpy()
    return learner.adapt(support)["responsibility"].argmax(1).numpy()


def fitted(learner: MetaLearner, source: qs.Source, steps: int, meta_batch: int, lr: float) -> float:
    begin = time.process_time()
    options = {"clip": 10.0, "valid_every": max(steps // 8, 1), "progress": False}
    qs.train(learner, source, steps, meta_batch=meta_batch, lr=lr, **options)
    return time.process_time() - begin


def measured(learner: MetaLearner, tasks: qs.Task, measure: str) -> tuple[list[float], np.ndarray]:
    """A measure of each task, and its cluster (all 0 where the learner has none)."""
    values, found = [], []
    for start in range(0, tasks.support.tasks, BLOCK):
        part = map_tensors(tasks, lambda t, s=start: t[s : s + BLOCK])
        with evaluating(learner, seed=start):
            state = learner.adapt(part.support)
            out = learner.predict(state, part.query.x, part.query.weight)
            values += learner.objective.measure(out, part.query)[measure].tolist()
            grouped = isinstance(learner, HSML) or "responsibility" in state
            found.append(belongs(learner, part.support) if grouped else np.zeros(part.support.tasks, int))
    return values, np.concatenate(found)


def mean(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "interval": interval(values)}


def against(values: list[float], other: list[float]) -> dict[str, float]:
    """The paired difference, with its interval."""
    return mean(np.subtract(values, other).tolist())


def smoothed(support: qs.Examples) -> np.ndarray:
    """What k-means sees of a function: its values on a grid, each the mean of the points near it, (task, 9)."""
    assert isinstance(support.x, Tensor)
    near = (-0.5 * (support.x - GRID).square()).softmax(1)
    return (near * support.y).sum(1).numpy()


def kmeans(train: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
    """The clusters of test tasks, by centres of training tasks; every column scaled to variance 1."""
    scale = train.std(0) + 1e-9
    fit = KMeans(count, n_init=10, random_state=0).fit(train / scale)  # pyright: ignore[reportArgumentType]
    return np.asarray(fit.predict(test / scale))


def made(name: str, spec: qs.Spec, net: dict[str, Any], **options: Any) -> MetaLearner:
    torch.manual_seed(0)
    return qs.make(name, spec, net_options=net, **options)


def families(tasks: int, fewer: int) -> dict[str, Any]:
    """The four families, and what each learner makes of them; one initialisation is MAML, one prior ALPaCA."""
    source, count = Mixture(), COMPONENTS["families"]
    test = source.sample("test", tasks, source.rng("families"))
    true = source.families("test", tasks, source.rng("families")).numpy()
    train = source.sample("train", 4000, source.rng("k-means")).support
    rows: dict[str, Any] = {"k-means": clusters(kmeans(smoothed(train), smoothed(test.support), count), true)}
    recipes = {
        "maml": ({}, DESCENT, 1500, 2e-3, ""),
        "mixture_maml": ({}, DESCENT | {"components": count, "temperature": 0.3}, 1500, 2e-3, "maml"),
        "hsml": ({}, DESCENT | {"levels": (count, 2, 1)}, 1500, 2e-3, "maml"),
        "alpaca": ({"out": 16}, {}, 1500, 5e-3, ""),
        "mixture_alpaca": ({"out": 16}, {"components": count}, 1500, 5e-3, "alpaca"),
    }
    scores: dict[str, list[float]] = {}
    for name, (net, options, steps, lr, one) in recipes.items():
        learner = made(name, source.spec, net, **options)
        seconds = fitted(learner, source, max(steps // fewer, 2), 16, lr)
        scores[name], found = measured(learner, test, "mse")
        rows[name] = {"score": mean(scores[name]), "steps": steps, "seconds": seconds}
        if one:
            rows[name] |= clusters(found, true) | {"one": one, "gain": against(scores[one], scores[name])}
        print(name, json.dumps(rows[name]), flush=True)
    return {"rows": rows, "names": list(source.family_names), "score": "squared error"}


def pixels(support: qs.Examples) -> Tensor:
    """Every drawing in 7 x 7 pixels, (task, row, 49)."""
    assert isinstance(support.x, Tensor)
    small = torch.nn.functional.avg_pool2d(support.x.flatten(0, 1), 4).flatten(1)
    return small.unflatten(0, support.weight.shape)


def scripts(tasks: int, fewer: int) -> dict[str, Any]:
    """Tasks within one alphabet, of unseen alphabets: whether a mixture tells the alphabets apart, and gains."""
    path = str(data_folder() / "omniglot" / "omniglot28.npz")
    source = Omniglot(path, way=5, shot=1, query=5, split="background", rotations=False, within_alphabet=True)
    count = COMPONENTS["scripts"]
    pool = source.prepare()
    assert pool.groups is not None
    rng = source.rng("scripts")
    test = source.sample("test", tasks, rng)
    chosen = source.draw("test", tasks, source.rng("scripts")).classes[:, 0]
    _, true = np.unique(pool.groups[pool.splits["test"][chosen]].numpy(), return_inverse=True)

    train = source.sample("train", 2000, source.rng("k-means")).support
    known, asked = (pixels(support).mean(1).numpy() for support in (train, test.support))
    rows: dict[str, Any] = {"k-means": clusters(kmeans(known, asked, count), true)}
    net = {"channels": 16, "pool": "stride"}
    steps = {"inner_steps": 1, "inner_lr": 0.4, "eval_steps": 3, "first_order": True}
    recipes: dict[str, dict[str, Any]] = {
        "maml": {},
        "mixture_maml": {"components": count, "temperature": 0.1},
        "hsml": {"levels": (count, 2, 1), "gates": "unit"},
    }
    scores: dict[str, list[float]] = {}
    for name, options in recipes.items():
        learner = made(name, source.spec, net, **steps, **options)
        seconds = fitted(learner, source, max(300 // fewer, 2), 4, 2e-3)
        scores[name], found = measured(learner, test, "accuracy")
        rows[name] = {"score": mean(scores[name]), "steps": 300, "seconds": seconds}
        if name != "maml":
            rows[name] |= clusters(found, true) | {"one": "maml", "gain": against(scores[name], scores["maml"])}
        print(name, json.dumps(rows[name]), flush=True)
    return {"rows": rows, "alphabets": int(true.max()) + 1, "score": "accuracy"}


class Systems(Omniglot):
    """Characters of the `systems` alphabets of Omniglot that have the most, of its evaluation set or its background
    set: three in five characters are for training, one in five each for validation and for test. The writing systems
    of a test task are so those of training, and its characters are not."""

    def __init__(self, path: str, systems: int = 6, evaluation: bool = True):
        super().__init__(path, 5, 1, 5, split="background", rotations=False, within_alphabet=True)
        self.systems = systems
        self.evaluation = evaluation

    def load(self) -> Pool:
        pool = super().load()
        assert pool.groups is not None
        own = pool.splits["test"] if self.evaluation else torch.cat([pool.splits["train"], pool.splits["valid"]])
        sizes = torch.bincount(pool.groups[own])
        parts: dict[Split, list[Tensor]] = {split: [] for split in SPLITS}
        for alphabet in sizes.argsort(descending=True, stable=True)[: self.systems]:
            mine = own[pool.groups[own] == alphabet]
            mine = mine[torch.randperm(len(mine), generator=generator("systems", int(alphabet)))]
            for split, part in zip(SPLITS, mine.tensor_split((3 * len(mine) // 5, 4 * len(mine) // 5)), strict=True):
                parts[split].append(part)
        return dataclasses.replace(pool, splits={split: torch.cat(one).sort().values for split, one in parts.items()})


def strokes(support: qs.Examples) -> np.ndarray:
    """Mean and deviation over the drawings of a task of how much ink runs in each of 8 directions, on a 4 x 4 grid."""
    assert isinstance(support.x, Tensor)
    down, right = torch.gradient(support.x.flatten(0, 2), dim=(1, 2))
    turn = (torch.atan2(down, right).remainder(torch.pi) / torch.pi * 8).long().clamp_max(7)
    each = (turn.unsqueeze(1) == torch.arange(8).view(8, 1, 1)) * torch.hypot(down, right).unsqueeze(1)
    return spread(torch.nn.functional.avg_pool2d(each, 7).flatten(1).unflatten(0, support.weight.shape))


def spread(rows: Tensor) -> np.ndarray:
    """The mean and the deviation of the rows of each task, side by side."""
    return torch.cat([rows.mean(1), rows.std(1)], -1).numpy()


def mixture(train: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
    """The components of test tasks in a Gaussian mixture over training tasks, on their ten largest directions."""
    steps = StandardScaler(), PCA(10, random_state=0), GaussianMixture(count, n_init=3, reg_covar=0.1, random_state=0)
    return np.asarray(make_pipeline(*steps).fit(train).predict(test))


def systems(tasks: int, fewer: int, evaluation: bool = True, split: Split = "test") -> dict[str, Any]:
    """Tasks within one of six writing systems, on unseen characters: a mixture over what training tasks look like, to
    a plain eye or to that of a ProtoNet trained on them; none is told of the systems, nor how many there are.

    Chosen on characters of the background set (evaluation=False, split="valid"), where purity was 0.73 by pixels, 0.95
    by strokes and 0.75 by features; statistics of the network's earlier maps came to 0.74 to 0.78."""
    source = Systems(str(data_folder() / "omniglot" / "omniglot28.npz"), evaluation=evaluation)
    pool, count = source.prepare(), COMPONENTS["systems"]
    assert pool.groups is not None
    test = source.sample(split, tasks, source.rng("systems"))
    chosen = source.draw(split, tasks, source.rng("systems")).classes[:, 0]
    _, true = np.unique(pool.groups[pool.splits[split][chosen]].numpy(), return_inverse=True)
    train = source.sample("train", max(2000 // fewer, 100), source.rng("mixture")).support
    looks = {"mixture, pixels": lambda s: spread(pixels(s)), "mixture, strokes": strokes}
    rows: dict[str, Any] = {}
    for name, look in looks.items():
        rows[name] = clusters(mixture(look(train), look(test.support), count), true)
        print(name, json.dumps(rows[name]), flush=True)
    net = {"channels": 32, "pool": "stride"}
    learner = made("protonet", source.spec, net)
    seconds = fitted(learner, source, max(200 // fewer, 2), 4, 2e-3)
    found, _ = measured(learner, test, "accuracy")
    assert isinstance(learner, ProtoNet)
    with evaluating(learner, seed=0):
        known, asked = (spread(apply_shared(learner.net, s.x, s.weight)) for s in (train, test.support))
    rows["mixture, features of protonet"] = {"score": mean(found), "steps": 200, "seconds": seconds}
    rows["mixture, features of protonet"] |= clusters(mixture(known, asked, count), true)
    print("protonet", json.dumps(rows["mixture, features of protonet"]), flush=True)
    return {"rows": rows, "systems": int(true.max()) + 1, "score": "accuracy"}


def domains(tasks: int, fewer: int) -> dict[str, Any]:
    """A domain is one cubic-family function; a task in it is that function with an offset of its own. Learners adapt to
    20 points of the domain's other tasks, then to the task's 3 with `prior`; or to the 3 alone; or to all at once."""
    rows: dict[str, Any] = {}
    source = Mixture(shot=10, query=10)
    for name, net, options, lr in (
        ("alpaca", {"out": 16}, {}, 5e-3),
        ("mixture_alpaca", {"out": 16}, {"components": COMPONENTS["families"]}, 5e-3),
        ("maml", {}, DESCENT, 2e-3),
    ):
        learner = made(name, source.spec, net, **options)
        fitted(learner, source, max(1500 // fewer, 2), 16, lr)
        domain, task = in_domains(source, tasks)
        found = {"alone": [], "domain alone": [], "domain, then task": []}
        with evaluating(learner, seed=0):
            first = learner.adapt(domain)
            states = (learner.adapt(task.support), first, learner.adapt(task.support, prior=first))
            for key, state in zip(found, states, strict=True):
                out = learner.predict(state, task.query.x)
                found[key] = learner.objective.measure(out, task.query)["mse"].tolist()
        gain = against(found["alone"], found["domain, then task"])
        rows[name] = {key: mean(values) for key, values in found.items()} | {"gain": gain}
        print(name, json.dumps(rows[name]), flush=True)
    return {"rows": rows, "score": "squared error"}


def in_domains(source: Mixture, tasks: int, shift: float = 0.5) -> tuple[qs.Examples, qs.Task]:
    """The examples of a domain, 20 points of four other tasks of it, and a task of it with 3 points: both (task, ...).

    A task is its domain's function plus a constant of its own, N(0, shift^2)."""
    rng = source.rng("domains")
    parameters = source.parameters("test", tasks, rng)

    def seen(offsets: int, points: int) -> qs.Examples:
        parts = []
        for _ in range(offsets):
            x = source.points(parameters, points, rng)
            own = shift * torch.randn(tasks, 1, 1, generator=rng)
            noise = source.noise * torch.randn(x.shape, generator=rng)
            parts.append(qs.examples(x, source.evaluate(parameters, x) + own + noise))
        return qs.Examples(*(rows_of([p[i] for p in parts]) for i in range(3)))  # type: ignore[arg-type]

    task = seen(1, 13)
    cut = lambda a, b: map_tensors(task, lambda t: t[:, a:b])  # noqa: E731
    return seen(4, 5), qs.Task(cut(0, 3), cut(3, 13))


def rows_of(parts: list[Inputs]) -> Inputs:
    """The rows of several batches of the same tasks, joined."""
    turned = [map_tensors(part, lambda t: t.transpose(0, 1)) for part in parts]
    return map_tensors(concatenate(turned), lambda t: t.transpose(0, 1))


PARTS = {"families": families, "scripts": scripts, "systems": systems, "domains": domains}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--tasks", type=int, default=600)
    args = parser.parse_args()
    tasks, fewer = (60, 50) if args.short else (args.tasks, 1)
    path = FOLDER / "hierarchy.json"
    parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}
    for name in args.only:
        parts[name] = PARTS[name](tasks, fewer)
        if not args.short:
            write("hierarchy", {"test_tasks": tasks, "parts": parts, **machine()})


def section() -> str:
    """What was measured, as Markdown; "" if nothing was."""
    from tables import number, percent, read, table

    found = read("hierarchy")
    if not found:
        return ""
    lines = ["## Tasks that come in clusters", ""]
    titles = {"families": "four families", "scripts": "unseen alphabets", "systems": "six writing systems"}
    for key, title in titles.items():
        part = found["parts"].get(key)
        if not part:
            continue
        show = percent if part["score"] == "accuracy" else number
        rows = []
        for name, row in part["rows"].items():
            cells = [f"{number(row[m])} ({row[m]['chance']:.2f})" if m in row else "" for m in ("purity", "nmi")]
            score = show(row["score"]) if "score" in row else ""
            gain = f"{show(row['gain'])} over {row['one']}" if "gain" in row else ""
            rows.append([name, *cells, score, gain])
        heads = [title, "purity (chance)", "normalised mutual information (chance)", part["score"], "gain, paired"]
        lines += [table(heads, rows), ""]
    part = found["parts"].get("domains")
    if part:
        columns = ("alone", "domain alone", "domain, then task", "gain")
        rows = [[name, *(number(row[k]) for k in columns)] for name, row in part["rows"].items()]
        heads = ["domains", "the task's 3 points", "the domain's 20", "domain, then task", "gain over 3 points, paired"]
        lines += [table(heads, rows), ""]
    lines.append(
        f"{found['test_tasks']} unseen tasks, ± the 95 % interval (of purity and information over resampled tasks); "
        f"{COMPONENTS['families']} clusters for the families, of which not all need be used, "
        f"{COMPONENTS['scripts']} for unseen alphabets and {COMPONENTS['systems']} for writing systems. "
        "No learner is told a family, an alphabet or a "
        "domain. Chance: the same clusters and families in random order. "
        "k-means sees smoothed values on a grid, or mean pixels. Unseen alphabets: 20 that no training task came from. "
        "Writing systems: the six largest of those 20, three in five characters of each in training tasks, and others "
        "in test tasks; a Gaussian mixture over training tasks sees mean and deviation of the five drawings of "
        "a support, as 7 x 7 pixels, as directions of strokes, or as the features of a ProtoNet trained on the tasks. "
        "The people who drew an alphabet are the same in training and test, and their hands may help to tell it. A "
        "gain above 0 is an "
        "improvement, in squared error or in points of accuracy. Families overlap: lines are quadratics and "
        "cubics whose leading coefficients are small. Domains: one function of the families, of which tasks differ by "
        "a constant; squared error. The domains are made here and are no published benchmark. "
        f"{found['hardware']}. `python benchmarks/hierarchy.py`"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    keep_memory()
    main()
