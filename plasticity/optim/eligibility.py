"""Optimizers with eligibility traces, for streaming learning.

A trace is part of the optimizer's state and has the parameters' shape, so resets treat it like any other slot.
:func:`eligible` puts a trace in front of any optimizer. :func:`obgd`, :func:`adaptive_obgd` and :func:`adaptive_q`
compute their step from the trace and the temporal-difference error, so they work only behind a trace.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, NonNegative, Positive, metadata
from plasticity.core.schedules import Number
from plasticity.core.trees import select
from plasticity.core.types import Array, Optimizer, Params
from plasticity.optim.step_sizes import forwarded

PER_PARAMETER = ("trace", "gradient", "penalty")  # extra arguments that have the parameters' structure
AGENTS_WITH_TRACES = "stream_q, adaptive_q, stream_sarsa, qrc, stream_ac and stream_td"


class Eligibility(NamedTuple):
    """State of :func:`eligible`. The current trace is ``going * trace``, so ending it does not write its arrays."""

    trace: Params
    going: Array  # float32[]: 0 if the trace ended after the last update, else 1
    inner: optax.OptState


class Corrected(NamedTuple):
    """State of :func:`corrected`. The current trace is ``inner.going * estimates``."""

    estimates: Array  # float32[]
    inner: Eligibility


class Traced(NamedTuple):
    """The extra arguments of ``update`` for an optimizer behind a trace."""

    trace: Params
    gradient: Params  # of the value or log-probability itself, as added to the trace
    td_error: Array  # float32[]
    trace_decay: Array  # float32[]
    penalty: Params  # gradient of the penalties, zeros where there are none


class Bounded(NamedTuple):
    """State of :func:`obgd`."""

    step_size: Array  # float32[], of the last update


class AdaptivelyBounded(NamedTuple):
    """State of :func:`adaptive_obgd`."""

    step_size: Array
    done: Array  # int32[], updates so far
    second: Params


class Adaptive(NamedTuple):
    """State of :func:`adaptive_q`."""

    done: Array
    second: Params


def eligible(optimizer: Optimizer) -> Optimizer:
    """Put ``optimizer`` behind an accumulating eligibility trace.

    ``z <- decay z + g``; the optimizer's gradient is ``-td_error z + penalty``; after the update ``z <- 0`` if the
    trace ends. Sutton 1988, "Learning to predict by the methods of temporal differences".

    ``update(gradients, state, params, *, td_error, trace_decay, trace_end, trace_start=False, penalty=None,
    valid=True)``, where ``gradients`` are those of the value (or log-probability) itself, which increases if
    ``td_error`` (float32[]) is positive. ``trace_decay`` (float32[]) is the product of discount and lambda. With
    ``trace_end`` (bool[]) the trace ends after this update; with ``trace_start`` it is reset before it (a task switch
    can cut off an episode without an end). ``penalty`` is the gradient of the penalties, which do not enter the trace.
    Where ``valid`` (bool[]) is false, the state stays and the updates are 0; the trace then decays by 1 and adds 0, so
    its arrays are not written twice. The optimizer also receives the fields of :class:`Traced` as extra arguments.
    Interventions that wrap it see ``-td_error z + penalty`` as the gradient. ``ValueError`` while tracing if
    ``td_error``, ``trace_decay`` or ``trace_end`` is missing.
    """

    def init(params: Params) -> Eligibility:
        return Eligibility(jax.tree.map(jnp.zeros_like, params), jnp.zeros(()), optimizer.init(params))

    def update(
        gradients: Params,
        state: Eligibility,
        params: Params = None,
        *,
        td_error: Array | None = None,
        trace_decay: Number | None = None,
        trace_end: Array | None = None,
        trace_start: Array | bool = False,
        penalty: Params | None = None,
        valid: Array | bool = True,
        **extra: Any,
    ) -> tuple[Params, Eligibility]:
        if td_error is None or trace_decay is None or trace_end is None:
            raise ValueError("an eligibility trace needs td_error, trace_decay and trace_end at every update")
        kept, enters = passed_on(state.going, trace_decay, trace_start, valid)
        trace = jax.tree.map(lambda z, g: kept * z + enters * g, state.trace, gradients)
        if penalty is None:
            penalty = jax.tree.map(jnp.zeros_like, gradients)
        descent = jax.tree.map(lambda z, p: p - td_error * z, trace, penalty)
        arguments = Traced(trace, gradients, td_error, jnp.asarray(trace_decay, jnp.float32), penalty)
        updates, inner = optimizer.update(descent, state.inner, params, **(extra | arguments._asdict()))
        updates = jax.tree.map(lambda u: jnp.where(valid, u, 0.0), updates)
        going = jnp.where(valid, 1.0 - jnp.asarray(trace_end, jnp.float32), state.going)
        return updates, Eligibility(trace, going, select(jnp.asarray(valid), inner, state.inner))

    rate = forwarded(optimizer, lambda state: optimizer.learning_rate(state.inner))
    return Optimizer(init, update, rate, masks=True)


def passed_on(going: Array, decay: Number, start: Array | bool, valid: Array | bool) -> tuple[Array, Array]:
    """The factors of the trace and of what enters it, float32[] each: 1 and 0 where the update is not valid."""
    kept = jnp.asarray(decay, jnp.float32) * jnp.where(start, 0.0, going)
    return jnp.where(valid, kept, 1.0), jnp.asarray(valid, jnp.float32)


def corrected(optimizer: Optimizer) -> Optimizer:
    """:func:`eligible` for gradient temporal-difference learning: with a second, scalar trace.

    ``c <- decay c + h``; the optimizer's gradient is ``-td_error z + c grad(td_error) + penalty``. Both traces end
    together. ``update`` takes two further arguments: ``estimate`` (h, float32[]; None: 0) and ``error_gradient``, the
    gradient of ``td_error``, target included (None: 0). Reference: Elelimy, Daley, Patterson, Machado, White, White
    2025, "Deep Reinforcement Learning with Gradient Eligibility Traces".
    """
    traced = eligible(optimizer)

    def init(params: Params) -> Corrected:
        inner: Any = traced.init(params)
        return Corrected(jnp.zeros(()), inner)

    def update(
        gradients: Params,
        state: Corrected,
        params: Params = None,
        *,
        estimate: Array | None = None,
        error_gradient: Params | None = None,
        penalty: Params | None = None,
        trace_decay: Number = 0.0,
        trace_start: Array | bool = False,
        valid: Array | bool = True,
        **extra: Any,
    ) -> tuple[Params, Corrected]:
        kept, enters = passed_on(state.inner.going, trace_decay, trace_start, valid)
        estimates = kept * state.estimates + enters * (jnp.zeros(()) if estimate is None else estimate)
        zeros = jax.tree.map(jnp.zeros_like, gradients)
        slope, added = (zeros if each is None else each for each in (error_gradient, penalty))
        penalty = jax.tree.map(lambda p, g: p + estimates * g, added, slope)
        extra |= {"penalty": penalty, "trace_decay": trace_decay, "trace_start": trace_start, "valid": valid}
        updates, inner = traced.update(gradients, state.inner, params, **extra)
        return updates, Corrected(estimates, inner)

    return Optimizer(init, update, forwarded(traced, lambda state: traced.learning_rate(state.inner)), masks=True)


def remembers(state: optax.OptState) -> bool:
    """Whether an optimizer's state still affects updates after a task switch has ended its trace."""

    def is_own(node: Any) -> bool:
        return isinstance(node, Eligibility | Corrected | Bounded)

    def matters(node: Any) -> bool:
        return remembers(node.inner) if isinstance(node, Eligibility | Corrected) else not isinstance(node, Bounded)

    return any(map(matters, jax.tree.leaves(state, is_leaf=is_own)))


