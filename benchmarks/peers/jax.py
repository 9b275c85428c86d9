"""JAX: one jitted function for the whole outer step, the tasks side by side by vmap, Adam by optax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax.scipy.sparse.linalg import cg
from workloads import Workload

from peers import Built, Missing

jax.config.update("jax_enable_x64", True)  # for the check; what is given in float32 stays in float32

Weights = dict[str, Any]


def apply(work: Workload, weights: Weights, x: jax.Array) -> jax.Array:
    """The network: images are (n, height, width, channels), the layout that JAX's own networks take."""
    if not work.images:
        for i in range(3):
            x = x @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]
            x = jax.nn.relu(x) if i < 2 else x
        return x
    for i in range(4):
        x = jax.lax.conv_general_dilated(
            x, weights[f"kernels.{i}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weights[f"norms.{i}.weight"] + weights[f"norms.{i}.bias"]
        x = pooled(jax.nn.relu(x))
    x = x.reshape(len(x), -1)
    return x @ weights["head.weight"].T + weights["head.bias"] if "head.weight" in weights else x


def pooled(x: jax.Array) -> jax.Array:
    """2x2 max-pool as JAX's own networks have it; a maximum over reshaped axes is miscompiled (jaxlib 0.10.2, CPU)."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def loss(work: Workload, prediction: jax.Array, y: jax.Array) -> jax.Array:
    if work.images:
        return optax.softmax_cross_entropy_with_integer_labels(prediction, y).mean()
    return jnp.square(prediction - y).mean()


def descend(work: Workload, objective: Callable[[Weights], jax.Array], weights: Weights) -> Weights:
    for _ in range(work.steps):
        grads = jax.grad(objective)(weights)
        grads = jax.lax.stop_gradient(grads) if work.first_order else grads
        weights = jax.tree.map(lambda w, g: w - work.lr * g, weights, grads)
    return weights


def maml_task(work: Workload, weights: Weights, x: Any, y: Any, query_x: Any, query_y: Any) -> jax.Array:
    adapted = descend(work, lambda w: loss(work, apply(work, w, x), y), weights)
    return loss(work, apply(work, adapted, query_x), query_y)


def anil_task(work: Workload, weights: Weights, x: Any, y: Any, query_x: Any, query_y: Any) -> jax.Array:
    body = {k: w for k, w in weights.items() if not k.startswith("head")}
    head = {k: w for k, w in weights.items() if k.startswith("head")}
    features = apply(work, body, x)

    def linear(head: Weights, features: jax.Array) -> jax.Array:
        return features @ head["head.weight"].T + head["head.bias"]

    adapted = descend(work, lambda h: loss(work, linear(h, features), y), head)
    return loss(work, linear(adapted, apply(work, body, query_x)), query_y)


def protonet_task(work: Workload, weights: Weights, x: Any, y: Any, query_x: Any, query_y: Any) -> jax.Array:
    features = apply(work, weights, x)
    centres = jax.nn.one_hot(y, work.way, dtype=features.dtype).T @ features / work.shot
    distances = jnp.square(apply(work, weights, query_x)[:, None] - centres).sum(-1)
    return loss(work, -distances, query_y)


def imaml_task_gradient(work: Workload, weights: Weights, x: Any, y: Any, query_x: Any, query_y: Any) -> Weights:
    def support_loss(w: Weights) -> jax.Array:
        return loss(work, apply(work, w, x), y)

    def pulled(w: Weights) -> jax.Array:
        pull = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), w, weights)
        return support_loss(w) + 0.5 * work.strength * sum(pull.values())

    reached = descend(work, pulled, weights)
    outer = jax.grad(lambda w: loss(work, apply(work, w, query_x), query_y))(reached)

    def matrix(v: Weights) -> Weights:
        product = jax.jvp(jax.grad(support_loss), (reached,), (v,))[1]
        return jax.tree.map(lambda a, b: a + b / work.strength, v, product)

    return cg(matrix, outer, tol=0.0, maxiter=work.cg_steps)[0]


def affordable(work: Workload) -> None:
    """Raise Missing where a step takes minutes: vmap makes a grouped convolution of weights of each task's own.

    One after the other (`lax.map`), the tasks take three times as long again.
    """
    if work.images and work.method in ("maml", "evaluate") and work.key != "W2":
        raise Missing("not run, since each task's own convolution weights take it minutes a step, as W2 shows")


def start(work: Workload, dtype: torch.dtype) -> tuple[Weights, tuple[jax.Array, ...]]:
    """Weights and tasks as JAX takes them."""
    weights = {k: w.to(dtype).cpu().numpy() for k, w in work.weights().items()}
    batch = [part.cpu().numpy() for part in work.batch(dtype)]
    if work.images:
        weights = {k: w.transpose(2, 3, 1, 0) if k.startswith("kernels") else w for k, w in weights.items()}
        batch = [np.moveaxis(part, 2, -1) if part.ndim > 2 else part.astype(np.int32) for part in batch]
    return {k: jnp.asarray(w) for k, w in weights.items()}, tuple(jnp.asarray(part) for part in batch)


def training(work: Workload, dtype: torch.dtype, gradient: Callable[..., Weights]) -> Built:
    """gradient: (weights, *batch) -> the meta-gradient."""
    weights, batch = start(work, dtype)
    optimizer = optax.adam(1e-3)

    def outer(weights: Weights, state: Any, batch: Any) -> tuple[Weights, Any, Weights]:
        grads = gradient(weights, *batch)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(weights, updates), state, grads

    state = optimizer.init(weights)
    compiled = jax.jit(outer).lower(weights, state, batch).compile()

    def step() -> None:
        nonlocal weights, state
        weights, state, _ = jax.block_until_ready(compiled(weights, state, batch))

    def result() -> dict[str, torch.Tensor]:
        grads = {k: np.asarray(g) for k, g in compiled(weights, state, batch)[2].items()}
        back = {k: g.transpose(3, 2, 0, 1) if k.startswith("kernels") else g for k, g in grads.items()}
        return {k: torch.from_numpy(np.array(g)) for k, g in back.items()}

    return Built(step, result)


def differentiated(task: Callable[..., jax.Array]) -> Callable[[Workload, torch.dtype], Built]:
    def build(work: Workload, dtype: torch.dtype) -> Built:
        affordable(work)

        def mean(weights: Weights, *batch: jax.Array) -> jax.Array:
            return jax.vmap(partial(task, work, weights))(*batch).mean()

        return training(work, dtype, jax.grad(mean))

    return build


def imaml(work: Workload, dtype: torch.dtype) -> Built:
    def gradient(weights: Weights, *batch: jax.Array) -> Weights:
        grads = jax.vmap(partial(imaml_task_gradient, work, weights))(*batch)
        return jax.tree.map(lambda g: g.mean(0), grads)

    return training(work, dtype, gradient)


def evaluate(work: Workload, dtype: torch.dtype) -> Built:
    affordable(work)
    weights, batch = start(work, dtype)

    def losses(weights: Weights, batch: Any) -> jax.Array:
        return jax.vmap(partial(maml_task, work, weights))(*batch)

    compiled = jax.jit(losses).lower(weights, batch).compile()
    return Built(
        lambda: jax.block_until_ready(compiled(weights, batch)),
        lambda: {"loss": torch.from_numpy(np.array(compiled(weights, batch)))},
    )


METHODS = {
    "maml": differentiated(maml_task),
    "anil": differentiated(anil_task),
    "protonet": differentiated(protonet_task),
    "imaml": imaml,
    "evaluate": evaluate,
}
