"""How fast an outer step is: quickstudy beside a plain torch loop and the other libraries, in one run, interleaved.

    pip install -r benchmarks/requirements.txt -c constraints.txt && sh benchmarks/peers/learn2learn.sh
    python benchmarks/speed.py                            # about ten minutes on two idle cores
    python benchmarks/speed.py --rows W1 W5 --repeats 3   # a part of it; printed, not written
    python benchmarks/speed.py --device cuda --compiled   # on a GPU: speed_cuda.json

Writes benchmarks/results/speed.json, of which `python benchmarks/tables.py` makes docs/speed.md. All start from the
same weights and tasks (workloads.py) with the same settings of the allocator, each in a process of its own
(players.py), and take turns. The meta-gradient of each is first checked in float64; one that is wrong is not timed.
Times are medians; what does not install is said so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import limits
import resident
import torch
from peers import PEERS, TORCH, load, plain_loop
from players import OURS, Player, builder
from results import FOLDER, machine, write
from speed_table import page
from workloads import WORKLOADS, Workload

from quickstudy.allocator import SETTINGS, keep_memory

FEWEST = 3
"""Timings of even the slowest implementation."""
AT_LEAST = 0.05
"""Seconds that one timing takes: shorter steps are repeated inside it."""
SLOW = 5.0
"""A step that takes more than this many seconds, and this many times as long as the fastest, is timed once."""
FOR_MEMORY = 0.25
"""Share of the time that is left for the peaks of memory."""


def main() -> None:
    args = arguments()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[: args.threads])  # JAX takes as many threads as it may use cores
    torch.set_num_threads(args.threads)
    if args.device != "cpu":
        # JAX would take most of the GPU's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    names = [name for name in (*OURS, *PEERS) if name in args.implementations]
    if args.peaks:
        print(resident.measure([(key, name) for key in args.rows for name in names], builder))
        return
    # what JAX compiles for the timed steps need not be compiled again for their memory
    programs = tempfile.TemporaryDirectory()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", programs.name)
    deadline = time.perf_counter() + 60 * args.minutes * (1 - FOR_MEMORY)
    found: dict[str, Any] = {"ceilings": limits.ceilings(args.device), "rows": {}}
    best = 1e9 * max(found["ceilings"].values())
    with ExitStack() as stack:
        players = {name: stack.enter_context(closing(Player(name, args.threads, args.device))) for name in names}
        for left, key in zip(range(len(args.rows), 0, -1), args.rows, strict=True):
            work = replace(WORKLOADS[key], device=args.device)
            flops = limits.counted(work)
            row = {"title": work.title, "mark": work.mark, "mark_compiled": work.mark_compiled, "flops": flops}
            seconds = (deadline - time.perf_counter()) / left
            found["rows"][key] = {
                **row, "limit_ms": 1e3 * flops / best, "found": measured(work, players, seconds, args.repeats)
            }  # fmt: skip
            report(key, found["rows"][key])
            if args.name != "speed" and not args.again:  # a run that is cut off has what it measured
                write(args.name, found | about_run(args, names))
    args.memory = args.memory and args.device == "cpu"  # that of a GPU was asked for along with the times
    words = ["--rows", *args.rows, "--implementations", *names, "--threads", str(args.threads)]
    for key, row in resident.peaks(Path(__file__), words).items() if args.memory else ():
        for name, megabytes in row.items():
            found["rows"][key]["found"][name]["memory_mb"] = megabytes
    found |= about_run(args, names)
    whole = set(args.rows) == set(WORKLOADS) and {"quickstudy", *PEERS} <= set(names)
    if args.again:
        before = json.loads((FOLDER / f"{args.name}.json").read_text())
        found["rows"] = {key: found["rows"].get(key, row) for key, row in before["rows"].items()}
    if whole or args.again or args.name != "speed":
        write(args.name, found)
    print(page(found))


def about_run(args: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """What was compared, and how and where."""
    return {
        "implementations": {name: about(name) for name in names},
        "fastest_of": list(TORCH),
        "allocator": {name: os.environ.get(name) for name in SETTINGS},
        "repeats": args.repeats,
        "words": " ".join(sys.argv[1:]),
        **machine(),
    }


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="ROW")
    parser.add_argument("--implementations", nargs="+", choices=(*OURS, *PEERS), metavar="NAME")
    parser.add_argument("--compiled", action="store_true", help="quickstudy's compiled outer step as well")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=11, help="timings of each, at most")
    parser.add_argument("--minutes", type=float, default=10, help="fewer repeats if it would take longer")
    parser.add_argument("--threads", type=int, default=len(cores()))
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the peaks of memory out")
    parser.add_argument("--plain-allocator", action="store_true", help="glibc's own settings, which hand memory back")
    parser.add_argument("--again", action="store_true", help="measure some rows of a file again: a run was disturbed")
    parser.add_argument("--name", help="of the file in benchmarks/results")
    parser.add_argument("--peaks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.implementations is None:
        args.implementations = ["quickstudy", *PEERS]
    args.implementations += ["quickstudy, compiled"] * args.compiled
    args.name = args.name or ("speed" if args.device == "cpu" else f"speed_{args.device}")
    return args


def measured(work: Workload, players: dict[str, Player], seconds: float, repeats: int) -> dict[str, dict[str, Any]]:
    """Every implementation's figures for a workload, or a note that says why it has none."""
    begin = time.perf_counter()
    reference = plain_loop.METHODS[work.method](work, torch.float64).result()
    asked = {name: player.check(work.key, reference) for name, player in players.items()}
    figures = {name: found for name, found in asked.items() if found is not None}
    ready = {name: players[name] for name, found in figures.items() if "note" not in found}
    if work.device != "cpu":
        for name in ready.keys() - {"jax"}:
            figures[name]["memory_mb"] = players[name].memory()
    for name, spent in interleaved(ready, seconds - (time.perf_counter() - begin), repeats).items():
        low, middle, high = statistics.quantiles(spent, n=4) if len(spent) > 1 else spent * 3
        figures[name] |= {"ms": 1e3 * middle, "quartiles_ms": [1e3 * low, 1e3 * high], "timings": len(spent)}
    return figures


