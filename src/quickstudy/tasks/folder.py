"""A folder of images, one sub-folder a class, as a source of tasks."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quickstudy.core.errors import UserError, nearest
from quickstudy.core.source import SPLITS, Split
from quickstudy.tasks.images import image_files, open_image, read_images, sub_folders, to_array
from quickstudy.tasks.pool import ClassSource, Pool, held_out
from quickstudy.tasks.sampling import Count


class Folder(ClassSource):
    """Tasks from a folder of images with one sub-folder a class, scaled to `size` x `size` pixels in [0, 1].

    Whole classes are held out for valid and test; if the folder consists of folders train, valid, test that
    hold the class folders, those are the splits. mixed_sizes: "resize", or "refuse" images of several sizes.
    invert: dark ink on white becomes bright ink on black. An unreadable image raises, or is left out with a
    warning if skip_unreadable. rotations: quarter turns are classes of their own; mirrors, jitter: as in Omniglot.
    """

    def __init__(
        self,
        path: str = "",
        way: Count = 5,
        shot: Count = 1,
        query: Count = 15,
        imbalance: float = 0.0,
        scheme: str = "fixed",
        size: int = 28,
        grey: bool = True,
        invert: bool = False,
        mixed_sizes: str = "resize",
        skip_unreadable: bool = False,
        rotations: bool = False,
        mirrors: bool = False,
        jitter: float = 0.0,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        self.path = path
        self.way = way
        self.shot = shot
        self.query = query
        self.imbalance = imbalance
        self.scheme = scheme
        self.size = size
        self.grey = grey
        self.invert = invert
        self.mixed_sizes = mixed_sizes
        self.skip_unreadable = skip_unreadable
        self.rotations = rotations
        self.mirrors = mirrors
        self.jitter = jitter
        self.valid_fraction = valid_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    def load(self) -> Pool:
        """All images of the folder.

        Raises UserError for a missing or empty folder, one without class folders, and unreadable images.
        """
        if self.mixed_sizes not in ("resize", "refuse"):
            raise UserError(
                f"unknown mixed_sizes {self.mixed_sizes!r}: {nearest(self.mixed_sizes, ['resize', 'refuse'])}"
            )
        if self.size < 1:
            raise UserError(f"size is {self.size}: give the width of the images in pixels, at least 1.")
        folders, splits = self._class_folders()
        arrays: list[np.ndarray] = []
        label: list[int] = []
        first: tuple[Path, tuple[int, int]] | None = None
        for number, folder in enumerate(folders):
            for file in image_files(folder):
                try:
                    image = open_image(file, "L" if self.grey else "RGB")
                except UserError as error:
                    if not self.skip_unreadable:
                        raise UserError(f"{str(error).rstrip('.')}, or set skip_unreadable to leave it out.") from None
                    warnings.warn(f"left out an unreadable image: {error}", stacklevel=2)
                    continue
                first = first or (file, image.size)
                if self.mixed_sizes == "refuse" and image.size != first[1]:
                    (w, h), (v, g) = image.size, first[1]
                    raise UserError(
                        f"{file} is {w} x {h} pixels and {first[0]} is {v} x {g}: "
                        "give images of one size, or set mixed_sizes to resize."
                    )
                arrays.append(to_array(image, (self.size, self.size)))
                label.append(number)
        if not arrays:
            raise UserError(f"{self.path} has class folders and no readable image in them: add images to them.")
        x = torch.from_numpy(np.stack(arrays))
        names = [str(f.relative_to(self.path)) for f in folders]
        return Pool.of(255 - x if self.invert else x, torch.tensor(label), names, splits, where=self.path)

    def _class_folders(self) -> tuple[list[Path], dict[Split, Tensor]]:
        """The class folders and the numbers of those of each split."""
        if not self.path:
            raise UserError("folder needs a path: give a folder that holds one sub-folder for each class.")
        found, by_split = class_folders(self.path)
        folders = [Path(self.path) / name for name in found]
        if by_split is None:
            return folders, held_out(len(folders), self.valid_fraction, self.test_fraction, self.split_seed)
        return folders, numbered(by_split, list(found))


def numbered(by_split: Mapping[Split, Collection[str]], names: list[str]) -> dict[Split, Tensor]:
    """The numbers in `names` of those classes of each split that are among them."""
    splits: dict[Split, Tensor] = {}
    for split, of in by_split.items():
        splits[split] = torch.tensor([i for i, name in enumerate(names) if name in of], dtype=torch.long)
    return splits


def _checked(path: Path) -> list[Path]:
    """The sub-folders of a folder that exists and is not empty."""
    if not path.exists():
        raise UserError(f"there is no folder {path}: check the path.")
    if not path.is_dir():
        raise UserError(f"{path} is a file: give the folder that holds one sub-folder for each class.")
    folders = sub_folders(path)
    if not folders and not image_files(path):
        raise UserError(f"the folder {path} is empty: put one sub-folder of images in it for each class.")
    return folders


def read_folder(
    path: Path, x_shape: tuple[int, ...], invert: bool = False
) -> tuple[Tensor, list[str] | None, list[str]]:
    """The images of a folder of class folders, or of a flat folder (no labels): x, labels, names of the files.

    x: (n, *x_shape), float32 in [0, 1]. Raises UserError if there is no image.
    """
    files, labels, names = found_images(path)
    return read_images(files, x_shape, invert), labels, names


def found_images(path: Path) -> tuple[list[Path], list[str] | None, list[str]]:
    """The image files of a folder of class folders, or of a flat folder: files, labels or None, names.

    Raises UserError if there is no image; what is left out is warned of.
    """
    classes = _checked(path)
    found = {folder: image_files(folder) for folder in classes or [path]}
    files = [f for inside in found.values() for f in inside]
    if not files:
        raise UserError(f"there is no image in {path}: put images in it, or in one sub-folder for each class.")
    loose = image_files(path) if classes else []
    if loose:
        warnings.warn(f"left out what lies beside the sub-folders of {path}: {_some(loose)}", stacklevel=2)
    empty = [folder for folder, inside in found.items() if not inside]
    if empty:
        warnings.warn(f"left out sub-folders of {path} without an image: {_some(empty)}", stacklevel=2)
    labels = [f.parent.name for f in files] if classes else None
    return files, labels, [str(f.relative_to(path)) for f in files]


def class_folders(path: str) -> tuple[dict[str, list[Path]], dict[Split, list[str]] | None]:
    """The image files of each class folder by its name, and the names in each split where folders train, valid and
    test say them.

    Raises UserError for a missing or empty folder, or one without class folders.
    """
    root = Path(path)
    classes = _checked(root)
    if not classes:
        raise UserError(f"{path} holds images and no sub-folders: put the images of each class in a folder of its own.")
    by_split: dict[Split, list[str]] | None = None
    if {c.name for c in classes} <= set(SPLITS) and any(sub_folders(c) for c in classes):
        ready: dict[Split, list[Path]] = {s: sub_folders(root / s) if (root / s).is_dir() else [] for s in SPLITS}
        classes = [f for inside in ready.values() for f in inside]
        by_split = {split: [str(f.relative_to(root)) for f in inside] for split, inside in ready.items()}
    return {str(f.relative_to(root)): image_files(f) for f in classes}, by_split


def _some(paths: list[Path]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(p.name for p in paths[:3]) + more
