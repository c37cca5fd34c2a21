"""The optimizer's next update and second moments, and the scale of the agent's values.

PPO's agent itself records how far its policy moves from the one that acted (the probability ratios above and below the
clip, and their excess ratio), because only its updates can compute this (``agents/clipping.py``).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import NonNegative, metadata
from plasticity.core import trees
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, Monitor
from plasticity.monitors.parameters import kernel_norms

# Names of the state fields in which optimizers store the running mean of squared gradients.
SECOND_MOMENTS = ("nu", "second")


def second_moments(user: str, opt_state: optax.OptState, params: Params) -> Params:
    """The optimizer's second moments in the parameters' structure, as stored, without bias correction.

    They are found by field name. If the parameters are divided among several optimizers, each provides its part.
    ``ValueError`` while tracing, naming the ``user``, if a parameter has none.
    """

    def has(node: Any) -> bool:
        return any(name in getattr(node, "_fields", ()) for name in SECOND_MOMENTS)

    found: dict[Any, Array] = {}
    for node in filter(has, jax.tree.leaves(opt_state, is_leaf=has)):
        slots = next(getattr(node, name) for name in SECOND_MOMENTS if name in node._fields)
        for path, slot in jax.tree_util.tree_flatten_with_path(slots)[0]:
            found.setdefault(path, slot)
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    if any(path not in found or found[path].shape != leaf.shape for path, leaf in flat):
        raise ValueError(
            f"{user}: the agent's optimizer does not keep second moments of all parameters "
            "(optimizers that do: adam, rmsprop, adam_cm, adaptive_obgd, adaptive_q, intentional)"
        )
    return jax.tree.unflatten(structure, [found[path] for path, _ in flat])


def intended_update(key: Key, probe: Probe) -> Params:
    """The update that the optimizer would make now from the gradient of ``probe.loss``; its new state is discarded.

    An optimizer behind an eligibility trace receives a trace that starts with this gradient and an error of size 1, so
    that it descends along the gradient; other optimizers ignore these arguments.
    """
    learner = probe.learner
    gradient = jax.grad(probe.loss)(learner.params)
    extra: Mapping[str, Any] = {
        "key": key,
        "loss": probe.loss,
        "td_error": -jnp.ones(()),
        "trace_decay": jnp.zeros(()),
        "trace_start": jnp.ones((), bool),
        "trace_end": jnp.ones((), bool),
    }
    return probe.optimizer.update(gradient, learner.opt_state, learner.params, **extra)[0]


def _quotient(numerator: Array, denominator: Array) -> Array:
    """The quotient, with 0 / 0 = 0; other numbers divided by 0 are infinite, and NaN stays NaN."""
    return jnp.where((numerator == 0) & (denominator == 0), 0.0, numerator / denominator)


@metadata(note="no single source; as a rule of thumb, it should be near 1e-3")
def update_ratio() -> Monitor:
    """The length of the optimizer's next update relative to the weights.

    ``update_ratio = sqrt(sum_l |u_l|_F^2) / sqrt(sum_l |W_l|_F^2)`` over all kernels, including the output layers',
    without biases and normalisation parameters; ``update_ratio/<module> = |u_l|_F / |W_l|_F``. ``u`` is what the
    optimizer, in its current state and wrapped by the interventions, would add to the parameters for the gradient of
    ``probe.loss``: the task loss without penalties on the agent's batch of recent transitions. Nothing is updated. The
    ratio is infinite if an all-zero kernel would change.

    Behind an eligibility trace it is the update for a trace that starts with this gradient and an error of size 1. The
    sum of the agent's updates since the last measurement is a different quantity: divided by their number, it measures
    their agreement. The probe's batch is not that of an update and is often larger, so a learner that follows noise has
    a smaller ratio here.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        paths = tuple(probe.network.modules().values())
        if not paths:
            return state, {}
        moved, weights = kernel_norms(intended_update(key, probe), paths), kernel_norms(probe.learner.params, paths)
        ratios = {f"update_ratio/{name}": _quotient(moved[name], weights[name]) for name in weights}
        totals = [jnp.linalg.norm(jnp.stack(list(norms.values()))) for norms in (moved, weights)]
        return state, {"update_ratio": _quotient(*totals)} | ratios

    return Monitor(measure, ranges={"update_ratio": NOT_NEGATIVE})


