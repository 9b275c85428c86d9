"""Fifty clients at once for a minute with the server killed in the middle, on both stores; and what batching brings.

    python benchmarks/serving.py             # writes benchmarks/results/serving.json; about six minutes
    python benchmarks/serving.py --short     # a few seconds, and nothing is written
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import databases
import numpy as np
import torch
from results import FOLDER, machine, write
from serving_load import FEATURES, Client, Program, checked, load

import quickstudy as qs
from quickstudy import checkpoint
from quickstudy.adaptation import Support, adapt_all
from quickstudy.adapted import predict_all

CLASSES, PER_CLASS = 40, 12
BATCHES = (1, 4, 16, 64)
KINDS = {"create": "make a task", "extend": "give more examples", "predict": "ask", "delete": "delete"}


def trained(folder: Path, method: str = "protonet", steps: int = 200) -> Path:
    """A learner for vectors, trained for a moment: what is served does not depend on how good it is."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, FEATURES))
    x = (centres.repeat(PER_CLASS, 0) + rng.standard_normal((CLASSES * PER_CLASS, FEATURES))).astype(np.float32)
    source = qs.tasks.Arrays.of(x, [f"{i // PER_CLASS}" for i in range(len(x))], way=5, shot=3, query=3)
    torch.manual_seed(0)
    learner = qs.make(method, source.spec)
    optimiser = torch.optim.Adam(learner.parameters(), 1e-3)
    for step in range(steps):
        optimiser.zero_grad()
        learner(source.sample("train", 8, source.rng(0, "train", step))).backward()
        optimiser.step()
    path = folder / f"{method}.safetensors"
    checkpoint.save(learner.eval(), path, source)
    return path


def latency(clients: list[Client]) -> dict[str, dict[str, float]]:
    """Milliseconds that half, and 99 in 100, of the answered requests of each kind took at most."""
    rows = {}
    for kind in KINDS:
        spent = [s for client in clients for s in client.seconds.get(kind, [])]
        if spent:
            p50, p99 = np.quantile(spent, [0.5, 0.99])
            rows[kind] = {"requests": len(spent), "p50": 1000 * float(p50), "p99": 1000 * float(p99)}
    return rows


def minute(path: Path, store: str, clients: int, seconds: float, workers: int = 1) -> dict[str, Any]:
    """Clients at once, and the server killed and started again in the middle; what each answer must be."""
    program = Program(path, store, workers)
    begin = time.perf_counter()
    many = asyncio.run(load(program, clients, seconds, restart=workers == 1))
    spent = time.perf_counter() - begin
    code = program.stop()
    found = checked(many, checkpoint.load(path))
    wrong = [sentence for client in many for sentence in client.wrong]
    for sentence in wrong[:5]:
        print(sentence)
    return {
        "clients": clients, "seconds": spent, "workers": workers, "exit_code": code, **found, "wrong": len(wrong),
        "unanswered": sum(client.unanswered for client in many),
        "tasks": sum(len(client.tasks) for client in many),
        "left": sum(not task.gone for client in many for task in client.tasks),
        "requests": sum(len(s) for client in many for s in client.seconds.values()), "latency": latency(many),
    }  # fmt: skip


