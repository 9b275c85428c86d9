"""What a learner declares of itself must be so: its flags, its loss, its gradient, its card."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from quickstudy.core.catalogue import build, describe
from quickstudy.core.errors import UserError
from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, Task, join_rows, map_tensors
from quickstudy.testing.gradient import check_meta_gradient, deterministic, gradient_is_exact
from quickstudy.testing.laws import training_tasks
from quickstudy.testing.promise import answer, broken, difference, identical, prepared


def _rows(part: Any, index: Any) -> Any:
    """The rows at `index` of every task."""
    return map_tensors(part, lambda t: t[:, index])


def check_kinds_are_declared(learner: MetaLearner, tasks: Task) -> None:
    """The objective's kind is one of the kinds that the class says it takes."""
    kind = learner.objective.kind
    if kind not in learner.kinds and (kind, *learner.kinds) != ("classification", "zero-shot"):
        broken(
            "kinds_are_declared",
            f"it was built for {kind} and kinds is {learner.kinds}",
            "declare the kind, or refuse the objective",
        )


def check_transductive_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """Each query alone is predicted as together with the others, unless `transductive` is declared."""
    name = "transductive_is_declared"
    learner, tasks = prepared(learner, tasks)
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        together = learner.predict(state, tasks.query.x)
        rows = range(tasks.query.weight.shape[1])
        alone = torch.cat([learner.predict(state, _rows(tasks.query.x, slice(i, i + 1))) for i in rows], 1)
    found = difference(alone, together)
    if found and not learner.transductive:
        broken(name, f"queries alone and together predict {found}", "declare transductive = True")
    if not found and learner.transductive:
        broken(name, "it is declared, but queries alone and together agree", "declare transductive = False")


def check_exchangeable_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """The order of the support rows does not matter, unless `exchangeable` is declared False."""
    name = "exchangeable_is_declared"
    learner, tasks = prepared(learner, tasks)
    n = tasks.support.weight.shape[1]
    orders = [torch.randperm(n, generator=generator("order", i)) for i in range(3)]
    first = answer(learner, tasks)
    others = [tasks._replace(support=_rows(tasks.support, order)) for order in orders]
    moved = [difference(answer(learner, other), first) for other in others]
    found = next(filter(None, moved), None)
    if found and learner.exchangeable:
        broken(name, f"another order of the support predicts {found}", "declare exchangeable = False")
    if not found and not learner.exchangeable:
        broken(name, "order is declared to matter and does not", "declare exchangeable = True")


def check_incremental_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """Where `incremental` is declared, adapt(b, prior=adapt(a)) predicts what adapt(a and b) predicts."""
    if not learner.incremental:
        return
    learner, tasks = prepared(learner, tasks)
    a, b = _rows(tasks.support, slice(0, None, 2)), _rows(tasks.support, slice(1, None, 2))
    with torch.no_grad():
        bit_by_bit = learner.predict(
            learner.adapt(b, prior=learner.adapt(a)), tasks.query.x, tasks.query.weight
        )
        at_once = learner.predict(learner.adapt(join_rows(a, b)), tasks.query.x, tasks.query.weight)
    found = difference(bit_by_bit, at_once)
    if found:
        broken(
            "incremental_is_declared",
            f"adapting to two halves one after the other predicts {found} from adapting to both",
            "keep sums and counts in the state and add to the prior's, or declare incremental = False",
        )


def check_any_way_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """Where `any_way` is declared, the same weights serve one class more and one class less."""
    if not learner.any_way or not isinstance(learner.objective, Classification):
        return
    way = learner.objective.way
    learner, tasks = prepared(learner, tasks)
    for other in {way + 1, max(2, way - 1)} - {way}:
        # Fold or open the last class: labels stay valid, rows stay the same.
        def relabel(part: Examples, other: int = other) -> Examples:
            y = part.y.clone()
            y[:, 0] = other - 1
            return part._replace(y=y.clamp_max(other - 1))

        asked = Task(relabel(tasks.support), relabel(tasks.query))
        try:
            found = tuple(answer(learner.for_way(other), asked).shape)
        except (RuntimeError, IndexError, ValueError, UserError) as error:
            found = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        wanted = (*tasks.query.weight.shape, other)
        if found != wanted:
            broken(
                "any_way_is_declared",
                f"with {other} classes it gives {found}, not {wanted}",
                "let no weight depend on the number of classes, or declare any_way = False",
            )


