"""Pneumonia on chest X-rays from 1, 5 and 10 cases of each class: what does learning to learn on other images bring?

There are two classes of X-rays, so no X-ray can be learnt to learn from: the learners were trained on drawings
(Omniglot) or on photographs of things (CIFAR), and never see an X-ray before the few cases of a task. Beside them is
what one would do with those few cases alone, and with all 4,708 labelled X-rays of the training part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from healthcare_rows import Hits, kept
from sklearn.linear_model import LogisticRegression
from torch import nn

from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Split
from quickstudy.learners import make
from quickstudy.nets import Conv4
from quickstudy.tasks.pool import ClassSource, Pool
from quickstudy.train import train

SHOTS = (1, 5, 10)
QUERY = 10
CLASSES = ("normal", "pneumonia")
PLAIN = ("centroid", "logistic")
TITLES = {
    "logistic": "logistic regression on the pixels of the few cases",
    "centroid": "nearest centroid of the pixels of the few cases",
    "untrained": "nearest centroid of the features of an untrained Conv4",
    "protonet_omniglot": "ProtoNet, trained on Omniglot",
    "protonet_cifar": "ProtoNet, trained on CIFAR-FS",
    "simple_shot_cifar": "SimpleShot, trained on CIFAR-FS",
    "all_logistic": "logistic regression on the pixels of all labelled X-rays",
    "all_conv4": "Conv4 trained on all labelled X-rays",
}


class Crossed(ClassSource):
    """Classes of other images to train on, and X-rays to test on, all of them grey and 28 x 28."""

    def __init__(self, pool: Pool, way: int = 5, shot: int = 5, query: int = QUERY):
        self.pool = pool
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = 0.0
        self.scheme = "fixed"

    def load(self) -> Pool:
        return self.pool


def crossed_source(data: Path, other: str) -> Crossed:
    """The classes of `other` for train and valid, the official test part of the X-rays for test."""
    with np.load(data / "pneumoniamnist" / "pneumoniamnist.npz", allow_pickle=False) as file:
        xrays, label = file["test_images"], file["test_labels"].reshape(-1).astype(np.int64)
    images, of, splits = OTHERS[other](data)
    x = torch.from_numpy(np.concatenate([xrays, images])).unsqueeze(1)
    labels = torch.from_numpy(np.concatenate([label, of + len(CLASSES)]))
    names = [*CLASSES, *(f"{other} {i}" for i in range(int(of.max()) + 1))]
    parts: dict[Split, torch.Tensor] = {"test": torch.arange(len(CLASSES))}
    for split, numbers in splits.items():
        parts[split] = torch.from_numpy(numbers + len(CLASSES))
    return Crossed(Pool.of(x, labels, names, parts))


def omniglot(data: Path) -> tuple[np.ndarray, np.ndarray, dict[Split, np.ndarray]]:
    """The characters of the background alphabets, the last hundred for validation."""
    with np.load(data / "omniglot" / "omniglot28.npz", allow_pickle=False) as file:
        kept = file["label"] < 964
        images, label = file["images"][kept], file["label"][kept].astype(np.int64)
    return images, label, {"train": np.arange(864), "valid": np.arange(864, 964)}


def cifar(data: Path) -> tuple[np.ndarray, np.ndarray, dict[Split, np.ndarray]]:
    """The photographs of CIFAR-FS's training and validation classes, in grey and cut to 28 x 28."""
    cards = json.loads((data / "cifar_fs" / "classes.json").read_text())
    with np.load(data / "cifar_fs" / "small_100x100.npz", allow_pickle=False) as file:
        images, label = file["images"], file["label"].astype(np.int64)
    grey = (images[:, 2:30, 2:30] @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    numbers = {split: np.array([c["id"] for c in cards if c["cifar_fs"] == split]) for split in ("train", "val")}
    return grey, label, {"train": numbers["train"], "valid": numbers["val"]}


OTHERS: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray, dict[Split, np.ndarray]]]] = {
    "omniglot": omniglot,
    "cifar": cifar,
}