def batched(path: Path, tasks: int, seconds: float) -> dict[str, Any]:
    """Tasks adapted to and asked one by one, and several in one call: how many a second, and how alike."""
    learnt, rng = checkpoint.load(path), qs.generator(0)
    supports, rows = [], []
    for i in range(tasks):
        x = torch.randn(10 + i % 5, FEATURES, generator=rng)
        supports.append(Support.of(learnt, x, [f"class {j % 5}" for j in range(len(x))]))
        rows.append(torch.randn(5 + i % 4, FEATURES, generator=rng))
    alone = [adapt_all([support])[0] for support in supports]
    wanted = [predict_all([task], [x])[0].softmax(-1) for task, x in zip(alone, rows, strict=True)]
    found: dict[str, Any] = {"adapt": {}, "predict": {}, "furthest": 0.0}
    for size in BATCHES:
        parts = [slice(i, i + size) for i in range(0, tasks, size)]
        found["adapt"][str(size)] = tasks * _often(lambda p=parts: [adapt_all(supports[one]) for one in p], seconds)
        ask = lambda p=parts: [predict_all(alone[one], rows[one]) for one in p]  # noqa: E731
        found["predict"][str(size)] = tasks * _often(ask, seconds)
        together = [task for one in parts for task in adapt_all(supports[one])]
        said = [out.softmax(-1) for one in parts for out in predict_all(together[one], rows[one])]
        gaps = [float((a - b).abs().max()) for a, b in zip(said, wanted, strict=True)]
        found["furthest"] = max(found["furthest"], *gaps)
    return found


def _often(work: Any, seconds: float) -> float:
    """How often a second, at the best of the passes that fit in so many seconds: others use this machine as well."""
    best, until = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        best = max(best, 1 / (time.perf_counter() - begin))
    return best


def run(clients: int = 50, seconds: float = 60.0, short: bool = False) -> dict[str, Any]:
    """All figures."""
    torch.set_num_threads(1)
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = trained(place)
        figures: dict[str, Any] = {**machine(), "load": busy, "stores": {}, "batched": {}}
        figures["stores"]["SQLite"] = minute(path, str(place / "tasks.sqlite"), clients, seconds)
        if not short and databases.there():
            with databases.database() as url:
                figures["stores"]["PostgreSQL"] = minute(path, url, clients, seconds)
        for method in ("protonet",) if short else ("protonet", "r2d2", "maml"):
            own = path if method == "protonet" else trained(place, method, 20)
            figures["batched"][method] = batched(own, 16 if short else 64, 0.1 if short else 5.0)
    return figures


def section() -> str:
    """What docs say of the figures."""
    from tables import table

    path = FOLDER / "serving.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text())
    rows = []
    for store, one in found["stores"].items():
        for kind, title in KINDS.items():
            if kind in one["latency"]:
                row = one["latency"][kind]
                rows.append([store, title, f"{row['requests']:,}", f"{row['p50']:.0f}", f"{row['p99']:.0f}"])
    lines = ["## Served", "", table(["store", "request", "answered", "half within, ms", "99 % within, ms"], rows), ""]
    for store, one in found["stores"].items():
        lines += [
            f"- **{store}**: {one['clients']} clients at once for {one['seconds']:.0f} seconds made {one['tasks']:,} "
            f"tasks; the server was killed in the middle and started again, and {one['unanswered']:,} requests were "
            f"sent again. Of {one['answers']:,} answers {one['wrong']} were wrong: the furthest probability is "
            f"{one['furthest']:.0e} from what the library gives, adapting to all examples of that version at once."
        ]
    header = ["method", "tasks in a call", *map(str, BATCHES)]
    rows = []
    for method, one in found["batched"].items():
        for verb, title in (("adapt", "adapted to a second"), ("predict", "asked a second")):
            rows.append([method, title, *(f"{one[verb][str(size)]:,.0f}" for size in BATCHES)])
    shared = f" (a load of {found['load']:.0f} before)" if "load" in found else ""
    furthest = max(one["furthest"] for one in found["batched"].values())
    lines += ["", "### Batched across tasks", "", table(header, rows), ""]
    lines += [
        f"Vectors of {FEATURES} numbers, five classes, 10 to 14 examples, 5 to 8 questions. Together and alone the "
        f"probabilities are equal to rounding (at most {furthest:.0e} apart); alone they are the library's to the bit. "
        f"On {found['hardware']}, which clients, server, database and other work{shared} shared: the seconds are those "
        "of a busy machine. `python benchmarks/serving.py`"
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        print(json.dumps(run(8, 4.0, short=True), indent=1))
        return
    write("serving", run())
    print(section())


if __name__ == "__main__":
    main()
