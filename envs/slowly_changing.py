"""Slowly-changing regression (bit flipping)."""

from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Supervised, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.functions import noisy
from plasticity.envs.supervised import (
    INPUTS,
    TARGETS,
    StaticFraction,
    StaticNonNegative,
    learns,
    negative_squared_error,
    stream_of,
    supervised_spec,
    supervised_task,
)

AtLeastTwo = Annotated[int, Field(ge=2, le=1024)]
Slow = Annotated[int, Field(ge=0, le=1024)]


class ThresholdNetwork(NamedTuple):
    """``f(x) = output_bias + sum_i output_i [w_i . x + bias_i > threshold_i]``, all weights +1 or -1."""

    weights: Array  # float32[units, bits]
    bias: Array  # float32[units]
    threshold: Array  # float32[units]
    output: Array  # float32[units]
    output_bias: Array  # float32[]


class Bits(NamedTuple):
    """What a lane learns during one visit."""

    slow: Array  # float32[slow], 0 or 1
    network: ThresholdNetwork
    learning: Array  # bool[]: False in an evaluation


def signs(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.rademacher(key, shape, jnp.float32)


def threshold_network(key: Key, bits: int, units: int, beta: float) -> ThresholdNetwork:
    """``threshold_i = beta (bits + 1) - S_i``, with ``S_i`` the number of -1 among the ``bits + 1`` weights of unit i.

    So a unit fires if more than ``beta (bits + 1)`` of its inputs, including the constant 1, match their weights: 1
    matches +1 and 0 matches -1.
    """
    incoming = signs(jax.random.fold_in(key, 0), (units, bits + 1))
    outgoing = signs(jax.random.fold_in(key, 1), (units + 1,))
    threshold = beta * (bits + 1) - (incoming < 0).sum(1)
    return ThresholdNetwork(incoming[:, :-1], incoming[:, -1], threshold, outgoing[:-1], outgoing[-1])


def fire(network: ThresholdNetwork, bits: Array) -> Array:
    """The network's output ``f(bits)``, ``[bits] -> []``."""
    return network.output_bias + network.output @ (network.weights @ bits + network.bias > network.threshold)


def slow_bits(key: Key, task: Array, count: int, flips: Literal["one", "all"]) -> Array:
    """int32[count], the slow bits of a task (traced): at each switch ``one`` bit flips or ``all`` are redrawn."""

    def drawn(u: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, u), 0.5, (count,)).astype(jnp.int32)

    def flip(u: Array, bits: Array) -> Array:
        which = jax.random.randint(jax.random.fold_in(key, u), (), 0, count)
        return jnp.where(jnp.arange(count) == which, 1 - bits, bits)

    return drawn(task) if flips == "all" else jax.lax.fori_loop(1, task + 1, flip, drawn(jnp.zeros_like(task)))


@metadata(
    paper="Dohare et al. 2024, Loss of plasticity in deep continual learning",
    example={"tasks": 10, "steps_per_task": 2000},
)
def slowly_changing_regression(
    *,
    bits: AtLeastTwo = 20,
    slow: Slow = 15,
    units: Size = 100,
    beta: StaticFraction = 0.7,
    flips: Literal["one", "all"] = "one",
    noise: StaticNonNegative = 0.0,
    tasks: Tasks = 100,
    steps_per_task: Count = 10_000,
    envs: Size = 1,
) -> StreamFactory:
    """Regression on a fixed network of threshold units with slowly changing input bits; reward = -squared error.

    ``x = (slow bits, random bits)``: the slow bits are constant during a task, the random bits are 0 or 1 with equal
    probability in every sample. ``y = b + sum_i v_i [w_i . x + b_i > beta (bits + 1) - S_i]`` with ``b, v, w, b_i`` +1
    or -1 and ``S_i`` the number of -1 among ``w_i, b_i``, drawn once per lane from its data key. Dohare et al. 2024,
    "Loss of plasticity in deep continual learning": the performance of a network of 5 ReLU units degrades over time.

    All settings are static. ``bits``: number of inputs, of which the first ``slow`` are slow. ``units``: size of the
    target network. ``flips``: at a switch ``one`` slow bit flips (the paper's text), or ``all`` are redrawn (the
    default of its published code). ``noise``: the standard deviation of normal noise in each target to learn from;
    evaluations draw new inputs, as training does, and their targets have none. ``tasks``: periods of
    ``steps_per_task`` samples of each env; the paper has 300 of 10,000. ``envs``: the size of a minibatch; its rows
    share the slow bits.

    ``ValueError`` if ``slow`` exceeds ``bits``. The input does not include the constant 1; the learner has a bias. In
    the published code ``S_i`` is the number of -1 among ``w_i`` plus ``b_i / 2``.
    """
    if slow > bits or (slow == 0 and flips == "one"):
        least = 1 if flips == "one" else 0
        raise ValueError(
            f"slow: {slow} is not allowed; must be in [{least}, {bits}], the number of bits, with flips: {flips}"
        )

    def params(key: Key, visit: Visit) -> Bits:
        held = slow_bits(jax.random.fold_in(key, INPUTS), visit.task, slow, flips)
        network = threshold_network(jax.random.fold_in(key, TARGETS), bits, units, beta)
        return Bits(held.astype(jnp.float32), network, learns(visit))

    def draw(key: Key, problem: Bits) -> Supervised:
        free = jax.random.bernoulli(key, 0.5, (bits - slow,)).astype(jnp.float32)
        x = jnp.concatenate([problem.slow, free])
        return Supervised(x, fire(problem.network, x)[None])

    target = jax.ShapeDtypeStruct((1,), jnp.float32)
    spec = supervised_spec((bits,), target, 1, "bits", tasks, steps_per_task, envs)
    return stream_of(supervised_task(spec, params, noisy(noise)(draw), negative_squared_error))
