"""`quickstudy export`: a learner, or what it learnt of one task, as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from quickstudy import checkpoint
from quickstudy.adaptation import load_task
from quickstudy.cli.arguments import Command
from quickstudy.core.errors import UserError
from quickstudy.export import export_learner, export_task


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote, or the name of weights")
    parser.add_argument("--onnx", type=str, default="learner.onnx", help="where to write the ONNX file")
    parser.add_argument("--task", type=str | None, default=None, help="predict alone, for this adapted task")
    parser.add_argument("--way", type=int, default=0, help="the most classes of a task (0: as in training)")
    parser.add_argument("--width", type=int, default=0, help="numbers in a row, for learners that take any")


def run(options: Namespace) -> int:
    if Path(options.onnx).suffix != ".onnx":
        raise UserError(f"--onnx is {options.onnx!r}: give a name that ends in .onnx.")
    if options.way < 0 or options.way == 1 or options.width < 0:
        raise UserError(f"--way is {options.way} and --width {options.width}: give 2 classes or more, and 1 or more.")
    shape = (options.width,) if options.width else ()
    if options.task:
        if options.way:
            raise UserError("--way is for a whole learner, and a task has the classes that it has: leave it out.")
        named = None if options.checkpoint in ("", "-") else options.checkpoint
        made = export_task(load_task(options.task, named), options.onnx, shape)
    else:
        made = export_learner(checkpoint.load(options.checkpoint), options.onnx, options.way, shape)
    size = Path(made.path).stat().st_size
    what = f"predict of {made.card['learner']} for one task" if options.task else f"{made.card['learner']}, whole"
    print(f"wrote {made.path} ({size / 1000:.1f} kB): {what}")
    for word, parts in (("in ", made.inputs), ("out", made.outputs)):
        for name, sizes in parts.items():
            print(f"  {word}  {name} ({', '.join(map(str, sizes))})")
    print(f"largest difference from torch on random rows: {made.difference:.1e}")
    return 0


EXPORT = Command(
    "export",
    "Write a learner, or one adapted task, as an ONNX file that runs without torch.",
    "quickstudy export runs/glyphs/best.safetensors --onnx glyphs.onnx\n"
    "quickstudy export runs/maml/best.safetensors --task letters.safetensors --onnx letters.onnx",
    _add,
    run,
)
