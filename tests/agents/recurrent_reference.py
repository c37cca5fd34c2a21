"""A slow reference of recurrent Q-learning from sequences: plain loops over sequences and steps of one GRU network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from q_reference import FIRST, Script, Settings, unrolled


class Shape(NamedTuple):
    burn_in: int
    length: int
    stride: int


def step(params: Any, hidden: Any, observation: Any) -> tuple[Any, Any]:
    """The state after one observation ``[3]``, and the action values."""
    torso, cell, output = params["torso_hidden_0"], params["memory"], params["output"]
    x = jnp.maximum(jnp.asarray(observation) @ torso["kernel"] + torso["bias"], 0.0)

    def inner(name: str) -> Any:
        return x @ cell[f"input_{name}"]["kernel"] + cell[f"input_{name}"]["bias"]

    reset = 1 / (1 + jnp.exp(-inner("reset") - hidden @ cell["state_reset"]["kernel"]))
    update = 1 / (1 + jnp.exp(-inner("update") - hidden @ cell["state_update"]["kernel"]))
    new = jnp.tanh(inner("new") + reset * (hidden @ cell["state_new"]["kernel"] + cell["state_new"]["bias"]))
    hidden = (1 - update) * new + update * hidden
    return hidden, hidden @ output["kernel"] + output["bias"]


UNITS = 5
jitted = jax.jit(step)


def walk(life: Script, params: Any, hidden: Any, env: int, steps: range, apply: Callable[..., Any] = step) -> Any:
    """The values at each of these time steps, and the state after the last; a FIRST clears the state before it."""
    values = []
    for t in steps:
        hidden = jnp.zeros(UNITS) if life.step_type[t, env] == FIRST else hidden
        hidden, q = apply(params, hidden, life.observation[t, env])
        values.append(q)
    return values, hidden


class Learned(NamedTuple):
    loss: Any
    errors: list[list[float]]  # of the valid steps of each sequence
    gradient: Any


def rescaled(x: Any) -> Any:
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def inverse(y: float) -> float:
    """Of :func:`rescaled`, by bisection."""
    low, high = -1e4, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rescaled(middle) < y else (low, middle)
    return low


def learned(
    life: Script,
    params: Any,
    target: Any,
    carries: np.ndarray,
    places: list[tuple[int, int]],
    weights: np.ndarray,
    shape: Shape,
    settings: Settings,
    value_rescaling: bool,
) -> Learned:
    """Loss, errors and gradient of the sequences that start, burn-in included, at ``places`` (t, env).

    ``carries [T, 2, UNITS]``: the states before the time steps, as stored.
    """
    targets: list[list[tuple[int, float]]] = []
    starts: list[Any] = []
    for t, env in places:
        learn, end = t + shape.burn_in, t + shape.burn_in + shape.length
        before = jnp.asarray(carries[t, env])
        _, own = walk(life, params, before, env, range(t, learn), jitted)
        _, theirs = walk(life, target, before, env, range(t, learn), jitted)
        later = range(learn, end + settings.n_step)
        own_q, their_q = (
            np.asarray(walk(life, p, h, env, later, jitted)[0], np.float64)
            for p, h in ((params, own), (target, theirs))
        )
        found = []
        for i in range(learn, end):
            total, weight, last = unrolled(life, i, env, settings)
            if last == i:
                continue
            chosen = (own_q if settings.double else their_q)[last - learn].argmax()
            following = their_q[last - learn, chosen]
            if value_rescaling:
                found.append((i, float(rescaled(total + weight * inverse(following)))))
            else:
                found.append((i, float(total + weight * following)))
        targets.append(found)
        starts.append(own)
    number = sum(len(found) for found in targets)

    def losses(params: Any) -> tuple[Any, list[list[Any]]]:
        total, errors = jnp.zeros(()), []
        for (t, env), own, found, weight in zip(places, starts, targets, weights, strict=True):
            learn = t + shape.burn_in
            values, _ = walk(life, params, own, env, range(learn, learn + shape.length))
            errors.append([wanted - values[i - learn][life.action[i, env]] for i, wanted in found])
            for error in errors[-1]:
                size = jnp.abs(error)
                inside = size <= settings.huber
                total += weight * jnp.where(inside, error**2 / 2, settings.huber * (size - settings.huber / 2))
        return total / number, errors

    (loss, errors), gradient = jax.jit(jax.value_and_grad(losses, has_aux=True))(params)
    return Learned(loss, [[float(e) for e in each] for each in errors], gradient)
