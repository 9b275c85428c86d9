"""Tasks from pictures as users have them, a table of paths or class folders: their pixels, or an encoder's view."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.reader import Reader
from quickstudy.core.source import Split
from quickstudy.tasks.domains import HELD_OUT, domains_of, split_domains
from quickstudy.tasks.folder import class_folders, numbered
from quickstudy.tasks.image_encoder import ImageEncoder
from quickstudy.tasks.images import open_image, to_array
from quickstudy.tasks.picture_reader import Album, PictureReader, read_album
from quickstudy.tasks.pool import ClassSource, Pool, held_out
from quickstudy.tasks.sampling import Count


class Pictures(ClassSource):
    """Tasks from a table (.csv, .tsv, .jsonl) with the columns path and label, and perhaps domain, or from a folder
    with one sub-folder of images a class. Paths are from the table's folder. Images of any size and mode become `size`
    x `size` pixels in RGB (grey if `grey`), in [0, 1]; what is transparent becomes white, a camera's turn is undone.

    encoder: a pretrained network on the disk makes a vector of each image, once (tasks/image_encoder.py): a
    .safetensors file with its `architecture`, as timm:resnet18, or the folder of a transformers model. Then `size`,
    `grey` and `invert` say nothing. Vectors are kept in the cache. The encoder is frozen: what is learnt is the network
    on top of it (`--net projection`, say).

    Whole classes are held out for valid and test; if a folder consists of folders train, valid, test that hold the
    class folders, those are the splits. With a column of domains the classes of a task come from one domain, equal
    labels of two domains are two classes, and `hold_out` "domains" holds out whole domains, "classes" some classes of
    each. fewest: classes with fewer images are left out. All pixels are held in memory.
    """

    group_word: ClassVar[str] = "domain"

    def __init__(
        self,
        path: str = "",
        path_column: str = "path",
        label_column: str = "label",
        domain_column: str = "domain",
        hold_out: str = "classes",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        encoder: str = "",
        architecture: str = "",
        size: int = 84,
        grey: bool = False,
        invert: bool = False,
        fewest: int = 1,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.path_column = path_column
        self.label_column = label_column
        self.domain_column = domain_column
        self.hold_out = hold_out
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.encoder = encoder
        self.architecture = architecture
        self.size = size
        self.grey = grey
        self.invert = invert
        self.fewest = fewest
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def within_alphabet(self) -> bool:  # type: ignore[override]
        """Whether the classes of a task come from one group, which here is a domain."""
        return bool(self._cache().get("domains"))

    def load(self) -> Pool:
        """All images and their classes.

        Raises UserError if the table or folder is missing or damaged, an image cannot be read, or an option does not
        fit it.
        """
        if self.hold_out not in HELD_OUT:
            raise UserError(f"unknown hold_out {self.hold_out!r}: {nearest(self.hold_out, HELD_OUT)}")
        if self.size < 1:
            raise UserError(f"size is {self.size}: give the width of the images in pixels, at least 1.")
        if not self.path:
            raise UserError("pictures needs a path: give a table with the columns path and label, or a folder.")
        files, labels, domains, ready = self._album()
        counts = dict.fromkeys(labels, 0)
        for name in labels:
            counts[name] += 1
        rows = [i for i, name in enumerate(labels) if counts[name] >= self.fewest]
        if not rows:
            raise UserError(f"no class of {self.path} has {self.fewest} images: lower fewest.")
        files, labels = [files[i] for i in rows], [labels[i] for i in rows]
        names = sorted(set(labels))
        number = {name: i for i, name in enumerate(names)}
        label = torch.tensor([number[name] for name in labels])
        groups = None
        fractions = (self.valid_fraction, self.test_fraction, self.split_seed)
        if domains is not None:
            domain_names, groups = domains_of([domains[i] for i in rows], label, len(names))
            splits = split_domains(domain_names, groups, self.hold_out, *fractions)
        elif self.hold_out == "domains":
            raise UserError(f"hold_out is 'domains' and {self.path} has no column {self.domain_column!r}: add it.")
        elif ready is not None:
            splits = numbered(ready, names)
        else:
            splits = held_out(len(names), *fractions)
        pool = Pool.of(self._rows(files), label, names, splits, groups, where=self.path)
        self._cache()["domains"] = groups is not None
        return pool

    def _album(self) -> tuple[list[Path], list[str], list[str] | None, dict[Split, list[str]] | None]:
        """The files, the names of their classes and domains, and the classes of each split where folders say them."""
        if Path(self.path).is_dir() or not Path(self.path).exists():
            found, by_split = class_folders(self.path)
            album = [(file, name) for name, files in found.items() for file in files]
            if not album:
                raise UserError(f"{self.path} has class folders and no image in them: add images to them.")
            return [file for file, _ in album], [name for _, name in album], None, by_split
        album = read_album(self.path, self.path_column, self.label_column, self.domain_column)
        self._check_columns(album)
        assert album.labels is not None
        if album.domains is None:
            return album.files, album.labels, None, None
        pairs = zip(album.domains, album.labels, strict=True)
        return album.files, [f"{domain}/{label}" for domain, label in pairs], album.domains, None

    def _check_columns(self, album: Album) -> None:
        if album.labels is None:
            raise UserError(f"{self.path} has no labels in a column {self.label_column!r} (label_column): add them.")
        if album.domains is None and self.domain_column not in ("", "domain"):
            raise UserError(f"{self.path} has no column {self.domain_column!r} (domain_column): add it.")

    def _rows(self, files: list[Path]) -> Tensor:
        if self.encoder:
            return ImageEncoder(self.encoder, self.architecture).encode(files, keep=True)
        mode, size = "L" if self.grey else "RGB", (self.size, self.size)
        x = torch.from_numpy(np.stack([to_array(open_image(file, mode), size) for file in files]))
        return 255 - x if self.invert else x

    def reader(self) -> Reader:
        shape = tuple(self.prepare().x.shape[1:])
        columns = (self.path_column, self.label_column)
        if not self.encoder:
            return PictureReader(shape, "", "", "", *columns, self.invert)
        made = ImageEncoder(self.encoder, self.architecture)
        return PictureReader(shape, self.encoder, made.architecture, made.digest, *columns)
