"""Training copies of the learner inside a monitor, for the monitors that measure what it can still learn."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.core.errors import check_least
from plasticity.core.types import Array, Key, Network, Optimizer, Params, Probe, take
from plasticity.optim.eligibility import Eligibility

Rows = Array | None  # indices into the probe's batch; None: all of it
Loss = Callable[[Params, Rows], Array]


class Start(NamedTuple):
    """The starting point of training."""

    params: Params
    opt_state: optax.OptState


def _has_trace(opt_state: optax.OptState) -> bool:
    parts = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, Eligibility))
    return any(isinstance(part, Eligibility) for part in parts)


def plain(optimizer: Optimizer) -> Optimizer:
    """The optimizer as a rule for plain gradients, also if it has an eligibility trace.

    The trace then forgets earlier gradients, ``z = g``, and ``td_error = -1``, so the direction of descent
    ``-td_error z`` is the gradient itself. An optimizer that reads the error (``obgd``: ``max(|td_error|, 1)``) sees
    an error of size 1, and one that reads the trace's decay (``adaptive_q`` without ``b2``) sees a decay of 0.
    """

    def update(gradients: Params, state: optax.OptState, params: Params = None, **extra: Any) -> Any:
        if _has_trace(state):
            extra |= {"td_error": -jnp.ones(()), "trace_decay": 0.0, "trace_end": jnp.array(True), "trace_start": True}
        return optimizer.update(gradients, state, params, **extra)

    return optimizer._replace(update=update)


def train(optimizer: Optimizer, start: Start, loss: Loss, steps: int, key: Key, rows: Rows = None) -> Params:
    """The parameters after ``steps`` updates (static) on ``loss(params, rows[step])``, ``rows`` int32[steps, batch]."""
    rule = plain(optimizer)

    def step(now: Start, xs: tuple[Array, Rows]) -> tuple[Start, None]:
        i, batch_rows = xs
        gradients = jax.grad(loss)(now.params, batch_rows)
        extra = {"key": jax.random.fold_in(key, i), "loss": lambda params: loss(params, batch_rows)}
        updates, opt_state = rule.update(gradients, now.opt_state, now.params, **extra)
        return Start(optax.apply_updates(now.params, updates), opt_state), None

    return jax.lax.scan(step, start, (jnp.arange(steps), rows))[0].params


def current_and_fresh(probe: Probe, key: Key, continued: bool = False) -> Start:
    """The learner and a fresh agent, stacked for one vmap; both with fresh optimizer states unless ``continued``."""
    fresh = probe.fresh(key)
    starts = [Start(learner.params, learner.opt_state) for learner in (probe.learner, fresh)]
    if not continued:
        starts = [Start(start.params, probe.optimizer.init(start.params)) for start in starts]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)


def outputs(network: Network, params: Params, observation: Any) -> dict[str, Array]:
    """Output name -> ``[B, ...]`` ("" if there is only one).

    Outputs that do not depend on the observation (a log standard deviation) are omitted.
    """
    found = network.forward(params, observation)[0]
    if not isinstance(found, Mapping):
        return {"": found}

    def shapes(rows: int) -> Mapping[str, Any]:
        few = take(observation, jnp.zeros(rows, jnp.int32))
        made: Mapping[str, Any] = jax.eval_shape(network.forward, params, few)[0]
        return made

    one, two = shapes(1), shapes(2)
    return {name: value for name, value in found.items() if one[name].shape != two[name].shape}


def at(tree: Any, rows: Rows) -> Any:
    """These rows of every array; all rows if ``rows`` is None."""
    return tree if rows is None else take(tree, rows)


def at_least_one(**settings: int) -> None:
    """Raise ``ValueError`` for a static setting below 1."""
    for name, value in settings.items():
        check_least(name, value, 1)
