"""Heartbeats from 1, 5 and 10 examples of each of two kinds, by learners that were trained on other series alone.

Four sets of electrocardiograms are held out whole, and the 22 other sets of the archive (outlines, spectra, movements,
power) are there to learn from. Baselines are those of the field: nearest neighbours by Euclid's distance and by dynamic
time warping.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from healthcare_rows import Hits, kept
from torch import Tensor, nn

from quickstudy.core.files import write_whole
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.task import Task
from quickstudy.learners import make
from quickstudy.learners.metric.protonet import ProtoNet
from quickstudy.learners.metric.simple_shot import SimpleShot
from quickstudy.nets import RowNet
from quickstudy.tasks.series_classes import SeriesClasses
from quickstudy.train import train

SHOTS = (1, 5, 10)
QUERY = 10
LENGTH = 96
BAND = 10
"""Steps by which dynamic time warping may shift, a tenth of the length."""
ECG = ("ECG200", "ECG5000", "ECGFiveDays", "TwoLeadECG")
VALID = ("CBF", "Fish", "ItalyPowerDemand", "Trace")
FEW = (*ECG, *VALID, "SyntheticControl", "SmoothSubspace")
"""The sets of the short form."""
NEIGHBOURS = ("euclid", "warped")
PLAIN = (*NEIGHBOURS, "logistic", "centroid")
TITLES = {
    "euclid": "nearest neighbour, Euclid",
    "warped": f"nearest neighbour, dynamic time warping (band {BAND} of {LENGTH})",
    "logistic": "logistic regression on the series",
    "centroid": "nearest centroid of the series",
    "protonet_mlp": "ProtoNet, multilayer perceptron",
    "protonet_conv": "ProtoNet, convolutions over time",
    "simple_shot_conv": "SimpleShot, convolutions over time",
}


class Waves(nn.Module):
    """Three convolutions over time and the mean over it, (n, step) -> (n, width): the fully convolutional network of
    Wang, Yan and Oates 2017 (arXiv 1611.06455), smaller, with group norm, so that no series looks at another."""

    def __init__(self, width: int = 64):
        super().__init__()
        sizes = ((1, 8), (width, 5), (width, 3))
        self.layers = nn.Sequential(
            *(
                layer
                for inputs, steps in sizes
                for layer in (nn.Conv1d(inputs, width, steps, padding="same"), nn.GroupNorm(8, width), nn.ReLU())
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.unsqueeze(1)).mean(-1)


def written(data: Path, out: Path, few: bool) -> Path:
    """The archive's sets as files, as a user has them: a line a series, its class first."""
    folder = out / ("few" if few else "archive")
    with np.load(data / "ucr_small" / "ucr_small.npz", allow_pickle=False) as file:
        names = [key.removesuffix("__X") for key in file.files if key.endswith("__X")]
        for name in names if not few else [name for name in names if name in FEW]:
            path = folder / f"{name}.tsv"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = zip(file[f"{name}__y"].tolist(), file[f"{name}__X"].round(4).tolist(), strict=True)
            text = "\n".join("\t".join(map(str, (label, *values))) for label, values in rows)
            write_whole(path, text.encode())
    return folder


def source_of(folder: Path) -> SeriesClasses:
    """Two classes of one set; the electrocardiograms for test."""
    fewest = max(SHOTS) + QUERY
    return SeriesClasses(
        str(folder), 2, "1-10", QUERY, length=LENGTH, fewest=fewest, valid_sets=VALID, test_sets=ECG
    )


