"""What `quickstudy benchmark` compares on, by name: tasks, settings of single learners, and published rows.

Settings were chosen on validation tasks or are those of the papers; no test task had a say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Suite:
    """Tasks to compare on.

    tasks: the source and its options, as a card. trained_on: options of the training tasks where they differ, for
    learners that take any way. options, training: of single learners, beside their defaults. published: what the
    papers give, as text. differences: between their protocol and this one.
    """

    tasks: Mapping[str, Any]
    about: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    differences: str = ""


# the rate of the sinusoid in MAML's paper; what is learnt from a random start needs a small one there
_GENTLE = {
    name: {"inner_lr": 0.01}
    for name in ("maml", "imaml", "boil", "maml_plus_plus", "meta_curvature", "warp_grad", "mixture_maml", "hsml",
                 "bmaml", "platipus", "abml", "reptile", "scratch")
}  # fmt: skip

# ten times the paper's rate: after a budget of seconds well ahead on validation tasks
_CONTEXT = {"cavia": {"inner_lr": 10.0}}

SUITES: dict[str, Suite] = {
    "omniglot": Suite(
        {"name": "omniglot", "way": 5, "shot": 1, "query": 15},
        "handwritten characters, 5-way 1-shot, unseen characters at test",
        options=_CONTEXT,
        published={
            "maml": "98.7 ± 0.4", "reptile": "97.68 ± 0.04", "meta_sgd": "99.53 ± 0.26", "maml_plus_plus": "99.47",
            "matching": "98.1", "protonet": "98.8", "relation": "99.6 ± 0.2", "snail": "99.07 ± 0.16", "mann": "82.8",
        },
        differences="Published rows: tens of thousands of steps on 1,200 random characters with rotations, 15 queries "
        "or fewer; here the Vinyals split and a budget of seconds. MAML and Reptile are transductive, as published. "
        "MAML takes 5 inner steps of 0.1, where the paper's took 1 of 0.4 and 3 when tested: after as many seconds "
        "69 % in place of 42 % right on validation tasks.",
    ),
    "glyphs": Suite(
        {"name": "glyphs", "way": 5, "shot": 1, "query": 15},
        "drawn characters made on the spot, 5-way 1-shot, unseen characters at test",
        options=_CONTEXT,
    ),
    "sinusoid": Suite(
        {"name": "sinusoid", "shot": 10, "query": 10},
        "sine waves of random amplitude and phase from 10 points",
        options={
            **_GENTLE,
            "maml": {"inner_steps": 1, "inner_lr": 0.01, "eval_steps": 10},
            # the paper's sizes are for images: eight times as many steps in the same time
            "snail": {"length": 16, "filters": 16, "keys": (16, 16, 16), "values": (16, 16, 16)},
        },
        published={"maml": "0.85 ± 0.14", "meta_sgd": "0.53 ± 0.09"},
        differences="Published rows: mean squared errors of Meta-SGD's table (arXiv 1707.09835), after 60,000 steps.",
    ),
    "gp": Suite(
        {"name": "gaussian_process"},
        "functions drawn from Gaussian processes, from 3 to 50 points",
        options=_GENTLE,
    ),
    "clinc150": Suite(
        {"name": "intents", "way": 5, "shot": 1, "query": 5},
        "what a sentence asks for (CLINC150: give its table with --tasks.path), 5-way 1-shot, unseen intents at test",
        options=_CONTEXT,
    ),
    "hwu64": Suite(
        {"name": "intents", "way": 5, "shot": 1, "query": 5},
        "what a sentence asks for (HWU64: give its table with --tasks.path), 5-way 1-shot, unseen intents at test",
        options=_CONTEXT,
    ),
    "zero-shot": Suite(
        {"name": "intents", "way": 5, "query": 5, "zero_shot": True},
        "what a sentence asks for, from the names of the intents alone (--tasks.path), unseen intents at test",
    ),
    "zero-shot-glyphs": Suite(
        {"name": "glyph_attributes", "way": 5},
        "letters from what can be counted in a drawing (holes, strokes, symmetry), unseen letters at test",
    ),
    "mixture": Suite(
        {"name": "mixture"},
        "functions of four families (sinusoid, line, quadratic, cubic), the family untold",
        options=_GENTLE,
    ),
}  # fmt: skip