@metadata(paper="Lyle et al. 2023, Understanding plasticity in neural networks", note="the default of eps is ours")
def second_moment(*, eps: NonNegative = 1e-8) -> Monitor:
    """Statistics of the optimizer's running mean of squared gradients.

    ``second_moment = mean_i v_i`` over all parameters, ``second_moment/max``, ``second_moment/min``,
    ``second_moment/small``, the share of parameters with ``v_i < eps^2``, whose steps ``eps`` shortens, and
    ``second_moment/<module>``, the mean over the module's kernel. ``v`` is taken as the optimizer (Adam, RMSProp or a
    streaming optimizer) stores it, without bias correction. Needs no batch.

    Reference: Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity in neural networks,
    who trace divergence after a task switch to second moments that lag behind the first. The paper does not define this
    metric.

    Args:
        eps: in the gradient's own scale (traced); set it to the optimizer's ``eps``.

    Raises:
        ValueError: while tracing, if the optimizer does not store second moments.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        moments = second_moments("second_moment", probe.learner.opt_state, probe.learner.params)
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moments)])
        mean = jnp.mean(flat)
        small = jnp.where(jnp.isnan(mean), jnp.nan, jnp.mean(jnp.sqrt(flat) < eps))
        found = {"": mean, "/max": jnp.max(flat), "/min": jnp.min(flat), "/small": small}
        for name, path in probe.network.modules().items():
            found[f"/{name}"] = jnp.mean(trees.get(moments, path)["kernel"])
        return state, {f"second_moment{what}": value for what, value in found.items()}

    return Monitor(measure, ranges={"second_moment": NOT_NEGATIVE})


@metadata(note="the textbook quantities; the action gap is that of Farahmand 2011, Action-Gap Phenomenon in RL")
def value_scale() -> Monitor:
    """The scale of the agent's scores, typically action values.

    Over the valid rows ``x`` of the agent's batch of recent transitions and the ``n`` outputs of ``probe.scores``:
    ``value_scale = sqrt(mean q^2)``, ``value_scale/mean``, ``value_scale/std`` (of the population) and
    ``value_scale/max = max q``. For action values also ``value_scale/greedy = mean_x max_a q(x, a)`` and, with two
    or more actions, ``value_scale/action_gap``, the mean over ``x`` of the best minus the second best value. NaN if no
    row is valid.

    If an agent has no action values, the numbers are its logits (which are invariant to a common shift), its predicted
    targets, or the mean actions of a real-valued policy. Overestimation is not measured. It is the difference between
    these values and the discounted returns that follow, which a batch of single transitions does not contain; compare
    ``value_scale/greedy`` with the returns of evaluations instead.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        scores = probe.scores(probe.learner.params, probe.observation)
        valid = probe.valid[:, None]
        rows = jnp.sum(probe.valid)
        numbers = rows * scores.shape[-1]
        mean = jnp.sum(jnp.where(valid, scores, 0)) / numbers
        variance = jnp.sum(jnp.where(valid, (scores - mean) ** 2, 0)) / numbers
        found = {"": jnp.sqrt(mean**2 + variance), "/mean": mean, "/std": jnp.sqrt(variance)}
        found["/max"] = jnp.where(rows == 0, jnp.nan, jnp.max(jnp.where(valid, scores, -jnp.inf)))
        if probe.meaning == "values":
            found |= _greedy(jnp.where(valid, scores, 0), rows)
        return state, {f"value_scale{what}": value for what, value in found.items()}

    return Monitor(measure, ranges={"value_scale": NOT_NEGATIVE})


def _greedy(scores: Array, rows: Array) -> dict[str, Array]:
    """Means of the best value and of its lead over the second best; invalid rows are zero."""
    ordered = jnp.sort(scores, axis=-1)
    found = {"/greedy": jnp.sum(ordered[:, -1]) / rows}
    if scores.shape[-1] > 1:
        found["/action_gap"] = jnp.sum(ordered[:, -1] - ordered[:, -2]) / rows
    return found
