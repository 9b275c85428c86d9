"""The three laws of a learner: it changes nothing, its state is tensors, its tasks never mix."""

from __future__ import annotations

import copy

import torch
from safetensors.torch import load, save
from torch import Tensor

from quickstudy.core.learner import MetaLearner
from quickstudy.core.objective import Classification
from quickstudy.core.source import generator
from quickstudy.core.task import Examples, Inputs, Task, join_rows, map_tensors, select
from quickstudy.testing.promise import (
    answer,
    broken,
    changed,
    difference,
    equal,
    fingerprint,
    identical,
    one,
    prepared,
)
from quickstudy.testing.synthetic import pooled_rows


def training_tasks(learner: MetaLearner, tasks: Task) -> Task:
    """What `meta_loss` is given in training: the tasks, or their rows thrown together."""
    return pooled_rows(tasks) if learner.pooled else tasks


def check_adapt_changes_nothing(learner: MetaLearner, tasks: Task) -> None:
    """`adapt` leaves parameters, gradients, buffers, attributes and the support as they are."""
    _changes_nothing("adapt", learner, tasks)


def check_predict_changes_nothing(learner: MetaLearner, tasks: Task) -> None:
    """`predict` leaves parameters, gradients, buffers, attributes, the state and the query as they are."""
    _changes_nothing("predict", learner, tasks)


def _changes_nothing(verb: str, learner: MetaLearner, tasks: Task) -> None:
    name = f"{verb}_changes_nothing"
    for training in (False, True):
        mode = "training" if training else "eval"
        # A fresh copy, so that what the first call of all stores is seen as well.
        fresh, given = prepared(learner, tasks)
        fresh.train(training)
        before = fingerprint(fresh)
        inputs = {"support": given.support, "query": given.query}
        copies = map_tensors(inputs, lambda t: t.detach().clone())
        state = fresh.adapt(given.support)
        if verb == "predict":
            before = fingerprint(fresh)
            inputs = {"state": state, "query": given.query}
            copies = map_tensors(inputs, lambda t: t.detach().clone())
            fresh.predict(state, given.query.x, given.query.weight)
        found = changed(before, fingerprint(fresh))
        if found:
            broken(name, f"in {mode} mode {found}", f"{verb} must return what it finds, never store it")
        for what, value in inputs.items():
            if not equal(value, copies[what]):
                broken(name, f"in {mode} mode the {what} was written to", "work on new tensors")


def check_predict_twice_is_same(learner: MetaLearner, tasks: Task) -> None:
    """The same state and the same rows give the same prediction, bit for bit, in eval mode."""
    learner, tasks = prepared(learner, tasks)
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        first = learner.predict(state, tasks.query.x, tasks.query.weight)
        second = learner.predict(state, tasks.query.x, tasks.query.weight)
    if not identical(first, second):
        broken(
            "predict_twice_is_same",
            "the second prediction from the same state differs from the first",
            "put everything that prediction needs, random numbers included, into the state",
        )


def check_prediction_has_shape(learner: MetaLearner, tasks: Task) -> None:
    """Predictions are (task, n, objective.size), floating point and finite."""
    learner, tasks = prepared(learner, tasks)
    prediction = answer(learner, tasks)
    wanted = (*tasks.query.weight.shape, learner.objective.size)
    if prediction.shape != wanted:
        broken(
            "prediction_has_shape",
            f"predictions are {tuple(prediction.shape)}, not {wanted}",
            "return (task, n, objective.size)",
        )
    if not prediction.is_floating_point() or not torch.isfinite(prediction).all():
        broken(
            "prediction_has_shape",
            "predictions are not finite floating-point numbers",
            "use objective.hide_unseen, whose lowest logit is finite, and guard divisions",
        )


def check_state_is_tensors(learner: MetaLearner, tasks: Task) -> None:
    """A state is a dict of named tensors, task axis first, that can be saved, loaded and sliced."""
    name = "state_is_tensors"
    learner, tasks = prepared(learner, tasks)
    with torch.no_grad():
        state = learner.adapt(tasks.support)
        if not isinstance(state, dict):
            broken(name, f"the state is a {type(state).__name__}", "return a dict of named tensors")
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                broken(name, f"state[{key!r}] is a {type(value).__name__}", "keep tensors under names only")
            if value.dim() == 0 or len(value) != tasks.support.tasks:
                broken(
                    name,
                    f"state[{key!r}] is {tuple(value.shape)} for {tasks.support.tasks} tasks",
                    "give every tensor of the state a leading task axis",
                )
            if value.requires_grad:
                broken(name, f"state[{key!r}] keeps a gradient history under no_grad", "detach it there")
        whole = learner.predict(state, tasks.query.x, tasks.query.weight)
        held = load(save({k: v.contiguous().clone() for k, v in state.items()}))
        if not identical(learner.predict(held, tasks.query.x, tasks.query.weight), whole):
            broken(
                name,
                "a state that was saved and loaded predicts something else",
                "keep all that prediction needs in the state, not in the dict's identity, order or layout",
            )
        for i in range(tasks.support.tasks):
            asked = one(tasks.query, i)
            part = learner.predict(one(state, i), asked.x, asked.weight)
            found = difference(part, whole[i : i + 1])
            if found:
                broken(name, f"task {i} cut from the state predicts {found}", "index every tensor by task")


