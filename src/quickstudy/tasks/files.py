"""One task's images and arrays as they lie on the disk: what is read where a source has no reader of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from quickstudy.core.reader import Reader, Rows
from quickstudy.tasks.arrays import read_labelled, read_values
from quickstudy.tasks.images import read_images


class Files(Reader):
    """Rows from an .npz file (x and y), a folder of class folders, a folder of images, or one image.

    x_shape: of a row that the learner takes; images are resized to it. regression: y holds values, not classes.
    invert: the images show dark ink on white.
    """

    def __init__(self, x_shape: tuple[int, ...], regression: bool = False, invert: bool = False):
        self.x_shape = x_shape
        self.regression = regression
        self.invert = invert

    def read(self, path: str) -> Rows:
        if self.regression:
            x, values = read_values(path, self.x_shape)
            return Rows(x, None, values, [f"row {i}" for i in range(len(x))])
        x, labels, names = read_labelled(path, self.x_shape, self.invert)
        return Rows(x, labels, None, names)

    def given_images(self, files: Sequence[bytes]) -> Tensor:
        if len(self.x_shape) != 3:
            return super().given_images(files)
        return read_images(files, self.x_shape, self.invert)

    def unlabelled(self, path: str) -> str:
        if self.regression or path.endswith(".npz"):
            return "add an array named y"
        return "put the examples of each class in a folder of its own"
