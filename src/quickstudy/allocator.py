"""The memory allocator's settings: a tool that makes and drops large tensors should not hand each one back."""

from __future__ import annotations

import os
import sys

SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""glibc reads these when a process starts: freed memory is then kept for the next tensor."""


def keep_memory() -> None:
    """Start this process again with the settings, if it runs on glibc without them; else do nothing.

    Only for programs: call it before any work is done. What the user has set is left as it is.
    Convolution training on a CPU is up to a third faster.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in SETTINGS):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **SETTINGS})
