"""From a configuration, the tree of options that `quickstudy train --config` reads, to a learner and its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quickstudy.core.catalogue import arguments, build
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Source
from quickstudy.learners import make
from quickstudy.nets import NETS, default_net

Config = Mapping[str, Any]
"""By slot: tasks, learner, net (each with a name and its options), valid, train; memory and compile beside them."""


def source_in(config: Config) -> Source:
    """The source that a configuration describes.

    Raises UserError for a name or an option that is not known.
    """
    return build(config["tasks"], "tasks")


def learner_in(config: Config, source: Source) -> MetaLearner:
    """The learner that a configuration describes, for the tasks of a source.

    Where the net is not named ("auto"), the tasks decide on it, and options of it that are None were not given.
    Raises UserError for a name or an option that is not known, or does not fit the tasks.
    """
    chosen, net = dict(config["learner"]), dict(config.get("net") or {})
    name = net.pop("name", "auto")
    if name not in NETS:
        name = source.spec.net or default_net(source.spec.x_shape, source.spec.encoded)
        net = {option: value for option, value in net.items() if value is not None}
        for option in net.keys() - arguments(NETS[name]).keys():
            raise UserError(f"--net.{option} is no option of {name}, which suits these tasks: choose another --net.")
    return make(chosen.pop("name"), source.spec, name, net, **chosen)


def valid_source_in(config: Config, source: Source) -> Source | None:
    """The tasks to validate on; None where they are those trained on."""
    other = {name: value for name, value in (config.get("valid") or {}).items() if value is not None}
    return source.reshaped(**other) if other else None