def check_tasks_never_mix(learner: MetaLearner, tasks: Task) -> None:
    """A batch of tasks gives what the tasks give one by one, and no task moves another's answer."""
    name = "tasks_never_mix"
    remedy = "never average, normalise or sort over the task axis"
    learner, tasks = prepared(learner, tasks)
    whole = answer(learner, tasks)
    for i in range(tasks.support.tasks):
        found = difference(answer(learner, one(tasks, i)), whole[i : i + 1])
        if found:
            broken(name, f"task {i} alone and in the batch predict {found}", remedy)
    for part in ("support", "query"):
        moved = map_tensors(getattr(tasks, part).x, lambda t: _garbage(t, 3.0))
        x = _put_first(getattr(tasks, part).x, moved)
        other = tasks._replace(**{part: getattr(tasks, part)._replace(x=x)})
        found = difference(answer(learner, other)[:-1], whole[:-1])
        if found:
            broken(name, f"another {part} for the last task moves the others' predictions: {found}", remedy)
    for mode in () if learner.pooled else _modes(learner, tasks):
        losses = _losses(learner, mode, tasks)
        for i in range(tasks.support.tasks):
            found = difference(_losses(learner, mode, one(tasks, i)), losses[i : i + 1])
            if found:
                broken(name, f"in {mode} mode the loss of task {i} alone and in the batch has {found}", remedy)


def _losses(learner: MetaLearner, mode: str, tasks: Task, seed: int = 0) -> Tensor:
    """`meta_loss` of a fresh copy in that mode: in training it may move buffers, and draw random numbers."""
    fresh = copy.deepcopy(learner).train(mode == "training")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh.meta_loss(tasks).detach()


def _modes(learner: MetaLearner, tasks: Task) -> list[str]:
    """The modes in which losses can be compared: training only where nothing in it is random."""
    first, second = (_losses(learner, "training", tasks, seed) for seed in (0, 1))
    return ["eval", "training"] if identical(first, second) else ["eval"]


def _put_first(x: Inputs, moved: Inputs) -> Inputs:
    """`x` with the last task's rows taken from `moved`."""
    if isinstance(x, dict) and isinstance(moved, dict):
        return {k: torch.cat([x[k][:-1], moved[k][-1:]]) for k in x}
    return torch.cat([x[:-1], moved[-1:]])  # type: ignore[index,list-item]


def _garbage(x: Tensor, size: float) -> Tensor:
    """Valid but senseless values: noise of `size`, or other tasks' rows where they are integers."""
    if not x.is_floating_point():
        return x.flip(0)
    return size * torch.randn(x.shape, generator=generator("garbage"), dtype=x.dtype)


def check_works_under_no_grad(learner: MetaLearner, tasks: Task) -> None:
    """Adapting and predicting give the same whether the caller records gradients or not."""
    learner, tasks = prepared(learner, tasks)
    remedy = "turn gradients on inside adapt where it needs them, and take them with torch.autograd.grad"
    with torch.enable_grad():
        recorded = learner.predict(learner.adapt(tasks.support), tasks.query.x, tasks.query.weight).detach()
    try:
        plain = answer(learner, tasks)
    except RuntimeError as error:
        broken("works_under_no_grad", f"under no_grad it raises {str(error).splitlines()[0]!r}", remedy)
    found = difference(plain, recorded)
    if found:
        broken("works_under_no_grad", f"under no_grad it predicts {found}", remedy)


def check_padding_never_counts(learner: MetaLearner, tasks: Task) -> None:
    """Rows of weight 0, whatever they hold, change neither predictions nor losses."""
    name = "padding_never_counts"
    learner, tasks = prepared(learner, tasks)
    remedy = "multiply by weight (and divide by its sum) wherever rows are summed or counted"
    padded = tasks._replace(support=_padded(tasks.support))
    found = difference(answer(learner, padded), answer(learner, tasks))
    if found:
        broken(name, f"support rows of weight 0 move the predictions: {found}", remedy)
    asked = training_tasks(learner, tasks)
    for mode in _modes(learner, asked):
        losses = _losses(learner, mode, asked)
        for part in ("support", "query"):
            padded = asked._replace(**{part: _padded(getattr(asked, part))})
            found = difference(_losses(learner, mode, padded), losses)
            if found:
                broken(name, f"in {mode} mode {part} rows of weight 0 move the loss: {found}", remedy)


def _padded(part: Examples) -> Examples:
    """Two of the rows again, as senseless values of weight 0, before all others and after them."""
    rows = Examples(
        map_tensors(part.x, lambda t: _garbage(t[:, :1], 1e3)),
        part.y[:, -1:],
        torch.zeros_like(part.weight[:, :1]),
    )
    return join_rows(join_rows(rows, part), rows)


def check_unseen_class_is_lowest(learner: MetaLearner, tasks: Task) -> None:
    """A class without weight in the support has a lower logit than every class with some."""
    if not isinstance(learner.objective, Classification) or learner.objective.way < 2:
        return
    learner, tasks = prepared(learner, tasks)
    for gone in range(2):
        support = tasks.support
        weight = support.weight * (support.y != gone)
        kept = (weight.sum(1) > 0).nonzero().flatten()
        if not len(kept):
            continue
        support = select(support._replace(weight=weight), kept)
        logits = answer(learner, Task(support, select(tasks.query, kept)))
        seen = learner.objective.seen(support).bool().unsqueeze(1).expand_as(logits)  # type: ignore[union-attr]
        highest_unseen = logits.masked_fill(seen, -torch.inf).amax(-1)
        lowest_seen = logits.masked_fill(~seen, torch.inf).amin(-1)
        if not (highest_unseen < lowest_seen).all():
            broken(
                "unseen_class_is_lowest",
                f"class {gone} has no weight in the support and is not below the classes that have",
                "end predict with objective.hide_unseen(logits, state['seen'])",
            )
