"""The figures of speed.py as Markdown: docs/speed.md."""

from __future__ import annotations

from typing import Any

from tables import table


def page(found: dict[str, Any]) -> str:
    """The whole page."""
    rows, known = found["rows"], found["implementations"]
    names = timed(found)
    parts = [
        "# Speed",
        "",
        "Written by `python benchmarks/tables.py` from what `python benchmarks/speed.py` measured on "
        f"{found['hardware']}, {found['threads']} thread(s), torch {found['torch']}.",
        "",
        "## Milliseconds",
        "",
        *compared(found, names),
        "Medians of interleaved steps (up to "
        f"{found['repeats']}, at least 3; one that is beyond five seconds and five times the fastest was timed once), "
        "from the same weights and the same tasks, each implementation in a process of its own. A step adapts "
        "every task, takes the meta-gradient and makes an Adam step; drawing the tasks is not in it. ProtoNet has "
        "nothing to adapt but class means, and W6 adapts and scores without a meta-gradient. The network of the images "
        "is the usual one: four blocks of 3x3 convolution with 64 filters, batch statistics, ReLU, 2x2 max-pool, then "
        "a linear layer, on 28x28 pixels; that of the sinusoid is an MLP 1-40-40-1.",
        "",
        "quickstudy's steps are those of `quickstudy.train` and `quickstudy.evaluate`; the others are written as their "
        "own examples write them ([benchmarks/peers](../benchmarks/peers)). The fastest torch peer is the fastest of "
        f"{', '.join(found['fastest_of'])}. The mark is what the ratio was to stay below, set before it was measured. "
        f"All run with glibc told to keep freed memory ({allocator(found)}), as `quickstudy` on the command line does "
        "by itself.",
        "",
        *limit(found),
        "",
        "## Is it the same gradient?",
        "",
        table(
            ["", *(f"{name}, {kind}" for name in names for kind in ("float64", "float32"))],
            [[key, *errors(row, names)] for key, row in rows.items()],
        ),
        "",
        "|g - r| / |r| over the whole meta-gradient at the starting weights, r that of the plain loop in float64 (for "
        "W6: the query loss of each task). None is timed whose float64 differs by 1e-8 or more. In float32 a ReLU or a "
        "max-pool flips now and then, for everyone.",
        "",
        *memory(rows, names),
        "## What was compared",
        "",
        table(["implementation", "version"], [[name, *about(one)] for name, one in known.items()]),
    ]
    return "\n".join(parts) + "\n"


def timed(found: dict[str, Any]) -> list[str]:
    """The implementations that have a time in some row."""
    return [name for name in found["implementations"] if name in timed_in(found["rows"])]


def timed_in(rows: dict[str, Any]) -> list[str]:
    """The implementations that have a time in one of these rows, in the order of the rows."""
    names = dict.fromkeys(name for row in rows.values() for name in row["found"])
    return [name for name in names if any("ms" in row["found"].get(name, {}) for row in rows.values())]


def compared(found: dict[str, Any], names: list[str]) -> list[str]:
    """The table of times, and what its stars mean."""
    heads = ["", "workload", *names, "ours / fastest torch peer", "mark", "limit", "ours / limit"]
    rows = [[key, *times(row, names, found["fastest_of"])] for key, row in found["rows"].items()]
    return [table(heads, rows), "", *notes(found["rows"])]


CONVOLVED = "speed_compiled_convolutions"


def convolved(found: dict[str, Any] | None) -> str:
    """What compiling gave for per-task convolutions, before it was left out there; nothing without that run."""
    if not found:
        return ""
    first = [
        "### Convolutions",
        "",
        "On a processor `--compile` leaves networks of convolutions as they are and says so, for this is what "
        f"compiling them gave (`python benchmarks/speed.py --rows {' '.join(found['rows'])} --compiled --no-memory "
        f"--name {CONVOLVED}`, on {found['hardware']}, before that rule was there; other work disturbed the run, and "
        "every implementation in turn). With the rule, the ratio of a compiled step is that of the first table.",
        "",
    ]
    return "\n".join([*first, *compared(found, timed(found))])


def compiled(found: dict[str, Any] | None) -> str:
    """The section on compiled outer steps, from a run of its own; nothing without one."""
    if not found:
        return ""
    name, rows = "quickstudy, compiled", found["rows"]
    waited = [f"{key} {rows[key]['found'][name]['first_seconds']:.0f} seconds" for key in rows
              if "first_seconds" in rows[key]["found"].get(name, {})]  # fmt: skip
    first = [
        "## Compiled",
        "",
        "The same with `--compile`, of some rows, with the peers beside it in one run: "
        f"`python benchmarks/speed.py --rows {' '.join(rows)} --compiled --name speed_compiled`, on "
        f"{found['hardware']}, {found['threads']} thread(s). Where there are two ratios and two marks, the second is "
        f"that of the compiled step. The first step waits for the compiler, or for its cache: {', '.join(waited)}.",
        "",
    ]
    return "\n".join([*first, *compared(found, timed(found))])