def behind_trace(name: str, extra: Mapping[str, Any]) -> Traced:
    """The arguments that :func:`eligible` passes to the optimizer ``name``; ``ValueError`` without a trace."""
    if any(extra.get(field) is None for field in Traced._fields):
        raise ValueError(
            f"agent.optimizer: {name} is not allowed; it needs an agent with eligibility traces ({AGENTS_WITH_TRACES})"
        )
    return Traced(**{field: extra[field] for field in Traced._fields})


def l1_norm(tree: Params) -> Array:
    """``sum_i |x_i|`` over all numbers of the tree, float32[]."""
    return sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(tree)), jnp.zeros(()))


def bounded_step(learning_rate: Number, kappa: Number, td_error: Array, trace: Params, penalty: Params) -> Array:
    """``eta / max(eta kappa (max(|td_error|, 1) |trace|_1 + |penalty|_1), 1)``, float32[], eta the learning rate."""
    bound = jnp.maximum(jnp.abs(td_error), 1.0) * l1_norm(trace) + l1_norm(penalty)
    return learning_rate / jnp.maximum(learning_rate * kappa * bound, 1.0)


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy loop over 50 updates with a trace and penalties; the bound by hand",
)
def obgd(*, learning_rate: Positive = 1.0, kappa: Positive = 2.0) -> Optimizer:
    """Overshooting-bounded gradient descent: a large trace or error makes the step small.

    ``M = learning_rate kappa (max(|td_error|, 1) |z|_1 + |penalty|_1)`` over all parameters, ``alpha = learning_rate /
    max(M, 1)``, ``theta <- theta + alpha (td_error z - penalty)``, where ``penalty`` is the gradient of the penalties.
    Both numbers are traced. ``learning_rate(state)`` is the last update's ``alpha``, initially ``learning_rate``,
    because the next step depends on an error that is not yet known. The paper has no penalties. They are part of the
    bound here, because a strong penalty outside it makes learning diverge. ``ValueError`` while tracing in an agent
    without eligibility traces.
    """

    def init(params: Params) -> Bounded:
        del params
        return Bounded(jnp.asarray(learning_rate, jnp.float32))

    def update(gradients: Params, state: Bounded, params: Params = None, **extra: Any) -> tuple[Params, Bounded]:
        del state, params
        seen = behind_trace("obgd", extra)
        alpha = bounded_step(learning_rate, kappa, seen.td_error, seen.trace, seen.penalty)
        return jax.tree.map(lambda g: -alpha * g, gradients), Bounded(alpha)

    return Optimizer(init, update, lambda state: state.step_size)


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy loop over 50 updates with a trace and penalties",
)
def adaptive_obgd(
    *, learning_rate: Positive = 1.0, kappa: Positive = 2.0, b2: BelowOne = 0.999, eps: Positive = 1e-8
) -> Optimizer:
    """Overshooting-bounded descent along the trace, divided by the root mean square of ``td_error z``.

    ``v <- b2 v + (1 - b2) (td_error z)^2``, ``y = z / sqrt(v / (1 - b2^t) + eps)``, then as :func:`obgd` with ``y`` in
    place of ``z``, also in the norm. ``v`` is kept when the trace ends. All four numbers are traced. As in the paper's
    code, ``t`` is one counter for all parameters. ``ValueError`` as in :func:`obgd`.
    """

    def init(params: Params) -> AdaptivelyBounded:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdaptivelyBounded(jnp.asarray(learning_rate, jnp.float32), jnp.zeros((), jnp.int32), zeros)

    def update(
        gradients: Params, state: AdaptivelyBounded, params: Params = None, **extra: Any
    ) -> tuple[Params, AdaptivelyBounded]:
        del gradients, params
        seen, done = behind_trace("adaptive_obgd", extra), optax.safe_increment(state.done)
        second = jax.tree.map(lambda v, z: b2 * v + (1 - b2) * jnp.square(seen.td_error * z), state.second, seen.trace)
        correction = 1.0 - jnp.asarray(b2, jnp.float32) ** done
        scaled = jax.tree.map(lambda z, v: z * jax.lax.rsqrt(v / correction + eps), seen.trace, second)
        alpha = bounded_step(learning_rate, kappa, seen.td_error, scaled, seen.penalty)
        updates = jax.tree.map(lambda y, p: alpha * (seen.td_error * y - p), scaled, seen.penalty)
        return updates, AdaptivelyBounded(alpha, done, second)

    return Optimizer(init, update, lambda state: state.step_size)


