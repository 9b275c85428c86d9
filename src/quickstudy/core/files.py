"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from quickstudy.core.errors import UserError


def write_whole(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place and move it there: a full disk leaves the old file as it was.

    content: the bytes, or a function that writes them to an open file. What is not a plain file (/dev/stdout,
    a pipe) is written to, never replaced; of a link, it is the file it leads to.
    Raises UserError where the file cannot be written.
    """
    path, beside = Path(path), None
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give the name of a file.")
    try:
        if _stream(path):
            with path.open("ab") as file:
                _fill(file, content)
            return
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False) as file:
            beside = Path(file.name)
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(place)
    except OSError as error:
        kept = " (the file that was there is untouched)" if path.is_file() else ""
        raise UserError(
            f"cannot write {path}{kept}: {error.strerror or error}; free some space or choose another place."
        ) from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _stream(path: Path) -> bool:
    """Whether a path is written to as it is: a device, a pipe, or the output of this process."""
    known = os.path.abspath(path).startswith(("/dev/stdout", "/dev/stderr", "/dev/fd/"))
    return known or (path.exists() and not path.is_file())


def _fill(file: IO[bytes], content: bytes | Callable[[BinaryIO], object]) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        content(file)  # type: ignore[arg-type]


def check_place(path: str | Path) -> None:
    """Find out before long work whether a file could be written; nothing is left behind but its folder.

    Raises UserError where it could not.
    """
    path = Path(path)
    if not path.exists() and not _stream(path):
        write_whole(path, b"")
        Path(os.path.realpath(path)).unlink()
    elif path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; give the name of a file.")
    elif not os.access(path, os.W_OK) or (path.is_file() and not os.access(path.resolve().parent, os.W_OK)):
        raise UserError(f"cannot write {path}: it is protected; choose another place.")
