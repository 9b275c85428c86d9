"""`quickstudy recommend`: which methods to try on these tasks, from what was measured."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from quickstudy.cli.arguments import Command
from quickstudy.core.catalogue import build
from quickstudy.recommend import recommend


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--no_gradients", action="store_true", help="adapting must not take gradients of a network")
    parser.add_argument("--varying_way", action="store_true", help="tasks have different numbers of classes")
    parser.add_argument("--adapt_ms", type=float | None, default=None, help="longest time to adapt to a task")
    parser.add_argument("--top", type=int, default=5, help="how many methods")


def run(options: Namespace) -> int:
    source = build(options.tasks.as_dict(), "tasks")
    shot = getattr(source, "shot", None)
    found, grounds = recommend(
        source.spec,
        shot if isinstance(shot, int) else None,
        not options.no_gradients,
        options.varying_way,
        options.adapt_ms,
        options.top,
    )
    lines = []
    for number, advice in enumerate(found, 1):
        cost = f"{advice.seconds:.0f} s of training, {advice.adapt_ms:.2g} ms to adapt"
        lines += [f"{number}. {advice.learner}: {advice.measured} ({cost})", *(f"   {r}" for r in advice.reasons)]
    after = f"next: quickstudy train --learner {found[0].learner} --tasks {options.tasks.name}"
    Console(soft_wrap=True).print("\n".join([*lines, "", *grounds, after]), highlight=False, markup=False)
    return 0


RECOMMEND = Command(
    "recommend",
    "Name the methods to try on tasks like these, with reasons: it rests on measured tables alone.",
    "quickstudy recommend --tasks folder --tasks.path photos --no_gradients",
    _add,
    run,
    {"tasks": "glyphs"},
)
