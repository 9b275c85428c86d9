"""What rows are made of: small objectives and networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from quickstudy.core import Classification, Objective, Regression
from quickstudy.core.learner import MetaLearner
from quickstudy.nets import MLP, Conv4, ResNet12, Transformer
from quickstudy.nets.norm import Norm

VECTOR, POINT, IMAGE = (3,), (1,), (1, 16, 16)


class Row(NamedTuple):
    """A learner, the shape of the rows it takes, whether its tasks are padded, and for zero-shot a description's."""

    make: Callable[[], MetaLearner]
    x_shape: tuple[int, ...] = VECTOR
    ragged: bool = False
    description_shape: tuple[int, ...] = ()


def blobs() -> Classification:
    return Classification(3)


def pairs() -> Classification:
    return Classification(2)


def waves() -> Regression:
    return Regression(1)


def mlp(objective: Objective | None = None, x_shape: tuple[int, ...] = VECTOR) -> MLP:
    return MLP(x_shape, out=objective.size if objective else None, width=6, depth=2)


def conv(norm: Norm, objective: Objective | None = None) -> Conv4:
    return Conv4(IMAGE, out=objective.size if objective else None, channels=8, norm=norm)


def resnet(norm: Norm, objective: Objective | None = None) -> ResNet12:
    return ResNet12(IMAGE, out=objective.size if objective else None, widths=(2, 2, 2, 3), norm=norm)


def transformer(objective: Objective | None = None, x_shape: tuple[int, ...] = VECTOR) -> Transformer:
    return Transformer(x_shape, out=objective.size if objective else None, width=4, depth=1, heads=2)
