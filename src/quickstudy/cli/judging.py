"""`quickstudy verdict`: whether meta-learning pays on tasks of your own, in one paragraph."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from quickstudy.cli.arguments import Command, check_seed
from quickstudy.core.catalogue import build
from quickstudy.core.errors import UserError
from quickstudy.core.files import check_place, write_whole
from quickstudy.questions.verdict import Case, Trial

WORTH = "smallest gain worth having: points of accuracy (default 1), or %% of the plain baseline's error (5)"


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--learners", type=list[str], default=[], help="names, as A B; a few by kind if left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training for all methods together")
    parser.add_argument("--worth", type=float | None, default=None, help=WORTH)
    parser.add_argument("--test_tasks", type=int, default=600, help="how many; the same ones for both methods")
    parser.add_argument("--seed", type=int, default=0, help="decides tasks and weights")
    parser.add_argument("--out", type=str | None, default=None, help="folder (default: runs/verdict-TASKS)")
    parser.add_argument("--json", type=str | None, default=None, help="write every number to this file")


def run(options: Namespace) -> int:
    check_seed(options.seed, "--seed")
    if options.json:
        check_place(options.json)
    name = options.tasks.name
    out = Path(options.out or f"runs/verdict-{name}")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder with --out.")
    settings = (options.seconds, options.worth, options.test_tasks, options.seed, options.learners, out)
    case = Case(build(options.tasks.as_dict(), "tasks"), *settings)
    print(f"{name}: {', '.join(case.names)}; {options.seconds:g} seconds of training in all", flush=True)
    found = case.run(watch=_say)
    plain = Console(soft_wrap=True)
    plain.print(f"\n{found}\n", highlight=False, markup=False)
    for place in filter(None, (out / "verdict.json", options.json)):
        write_whole(place, (found.to_json() + "\n").encode())
        print(f"wrote {place}")
    if found.answer == "pays":
        print(f"next: quickstudy evaluate {out / found.learner}.safetensors")
    return 0


def _say(trial: Trial) -> None:
    """What a method came to on the validation tasks, while the rest is still at work."""
    print(f"  {trial}", flush=True)


VERDICT = Command(
    "verdict",
    "Say whether meta-learning pays on your tasks: pays, does not pay, or cannot tell, with the gain and its cost.",
    "quickstudy verdict --tasks folder --tasks.path photos --seconds 120\n"
    "quickstudy verdict --tasks sinusoid --learners maml alpaca --worth 10 --json verdict.json",
    _add,
    run,
    {"tasks": "glyphs"},
    lists=("learners",),
)
