"""Images as users bring them: a table of paths, a folder of class folders, a folder, or one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from quickstudy.core.errors import UserError
from quickstudy.core.reader import Reader, Rows
from quickstudy.tasks.folder import found_images
from quickstudy.tasks.image_encoder import ImageEncoder
from quickstudy.tasks.images import SUFFIXES, read_images
from quickstudy.tasks.records import Records, clipped, missing, read_records


@dataclass(frozen=True)
class Album:
    """Image files, with what a table or the folders say of each.

    labels, domains: None where nothing says them. names: what to call each.
    """

    files: list[Path]
    labels: list[str] | None
    domains: list[str] | None
    names: list[str]


def read_album(
    path: str, path_column: str = "path", label_column: str = "label", domain_column: str = "domain"
) -> Album:
    """The images that a table names, each by its path from the table's folder; or those of folders, or one.

    Raises UserError if there is none, a column is missing, or a path stands there twice or leads nowhere.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no file or folder {path}: check the path.")
    if place.suffix.lower() in SUFFIXES and place.is_file():
        return Album([place], None, None, [place.name])
    if place.is_dir():
        files, labels, names = found_images(place)
        return Album(files, labels, None, names)
    records = read_records(path, (path_column, label_column, domain_column))
    files = _files(records, path_column, place.parent)
    labels, domains = _said(records, label_column, "label_column"), _said(records, domain_column, "domain_column")
    names = [f"{row}, {file.name}" for row, file in zip(records.names, files, strict=True)]
    return Album(files, labels, domains, names)


def _said(records: Records, column: str, option: str) -> list[str] | None:
    """The labels in a column; None if there is no such column, or nothing in it."""
    if all(missing(value) for value in records.columns.get(column, [])):
        return None
    return records.labels(column, option)


def _files(records: Records, column: str, folder: Path) -> list[Path]:
    first: dict[Path, str] = {}
    files = []
    for said, row in zip(records.texts(column, "path_column"), records.names, strict=True):
        file = folder / said
        if not file.is_file():
            raise UserError(
                f"{records.where}, {row}: there is no image {clipped(said)!r} in {folder}: give paths from the folder "
                "of the table."
            )
        if file.resolve() in first:
            raise UserError(
                f"{records.where}: {clipped(said)!r} stands in {first[file.resolve()]} and in {row}: leave one out."
            )
        first[file.resolve()] = row
        files.append(file)
    return files


class PictureReader(Reader):
    """Reads a table of paths (.csv, .tsv, .jsonl) with or without labels, a folder of class folders or of images, or
    one image, as the source `pictures` read those of training.

    x_shape: of a row that the learner takes. encoder: the network that made vectors of the images, which must still be
    there and have this `digest`; none if pixels were taken as they are. invert: dark ink on white becomes bright.
    """

    def __init__(
        self,
        x_shape: tuple[int, ...],
        encoder: str = "",
        architecture: str = "",
        digest: str = "",
        path_column: str = "path",
        label_column: str = "label",
        invert: bool = False,
    ):
        self.x_shape = x_shape
        self.encoder = encoder
        self.architecture = architecture
        self.digest = digest
        self.path_column = path_column
        self.label_column = label_column
        self.invert = invert

    def read(self, path: str) -> Rows:
        album = read_album(path, self.path_column, self.label_column, "")
        return Rows(self._rows(album.files), album.labels, None, album.names)

    def given_images(self, files: Sequence[bytes]) -> Tensor:
        return self._rows(files)

    def _rows(self, files: Sequence[Path] | Sequence[bytes]) -> Tensor:
        if self.encoder:
            return ImageEncoder(self.encoder, self.architecture, self.digest).encode(files)
        return read_images(files, self.x_shape, self.invert)

    def unlabelled(self, path: str) -> str:
        if Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES:
            return "put the images of each class in a folder of its own"
        return f"fill in its column {self.label_column}"
