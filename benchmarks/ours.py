"""quickstudy in the speed benchmark, through what it offers everyone: a learner, its outer step, `evaluate`."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from peers import Built, Missing, Numbers
from workloads import Batch, Workload

import quickstudy as qs
from quickstudy.outer import Outer
from quickstudy.scores import Evaluation


class Given(qs.Source):
    """The tasks of a workload, as they are."""

    def __init__(self, spec: qs.Spec, tasks: qs.Task):
        self.facts, self.tasks, self.drawn = spec, tasks, 0

    @property
    def spec(self) -> qs.Spec:
        return self.facts

    def sample(self, split: str, tasks: int, rng: torch.Generator) -> qs.Task:
        first = self.drawn
        self.drawn = (first + tasks) % self.tasks.query.tasks
        return qs.select(self.tasks, slice(first, first + tasks))

    def sample_pooled(self, split: str, rows: int, rng: torch.Generator) -> qs.Examples:
        raise NotImplementedError


def build(work: Workload, dtype: torch.dtype, compiled: bool = False) -> Built:
    made = learner(work, dtype)
    batch: Batch = work.batch(dtype)
    tasks = qs.Task(qs.examples(batch.support_x, batch.support_y), qs.examples(batch.query_x, batch.query_y))
    if work.method == "evaluate":
        return evaluation(work, made, tasks, compiled)
    outer = outer_step(made.train(), compiled, work.device)
    optimizer = torch.optim.AdamW(outer.parameters, lr=1e-3, weight_decay=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        found = outer.gradient(tasks, False)
        optimizer.step()
        outer.fold_in(found)

    def result() -> Numbers:
        optimizer.zero_grad()
        outer.gradient(tasks, False)
        if outer.compiled is not None and outer.compiled.refused:
            raise Missing(f"not compiled: {outer.compiled.refused}")
        return {name: p.grad.clone() for name, p in parameters(made).items() if p.grad is not None}

    return Built(step, result)


def evaluation(work: Workload, made: qs.MetaLearner, tasks: qs.Task, compiled: bool) -> Built:
    if compiled:
        raise Missing("evaluation is not compiled")
    source = Given(spec(work), tasks)

    def step() -> Evaluation:
        return qs.evaluate(made, source, "test", tasks=work.tasks)

    def result() -> Numbers:
        return {"loss": -torch.tensor(step().measures["log_likelihood"], dtype=torch.float64)}

    return Built(step, result)


def spec(work: Workload) -> qs.Spec:
    if not work.images:
        return qs.Spec("regression", (1,))
    return qs.Spec("classification", (1, work.pixels, work.pixels), way=work.way)


def learner(work: Workload, dtype: torch.dtype) -> qs.MetaLearner:
    """The learner as `make` gives it, from the workload's starting weights.

    Raises Missing for a learner that is not in the catalogue, or has other weights.
    """
    name = "maml" if work.method == "evaluate" else work.method
    if name not in qs.catalogue("learner"):
        raise Missing("not there yet")
    options: dict[str, Any] = {}
    if work.steps:
        options = {"inner_steps": work.steps, "inner_lr": work.lr}
    if work.method == "maml":
        options["first_order"] = work.first_order
    if work.method == "imaml":
        options |= {"strength": work.strength, "cg_steps": work.cg_steps}
    size = {"channels": work.channels} if work.images else {"width": work.width}
    made = qs.make(name, spec(work), net_options=size, **options)
    weights, own = work.weights(), parameters(made)
    if own.keys() != weights.keys():
        raise Missing(f"its weights are not those of the workload: {sorted(own.keys() ^ weights.keys())}")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(weights[key])
    return made.to(work.device, dtype)


def parameters(made: qs.MetaLearner) -> dict[str, torch.nn.Parameter]:
    """The meta-parameters by the names of `Workload.weights`."""
    return {name.removeprefix("net."): parameter for name, parameter in made.named_parameters()}


def outer_step(made: qs.MetaLearner, compiled: bool, device: str) -> Outer:
    """The outer step as `quickstudy.train` makes it, and the one place that asks for a compiled one."""
    fabric = Fabric(accelerator=device, devices=1, precision="32-true")
    fabric.launch()
    return Outer(fabric, fabric.setup_module(made), made, clip=None, accumulate=1, mixed=False, compile=compiled)
