"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from quickstudy.core.errors import UserError


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file beside its place and move it there, so that an old file survives any failure.

    Raises UserError if it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path} ({reason}): free some space or choose another place.") from error
