"""AID: dropout whose probability depends on the pre-activation, in place of the non-linearity."""

import itertools
import math
from dataclasses import replace
from typing import Annotated

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import metadata
from plasticity.core import trees
from plasticity.core.types import Array, Context, Key, Learner, Params, State
from plasticity.interventions.base import Intervention
from plasticity.networks.layers import Intervals
from plasticity.networks.spec import DROPOUT, NetworkSpec

Probability = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[tuple[float, ...], Field(min_length=1, max_length=100)]
Probabilities = Annotated[tuple[Probability, ...], Field(min_length=2, max_length=101)]


def reseeded(params: Params, key: Key | None) -> Params:
    """The parameters with a random seed in the dropout of each network, or 0 without a key."""
    numbers = itertools.count()

    def leaf(path: tuple[str, ...], x: Array) -> Array:
        if path[-2:] != (DROPOUT, "seed"):
            return x
        if key is None:
            return jnp.zeros_like(x)
        return jax.random.uniform(jax.random.fold_in(key, next(numbers)), minval=1.0, maxval=2.0)

    return trees.map_with_path(leaf, params)


def intervals_of(p: float, bounds: tuple[float, ...], keep: tuple[float, ...] | None) -> Intervals:
    """The intervals; ``ValueError`` that names a setting that is not allowed."""
    if keep is None:
        return Intervals((0.0,), (1.0 - p, p))
    if not all(math.isfinite(bound) for bound in bounds) or list(bounds) != sorted(set(bounds)):
        raise ValueError(f"bounds: {list(bounds)} is not allowed; must be ascending and finite")
    if len(keep) != len(bounds) + 1:
        raise ValueError(f"keep: {list(keep)} is not allowed; must be {len(bounds) + 1}, one more than bounds")
    return Intervals(tuple(bounds), tuple(keep))


@metadata(
    paper="Park, Han, Oh, Kim 2025, Activation by Interval-wise Dropout: A Simple Way to Prevent Neural Networks from "
    "Plasticity Loss",
    checked="expected values by hand, frequencies of the masks, ReLU at p = 1 and a linear network at p = 0.5; "
    "equation and default are second-hand",
    only_with={"p": {"keep": (None,)}},
    note="list it first, so that other methods see no masks after an update",
)
def aid(*, p: Probability = 0.9, bounds: Bounds = (0.0,), keep: Probabilities | None = None) -> Intervention:
    """Activation by interval-wise dropout (AID) in every hidden layer, in place of the non-linearity.

    During an update, ``h = m z`` with a mask ``m ~ Bernoulli(p)`` where ``z > 0`` and ``m ~ Bernoulli(1 - p)``
    elsewhere, drawn for every row, position and unit. Otherwise (acting, evaluation, target network, monitors) ``h`` is
    its expected value, ``p z`` where ``z > 0`` and ``(1 - p) z`` elsewhere. With ``p = 1`` this is ReLU, with ``p =
    0.5`` a linear network with dropout. In general the range of ``z`` is cut into intervals, each with its own
    probability of keeping ``z``.

    Args:
        p: static.
        bounds: of the intervals, ascending; an interval includes its upper bound (static). Without ``keep`` the only
            one is 0.
        keep: the probability of each interval, from the lowest to the highest, in place of ``p`` (static).

    Raises:
        ValueError: for bounds that are not ascending, or a number of probabilities that does not fit them, and, while
            tracing, for a network without a place for it.

    Nothing is rescaled by the probabilities. The abstract of the paper was read; the two intervals, their expected
    values and ``p = 0.9`` are as secondary sources describe them. Its places in residual, attention and recurrent
    networks are those of :func:`crelu`; recurrent cells keep their non-linearities.

    The masks come from a number among the parameters, ``interval_dropout/seed``, that is set before each update and is
    0 otherwise. All passes of one update on arrays of one shape have the same masks, except those of a target network.
    An intervention that adds noise to all parameters after an update makes monitors see masks. ``ppo`` and
    ``reinforce`` compare probabilities under masks with those without, under which they acted.
    """
    intervals = intervals_of(p, bounds, keep)
    if keep is None and tuple(bounds) != (0.0,):
        raise ValueError(f"bounds: {list(bounds)} is not allowed without keep; must be [0.0]")

    def network(spec: NetworkSpec) -> NetworkSpec:
        if not spec.takes_activation:
            raise ValueError("aid needs a network with a place for a non-linearity; this one has none")
        return replace(spec, activation="identity", dropout=intervals)

    def prepare(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del context
        return state, learner._replace(params=reseeded(learner.params, key))

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context
        return state, learner._replace(params=reseeded(learner.params, None))

    def acting(state: State, params: Params) -> Params:
        del state
        return reseeded(params, None)

    return Intervention(network=network, prepare=prepare, step=step, acting=acting, sets=("activation", "dropout"))
