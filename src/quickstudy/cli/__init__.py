"""The command line: `quickstudy train | evaluate | adapt | predict | list | demo`."""

from quickstudy.cli.main import main

__all__ = ["main"]
