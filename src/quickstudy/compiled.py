"""An outer step as one compiled program: forward, inner gradients and the meta-gradient together.

The step is traced with its inner `autograd.grad` calls flattened into one graph, and that graph is compiled.
Off unless asked for: the first step of every shape of tasks waits for it (20 seconds to two minutes).
On a GPU the step is recorded as it is (recorded.py), which takes a second and does away with what is slow there.
Networks of 2-d convolutions are left as they are on a processor, where it was measured not to pay (docs/speed.md).
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from quickstudy.core.device import on_processor
from quickstudy.core.learner import MetaLearner
from quickstudy.core.task import Task
from quickstudy.core.tracing import tracing
from quickstudy.nets.norm import collect
from quickstudy.recorded import recorded
from quickstudy.tasks.download import cache_folder

SHAPES = 4
"""Tasks of more shapes than this are not worth compiling for: those after are run as they are."""


class Passed(NamedTuple):
    """What one pass of the program gave: the mean loss, the norm of its whole gradient, the gradient of every
    parameter, and what running norms saw."""

    loss: Tensor
    norm: Tensor
    grads: list[Tensor]
    statistics: list[tuple[nn.Module, Tensor]]


class Compiled:
    """Losses and gradients of a learner's parts, by a program compiled for their shapes.

    context: where each part runs (autocast). say: tell on stderr how long compiling took. seconds: spent on
    compiling so far. Parts with padding where padding matters, parts of too many shapes, and
    learners whose steps depend on values (or a machine without a C++ compiler) are not compiled: `of` then
    gives None, after one warning.
    """

    def __init__(
        self, learner: MetaLearner, context: Callable[[], AbstractContextManager[Any]], say: bool = False
    ):
        # programs are found again by the next process
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
        self.learner = learner
        self.context = context
        self.say = say
        self.trained = {n: p for n, p in learner.named_parameters() if p.requires_grad}
        self.programs: dict[Any, Callable[..., list[Tensor]]] = {}
        self.layers: list[nn.Module] = []
        self.seconds = 0.0
        self.refused = ""

    def of(self, tasks: Task) -> Passed | None:
        """What one pass over these tasks gives; None if not compiled."""
        if self.refused or any(rows.padded for rows in tasks):
            return None
        leaves, shape = tree_flatten(tasks)
        # by shapes and the names of columns: torch's own description of a tree is slow to hash
        columns = [None if isinstance(rows.x, Tensor) else tuple(rows.x) for rows in tasks]
        key = (*columns, *((leaf.shape, leaf.dtype) for leaf in leaves), self.learner.training)
        if key not in self.programs:
            if quicker_without(self.learner):
                self._refuse("on a processor its convolutions are as fast or faster without")
                return None
            if len(self.programs) == SHAPES:
                self._refuse(f"tasks come in more than {SHAPES} shapes")
                return None
            begin = time.perf_counter()
            try:
                self.programs[key] = self._compile(leaves, shape)
            except Exception as error:  # whatever tracing or the compiler stumbles over, training goes on without
                self._refuse((str(error).strip().splitlines() or [type(error).__name__])[0])
                return None
            self.seconds += time.perf_counter() - begin
            if self.say:
                how, kept = "recorded the outer step as a CUDA graph", ""
                if self.on_processor:
                    how, kept = "compiled the outer step", "; it is kept for the next run"
                print(f"{how} in {time.perf_counter() - begin:.0f} seconds{kept}.", file=sys.stderr)
        with torch.no_grad():
            loss, norm, *rest = self.programs[key](*self._weights(), *leaves)
        count = len(self.trained)
        # cloned: the next run of a recorded program writes over what this one gave
        statistics = [seen.clone() for seen in rest[count:]]
        return Passed(loss, norm, rest[:count], list(zip(self.layers, statistics, strict=True)))

    def _compile(self, leaves: list[Tensor], shape: Any) -> Callable[..., list[Tensor]]:
        buffers = dict(self.learner.named_buffers())

        def outer(*given: Tensor) -> list[Tensor]:
            weights = [w.detach().requires_grad_() for w in given[: len(self.trained)]]
            leaves = list(given[len(weights) :])
            named = dict(zip(self.trained, weights, strict=True))
            with torch.enable_grad(), collect() as seen, tracing(), self.context():
                loss = functional_call(self.learner, {**buffers, **named}, (tree_unflatten(leaves, shape),))
                grads = torch.autograd.grad(loss, weights, allow_unused=True)
            self.layers = list(seen)
            means = [torch.stack(values).mean(0) for values in seen.values()]
            pairs = zip(weights, grads, strict=True)
            filled = [torch.zeros_like(w) if g is None else laid_out_as(g, w) for w, g in pairs]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in filled]))
            return [loss.detach(), norm, *filled, *means]

        weights = self._weights()
        if not self.on_processor:
            return recorded(outer, weights, leaves)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch import _inductor as inductor  # not needed unless compiling, and slow to import
            from torch._inductor import config

        # what a learner draws for itself is drawn as it is without compiling
        with config.patch(fallback_random=True), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, of its own parts
            traced = make_fx(outer, tracing_mode="fake", _allow_non_fake_inputs=True)(*weights, *leaves)
            # by the compiler itself, for `torch.compile` would look at the shapes again at every step. What calls the
            # kernels is C++ too, which takes no longer to compile and a tenth off a small step
            program: Any = inductor.compile(traced, [*weights, *leaves], options={"cpp_wrapper": True})
            program(*weights, *leaves)
        return program

    @property
    def on_processor(self) -> bool:
        return on_processor(next(self.learner.parameters()))

    def _weights(self) -> list[Tensor]:
        return [p.detach() for p in self.trained.values()]

    def _refuse(self, why: str) -> None:
        self.refused = why
        warnings.warn(
            f"the outer step of {type(self.learner).__name__} is not compiled ({why}): it runs as it is, to the "
            "same result.",
            UserWarning,
            stacklevel=2,
        )


def quicker_without(learner: MetaLearner) -> bool:
    """Whether the learner convolves on a processor, and is not compiled therefore."""
    return on_processor(next(learner.parameters())) and any(p.dim() == 4 for p in learner.parameters())


def laid_out_as(grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient laid out as its weight is, which the fused optimiser asks for."""
    return grad if grad.stride() == weight.stride() else torch.empty_like(weight).copy_(grad)