def plain(found: dict[str, Any] | None) -> str:
    """The section on glibc's own settings, from a run of its own; nothing without one."""
    if not found:
        return ""
    rows = found["rows"]
    first = [
        "## With the allocator's own settings",
        "",
        "The same without telling glibc to keep freed memory, as a script runs that does not ask for it "
        "(`quickstudy.allocator.keep_memory`): maps of many megabytes are then paged in anew every step, and whoever "
        f"makes fewer of them is slowed down less. `python benchmarks/speed.py --rows {' '.join(rows)} "
        "--plain-allocator --no-memory --name speed_plain`, on "
        f"{found['hardware']}, {found['threads']} thread(s); JAX, which is no torch peer, may be left out with "
        "`--implementations`.",
        "",
    ]
    return "\n".join([*first, *compared(found, timed(found))])


def times(row: dict[str, Any], names: list[str], peers: list[str]) -> list[str]:
    found = row["found"]
    cells = [milliseconds(found.get(name, {})) for name in names]
    theirs = [found[name]["ms"] for name in peers if "ms" in found.get(name, {})]
    ratios, marks, over = [], [], []
    for name, mark in (("quickstudy", row["mark"]), ("quickstudy, compiled", row["mark_compiled"])):
        if "ms" in found.get(name, {}):
            over.append(figure(found[name]["ms"] / row["limit_ms"]))
            ratio = found[name]["ms"] / min(theirs) if theirs else None
            missed = ratio is not None and mark is not None and ratio > mark
            ratios.append("" if ratio is None else f"{ratio:.2f}{' (missed)' if missed else ''}")
            marks.append("" if mark is None else f"{mark:.2f}")
    ends = [", ".join(cell for cell in part if cell) for part in (ratios, marks)]
    return [row["title"], *cells, *ends, f"{row['limit_ms']:.2f}", ", ".join(over)]


def milliseconds(one: dict[str, Any]) -> str:
    return figure(one["ms"]) if "ms" in one else "\\*" if "note" in one else ""


def figure(value: float) -> str:
    """Three digits at least, none of them after the point from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2}f}"


def notes(rows: dict[str, Any]) -> list[str]:
    """What the stars in the table mean."""
    said = [f"{key}, {name}: {one['note']}" for key, row in rows.items() for name, one in row["found"].items()
            if "note" in one]  # fmt: skip
    if not said:
        return []
    return ["\\* " + "; ".join(said) + ".", ""]


def allocator(found: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found["allocator"].items())


def limit(found: dict[str, Any]) -> list[str]:
    best = max(found["ceilings"], key=found["ceilings"].get)
    rates = ", ".join(f"{name} {rate:.0f}" for name, rate in found["ceilings"].items())
    return [
        "The limit is the time that the arithmetic alone would take: the convolutions and matrix products of the plain "
        f"loop, counted, at the best rate that this machine reached in the same run, {found['ceilings'][best]:.0f} "
        f"GFLOP/s ({best}). In GFLOP/s: {rates}."
    ]


def errors(row: dict[str, Any], names: list[str]) -> list[str]:
    ones = [row["found"].get(name, {}) for name in names]
    return [f"{one[kind]:.0e}" if kind in one else "" for one in ones for kind in ("float64_error", "float32_error")]


def memory(rows: dict[str, Any], names: list[str]) -> list[str]:
    if not any("memory_mb" in one for row in rows.values() for one in row["found"].values()):
        return []
    cells = {
        key: [megabytes(found.get(name, {})) for name in names]
        for key, found in ((key, row["found"]) for key, row in rows.items())
    }
    return [
        "## Peak memory, MB",
        "",
        table(["", *names], [[key, *line] for key, line in cells.items()]),
        "",
        "The highest resident memory during the first step above what was resident before it, in a process that did "
        "nothing else but the same step in miniature; here with the allocator's own settings, since memory that is "
        "kept would count as needed. Scratch space of the convolutions is in it. Where a graph holds one of several "
        "tasks (W2, W3, W4b), quickstudy works on two of them at once, a thread each.",
        "",
    ]


def megabytes(one: dict[str, Any]) -> str:
    if "memory_mb" not in one:
        return ""
    return f"{one['memory_mb']:,.0f}" if one["memory_mb"] >= 1 else "< 1"


def about(one: dict[str, str]) -> list[str]:
    return [one.get("version") or f"not there: {one['missing']}"]
