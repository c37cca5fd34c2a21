"""Penalties that keep parameters near their values at the end of earlier tasks, weighted by their importance."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Fraction, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.outputs import Outputs, numbers, whitened
from plasticity.core.types import Array, Context, Drawn, Key, Learner, ModulePath, Network, Params, State
from plasticity.interventions.base import Intervention, Remember
from plasticity.interventions.memory import stored

ROWS = 8  # whose gradients are computed together
Anchor = Literal["latest", "each"]


def added(tree: Params, other: Params) -> Params:
    return jax.tree.map(jnp.add, tree, other)


def zeros(params: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, params)


def distance(params: Params, anchor: Params, importance: Params) -> Array:
    """``sum importance (params - anchor)^2``."""
    weighted = jax.tree.map(lambda p, a, w: w * (p - a), params, anchor, importance)
    return trees.inner(weighted, jax.tree.map(jnp.subtract, params, anchor))


def of_shared(network: Network, importance: Params) -> Params:
    """``importance``, with 0 for the output layers that every task has for itself, as no other task changes them."""

    def each(path: ModulePath, x: Array) -> Array:
        return jnp.zeros_like(x) if any(path[: len(head)] == head for head in network.task_heads) else x

    return trees.map_with_path(each, importance)


def anchored(
    strength: Any,
    importance_of: Callable[[Learner, Context, State], Params],
    *,
    anchor: Anchor = "latest",
    decay: Any = 1.0,
    remember: Remember | None = None,
) -> Intervention:
    """``strength sum_i F_i (theta_i - a_i)^2``, with ``F <- decay F + importance`` at each switch; ``F`` of heads is 0.

    ``a`` are the parameters at the last switch ("latest"), or the mean of those at all switches, weighted by the
    importance at each. With ``decay`` 1 the gradient is then that of one penalty for each past task ("each").
    """

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return {"anchor": params, "importance": zeros(params)}

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        return strength * distance(params, state["anchor"], state["importance"])

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        new = of_shared(context.network, importance_of(learner, context, state))
        old = jax.tree.map(lambda f: decay * f, state["importance"])
        total, now = added(old, new), learner.params
        if anchor == "each":

            def mean(a: Array, p: Array, f: Array, g: Array) -> Array:
                share = jnp.where(f + g > 0, g / jnp.where(f + g > 0, f + g, 1.0), 1.0)
                return a + share * (p - a)

            now = jax.tree.map(mean, state["anchor"], now, old, new)
        return {**state, "anchor": now, "importance": total}, learner

    return Intervention(init=init, penalty=penalty, switch=switch, remember=remember)


@metadata(
    paper="Kirkpatrick et al. 2017, Overcoming catastrophic forgetting in neural networks",
    checked="the value by hand, after one switch and after two",
    neutral={"strength": 0.0},
)
def l2_previous(*, strength: NonNegative = 1e5, accumulate: bool = False) -> Intervention:
    """L2 distance to the parameters at the end of the previous task, added to the loss.

    ``strength sum_i (theta_i - theta*_i)^2``, from the first switch on; the baseline of Kirkpatrick et al. 2017. Output
    layers that every task has for itself (``task_heads``) are free.

    Args:
        strength: traced. The default is Continual World's (Wolczyk et al. 2021), which penalises the actor alone
            (``modules: [actor]``).
        accumulate: whether every switch adds ``strength`` once more, as in Continual World's code. Static.
    """

    def ones(learner: Learner, context: Context, state: State) -> Params:
        del context
        first = jax.tree.map(lambda f: 1.0 if accumulate else 1.0 - jnp.minimum(f, 1.0), state["importance"])
        return jax.tree.map(lambda p, f: jnp.broadcast_to(f, p.shape), learner.params, first)

    return anchored(strength, ones)


def mean_over_rows(function: Callable[[Any], Params], params: Params, drawn: Drawn) -> Params:
    """The mean over the valid rows of ``function(row)``, a tree like the parameters."""
    count = jnp.maximum(jnp.sum(drawn.valid), 1)

    def group(total: Params, chunk: tuple[Any, Array]) -> tuple[Params, None]:
        rows, valid = chunk
        made = jax.vmap(function)(rows)
        weighted = jax.tree.map(lambda x: jnp.tensordot(valid.astype(x.dtype), x, 1), made)
        return added(total, weighted), None

    size = len(drawn.valid)
    whole = size - size % ROWS
    total = zeros(params)
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, ROWS, *x.shape[1:]), (drawn.rows, drawn.valid))
    if whole:
        total, _ = jax.lax.scan(group, total, chunks)
    if size > whole:
        total, _ = group(total, jax.tree.map(lambda x: x[whole:], (drawn.rows, drawn.valid)))
    return jax.tree.map(lambda x: x / count, total)


def said_of(context: Context, row: Any) -> Callable[[Params], Outputs]:
    """What the networks say about one row, as a batch of one."""
    seen = stored(context).inputs(jax.tree.map(lambda x: x[None], row))
    return lambda params: context.outputs(params, seen)


def fisher(context: Context, params: Params, drawn: Drawn, floor: Any = 0.0) -> Params:
    """The diagonal of the Fisher information of the networks' outputs, the mean over rows."""

    def squares(row: Any) -> Params:
        said = said_of(context, row)
        jacobian = jax.jacrev(lambda params: whitened(said(params))[0])(params)
        return jax.tree.map(lambda j: jnp.maximum(jnp.sum(jnp.square(j), axis=0), floor), jacobian)

    return mean_over_rows(squares, params, drawn)


