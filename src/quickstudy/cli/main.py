"""Which command is meant, and what a user sees of it when it fails."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from quickstudy.allocator import keep_memory
from quickstudy.cli.arguments import Command, parse
from quickstudy.cli.demo import DEMO
from quickstudy.cli.evaluating import EVALUATE
from quickstudy.cli.listing import LIST
from quickstudy.cli.task import ADAPT, PREDICT
from quickstudy.cli.training import TRAIN
from quickstudy.core.errors import UserError, nearest
from quickstudy.version import VERSION

COMMANDS: dict[str, Command] = {c.name: c for c in (TRAIN, EVALUATE, ADAPT, PREDICT, LIST, DEMO)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _one_line
            return _run(words)
    except UserError as error:
        print(f"quickstudy: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("quickstudy: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        sys.stderr.close()
        return 0


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


def _one_line(message: Warning | str, *_: object) -> None:
    print(f"quickstudy: warning: {message}", file=sys.stderr)
