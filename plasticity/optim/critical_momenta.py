"""Adam with a buffer of the momenta of its largest gradients."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, Few, Fraction, Member, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Optimizer, Params
from plasticity.optim.descent import FORMER, scheduled_descent


class Critical(NamedTuple):
    """State of :func:`scale_by_critical_momenta`."""

    done: Array  # int32[], updates so far
    mu: Params
    nu: Params
    stored: tuple[Params, ...]  # one momentum per place, zeros where none is stored yet: slots like the moments
    priorities: Array  # float32[capacity]
    filled: Array  # int32[]


def scale_by_critical_momenta(
    b1: Number, b2: Number, eps: Number, decay: Number, capacity: int
) -> optax.GradientTransformation:
    """The direction of :func:`adam_cm`."""
    b1, b2 = jnp.asarray(b1, jnp.float32), jnp.asarray(b2, jnp.float32)

    def init(params: Params) -> Critical:
        zeros = jax.tree.map(jnp.zeros_like, params)
        none = jnp.zeros([], jnp.int32)
        return Critical(none, zeros, zeros, (zeros,) * capacity, jnp.zeros(capacity), none)

    def update(gradients: Params, state: Critical, params: Params = None) -> tuple[Params, Critical]:
        del params
        count = optax.safe_increment(state.done)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        number = jnp.maximum(state.filled, 1)
        total = jax.tree.map(lambda m, *kept: m + sum(kept) / number, mu, *state.stored)
        nu = jax.tree.map(lambda v, d: b2 * v + (1 - b2) * jnp.square(d), state.nu, total)
        place, priorities, filled = admitted(state, trees.norm(gradients), capacity)
        stored = tuple(
            jax.tree.map(lambda m, old, here=place == i: jnp.where(here, m, old), mu, kept)
            for i, kept in enumerate(state.stored)
        )
        first, second = 1 - b1**count, 1 - b2**count
        direction = jax.tree.map(lambda d, v: (d / first) / (jnp.sqrt(v / second) + eps), total, nu)
        return direction, Critical(count, mu, nu, stored, decay * priorities, filled)

    return optax.GradientTransformation(init, update)


def admitted(state: Critical, norm: Array, capacity: int) -> tuple[Array, Array, Array]:
    """The place for the momentum of a gradient of this norm (-1: none), all priorities, and the number of momenta."""
    full, smallest = state.filled >= capacity, jnp.argmin(state.priorities)
    admit = ~full | (norm > state.priorities[smallest])
    place = jnp.where(admit, jnp.where(full, smallest, state.filled), -1)
    priorities = jnp.where(jnp.arange(capacity) == place, norm, state.priorities)
    return place, priorities, jnp.minimum(state.filled + 1, capacity)


@metadata(
    paper="Malviya et al. 2024, Promoting Exploration in Memory-Augmented Adam using Critical Momenta",
    checked="a loop over 30 updates in NumPy",
    note="the rule and the defaults are those of the authors' code; the paper's text could not be read",
    renamed=FORMER,
)
def adam_cm(
    *,
    learning_rate: NonNegative = 1e-3,
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.999,
    eps: NonNegative = 1e-8,
    capacity: Few = 5,
    decay: Fraction = 0.7,
    schedule: Annotated[Any, Member("schedules")] | None = None,
    max_gradient_norm: Positive | None = None,
) -> Optimizer:
    """Adam with critical momenta: it also follows past momenta, those at the largest gradients, out of sharp minima.

    ``m <- b1 m + (1 - b1) g``, ``a = m + mean(stored)``, ``v <- b2 v + (1 - b2) a^2``, ``theta <- theta -
    learning_rate (a / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``. Then ``m`` is stored with the priority ``|g|``:
    while fewer than ``capacity`` momenta are stored, always; afterwards in place of the one of lowest priority, if that
    is below ``|g|``. After every update all priorities are multiplied by ``decay``.

    Args:
      learning_rate, b1, b2, eps: as in :func:`adam`. Traced.
      capacity: momenta in the buffer, each as large as the parameters. Static. The authors recommend 5, 10 or 20.
      decay: below 1, old momenta are replaced sooner or later. Traced. The authors recommend 0.7 or 0.99.
      schedule: as in :func:`sgd`.
      max_gradient_norm: as in :func:`sgd`.

    As ``v`` is the second moment of ``a`` and not of ``g``, the first steps are up to ``1 / (1 - b1)`` times as long as
    Adam's. ``|g|`` is the norm of the whole gradient; the authors' code adds up the norms of the single arrays. Their
    code makes no step at the first gradient and stores that gradient itself; here the first update is like all others.
    A reset parameter is 0 in all stored momenta.
    """
    direction = scale_by_critical_momenta(b1, b2, eps, decay, capacity)
    return scheduled_descent(learning_rate, schedule, max_gradient_norm, direction)