def learner(key: str, source: Crossed, steps: int) -> MetaLearner:
    """A learner that was trained on the other images, and on nothing else."""
    torch.manual_seed(0)
    spec = source.spec
    if key in PLAIN:
        return make(key, spec)
    options: dict[str, Any] = {"valid_every": max(steps // 4, 1), "valid_tasks": 60, "progress": False}
    if key == "untrained":
        return make("protonet", spec, net_options={"channels": 32})
    name = key.rsplit("_", 1)[0]
    found = make(name, spec, net_options={"channels": 32})
    train(found, source, steps=steps, meta_batch=1, pooled_rows=64, **options)
    return found


def few(data: Path, key: str, tasks: int, steps: int) -> dict[str, Any]:
    """By cases a class, the right answers of a learner that adapts to each task."""
    source = crossed_source(data, key.rsplit("_", 1)[-1] if "_" in key else "omniglot")
    trained = learner(key, source, steps)
    return {str(shot): hits(source, shot, tasks).by(trained) for shot in SHOTS}


def hits(source: Crossed, shot: int, tasks: int) -> Hits:
    return Hits(source.reshaped(way=2, shot=shot), "test", tasks, 0)


def reference(data: Path, key: str, tasks: int, steps: int) -> dict[str, Any]:
    """The right answers, to the same tasks, of what was trained on all X-rays of the training part."""
    with np.load(data / "pneumoniamnist" / "pneumoniamnist.npz", allow_pickle=False) as file:
        x = file["train_images"].astype(np.float32) / 255
        y = file["train_labels"].reshape(-1).astype(np.int64)
    source = crossed_source(data, "omniglot")
    pixels = source.prepare().x
    assert isinstance(pixels, torch.Tensor)
    asked = pixels[: int(source.prepare().counts[:2].sum())].float() / 255
    if key == "all_logistic":
        model = LogisticRegression(max_iter=200, C=0.1, class_weight="balanced").fit(x.reshape(len(x), -1), y)
        said = torch.from_numpy(model.predict(asked.flatten(1).numpy()))
    else:
        said = convolved(torch.from_numpy(x).unsqueeze(1), torch.from_numpy(y), asked, steps)
    found = {}
    for shot in SHOTS:
        at = hits(source, shot, tasks)
        right = said[torch.from_numpy(at.rows)].numpy() == at.labels
        found[str(shot)] = ["".join("01"[int(hit)] for hit in row) for row in right]
    return found


def convolved(x: torch.Tensor, y: torch.Tensor, asked: torch.Tensor, steps: int) -> torch.Tensor:
    """The classes of `asked` by a Conv4 that was trained on x, y; both classes count alike."""
    torch.manual_seed(0)
    net = Conv4((1, 28, 28), out=2, channels=32, norm="group")
    rng = torch.Generator().manual_seed(0)
    weight = 1 / torch.bincount(y).float()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.multinomial(weight[y], 64, replacement=True, generator=rng)
        loss = nn.functional.cross_entropy(net(x[rows].unsqueeze(0))[0], y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return torch.cat([net(part.unsqueeze(0))[0] for part in asked.split(256)]).argmax(-1)


def xrays(data: Path, out: Path, short: bool = False) -> dict[str, Any]:
    """The accuracy of all methods from each number of cases, on balanced questions about the official test part."""
    tasks, steps = (20, 4) if short else (600, 1000)
    keys = ("centroid", "protonet_omniglot", "all_conv4") if short else tuple(TITLES)
    found = {
        key: kept(out, f"{key}-{tasks}-{steps}",
                  partial(reference if key.startswith("all_") else few, data, key, tasks, steps))
        for key in keys
    }  # fmt: skip
    source = crossed_source(data, "omniglot")
    rows: dict[str, Any] = {key: {} for key in found}
    best: dict[str, str] = {}
    for shot in SHOTS:
        at = hits(source, shot, tasks)
        of = {key: one[str(shot)] for key, one in found.items()}
        usual = [key for key in of if key in PLAIN]
        best[str(shot)] = max(usual, key=lambda key: at.score(of[key])["mean"])
        for key, right in of.items():
            difference = at.score(right, of[best[str(shot)]])
            rows[key][str(shot)] = {"accuracy": at.score(right), "difference": difference}
    images = source.prepare().counts[:2].tolist()
    return {"tasks": tasks, "steps": steps, "images": images, "best": best, "titles": TITLES, "rows": rows}