@metadata(
    paper="Gogianu, Lutu, Pascanu 2026, Revisiting Adam for Streaming RL",
    checked="a NumPy loop over 50 updates with a trace and penalties; equation and defaults follow code by others",
)
def adaptive_q(
    *,
    learning_rate: NonNegative = 4.6e-4,
    eps: Positive = 0.1,
    b2: BelowOne | None = None,
    bias_correction: bool = False,
) -> Optimizer:
    """Descent along the trace, divided by the root mean square of the gradients that enter it.

    ``v <- b v + (1 - b) g^2`` with ``b = b2``, or the trace's own decay if that is None (static; the paper's Algorithm
    1), ``theta <- theta + learning_rate (td_error z / (sqrt(v) + eps) - penalty)``. With ``bias_correction`` (static)
    ``v / (1 - b^t)`` replaces ``v``. ``v`` is kept when the trace ends. Numbers are traced. The paper has no
    penalties; its bound on ``td_error`` is the agent's ``error_clip``. ``ValueError`` as in :func:`obgd`.
    """

    def init(params: Params) -> Adaptive:
        return Adaptive(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Params, state: Adaptive, params: Params = None, **extra: Any) -> tuple[Params, Adaptive]:
        del gradients, params
        seen, done = behind_trace("adaptive_q", extra), optax.safe_increment(state.done)
        b = seen.trace_decay if b2 is None else jnp.asarray(b2, jnp.float32)
        second = jax.tree.map(lambda v, g: b * v + (1 - b) * jnp.square(g), state.second, seen.gradient)
        correction = 1.0 - b**done if bias_correction else jnp.ones(())

        def step(z: Array, v: Array, p: Array) -> Array:
            return learning_rate * (seen.td_error * z / (jnp.sqrt(v / correction) + eps) - p)

        return jax.tree.map(step, seen.trace, second, seen.penalty), Adaptive(done, second)

    return Optimizer(init, update, lambda state: jnp.asarray(learning_rate, jnp.float32))


