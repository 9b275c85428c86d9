"""The catalogue of methods, on one screen."""

from __future__ import annotations

from typing import Any

from quickstudy.core.catalogue import Catalogue, arguments
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.source import Spec
from quickstudy.learners.baseline.centroid import Centroid
from quickstudy.learners.baseline.chance import Chance
from quickstudy.learners.baseline.linear_probe import LinearProbe
from quickstudy.learners.baseline.logistic import Logistic
from quickstudy.learners.baseline.pooled import Pooled
from quickstudy.learners.baseline.scratch import Scratch
from quickstudy.learners.gradient.anil import ANIL
from quickstudy.learners.gradient.imaml import IMAML
from quickstudy.learners.gradient.maml import MAML
from quickstudy.learners.gradient.reptile import Reptile
from quickstudy.learners.hybrid.proto_maml import ProtoMAML
from quickstudy.learners.metric.protonet import ProtoNet
from quickstudy.learners.metric.r2d2 import R2D2
from quickstudy.learners.model.cnp import CNP
from quickstudy.nets import NETS, default_net

LEARNERS: Catalogue[MetaLearner] = Catalogue(
    "learner",
    {
        # gradient-based
        "maml": MAML,
        "anil": ANIL,
        "imaml": IMAML,
        "reptile": Reptile,
        # metric-based
        "protonet": ProtoNet,
        "r2d2": R2D2,
        # model-based
        "cnp": CNP,
        # hybrid
        "proto_maml": ProtoMAML,
        # plain baselines
        "chance": Chance,
        "centroid": Centroid,
        "logistic": Logistic,
        "scratch": Scratch,
        "pooled": Pooled,
        "linear_probe": LinearProbe,
    },
)


def make(
    name: str, spec: Spec, net: str = "auto", net_options: dict[str, Any] | None = None, **options: Any
) -> MetaLearner:
    """The learner of that name with everything that the source's facts decide filled in.

    net: a name of the net catalogue, or "auto" for the one that suits the inputs. Convolutional networks
    get the statistics that suit the method (`net_norm`), unless `net_options` says otherwise.
    Raises UserError for an unknown name, or a method that cannot take such tasks.

    >>> make("maml", Spec("regression", (1,)), inner_steps=1).net.size
    1
    """
    cls = LEARNERS[name]
    if spec.kind not in cls.kinds:
        fits = ", ".join(k for k, c in LEARNERS.items() if spec.kind in c.kinds)
        raise UserError(f"{name} takes {' and '.join(cls.kinds)} tasks, and these are {spec.kind}: use {fits}.")
    known = arguments(cls)
    objective = cls.objective_for(spec)
    facts: dict[str, Any] = {"objective": objective, "x_shape": spec.x_shape, "classes": spec.train_classes}
    if "net" in known:
        backbone = NETS[default_net(spec.x_shape) if net == "auto" else net]
        chosen: dict[str, Any] = {"out": objective.size if cls.net_output == "objective" else None}
        if "norm" in arguments(backbone):
            chosen["norm"] = cls.net_norm
        facts["net"] = backbone(spec.x_shape, **chosen | (net_options or {}))  # type: ignore[call-arg]
    return cls(**{k: v for k, v in facts.items() if k in known and k not in options}, **options)


__all__ = [
    "ANIL",
    "CNP",
    "IMAML",
    "LEARNERS",
    "MAML",
    "R2D2",
    "Centroid",
    "Chance",
    "LinearProbe",
    "Logistic",
    "Pooled",
    "ProtoMAML",
    "ProtoNet",
    "Reptile",
    "Scratch",
    "make",
]
