"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split
from quickstudy.tasks.download import cache_folder, fetch, unzip_images
from quickstudy.tasks.images import open_image, to_array
from quickstudy.tasks.npz import read_npz, write_npz
from quickstudy.tasks.pool import ClassSource, Pool, held_out
from quickstudy.tasks.sampling import Count

ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ARCHIVES = {
    "images_background.zip": ("68d2efa1b9178cc56df9314c21c6e718", 9_464_212),
    "images_evaluation.zip": ("6b91aef0f799c5bb55b94e3f2daec811", 6_462_886),
}
CACHED = "omniglot-28-v1.npz"
CHARACTERS = 1623


class Omniglot(ClassSource):
    """Handwritten characters, 28 x 28, ink bright; a class is a character (Lake and others, Science 2015).

    path: an .npz as this source stores it, a folder with the original archives (images_background.zip,
    images_evaluation.zip) or with the alphabet folders; empty: downloaded once, checked, and kept in the cache.
    split: "vinyals", the 1028 / 172 / 423 characters of Vinyals and others (arXiv 1606.04080), or "background",
    where test is the evaluation set and `valid_fraction` of the background alphabets are held out for valid.
    rotations: the turns by 90, 180 and 270 degrees are classes of their own (4112 / 688 / 1692).
    mirrors: in training tasks a class may be mirrored, for another class. jitter: in training tasks every drawing
    is turned, stretched, sheared and shifted by up to this share (0.1: 6 degrees, a tenth of its size).
    within_alphabet: all classes of a task come from one alphabet.
    """

    papers = ("lake2015human",)

    def __init__(
        self,
        path: str = "",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        split: str = "vinyals",
        rotations: bool = True,
        mirrors: bool = False,
        jitter: float = 0.0,
        within_alphabet: bool = False,
        valid_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.split = split
        self.rotations = rotations
        self.mirrors = mirrors
        self.jitter = jitter
        self.within_alphabet = within_alphabet
        self.valid_fraction = valid_fraction
        self.split_seed = split_seed

    def load(self) -> Pool:
        """All drawings and the split.

        Raises UserError if the data is missing, damaged or not all there, or cannot be downloaded.
        """
        if self.split not in ("vinyals", "background"):
            raise UserError(f"unknown split {self.split!r}: {nearest(self.split, ['vinyals', 'background'])}")
        data = self._arrays()
        names = [str(n) for n in data["class_names"].tolist()]
        alphabets = [name.split("/")[0] for name in names]
        known = sorted(set(alphabets))
        groups = torch.tensor([known.index(a) for a in alphabets])
        evaluation = torch.from_numpy(data["class_is_evaluation"].astype(bool))
        splits = self._vinyals(names) if self.split == "vinyals" else self._background(groups, evaluation)
        x = torch.from_numpy(data["images"]).unsqueeze(1)
        label = torch.from_numpy(data["label"].astype(np.int64))
        return Pool.of(x, label, names, splits, groups, where=self.path or "Omniglot")

    def _vinyals(self, names: list[str]) -> dict[Split, Tensor]:
        table = vinyals_split()
        where = {name: number for number, name in enumerate(names)}
        missing = [n for split in SPLITS for n in table[split] if n not in where]
        if missing:
            raise UserError(
                f"{self.path or 'Omniglot'} holds {len(names)} characters and lacks {len(missing)} of the "
                f"{CHARACTERS} that the vinyals split divides (first {missing[0]}): "
                "add the archives that are missing, or choose the split background."
            )
        return {split: torch.tensor([where[n] for n in table[split]]) for split in SPLITS}

    def _background(self, groups: Tensor, evaluation: Tensor) -> dict[Split, Tensor]:
        alphabets = groups[~evaluation].unique()
        dealt = held_out(len(alphabets), self.valid_fraction, 0.0, self.split_seed)
        valid = torch.isin(groups, alphabets[dealt["valid"]]) & ~evaluation
        parts: dict[Split, Tensor] = {"train": ~evaluation & ~valid, "valid": valid, "test": evaluation}
        return {split: chosen.nonzero().flatten() for split, chosen in parts.items()}

    def _arrays(self) -> dict[str, np.ndarray]:
        if not self.path:
            stored = cache_folder() / CACHED
            if not stored.exists():
                archives = [
                    fetch(ADDRESS + name, cache_folder() / "downloads" / name, md5, size)
                    for name, (md5, size) in ARCHIVES.items()
                ]
                write_npz(stored, **draw_characters(_from_archives(archives)))
            return read_characters(stored)
        path = Path(self.path)
        if not path.exists():
            raise UserError(
                f"there is no file or folder {path}: check the path, or leave it empty to download Omniglot."
            )
        if path.is_file():
            return read_characters(path)
        archives = sorted([*path.glob("images_background*.zip"), *path.glob("images_evaluation*.zip")])
        return draw_characters(_from_archives(archives) if archives else _from_folders(path), str(path))


def vinyals_split() -> dict[str, list[str]]:
    """The names of the characters of each split, "Alphabet/characterNN"."""
    table = json.loads(resources.files("quickstudy.tasks").joinpath("omniglot_vinyals.json").read_text("utf-8"))
    return {
        split: [
            f"{alphabet}/character{number:02}"
            for alphabet, numbers in table[split].items()
            for number in (range(1, table["characters"][alphabet] + 1) if numbers == "all" else numbers)
        ]
        for split in SPLITS
    }


def read_characters(path: Path) -> dict[str, np.ndarray]:
    """The arrays images (row, 28, 28) uint8, label (row,), class_names and class_is_evaluation (class,).

    Raises UserError if the file is damaged or lacks one of them.
    """
    keys = ("images", "label", "class_names", "class_is_evaluation")
    data = read_npz(path, keys)
    missing = [key for key in keys if key not in data]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: give an .npz with {', '.join(keys)}.")
    return data


def draw_characters(
    drawings: Iterator[tuple[str, bool, bytes]], where: str = "Omniglot"
) -> dict[str, np.ndarray]:
    """The arrays of `read_characters` from (class name, is evaluation, image file) triples.

    Each 105 x 105 drawing is averaged over areas to 28 x 28, ink bright. A file met twice is kept once.
    Raises UserError if there is none.
    """
    found: dict[tuple[str, bytes], np.ndarray] = {}
    evaluation: dict[str, bool] = {}
    for name, is_evaluation, content in drawings:
        evaluation.setdefault(name, is_evaluation)
        if (name, content) not in found:
            # Grey levels are inverted first: averaging then rounds as it does for bright ink.
            image = open_image(content, "L", f"of {name} in {where}").point(lambda grey: 255 - grey)
            found[name, content] = to_array(image, (28, 28))[0]
    if not found:
        raise UserError(
            f"{where} holds no Omniglot drawings: give the folder with images_background.zip and "
            "images_evaluation.zip, or with the alphabet folders."
        )
    names = sorted(evaluation, key=lambda n: (evaluation[n], n))
    number = {name: i for i, name in enumerate(names)}
    return {
        "images": np.stack(list(found.values())),
        "label": np.array([number[name] for name, _ in found], np.int16),
        "class_names": np.array(names),
        "class_is_evaluation": np.array([evaluation[n] for n in names]),
    }


def _from_archives(archives: list[Path]) -> Iterator[tuple[str, bool, bytes]]:
    for archive in archives:
        for name, content in unzip_images(archive):
            parts = name.split("/")
            if len(parts) >= 3:
                yield "/".join(parts[-3:-1]), "evaluation" in archive.name, content


def _from_folders(path: Path) -> Iterator[tuple[str, bool, bytes]]:
    for file in sorted(path.rglob("character*/*.png")):
        yield "/".join(file.parts[-3:-1]), "evaluation" in str(file.relative_to(path.parent)), file.read_bytes()
