"""Fetching files once: resumable, checked, and never half-written under their final name."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path, PurePosixPath

from quickstudy.core.errors import UserError

TIMEOUT = 30.0
BLOCK = 1 << 16
LARGEST_IMAGE = 1 << 24


def cache_folder() -> Path:
    """Where downloaded and prepared data is kept: $QUICKSTUDY_CACHE, or ~/.cache/quickstudy."""
    return Path(os.environ.get("QUICKSTUDY_CACHE") or Path.home() / ".cache" / "quickstudy")


def fetch(url: str, path: str | os.PathLike[str], checksum: str, size: int | None = None) -> Path:
    """The file at `url`, stored at `path`; nothing is fetched if it is there already.

    checksum: md5 (32 digits) or sha256 (64 digits) in hexadecimal. size: bytes, for the progress bar if the
    server does not tell. An interrupted download leaves `path`.part and goes on from there next time.

    Raises UserError if there is no network, the disk is full, or the checksum does not match.
    """
    path = Path(path)
    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, size)
        found = file_digest(part, "md5" if len(checksum) == 32 else "sha256")
        if found != checksum.lower():
            part.unlink()
            raise UserError(
                f"the file from {url} has the checksum {found} and should have {checksum}: "
                "it was damaged or changed on the way; try again."
            )
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"cannot download {url}: the server answered {error.code} {error.reason}.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk is full while storing {path}: free some space and try again.") from None
        if isinstance(error, PermissionError):
            raise UserError(
                f"cannot write {path}: no permission; set QUICKSTUDY_CACHE to a folder of your own."
            ) from None
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {url} ({reason}): check the network, or give the path of a local copy."
        ) from None
    return path


def _download(url: str, part: Path, size: int | None) -> None:
    """Append what is missing of `url` to `part`."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing is missing, or the part is not of this file: the checksum will tell
            return
        raise
    with answer:
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        start = done if resumed else 0
        total = start + int(length) if length else size
        got = start
        with _progress(part.stem, total, start) as bar, open(part, "ab" if resumed else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                got += len(block)
                if bar is not None:
                    bar.update(bar.task_ids[0], completed=got)
        if length and got < start + int(length):
            raise urllib.error.URLError("the connection was cut")


def _progress(name: str, total: int | None, done: int):
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    progress.add_task(name, total=total, completed=done)
    return progress


def file_digest(path: Path, kind: str) -> str:
    """The md5 or sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def unzip_images(path: str | os.PathLike[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every image in a zip archive, in the order of the names.

    Nothing is written to the disk, so no name in the archive can reach outside a folder; names that try,
    and files of more than 16 MiB, are refused. Raises UserError for a damaged archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                name = PurePosixPath(info.filename)
                if info.is_dir() or name.suffix.lower() != ".png" or "__MACOSX" in name.parts:
                    continue
                if name.is_absolute() or ".." in name.parts or info.file_size > LARGEST_IMAGE:
                    raise UserError(
                        f"{path} holds {info.filename!r}, which no archive of images should: get it anew."
                    )
                yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"cannot read the archive {path} ({error}): get it anew.") from None
