"""Optimizers that report their step size.

:func:`wrap` puts a transformation before or after one. Every number may be a traced array. Resets find the slots (state
with the parameters' shape) with ``optax.tree_utils.tree_map_params`` (see ``interventions.surgery``), so an optimizer
needs no code for them.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from plasticity.config.fields import TRACED, BelowOne, Member, NonNegative, Positive, metadata
from plasticity.core.errors import check
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Optimizer, Params
from plasticity.optim import eligibility
from plasticity.optim.critical_momenta import adam_cm
from plasticity.optim.descent import FORMER, scheduled_descent
from plasticity.optim.descent import descend as descend  # plug-ins import it from here
from plasticity.optim.intentional import intentional
from plasticity.optim.muon import muon
from plasticity.optim.named import by_name
from plasticity.optim.step_sizes import UnknownStepSize, forwarded, reports_step_size

Counts = Literal["shared", "parameter"]
Least4 = Annotated[float, Field(ge=4), TRACED]


class Counted(NamedTuple):
    """State of :func:`scale_by_counted_adam`: every field has the parameters' shapes."""

    count: Params  # int32, updates since each parameter was initialised
    mu: Params
    nu: Params


class Wrapped(NamedTuple):
    """State of :func:`wrap`."""

    before: optax.OptState
    inner: optax.OptState
    after: optax.OptState


def wrap(
    optimizer: Optimizer,
    *,
    before: optax.GradientTransformation | None = None,
    after: optax.GradientTransformation | None = None,
) -> Optimizer:
    """Apply optax transformations to the gradients (``before``) and to the updates (``after``) of an optimizer.

    If the optimizer reports its step size, both receive that of the current update as an extra argument,
    ``learning_rate``, float32[].
    """
    first = optax.with_extra_args_support(before or optax.identity())
    last = optax.with_extra_args_support(after or optax.identity())

    def init(params: Params) -> Wrapped:
        return Wrapped(first.init(params), optimizer.init(params), last.init(params))

    def update(gradients: Params, state: Wrapped, params: Params = None, **extra: Any) -> tuple[Params, Wrapped]:
        rate = {"learning_rate": optimizer.learning_rate(state.inner)} if reports_step_size(optimizer) else {}
        updates, before_state = first.update(gradients, state.before, params, **(extra | rate))
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        updates, after_state = last.update(updates, state.after, params, **(extra | rate))
        return updates, Wrapped(before_state, inner, after_state)

    return Optimizer(init, update, forwarded(optimizer, lambda state: optimizer.learning_rate(state.inner)))


def as_optimizer(name: str, made: Any) -> Any:
    """Convert a plain optax transformation to an optimizer of unknown step size; return anything else unchanged."""
    if isinstance(made, Optimizer) or not isinstance(made, optax.GradientTransformation):
        return made
    rule = optax.with_extra_args_support(made)
    unknown: Any = UnknownStepSize(name)
    return Optimizer(rule.init, rule.update, unknown)


@metadata(
    paper="Polyak 1964, Some methods of speeding up the convergence of iteration methods",
    checked="a loop by hand, with momentum and with Nesterov's term",
    renamed=FORMER,
)
def sgd(
    *,
    learning_rate: NonNegative = 1e-2,
    momentum: BelowOne = 0.0,
    nesterov: bool = False,
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """Stochastic gradient descent with heavy-ball momentum.

    ``m <- momentum m + g``, ``theta <- theta - learning_rate m``; with ``nesterov`` (static) the step is ``g + momentum
    m``. The step size is ``learning_rate`` (traced), multiplied by the value of ``schedule`` (None: 1) at the number of
    updates so far. ``max_gradient_norm`` (traced) bounds the gradient's global norm; None (static): no bound.
    """
    return scheduled_descent(learning_rate, schedule, max_gradient_norm, optax.trace(momentum, nesterov))


def one_minus_exp(x: Array) -> Array:
    """``1 - exp(x)`` for ``x <= 0``, relative error about 1e-6; ``jnp.expm1`` costs three times as much on a CPU."""
    series = -x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0))))
    return jnp.where(x > -0.1, series, 1.0 - jnp.exp(x))


def scale_by_counted_adam(b1: Number, b2: Number, eps: Number, eps_root: Number) -> optax.GradientTransformation:
    """Adam's direction with a separate count ``t`` for each parameter, in a slot that is reset with the moments."""
    b1, b2 = jnp.asarray(b1, jnp.float32), jnp.asarray(b2, jnp.float32)
    rates = jnp.log(b1), jnp.log(b2)

    def init(params: Params) -> Counted:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Counted(jax.tree.map(lambda x: jnp.zeros_like(x, jnp.int32), params), zeros, zeros)

    def direction(t: Array, m: Array, v: Array) -> Array:
        first, second = (one_minus_exp(t.astype(jnp.float32) * rate) for rate in rates)  # 1 - b^t
        return (m / first) / (jnp.sqrt(v / second + eps_root) + eps)

    def update(gradients: Params, state: Counted, params: Params = None) -> tuple[Params, Counted]:
        del params
        count = jax.tree.map(optax.safe_increment, state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, gradients)
        return jax.tree.map(direction, count, mu, nu), Counted(count, mu, nu)

    return optax.GradientTransformation(init, update)


