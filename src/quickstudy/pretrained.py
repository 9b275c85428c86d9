"""Learners that come with the package, already trained."""

from __future__ import annotations

from quickstudy import checkpoint, shipped
from quickstudy.checkpoint import Checkpoint
from quickstudy.core.errors import UserError, nearest


def pretrained(name: str = "tabular") -> Checkpoint:
    """A learner with the weights that the package ships, ready to adapt.

    tabular: classification of small tables of any width (see `learners.Tabular`), trained by us on synthetic tables
    alone; its weights are free to use under the package's licence, and no data of others is in them.

    >>> import torch
    >>> from quickstudy import adapt
    >>> task = adapt(pretrained("tabular"), torch.tensor([[0.0, 3.0], [1.0, 5.0], [8.0, 1.0], [9.0, 2.0]]),
    ...     ["low", "low", "high", "high"])
    >>> task.labels(torch.tensor([[0.5, 4.0], [8.5, 1.5]]))
    ['low', 'high']

    Raises UserError for a name that is not shipped.
    """
    if name not in shipped.names():
        raise UserError(f"no weights of {name!r} are shipped: {nearest(name, shipped.names())}")
    return checkpoint.load(shipped.FOLDER / f"{name}{shipped.SUFFIX}")