@metadata(
    paper="Kirkpatrick et al. 2017, Overcoming catastrophic forgetting in neural networks",
    checked="the Fisher information of a linear softmax, of normals and of values in closed form",
    neutral={"strength": 0.0},
)
def ewc(
    *,
    strength: NonNegative = 1e4,
    anchor: Anchor = "each",
    decay: Fraction = 1.0,
    samples: Count = 2_560,
    floor: NonNegative = 0.0,
) -> Intervention:
    """Elastic weight consolidation: a penalty on changes of parameters that mattered for earlier tasks.

    ``strength sum_i F_i (theta_i - theta*_i)^2``. At each switch, ``F <- decay F + F_task``, with ``F_task`` the
    diagonal of the Fisher information of the networks' own outputs, the mean over a uniform sample of the task's
    transitions: ``sum_a p_a (d log p_a)^2`` for classes and discrete actions, ``sum_i [(d mean_i)^2 + 2 (d std_i)^2] /
    std_i^2`` for real-valued actions, ``sum_i (d value_i)^2`` for values. ``decay`` below 1 with the latest anchor is
    online EWC (Schwarz et al. 2018, "Progress & Compress: A scalable framework for continual learning"). Output layers
    that every task has for itself (``task_heads``) are free, as in Continual World's code.

    Args:
        strength: traced. The paper writes it as ``lambda / 2``. The default is Continual World's (Wolczyk et al. 2021),
            which penalises the actor alone (``modules: [actor]``), with the latest anchor and a floor of 1e-5.
        anchor: "each": a penalty for each past task around its own parameters, as in the paper. "latest": all of them
            around the parameters at the last switch. Static.
        decay: traced.
        samples: transitions of each task. Static.
        floor: smallest Fisher information of a parameter on a transition. Traced.

    Raises:
        ValueError: an unknown anchor.
    """
    check("anchor", anchor, ("each", "latest"))

    def importance(learner: Learner, context: Context, state: State) -> Params:
        del state
        return fisher(context, learner.params, stored(context).ended(), floor)

    return anchored(strength, importance, anchor=anchor, decay=decay, remember=Remember(samples, 0))


@metadata(
    paper="Aljundi et al. 2018, Memory Aware Synapses: Learning what (not) to forget",
    checked="the sensitivity of linear values in closed form",
    neutral={"strength": 0.0},
)
def mas(*, strength: NonNegative = 1e4, samples: Count = 2_560) -> Intervention:
    """Memory aware synapses: a penalty on changes of parameters to which the outputs were sensitive.

    ``strength sum_i W_i (theta_i - theta*_i)^2``, with the parameters at the last switch; at each switch ``W <- W +
    mean |d |f|^2 / d theta|``, where ``f`` are the outputs: logits, means and logarithms of standard deviations,
    values. The mean is over a uniform sample of the task's transitions. Output layers that every task has for itself
    (``task_heads``) are free, as in Continual World's code.

    Args:
        strength: traced. The default is Continual World's (Wolczyk et al. 2021), which penalises the actor alone
            (``modules: [actor]``).
        samples: transitions of each task. Static.
    """

    def importance(learner: Learner, context: Context, state: State) -> Params:
        del state

        def sensitivity(row: Any) -> Params:
            said = said_of(context, row)
            gradient = jax.grad(lambda params: jnp.sum(jnp.square(numbers(said(params)))))(learner.params)
            return jax.tree.map(jnp.abs, gradient)

        return mean_over_rows(sensitivity, learner.params, stored(context).ended())

    return anchored(strength, importance, remember=Remember(samples, 0))


@metadata(
    paper="Zenke, Poole, Ganguli 2017, Continual Learning Through Synaptic Intelligence",
    checked="a NumPy loop over 20 updates on a quadratic loss; the default of `damping` is not verified",
    neutral={"strength": 0.0},
)
def synaptic_intelligence(*, strength: NonNegative = 0.1, damping: Positive = 0.1) -> Intervention:
    """Synaptic intelligence: a penalty on changes of parameters whose movement lowered the loss.

    ``strength sum_i W_i (theta_i - theta*_i)^2``, with the parameters at the last switch; at each switch ``W_i <- W_i +
    max(w_i, 0) / ((theta_i - theta*_i)^2 + damping)``. ``w_i = -sum_updates g_i (theta_i' - theta_i)`` is the path
    integral of the gradient ``g`` of the loss without this penalty, over the updates of the task.

    Args:
        strength: traced. The default is the paper's for permuted MNIST.
        damping: traced. The default is that of the paper's code, as we remember it (not verified).

    Other penalties count as loss. What a method changes after the update does not count.
    """
    pull = functools.partial(jax.tree.map, lambda p, a, w: 2.0 * strength * w * (p - a))

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        none = zeros(params)
        return {"anchor": params, "importance": none, "path": none, "before": params}

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        return strength * distance(params, state["anchor"], state["importance"])

    def prepare(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context
        return {**state, "before": learner.params}, learner

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        own = pull(state["before"], state["anchor"], state["importance"])

        def gone(path: Array, g: Array, own: Array, before: Array, after: Array) -> Array:
            return path - (g - own) * (after - before)

        path = jax.tree.map(gone, state["path"], context.gradients, own, state["before"], learner.params)
        return {**state, "path": path}, learner

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context

        def grown(w: Array, path: Array, now: Array, anchor: Array) -> Array:
            return w + jnp.maximum(path, 0.0) / (jnp.square(now - anchor) + damping)

        now = learner.params
        importance = jax.tree.map(grown, state["importance"], state["path"], now, state["anchor"])
        return {"anchor": now, "importance": importance, "path": zeros(now), "before": now}, learner

    return Intervention(init=init, penalty=penalty, prepare=prepare, step=step, switch=switch)