def learner(key: str, source: SeriesClasses, steps: int) -> MetaLearner:
    """A learner that was trained on the other sets, its weights the best on the valid ones."""
    torch.manual_seed(0)
    if key in PLAIN:
        return make(key, source.spec)
    if key == "protonet_mlp":
        found: MetaLearner = make("protonet", source.spec, net="mlp", net_options={"width": 128})
    elif key == "protonet_conv":
        found = ProtoNet(RowNet(Waves(), 64), Classification(2))
    else:
        found = SimpleShot(RowNet(Waves(), 64), Classification(2), classes=source.spec.train_classes)
    train(found, source, steps=steps, meta_batch=4, pooled_rows=128, valid_every=max(steps // 5, 1), progress=False)
    return found


def nearest(warp: bool, block: Task, index: int) -> Tensor:
    """The class (task, n) of the nearest series of the support."""
    known, asked = block.support.x, block.query.x
    assert isinstance(known, Tensor) and isinstance(asked, Tensor)
    if not warp:
        apart = torch.cdist(asked.double(), known.double())
    else:
        shape = (*asked.shape[:2], known.shape[1], asked.shape[2])
        a, b = (rows.expand(shape).flatten(0, 2).double().numpy() for rows in (asked.unsqueeze(2), known.unsqueeze(1)))
        apart = torch.from_numpy(warped(a, b, BAND)).view(shape[:3])
    apart = apart.masked_fill(block.support.weight.unsqueeze(1) == 0, torch.inf)
    return block.support.y.gather(1, apart.argmin(-1))


def warped(a: np.ndarray, b: np.ndarray, band: int) -> np.ndarray:
    """The squared distance (pair,) of series a, b (pair, step) by dynamic time warping within a band (Sakoe and Chiba
    1978, IEEE Trans. ASSP 26(1)).

    >>> warped(np.array([[0.0, 0.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 0.0, 0.0]]), band=1).tolist()
    [0.0]
    """
    steps = a.shape[1]
    a, b = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    before = np.full((steps + 1, a.shape[1]), np.inf)
    before[0] = 0.0
    for i in range(steps):
        now = np.full_like(before, np.inf)
        for j in range(max(0, i - band), min(steps, i + band + 1)):
            least = np.minimum(np.minimum(before[j], before[j + 1]), now[j])
            now[j + 1] = np.square(a[i] - b[j]) + least
        before = now
    return before[steps]


def measure(folder: Path, key: str, tasks: int, steps: int) -> dict[str, Any]:
    """By examples a class, the right answers of a method."""
    source = source_of(folder)
    found, trained = {}, learner(key, source, steps) if key not in NEIGHBOURS else None
    for shot in SHOTS:
        hits = Hits(source.reshaped(shot=shot), "test", tasks, 0)
        found[str(shot)] = hits.by(trained) if trained else hits.of(partial(nearest, key == "warped"))
    return found


def ecg(data: Path, out: Path, short: bool = False) -> dict[str, Any]:
    """The accuracy of all methods from each number of examples, over all four sets and each of them."""
    tasks, steps = (20, 4) if short else (600, 800)
    folder = written(data, out, short)
    keys = ("euclid", "warped", "protonet_conv") if short else tuple(TITLES)
    found = {
        key: kept(out, f"{key}-{tasks}-{steps}", partial(measure, folder, key, tasks, steps)) for key in keys
    }
    source = source_of(folder)
    names = np.array([name.split("/")[0] for name in source.names("test")])
    rows: dict[str, Any] = {key: {} for key in found}
    best: dict[str, str] = {}
    for shot in SHOTS:
        hits = Hits(source.reshaped(shot=shot), "test", tasks, 0)
        sets = names[hits.labels[:, 0]]
        of = {key: one[str(shot)] for key, one in found.items()}
        best[str(shot)] = max((key for key in of if key in PLAIN), key=lambda key: hits.score(of[key])["mean"])
        for key, right in of.items():
            against = of[best[str(shot)]]
            one: dict[str, Any] = {"accuracy": hits.score(right), "difference": hits.score(right, against)}
            one["sets"] = {name: hits.score(right, only=sets == name) for name in ECG if (sets == name).any()}
            one["ahead"] = {name: hits.score(right, against, sets == name) for name in one["sets"]}
            rows[key][str(shot)] = one
    trained = len({name.split("/")[0] for name in source.names("train")})
    facts = {"tasks": tasks, "steps": steps, "train_sets": trained, "train_classes": source.spec.train_classes}
    return {**facts, "best": best, "titles": TITLES, "rows": rows}
