"""Ctrl-C, in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NOTED: list[int] = []


def noted() -> int:
    """How many Ctrl-C were only noted so far: one that comes with the last step of a run stops whatever is next."""
    return len(_NOTED)


@contextmanager
def interruptible(tell: bool) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noted: call what is given to ask for it. A second one ends at once.

    tell: whether to say so to the user.
    """
    hit: list[int] = []

    def note(number: int, frame: Any) -> None:
        if hit:
            raise KeyboardInterrupt
        hit.append(number)
        _NOTED.append(number)
        if tell:  # not print(): it may be in the middle of one
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once, without saving\n")

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread: whoever started us handles Ctrl-C
        yield lambda: False
        return
    try:
        yield lambda: bool(hit)
    finally:
        signal.signal(signal.SIGINT, before)
