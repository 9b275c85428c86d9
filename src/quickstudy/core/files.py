"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from quickstudy.core.errors import UserError


def write_whole(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there: a full disk leaves the old file as it was.

    content: the bytes, or a function that writes them to an open file.
    Raises UserError where the file cannot be written.
    """
    path = Path(path)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        kept = " (the file that was there is untouched)" if path.exists() else ""
        raise UserError(
            f"cannot write {path}{kept}: {error.strerror or error}; free some space or choose another place."
        ) from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)