def parts(optimizers: Mapping[str, Optimizer]) -> Optimizer:
    """Use one optimizer for each top-level part of the parameters, such as the networks of an actor and its critic.

    The state maps a part's name to a state in which the other parts are ``optax.MaskedNode()``, as in ``optax.masked``,
    so resets find the slots. With ``due`` (bool[] by name), parts that are not due keep parameters and state. All
    optimizers receive the other extra arguments; ``trace``, ``gradient`` and ``penalty`` (see
    :class:`Traced`) are split like the gradients. ``learning_rate(state)`` is that of the first part (in a share of
    the state: of the first part in it). ``ValueError`` while tracing if the parameters have other parts.
    """

    def only(tree: Params, name: str) -> Params:
        if not isinstance(tree, Mapping):  # optax's placeholder for the parameters when it looks for slots
            return tree
        if set(tree) != set(optimizers):
            raise ValueError(f"optimizers are for {', '.join(optimizers)}; the parameters have {', '.join(tree)}")
        return {key: value if key == name else optax.MaskedNode() for key, value in tree.items()}

    def init(params: Params) -> dict[str, optax.OptState]:
        return {name: each.init(only(params, name)) for name, each in optimizers.items()}

    def update(
        gradients: Params,
        state: Mapping[str, Any],
        params: Params = None,
        due: Mapping[str, Array] | None = None,
        **extra: Any,
    ) -> tuple[Params, dict[str, Any]]:
        updates, new = {}, {}
        for name, each in optimizers.items():
            own = {key: only(value, name) if key in PER_PARAMETER else value for key, value in extra.items()}
            found, new[name] = each.update(only(gradients, name), state[name], only(params, name), **own)
            updates[name] = found[name]
            if due is not None:
                now = due[name]
                updates[name] = jax.tree.map(lambda u, now=now: jnp.where(now, u, 0.0), updates[name])
                new[name] = select(now, new[name], state[name])
        return {name: updates[name] for name in gradients}, new

    def learning_rate(state: Mapping[str, Any]) -> Array:
        first = next(name for name in optimizers if not isinstance(state[name], optax.MaskedNode))
        return optimizers[first].learning_rate(state[first])

    return Optimizer(init, update, forwarded(next(iter(optimizers.values())), learning_rate))


STREAMING: Mapping[str, Callable[..., Optimizer]] = {
    "obgd": obgd,
    "adaptive_obgd": adaptive_obgd,
    "adaptive_q": adaptive_q,
}
