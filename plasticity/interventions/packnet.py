"""PackNet: every task has its own weights, and uses those of earlier tasks without changing them."""

from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Natural, metadata
from plasticity.core import trees
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, Params, State
from plasticity.interventions.base import Intervention, Remember
from plasticity.interventions.memory import stored


def kernels_of(network: Network) -> set[ModulePath]:
    """The paths of the kernels, without those of output layers that every task has for itself."""
    return {(*path, "kernel") for path in network.modules().values() if path not in network.task_heads}


def check_kernels(network: Network) -> None:
    """``ValueError`` (while tracing) if tasks have nothing to share."""
    if not kernels_of(network):
        raise ValueError("changes nothing: these networks have no weights that tasks share")


def frozen_after_first(network: Network, params: Params) -> set[ModulePath]:
    """The paths of the other parameters of layers and normalisations."""
    layers = [path for path in network.modules().values() if path not in network.task_heads]
    modules = [*layers, *network.norms]
    inside = {path for path in trees.paths(params) if any(path[: len(module)] == module for module in modules)}
    return inside - kernels_of(network)


def pruned(kernel: Array, owner: Array, task: Array, share: Array) -> Array:
    """bool: the ``share`` (rounded down) of the task's weights with the smallest magnitudes, ties by position."""
    own = owner == task
    size = jnp.where(own, jnp.abs(kernel), jnp.inf).reshape(-1)
    order = jnp.argsort(size, stable=True)
    rank = jnp.zeros(size.size, jnp.int32).at[order].set(jnp.arange(size.size, dtype=jnp.int32), unique_indices=True)
    # In integers: a product of floats may round up to the next whole number.
    return own & (rank.reshape(own.shape) < jnp.sum(own) * share[0] // share[1])


def free(path: ModulePath, state: State, owner: Array, kernels: set[ModulePath], others: set[ModulePath]) -> Array:
    """bool: whether the current task may change the numbers at this path."""
    if path in kernels:
        return owner == state["task"]
    return (state["task"] == 0) | (path not in others)


def mine(state: State, tree: Params, network: Network) -> Params:
    """``tree``, with 0 in place of what the current task may not change."""
    kernels, others = kernels_of(network), frozen_after_first(network, tree)

    def each(path: ModulePath, x: Array, owner: Array) -> Array:
        return jnp.where(free(path, state, owner, kernels, others), x, 0.0)

    return trees.map_with_path(each, tree, state["owner"])


def restored(state: State, params: Params, network: Network) -> Params:
    """The parameters with those that belong to earlier tasks as they were."""
    kernels, others = kernels_of(network), frozen_after_first(network, params)

    def each(path: ModulePath, now: Array, owner: Array, held: Array) -> Array:
        frozen = owner < state["task"] if path in kernels else ~free(path, state, owner, kernels, others)
        return jnp.where(frozen, held, now)

    return trees.map_with_path(each, params, state["owner"], state["held"])


def pruned_for_next(state: State, params: Params, network: Network, tasks: int) -> tuple[Params, Params]:
    """-> owners, parameters after a share of the task's weights was set to 0 and given to the next task."""
    kernels, task = kernels_of(network), state["task"]
    left = tasks - 1 - task
    share = jnp.stack([left, left + 1])

    def freed(path: ModulePath, kernel: Array, owner: Array) -> Array:
        return pruned(kernel, owner, task, share) if path in kernels else jnp.zeros((), bool)

    gone = trees.map_with_path(freed, params, state["owner"])
    owners = jax.tree.map(lambda gone, owner: jnp.where(gone, task + 1, owner), gone, state["owner"])
    return owners, jax.tree.map(lambda gone, x: jnp.where(gone, 0.0, x), gone, params)


def retrained(key: Key, state: State, params: Params, context: Context, updates: int, batch: int) -> Params:
    """The parameters after updates of the kept weights, which ``state`` still gives to the task that ended."""
    past, rule = stored(context), context.optimizer
    examples = past.ended()
    filled = jnp.maximum(jnp.sum(examples.valid), 1)
    kernels = kernels_of(context.network)

    def own(path: ModulePath, x: Array, owner: Array) -> Array:
        return jnp.where(owner == state["task"], x, 0.0) if path in kernels else jnp.zeros_like(x)

    def update(i: Array, carry: Any) -> Any:
        params, opt_state = carry
        draw = jax.random.fold_in(key, i)
        rows = jax.random.randint(draw, (batch,), 0, filled)
        drawn = jax.tree.map(lambda x: x[rows], examples)

        def loss(params: Params) -> Array:
            return past.loss(i, params, drawn)

        masked = trees.map_with_path(own, jax.grad(loss)(params), state["owner"])
        steps, opt_state = rule.update(masked, opt_state, params, key=draw, loss=loss)
        steps = trees.map_with_path(own, steps, state["owner"])
        return jax.tree.map(jnp.add, params, steps), opt_state

    return jax.lax.fori_loop(0, updates, update, (params, rule.init(params)))[0]


@metadata(
    paper="Mallya, Lazebnik 2018, PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning",
    checked="pruned and retrained weights by hand; outputs of old tasks bit for bit",
)
def packnet(*, tasks: Count = 10, retrain: Natural = 0, batch: Count = 128, memory: Count = 10_000) -> Intervention:
    """PackNet: after each task, prune its weights, keep the rest for ever, and give the pruned ones to the next task.

    A weight belongs to the task that may change it; all weights belong to the first task. When task ``k`` ends (from
    0), the share ``(tasks - k - 1) / (tasks - k)`` of its weights with the smallest magnitudes in each kernel is set to
    0 and given to task ``k + 1``, so that all tasks get equally many. The kept weights are retrained for ``retrain``
    updates on a sample of the task's transitions, with a fresh optimizer, whose state is reset again afterwards.
    Biases and normalisations never change after the first task. A task is evaluated with the weights of its own and of
    earlier tasks; the others are 0. A task that recurs counts as a new task. The output layers of ``task_heads`` are
    left alone.

    Args:
        tasks: number of visits for which there is room. Static. 10 is that of Continual World's CW10.
        retrain: updates after pruning. Continual World (Wolczyk et al. 2021) uses 100,000. Static.
        batch: transitions of such an update. Static.
        memory: transitions of the ended task to retrain on. Static; no effect without ``retrain``.

    Raises:
        ValueError: more tasks than a kernel has weights.

    Put it last in ``interventions``, as methods after it may change frozen weights. The target network is not pruned.
    While retraining, targets use the target network at the task's end. Numbers that are in no layer, such as a
    temperature or a standard deviation that does not depend on the state, stay free.
    """

    def init(key: Key, params: Params, network: Network) -> State:
        del key
        check_kernels(network)
        sizes = {path: trees.get(params, path).size for path in kernels_of(network)}
        for path, size in sizes.items():
            if size < tasks:
                raise ValueError(f"tasks: {tasks} is not allowed; {'/'.join(path[:-1])} has only {size} weights")
        owner = trees.map_with_path(lambda path, x: jnp.zeros(x.shape if path in sizes else (), jnp.int32), params)
        return {"owner": owner, "held": params, "task": jnp.zeros((), jnp.int32)}

    def gradient(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
        """Without the gradients of frozen numbers, which would count in a global norm and in the optimizer's slots."""
        del key, learner
        return mine(state, gradients, context.network)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        return state, learner._replace(params=restored(state, learner.params, context.network))

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        owners, params = pruned_for_next(state, learner.params, context.network, tasks)
        if retrain:
            params = retrained(key, {**state, "owner": owners}, params, context, retrain, batch)
        new = {"owner": owners, "held": params, "task": state["task"] + 1}
        return new, learner._replace(params=params, opt_state=context.optimizer.init(params))

    def view(state: State, params: Params, visit: Array, now: Array) -> Params:
        def each(owner: Array, x: Array) -> Array:
            return jnp.where((visit < now) & (owner > visit), 0.0, x) if owner.shape else x

        return jax.tree.map(each, state["owner"], params)

    remember = Remember(memory, 0) if retrain else None
    hooks: dict[str, Any] = {"gradient": gradient, "step": step, "switch": switch, "view": view}
    return Intervention(init=init, remember=remember, visits=tasks, **hooks)