def check_label_permutation(learner: MetaLearner, tasks: Task) -> None:
    """Where `any_way` is declared, renaming the classes renames the predictions and nothing else."""
    if not learner.any_way or not isinstance(learner.objective, Classification):
        return
    renamed = torch.arange(learner.objective.way).roll(1)
    learner, tasks = prepared(learner, tasks)
    support = tasks.support._replace(y=renamed[tasks.support.y])
    found = difference(answer(learner, tasks._replace(support=support))[..., renamed], answer(learner, tasks))
    if found:
        broken(
            "label_permutation",
            f"renaming the classes changes predictions: {found}",
            "let no weight depend on a class's index, or declare any_way = False",
        )


def check_loss_is_per_task(learner: MetaLearner, tasks: Task) -> None:
    """`meta_loss` is one finite number a task, `forward` is its mean, and training reaches a parameter."""
    name = "loss_is_per_task"
    learner, tasks = prepared(learner, tasks)
    tasks = training_tasks(learner, tasks)
    losses = learner.meta_loss(tasks)
    if losses.shape != (tasks.query.tasks,):
        broken(name, f"meta_loss is {tuple(losses.shape)} for {tasks.query.tasks} tasks", "return (task,)")
    if not torch.isfinite(losses).all():
        broken(name, "meta_loss is not finite", "guard logarithms, divisions and empty sums")
    scalar = learner(tasks)
    found = "a shape" if scalar.dim() else difference(scalar.detach(), losses.detach().mean())
    if found:
        broken(name, f"forward is not the mean of meta_loss: {found}", "leave forward as it is")
    if not learner.trained:
        return
    trainable = [p for p in learner.parameters() if p.requires_grad]
    reached = (
        torch.autograd.grad(scalar, trainable, allow_unused=True) if trainable and scalar.requires_grad else ()
    )
    if not any(g is not None and bool(g.ne(0).any()) for g in reached):
        broken(name, "no parameter has a gradient", "keep the graph, or declare trained = False")


def check_meta_gradient_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """In training mode the gradient of the loss equals central differences exactly where declared so."""
    if not learner.trained:
        return
    learner, tasks = prepared(learner, tasks)
    learner.train()
    named = [(n, p) for n, p in learner.named_parameters() if p.requires_grad]
    rng = generator("jitter")
    with torch.no_grad():
        for _, p in named:
            # Away from symmetric starts (a head of zeros), where half of all gradients vanish.
            size = 0.05 * (p.square().mean().sqrt() + 0.1)
            p.add_(size * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    loss = deterministic(learner, training_tasks(learner, tasks), learner.buffers())
    parameters = [p for _, p in named]
    if learner.exact_gradient:
        check_meta_gradient(loss, parameters, [n for n, _ in named])
    elif gradient_is_exact(loss, parameters):
        broken(
            "meta_gradient",
            "exact_gradient = False is declared, but the gradient equals central differences",
            "declare exact_gradient = True",
        )


def check_descends_is_declared(learner: MetaLearner, tasks: Task) -> None:
    """Whether adapting and predicting take gradients is what `descends` says."""
    learner, tasks = prepared(learner, tasks)
    with ExitStack() as watch:
        places = [(torch.autograd, "grad"), (torch.autograd, "backward"), (torch.func, "grad"), (torch.func, "vjp")]
        calls = [watch.enter_context(patch.object(m, name, wraps=getattr(m, name))) for m, name in places]
        answer(learner, tasks)
    if any(call.called for call in calls) != learner.descends:
        found = "it takes gradients" if not learner.descends else "no gradient is taken"
        broken("descends_is_declared", f"{found} and descends is {learner.descends}", "declare what it does")


def check_describe_and_build(learner: MetaLearner, tasks: Task) -> None:
    """A learner is written down as JSON and built again, and with its weights predicts the same."""
    name = "describe_and_build"
    learner, tasks = prepared(learner, tasks)
    try:
        card = describe(learner, "learner")
        again = build(json.loads(json.dumps(card)), "learner")
    except (UserError, TypeError, AttributeError) as error:
        broken(
            name,
            f"it cannot be written down and built again ({str(error).rstrip('.')})",
            "let the constructor only store what it is given, under the same names",
        )
    if describe(again, "learner") != card:
        broken(name, "the rebuilt learner describes itself otherwise", "store arguments as they are given")
    again = again.double().eval()
    try:
        again.load_state_dict(learner.state_dict())
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
        broken(
            name, f"its weights do not fit the rebuilt one ({problem})", "let the arguments decide all shapes"
        )
    if not identical(answer(again, tasks), answer(learner, tasks)):
        broken(
            name,
            "the rebuilt learner with the same weights predicts something else",
            "keep everything learnt in parameters and buffers",
        )
