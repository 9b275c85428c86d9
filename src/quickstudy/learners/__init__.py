"""The catalogue of methods: a table in the `__init__` of each family, joined here, and `make`."""

from __future__ import annotations

from typing import Any

from quickstudy.core.catalogue import Catalogue, arguments
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Spec
from quickstudy.learners import baseline, bayesian, gradient, hybrid, metric, model, zero_shot

# the `__all__` of a family names its classes: here they are public as well, without being listed twice
from quickstudy.learners.baseline import *  # noqa: F403
from quickstudy.learners.bayesian import *  # noqa: F403
from quickstudy.learners.gradient import *  # noqa: F403
from quickstudy.learners.hybrid import *  # noqa: F403
from quickstudy.learners.limits import check_options, within_memory
from quickstudy.learners.metric import *  # noqa: F403
from quickstudy.learners.model import *  # noqa: F403
from quickstudy.learners.scaled import Scaled
from quickstudy.learners.zero_shot import *  # noqa: F403
from quickstudy.nets import NETS, default_net

FAMILIES = {
    "gradient": gradient.TABLE,
    "metric": metric.TABLE,
    "model": model.TABLE,
    "hybrid": hybrid.TABLE,
    "bayesian": bayesian.TABLE,
    "zero_shot": zero_shot.TABLE,
    "baseline": baseline.TABLE,
}
LEARNERS: Catalogue[MetaLearner] = Catalogue(
    "learner", {key: cls for family in FAMILIES.values() for key, cls in family.items()}, {"scaled": Scaled}
)


def make(
    name: str, spec: Spec, net: str = "auto", net_options: dict[str, Any] | None = None, **options: Any
) -> MetaLearner:
    """The learner of that name with everything that the source's facts decide filled in.

    net: a name of the net catalogue, or "auto" for the one that suits the inputs. Convolutional networks
    get the statistics that suit the method (`net_norm`), unless `net_options` says otherwise. Where the tasks have
    scales of their own (`spec.scaling`), the learner comes inside of `Scaled`.
    Raises UserError for an unknown name or option, a number that no method could mean, one of units that memory does
    not hold, or a method that cannot take such tasks.

    >>> make("maml", Spec("regression", (1,)), inner_steps=1).net.size
    1
    """
    cls = LEARNERS[name]
    if name in LEARNERS.wrappers:
        raise UserError(f"{name} goes around another learner where the tasks ask for it: name that learner.")
    if spec.kind not in cls.kinds:
        fits = [k for family in FAMILIES.values() for k, c in family.items() if c.fits(spec)]
        raise UserError(
            f"{name} takes {' and '.join(cls.kinds)} tasks, and these are {spec.kind}: use {fits[0]}, say, or another "
            f"of the {len(fits)} that `quickstudy list learners` shows for {spec.kind}."
        )
    known, decided = arguments(cls), ("net", "objective", "x_shape", "classes", "description_shape")
    check_options(name, cls, options, decided)
    objective = cls.objective_for(spec)
    facts: dict[str, Any] = {
        "objective": objective,
        "x_shape": spec.x_shape,
        "classes": spec.train_classes,
        "description_shape": spec.description_shape,
    }
    if "net" in known:
        backbone = NETS[(spec.net or default_net(spec.x_shape, spec.encoded)) if net == "auto" else net]
        chosen: dict[str, Any] = {"out": objective.size if cls.net_output == "objective" else None}
        if NETS.key(backbone) == spec.net:
            chosen |= spec.net_options
        if "norm" in arguments(backbone):
            chosen["norm"] = cls.net_norm
        check_options(f"the net {NETS.key(backbone)}", backbone, net_options or {}, ("x_shape", "out"))
        with within_memory("a network"):
            facts["net"] = backbone(spec.x_shape, **chosen | (net_options or {}))  # type: ignore[call-arg]
    with within_memory(name):
        learner = cls(**{k: v for k, v in facts.items() if k in known and k not in options}, **options)
    return Scaled(learner, *spec.scaling) if spec.scaling else learner