@metadata(
    paper="Kingma, Ba 2015, Adam: A Method for Stochastic Optimization",
    checked="a loop by hand, and `optax.adam` along schedules",
    renamed=FORMER,
)
def adam(
    *,
    learning_rate: NonNegative = 1e-3,
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    counts: Counts = "shared",
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """Adam.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``theta <- theta - learning_rate (m / (1 - b1^t)) /
    (sqrt(v / (1 - b2^t) + eps_root) + eps)``. The five numbers are traced; for schedule and clipping see :func:`sgd`.
    The paper has no ``eps_root``; it is the ``eps_bar`` of Lyle et al. 2023, "Understanding plasticity in neural
    networks", who find b2 = 0.9, eps_root = 1e-3 stable where the defaults are not. With b1 = b2 no step is longer than
    ``learning_rate``. With the defaults, steps can be 6.6 times as long when a gradient grows after a phase near zero.

    ``counts`` (static) sets which updates ``t`` counts. "shared": all updates, as in the paper. "parameter": the
    updates since each parameter was last reset, so that the first step of a reinitialised unit is ``learning_rate``
    instead of 3.2 times that. This costs an int32 and two exponentials for each parameter. ``ValueError`` for an
    unknown name.
    """
    check("counts", counts, ("shared", "parameter"))
    scale = optax.scale_by_adam if counts == "shared" else scale_by_counted_adam
    return scheduled_descent(learning_rate, schedule, max_gradient_norm, scale(b1, b2, eps, eps_root))


@metadata(
    paper="Graves 2013, Generating Sequences With Recurrent Neural Networks", checked="a loop by hand", renamed=FORMER
)
def rmsprop(
    *,
    learning_rate: NonNegative = 2.5e-4,
    decay: BelowOne = 0.95,
    eps: NonNegative = 0.01 / 32**2,
    centred: bool = True,
    momentum: BelowOne = 0.0,
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """RMSProp, by default with the settings of DQN Zoo's DQN.

    ``v <- decay v + (1 - decay) g^2``, ``a <- decay a + (1 - decay) g``, ``m <- momentum m + g / sqrt(v - a^2 + eps)``,
    ``theta <- theta - learning_rate m``, all starting at 0 and without bias correction; ``a = 0`` unless ``centred``
    (static). ``eps`` is inside the square root (in PyTorch, outside). Numbers are traced; for schedule and clipping
    see :func:`sgd`. In the paper the step size is inside the momentum, which differs only if the step size changes over
    time.
    """
    scale = optax.scale_by_stddev if centred else optax.scale_by_rms
    return scheduled_descent(learning_rate, schedule, max_gradient_norm, scale(decay, eps), optax.trace(momentum))


@metadata(
    paper="Liu et al. 2020, On the Variance of the Adaptive Learning Rate and Beyond",
    checked="a loop by hand, and `optax.radam`",
)
def radam(
    *,
    learning_rate: NonNegative = 1e-3,
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Least4 = 5.0,
    nesterov: bool = False,
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """Rectified Adam: Adam without its adaptive step in the first updates, when its second moments are unreliable.

    With ``m_hat`` and ``v_hat`` as in :func:`adam`, ``rho_inf = 2 / (1 - b2) - 1`` and ``rho = rho_inf - 2 t b2^t /
    (1 - b2^t)``, the step is ``learning_rate r m_hat / (sqrt(v_hat + eps_root) + eps)`` with ``r^2 = (rho - 4) (rho -
    2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho)`` if ``rho >= threshold``, else ``learning_rate m_hat``. With ``b2 =
    0.999`` the first five steps are of the second kind and their lengths depend on the gradient's.

    ``threshold`` (at least 4, where ``r`` is 0; the paper rectifies above 4) and the other numbers are traced, with
    the defaults of optax. ``nesterov`` (static) replaces ``m_hat`` by ``b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 -
    b1^t)``. For schedule and clipping see :func:`sgd`.
    """
    scale = optax.scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov)
    return scheduled_descent(learning_rate, schedule, max_gradient_norm, scale)


# Those for agents with eligibility traces.
STREAMING: Mapping[str, Callable[..., Optimizer]] = {**eligibility.STREAMING, "intentional": intentional}
OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "rmsprop": rmsprop,
    "radam": radam,
    "muon": muon,
    "adam_cm": adam_cm,
    "optax": by_name,
    **STREAMING,
}
