"""Which command is meant, and what a user sees of it when it fails."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from quickstudy.allocator import keep_memory
from quickstudy.cli.arguments import Command, parse
from quickstudy.cli.auditing import AUDIT
from quickstudy.cli.benchmarking import BENCHMARK
from quickstudy.cli.calibrating import CALIBRATE
from quickstudy.cli.citing import CITE
from quickstudy.cli.data import DATA
from quickstudy.cli.demo import DEMO
from quickstudy.cli.evaluating import EVALUATE
from quickstudy.cli.explaining import EXPLAIN
from quickstudy.cli.exporting import EXPORT
from quickstudy.cli.forecasting import SHOTS
from quickstudy.cli.judging import VERDICT
from quickstudy.cli.labelling import LABEL_NEXT
from quickstudy.cli.listing import LIST
from quickstudy.cli.recommending import RECOMMEND
from quickstudy.cli.reporting import REPORT
from quickstudy.cli.serving import SERVE
from quickstudy.cli.task import ADAPT, PREDICT
from quickstudy.cli.training import TRAIN
from quickstudy.cli.tuning import TUNE
from quickstudy.core.errors import UserError, nearest
from quickstudy.version import VERSION

# fmt: off
COMMANDS: dict[str, Command] = {
    c.name: c
    for c in (
        DATA, TRAIN, EVALUATE, CALIBRATE, AUDIT, ADAPT, PREDICT, SERVE, EXPORT, LABEL_NEXT,
        BENCHMARK, TUNE, VERDICT, SHOTS, RECOMMEND, REPORT, LIST, EXPLAIN, CITE, DEMO,
    )
}
# fmt: on


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _one_line
            code = _run(words)
            sys.stdout.flush()
            return code
    except UserError as error:
        print(f"quickstudy: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        print("quickstudy: there is not enough memory for this: give smaller numbers.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("quickstudy: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        _hush()
        return 0
    except OSError as error:
        _hush()
        where = f"{error.filename}: " if error.filename else ""
        print(f"quickstudy: {where}{error.strerror or error}; free some space or choose other files.", file=sys.stderr)
        return 2


def _hush() -> None:
    """Let Python's last flush go nowhere: the output cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]


def program() -> None:
    """The installed command."""
    keep_memory()
    sys.exit(main())


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"quickstudy {VERSION}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}: {nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    try:
        options = parse(command, rest)
    except SystemExit as done:
        return int(done.code or 0)
    options.words = rest
    return command.run(options)


def overview() -> str:
    """What `quickstudy --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {c.name:{width}}  {c.summary.splitlines()[0]}" for c in COMMANDS.values()]
    return "\n".join(
        [
            "usage: quickstudy COMMAND [options]",
            "",
            "Learn to learn: train once over many tasks, adapt to a new one from a handful of examples.",
            "",
            "commands:",
            *lines,
            "",
            "example:",
            "  quickstudy train --learner protonet --tasks glyphs --out runs/glyphs",
            "  quickstudy evaluate runs/glyphs/best.safetensors",
            "",
            "Every command has --help with an example of its own. Python: `import quickstudy as qs`.",
        ]
    )


def _one_line(message: Warning | str, category: object = None, filename: str = "", *_: object) -> None:
    if {"torch", "lightning_fabric"} & set(Path(filename).parts):
        return  # not what a user of the tool can put right
    print(f"quickstudy: warning: {message}", file=sys.stderr)
