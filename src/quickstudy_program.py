"""The installed command. It imports nothing of weight itself, so that Ctrl-C is answered from the first moment on."""

from __future__ import annotations

import sys


def program() -> None:
    """Import the tool, which takes seconds, and run it; Ctrl-C meanwhile ends it with one line and exit code 130."""
    try:
        from quickstudy.cli.main import program as run
    except KeyboardInterrupt:
        print("quickstudy: interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    program()