def interleaved(players: dict[str, Player], seconds: float, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step, several times each: all take turns, each time another one first.

    Slow ones stop early: after FEWEST timings none takes more than its share of the time.
    """
    once = {name: player.time(1) for name, player in players.items()}
    slow = {name for name, first in once.items() if first > SLOW * max(1.0, min(once.values()))}
    inside = {name: max(1, round(AT_LEAST / first)) for name, first in once.items()}
    spent = {name: [once[name]] if name in slow else [] for name in players}
    share = seconds / max(1, len(players))
    chance, order = random.Random(0), [name for name in players if name not in slow]
    for _ in range(repeats):
        # in an order of chance: what ran just before leaves its mark on the caches
        for name in chance.sample(order, len(order)):
            if len(spent[name]) < FEWEST or inside[name] * sum(spent[name]) < share:
                spent[name].append(players[name].time(inside[name]))
    return spent


def about(name: str) -> dict[str, str]:
    """The version of an implementation, or why it is not there."""
    methods = {} if name in OURS else load(name)
    if isinstance(methods, str):
        return {"missing": methods}
    library = "quickstudy" if name in OURS else "torch" if name == "plain loop" else name
    return {"version": f"{library} {importlib.metadata.version(library)}"}


def report(key: str, row: dict[str, Any]) -> None:
    """One line a workload while the run goes on."""
    found = row["found"].items()
    parts = [f"{name} {one['ms']:.2f}" if "ms" in one else f"{name}: {one['note']}" for name, one in found]
    print(f"{key:7} limit {row['limit_ms']:.2f} ms; {'; '.join(parts)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if not {"--peaks", "--plain-allocator"} & set(sys.argv):
        keep_memory()
    main()
